"""Find the videos in a folder, and give each a plain name."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_ENDINGS = "3gp avi flv m4v mkv mov mp4 mpeg mpg mts ogv webm wmv"
_LONGEST_NAME = 100  # bytes; file systems allow 255
_DEVICE = re.compile(r"^(?=(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))", re.IGNORECASE)
"""Matches the start of a name that Windows takes for a device, with any extension."""


class VideoFile(NamedTuple):
    """A video in a folder that was searched."""

    id: str
    """Unique name that is valid on any file system."""
    path: Path
    source: str
    """Path relative to the folder, with slashes."""

    @property
    def category(self) -> str:
        """Path of its folder, relative to the one that was searched; empty for that folder itself."""
        folder = self.source.rpartition("/")[0]
        return folder.encode(errors="replace").decode()  # a name on disk need not be Unicode


def find_videos(
    root: str | Path, *, is_named: Callable[[str, str], bool] = lambda name, source: False
) -> list[VideoFile]:
    """Find the videos in a folder and its subfolders, by their file extensions.

    Hidden files and folders and linked folders are ignored. A video is named after its path, in plain
    characters. Videos whose names would be the same on some system get a few digits of their path's hash, so
    that a name never passes from one video to another.

    Args:
        root: the folder to search.
        is_named: whether a source already has a name, ``is_named(name, source)``; it then keeps that name,
            with or without digits.

    Raises:
        FileNotFoundError: if there is no video.

    Example:
        >>> root = getfixture("tmp_path")
        >>> for name in ("my dog.MP4", "cat.mkv", "cat.mp4", "notes.txt", ".trash.mp4"):
        ...     root.joinpath(name).touch()
        >>> [video.id for video in find_videos(root)]
        ['cat-e97dc431', 'cat-43c765b8', 'my_dog']
    """
    root, endings = Path(root), _ENDINGS.split()
    sources = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        sources += [
            Path(folder, name).relative_to(root).as_posix()
            for name in files
            if Path(name).suffix.lower()[1:] in endings and not name.startswith(".")
        ]
    if not sources:
        raise FileNotFoundError(f"{root}: expected a folder with videos ({', '.join(endings)}), found none")
    sources.sort()
    names = [_plain(source) for source in sources]
    times = Counter(name.casefold() for name in names)
    videos = []
    for name, source in zip(names, sources, strict=True):
        both = [name, _marked(name, source)]
        if times[name.casefold()] > 1:
            both.reverse()
        chosen = next((name for name in both if is_named(name, source)), both[0])
        videos.append(VideoFile(chosen, root / source, source))
    return videos


def _plain(source: str) -> str:
    stem = unicodedata.normalize("NFC", source.rpartition(".")[0])
    name = re.sub(r"[^\w.-]+", "_", stem).rstrip(".")
    name = _DEVICE.sub("_", name)
    return name if len(name.encode()) <= _LONGEST_NAME else _marked(name, source)


def _marked(name: str, source: str) -> str:
    cut = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:8]}"
