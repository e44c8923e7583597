"""Reader of clips prepared from a folder of your own videos, with or without masks."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from avslib.data.layout import ClipFiles, list_folder
from avslib.data.reader import ClipReader, ReaderOptions


class ClipFolder(ClipReader):
    """Clips that ``avslib prepare folder`` made from videos: a frame and a log-mel example for each second.

    A clip may have masks, ``clips/<id>/masks/<second>.png``, one for every frame. Unlike in AVSBench, the
    log-mel example of second t starts at t s, not at 0.96 t s, so it stays with its frame however long the
    clip is.

    Args:
        root: the folder that holds ``clips.csv``.
        split: a split that occurs in the table; None for all clips.
        **options: the other arguments of :class:`ClipReader`. Clips of different lengths cannot share a batch
            unless ``seconds`` makes them equal.

    Raises:
        FileNotFoundError: if the table or a file that it lists is not there.
        ValueError: if the table is damaged, names a file outside of ``root``, or lists no clip of the split.
    """

    _hop_steps = 100

    def __init__(self, root: str | Path, split: str | None = None, **options: Unpack[ReaderOptions]) -> None:
        super().__init__(root, split, **options)

    def _clips_of(self, split: str | None) -> list[ClipFiles]:
        clips = self._list()
        chosen = [clip for clip in clips if split in (None, clip.split)]
        if not chosen:
            known = ", ".join(repr(name) for name in sorted({clip.split for clip in clips})) or "nothing"
            raise ValueError(
                f"split: expected one that {self.root / 'clips.csv'} names ({known}), got {split!r}"
            )
        return chosen

    def _list(self) -> list[ClipFiles]:
        return list_folder(self.root)
