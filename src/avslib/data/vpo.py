"""Reader of VPO (mono): pictures from COCO, sounds from VGGSound and masks of 21 sounding classes."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from avslib._checks import check_one_of
from avslib.data.layout import PLAIN, ClipFiles, Kind, read_table
from avslib.data.reader import SAMPLE_RATE, ClipReader, ReaderOptions
from avslib.media.mask import read_numbers

STORED_NUMBERS = {
    "background": 0,
    "airplane": 5,
    "baby": 94,
    "bird": 16,
    "bus": 6,
    "car": 3,
    "cat": 17,
    "cell phone": 77,
    "cow": 21,
    "dog": 18,
    "elephant": 22,
    "female": 93,
    "horse": 19,
    "keyboard": 76,
    "male": 92,
    "motorcycle": 4,
    "mouse": 74,
    "sheep": 20,
    "skateboard": 41,
    "sports ball": 37,
    "tennis racket": 43,
    "zebra": 24,
}
"""Number of each class in a mask file: COCO's category or one of three more; in the order of the classes."""
NUM_CLASSES = len(STORED_NUMBERS)
"""Background and the 21 classes of VPO."""

_FOLDERS = {"ss": "VPO-SS", "ms": "VPO-MS", "msmi": "VPO-MSMI"}
_HEARD = SAMPLE_RATE
"""Number of samples taken of each sound: one second, as in the published configuration with a VGG."""
_PICTURE = Kind(re.compile("[0-9]{1,12}"), "a number of at most 12 digits")
_COUNT = Kind(re.compile(r"[0-9]{1,6}(\.0)?|True|False"), "a whole number, True or False")

_CLASS_OF = torch.full((256,), -1)
_CLASS_OF[list(STORED_NUMBERS.values())] = torch.arange(NUM_CLASSES)


