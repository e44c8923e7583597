"""Reader of AVSBench-semantic (AVSS), whose masks tell which pixels sound, and as which of 70 classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from torch import Tensor

from avslib._checks import check_one_of
from avslib.data.layout import AVSS_SECONDS, SPLIT, ClipFiles, list_avss
from avslib.data.reader import ClipReader, ReaderOptions
from avslib.media.palette import NUM_CLASSES, read_classes


class AVSBenchSemantic(ClipReader):
    """AVSBench-semantic: clips of 5 s (``v1s``, ``v1m``) padded to 10, and of 10 s (``v2``), with classes.

    Masks are pictures in which each colour stands for a class. Training clips of ``v1s`` have a mask for the
    first second only. Pictures are stored in their own sizes: training clips are scaled and cropped, the
    others are stretched, as in the published loader. Log-mels are computed from the WAV files. A sound that
    is too short for its clip is followed by zeros, as published; these are not silence.

    Args:
        root: the folder that holds ``metadata.csv``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        parts: the parts to read, out of ``"v1s"``, ``"v1m"`` and ``"v2"``.
        **options: the other arguments of :class:`ClipReader`. By default ``fit`` is ``"crop"`` in training
            and ``"stretch"`` elsewhere, ``sound`` is ``"wav"``, and ``seconds`` is 10.

    Raises:
        FileNotFoundError: if the table or a file that it lists is not there.
        ValueError: if the table is damaged, names a file outside of ``root``, or lists no clip of the split.

    Zhou et al., Audio-Visual Segmentation with Semantics (IJCV 2024), section 3.
    """

    num_classes = NUM_CLASSES
    _seconds = 10
    _padding = "zero"

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        parts: Sequence[str] = tuple(AVSS_SECONDS),
        **options: Unpack[ReaderOptions],
    ) -> None:
        for part in parts:
            check_one_of("parts", part, AVSS_SECONDS)
        self.parts = tuple(parts)
        published = ReaderOptions(fit="crop" if split == "train" else "stretch", sound="wav")
        super().__init__(root, split, **(published | options))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the 71 classes, background first, read from ``label2idx.json``.

        Raises:
            FileNotFoundError: if that file is not there.
            ValueError: if it does not number 71 names from 0 to 70.
        """
        return read_class_names(self.root / "label2idx.json")

    def _list(self) -> list[ClipFiles]:
        return list_avss(self.root, parts=self.parts, split=SPLIT)

    def _read_mask(self, path: Path) -> Tensor:
        return read_classes(path, self.size, fit=self.fit, max_pixels=self.max_pixels)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read the names of AVSBench-semantic's classes, background first.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not number 71 names from 0 to 70.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; it comes with AVSBench-semantic")
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        names = {int(number): str(name) for name, number in numbers.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected names and their numbers ({error})") from error
    if sorted(names) != list(range(NUM_CLASSES)) or len(numbers) != NUM_CLASSES:
        raise ValueError(f"{path}: expected {NUM_CLASSES} names numbered from 0, got {len(numbers)}")
    return tuple(names[number] for number in range(NUM_CLASSES))
