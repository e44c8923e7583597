"""AVSBench-object: the single-source (S4) and the multi-source (MS3) setting."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from avslib.data.layout import AVSBENCH_SECONDS, ClipFiles, holds_classes, list_ms3, list_s4
from avslib.data.reader import ClipReader
from avslib.media.palette import read_classes


class AVSBenchS4(ClipReader):
    """AVSBench's single-source setting: one object sounds; in training only the first second has a mask.

    Args:
        root: the folder that holds ``Single-source``; or that of AVSBench-semantic, ``metadata.csv``, whose
            ``v1s`` is S4; frames and masks have their own sizes there, so scores are not quite the same.

    The other arguments and the errors are those of :class:`ClipReader`.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3.
    """

    _seconds = AVSBENCH_SECONDS

    def _list(self) -> list[ClipFiles]:
        self._of_classes = holds_classes(self.root, "s4")
        return list_s4(self.root)

    def _read_mask(self, path: Path) -> Tensor:
        return _read_foreground(path, self) if self._of_classes else super()._read_mask(path)


class AVSBenchMS3(ClipReader):
    """AVSBench's multi-source setting: several objects sound, and every second has a mask.

    Args:
        root: the folder that holds ``Multi-sources``; or that of AVSBench-semantic, ``metadata.csv``, whose
            ``v1m`` is MS3.

    The other arguments and the errors are those of :class:`ClipReader`.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3. The published loader reads these masks as
    palette images, so that a 0/1 mask becomes 1/255; here every mask is binarised.
    """

    _seconds = AVSBENCH_SECONDS

    def _list(self) -> list[ClipFiles]:
        self._of_classes = holds_classes(self.root, "ms3")
        return list_ms3(self.root)

    def _read_mask(self, path: Path) -> Tensor:
        return _read_foreground(path, self) if self._of_classes else super()._read_mask(path)


def _read_foreground(path: Path, reader: ClipReader) -> Tensor:
    """Read a mask of AVSBench-semantic, every class as foreground."""
    return (read_classes(path, reader.size, fit=reader.fit, max_pixels=reader.max_pixels) > 0).long()