class VPO(ClipReader):
    """Visual Post-production, mono: clips of one frame, a picture from COCO to which sounds were added.

    A clip of ``ss`` is a row of the table: an object, its mask and a sound. In ``ms`` and ``msmi`` all rows
    of a picture make one clip: one mask holds its objects, and its sound is the sum of their sounds, neither
    scaled nor clipped. Pictures of ``msmi`` without several objects of one class are stored in the folder of
    ``ms``. Rows of the split ``val`` count as ``test``.

    Only the middle second of each sound is used, which makes one log-mel example; the published code uses
    that much with a VGG, and 3 s with the network that it trains. As there, only the end of a shorter sound
    is taken (all of it up to a third of a second) and repeated. There are no stored log-mels.

    The published code renumbers the classes of a mask one after another, so cars (3, then 5) become airplanes
    (5, then 1) in a mask that also has an airplane; here they stay cars. It tests at the pictures' own sizes,
    ``size=None``, and trains on random crops.

    Args:
        root: the folder that holds ``VPO/VPO-SS``, ``VPO/VPO-MS`` or ``VPO/VPO-MSMI``.
        split: ``"train"`` or ``"test"``.
        part: ``"ss"``, ``"ms"`` or ``"msmi"``.
        vggsound: the folder of VGGSound's WAV files; None for ``vggsound_bench/VGGSound/audios`` in ``root``.
        **options: the other arguments of :class:`ClipReader`; ``sound`` must be ``"wav"``.

    Raises:
        FileNotFoundError: if the table or a file that it lists is not there.
        ValueError: if the table is damaged, names a file outside of its folder, or lists no clip of the
            split.

    Chen et al., Unraveling Instance Associations (CVPR 2024), and its published code for mono sound.
    """

    num_classes = NUM_CLASSES
    _seconds = 1
    _hint = (
        "unpack the whole set, and VGGSound, whose folder of WAV files vggsound= names, or take the clip out "
        "of the table"
    )

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        part: str = "ss",
        vggsound: str | Path | None = None,
        **options: Unpack[ReaderOptions],
    ) -> None:
        check_one_of("part", part, _FOLDERS)
        check_one_of("split", split, ("train", "test"))
        check_one_of("sound", options.get("sound", "wav"), ("wav",))
        self.part = part
        self.vggsound = Path(root, "vggsound_bench/VGGSound/audios") if vggsound is None else Path(vggsound)
        self._sounds_apart = vggsound is not None
        super().__init__(root, split, **(ReaderOptions(sound="wav") | options))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the 22 classes, background first."""
        return tuple(STORED_NUMBERS)

    def _list(self) -> list[ClipFiles]:
        table = self.root / "VPO" / _FOLDERS[self.part] / f"vpo_{self.part}_data_stereo.csv"
        if not table.is_file():
            raise FileNotFoundError(
                f"{table}: no such table; root must be the folder that holds {table.relative_to(self.root)}"
            )
        columns = {"img_Id": _PICTURE, "cateName": PLAIN, "vgg_file": PLAIN, "split": PLAIN}
        if self.part == "ss":
            columns["ann_Ids"] = PLAIN
        if self.part == "msmi":
            columns["multi_instance"] = _COUNT
        clips: dict[Hashable, list[dict[str, str]]] = {}
        for number, row in enumerate(read_table(table, columns)):
            row["split"] = "test" if row["split"] == "val" else row["split"]
            key = number if self.part == "ss" else (row["split"], int(row["img_Id"]))
            clips.setdefault(key, []).append(row)
        return [self._place(rows) for rows in clips.values()]

    def _place(self, rows: list[dict[str, str]]) -> ClipFiles:
        row = rows[0]
        folder, picture = self.root / "VPO" / _FOLDERS[self.part], f"{int(row['img_Id']):012}"
        identity, inner, mask = str(int(row["img_Id"])), "", picture
        if self.part == "ss":
            identity, inner = f"{identity}_{row['ann_Ids']}", row["cateName"]
            mask = f"{picture}_{row['ann_Ids'].zfill(12)}"
        if self.part == "msmi":
            single = {row["multi_instance"] in ("0", "0.0", "False") for row in rows}
            if len(single) > 1:
                raise ValueError(
                    f"{folder}: expected all rows of picture {identity} in {row['split']!r} to be 0 as "
                    "'multi_instance', or none, got both, so its folder is ambiguous"
                )
            folder = folder.with_name(_FOLDERS["ms"]) if single == {True} else folder
        sounds = tuple(self.vggsound / f"{row['vgg_file']}.wav" for row in rows)
        return ClipFiles(
            id=identity,
            split=row["split"],
            category=", ".join(dict.fromkeys(row["cateName"] for row in rows)),
            frames=(folder / "data" / inner / f"{picture}.jpg",),
            masks=(folder / "mask" / inner / f"{mask}.png",),
            wav=sounds[0],
            log_mel=sounds[0].with_suffix(".safetensors"),  # neither this nor a video is published
            video=sounds[0].with_suffix(".mp4"),
            more_wavs=sounds[1:],
        )

    def _sound_root(self) -> Path:
        return self.vggsound if self._sounds_apart else self.root

    def _read_mask(self, path: Path) -> Tensor:
        numbers = read_numbers(path, self.size, fit=self.fit, max_pixels=self.max_pixels)
        classes = _CLASS_OF[numbers]
        if (classes < 0).any():
            foreign = numbers[classes < 0]
            raise ValueError(
                f"{path}: expected only {', '.join(map(str, sorted(STORED_NUMBERS.values())))} for classes, "
                f"got {foreign[0]} and {len(foreign)} such pixels in all"
            )
        return classes

    def _read_sound(self, files: ClipFiles) -> Tensor:
        return torch.stack([self._read_middle(path) for path in (files.wav, *files.more_wavs)]).sum(0)

    def _read_middle(self, path: Path) -> Tensor:
        waveform = self._read_waveform(path)
        if not len(waveform):
            raise ValueError(f"{path}: expected some sound, got no sample")
        start = len(waveform) // 2 - _HEARD // 2
        middle = waveform[start : start + _HEARD]  # from the end where it is negative, as published
        return middle.repeat(_HEARD // len(middle) + 1)[:_HEARD]
