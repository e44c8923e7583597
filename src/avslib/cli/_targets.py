"""Whether what a command is to write can be written, asked before its work and not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path


def check_folder(folder: Path) -> None:
    """Make a folder, and a file in it for a moment: an ``OSError`` comes now and not at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def check_files(**files: Path | None) -> None:
    """Raise an ``OSError`` for a file that cannot be written; it is named by its option, and may be None.

    Raises:
        IsADirectoryError: if it is a folder.
    """
    for option, file in files.items():
        if file is None:
            continue
        if file.is_dir():
            raise IsADirectoryError(f"--{option}: expected a file to write, got the folder {file}")
        check_folder(file.parent)
