"""Checks, before a command does its work, that its output can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path


def check_folder(folder: Path) -> None:
    """Create a folder and, briefly, a file in it, so that an ``OSError`` is raised now and not at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def check_files(**files: Path | None) -> None:
    """Raise an ``OSError`` if a file cannot be written; files are passed by option name and may be None.

    Raises:
        IsADirectoryError: if a file is a folder.
    """
    for option, file in files.items():
        if file is None:
            continue
        if file.is_dir():
            raise IsADirectoryError(f"--{option}: expected a file to write, got the folder {file}")
        check_folder(file.parent)
