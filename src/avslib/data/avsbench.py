"""Readers of AVSBench-object: the single-source (S4) and the multi-source (MS3) setting."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from avslib.data.layout import AVSBENCH_SECONDS, SPLIT, ClipFiles, holds_classes, list_ms3, list_s4
from avslib.data.reader import ClipReader
from avslib.media.palette import read_classes


class _AVSBenchObject(ClipReader):
    """Base class of the two settings: clips of 5 s, possibly read from AVSBench-semantic."""

    _seconds = AVSBENCH_SECONDS
    _setting: ClassVar[str]

    def _list(self) -> list[ClipFiles]:
        self._of_classes = holds_classes(self.root, self._setting)
        self._padding = "zero" if self._of_classes else "repeat"
        return {"s4": list_s4, "ms3": list_ms3}[self._setting](self.root, split=SPLIT)

    def _read_mask(self, path: Path) -> Tensor:
        if not self._of_classes:
            return super()._read_mask(path)
        classes = read_classes(path, self.size, fit=self.fit, max_pixels=self.max_pixels)
        return (classes > 0).long()  # every class is foreground


class AVSBenchS4(_AVSBenchObject):
    """AVSBench's single-source setting: one object sounds; in training only the first second has a mask.

    Args:
        root: the folder that holds ``Single-source``; or the folder of AVSBench-semantic, which holds
            ``metadata.csv`` and whose ``v1s`` is S4. There frames and masks have their own sizes, and zeros
            follow a sound that is too short, so scores differ slightly.

    The other arguments and the errors are those of :class:`ClipReader`.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3.
    """

    _setting = "s4"


class AVSBenchMS3(_AVSBenchObject):
    """AVSBench's multi-source setting: several objects sound, and every second has a mask.

    Args:
        root: the folder that holds ``Multi-sources``; or the folder of AVSBench-semantic, which holds
            ``metadata.csv`` and whose ``v1m`` is MS3.

    The other arguments and the errors are those of :class:`ClipReader`.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3. The published loader reads these masks as
    palette images, so that a 0/1 mask becomes 1/255; here every mask is binarised.
    """

    _setting = "ms3"
