"""AVSBench-object on disk: the single-source (S4) and the multi-source (MS3) setting."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from avslib._checks import check_one_of, check_positive
from avslib.clip import Clip
from avslib.media.audio import read_wav, resample
from avslib.media.frame import normalize_frames, read_frame
from avslib.media.mask import read_mask
from avslib.media.mel import fit_examples, log_mel_examples
from avslib.media.tensor_pickle import load_tensor_pickle

SPLITS = ("train", "val", "test")
SAMPLE_RATE = 16_000


class ClipFiles(NamedTuple):
    """Where the files of one clip lie."""

    id: str
    category: str
    """What sounds; empty in MS3, which does not say."""
    frames: list[Path]
    masks: list[Path | None]
    """One a frame; None where a frame has no ground truth."""
    sound: Path
    """The pickled log-mel or the WAV file."""


class _AVSBench(Dataset[Clip], ABC):
    """A setting of AVSBench: an index of files, checked when it is built, and how to read a clip of it."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        size: tuple[int, int] | None = (224, 224),
        sound: str = "pickle",
        seconds: int = 5,
    ) -> None:
        check_one_of("split", split, SPLITS)
        check_one_of("sound", sound, ("pickle", "wav"))
        check_positive("seconds", seconds)
        self.root = Path(root)
        self.split = split
        self.size = size
        self.sound = sound
        self.seconds = seconds
        self.clips = self._index()
        if not self.clips:
            raise ValueError(f"split: no clip of {self.root} is in {split!r}")
        self._check_files()

    @abstractmethod
    def _index(self) -> list[ClipFiles]:
        """List the clips of the split and where their files should be."""

    def _sound_file(self, data: Path, *parts: str) -> Path:
        folder, suffix = ("audio_log_mel", ".pkl") if self.sound == "pickle" else ("audio_wav", ".wav")
        return data.joinpath(folder, *parts[:-1], parts[-1] + suffix)

    def _check_files(self) -> None:
        expected = [
            path
            for clip in self.clips
            for path in (*clip.frames, *clip.masks, clip.sound)
            if path is not None
        ]
        missing = [path for path in expected if not path.is_file()]
        if missing:
            hint = ""
            if all(path.suffix == ".pkl" for path in missing):
                hint = '; if there is an audio_wav folder, read the sound from there with sound="wav"'
            raise FileNotFoundError(
                f"{missing[0]}: not there, as {len(missing)} of the {len(expected)} files that the table "
                f"lists for {self.split!r}; unpack the whole set, or take the clip out of the table{hint}"
            )

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Read one clip.

        Raises:
            ValueError: if a file is damaged; the message names it.
        """
        files = self.clips[index]
        frames = torch.stack([read_frame(path, self.size) for path in files.frames])
        empty = torch.zeros(frames.shape[-2:], dtype=torch.int64)
        masks = torch.stack([empty if path is None else read_mask(path, self.size) for path in files.masks])
        return Clip(
            frames=normalize_frames(frames),
            log_mel=self._log_mel(files.sound),
            masks=masks,
            labelled=torch.tensor([path is not None for path in files.masks]),
            valid=torch.ones(len(files.frames), dtype=torch.bool),
            id=files.id,
        )

    def _log_mel(self, path: Path) -> Tensor:
        if self.sound == "wav":
            waveform, rate = read_wav(path)
            return fit_examples(log_mel_examples(resample(waveform, rate, SAMPLE_RATE)), self.seconds)
        examples = load_tensor_pickle(path)
        if examples.shape != (self.seconds, 1, 96, 64):
            raise ValueError(
                f"{path}: expected a log-mel ({self.seconds}, 1, 96, 64), got {tuple(examples.shape)}"
            )
        return examples.float()


class AVSBenchS4(_AVSBench):
    """AVSBench's single-source setting: one object sounds; in training only the first second has a mask.

    Args:
        root: the folder that holds ``Single-source``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        size: ``(H, W)`` that frames and masks are resized to, px; None for their own size.
        sound: ``"pickle"`` for the log-mels that come with the set, ``"wav"`` to compute them.
        seconds: T, frames of a clip.

    Raises:
        FileNotFoundError: if the table or a file that it lists is not there.
        ValueError: if the table lacks a column.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3.
    """

    def _index(self) -> list[ClipFiles]:
        data = self.root / "Single-source" / "s4_data"
        clips = []
        for row in _read_table(
            self.root / "Single-source" / "s4_meta_data.csv", ("name", "category", "split")
        ):
            if row["split"] != self.split:
                continue
            name, category = row["name"], row["category"]
            place = (self.split, category, name)
            frames, masks = data.joinpath("visual_frames", *place), data.joinpath("gt_masks", *place)
            labelled = 1 if self.split == "train" else self.seconds
            clips.append(
                ClipFiles(
                    name,
                    category,
                    [frames / f"{name}_{i}.png" for i in range(1, self.seconds + 1)],
                    [
                        masks / f"{name}_{i}.png" if i <= labelled else None
                        for i in range(1, self.seconds + 1)
                    ],
                    self._sound_file(data, *place),
                )
            )
        return clips


class AVSBenchMS3(_AVSBench):
    """AVSBench's multi-source setting: several objects sound, and every second has a mask.

    Arguments and errors are those of :class:`AVSBenchS4`; ``root`` is the folder with ``Multi-sources``.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3. The published loader reads these masks as
    palette images, so that a 0/1 mask becomes 1/255; here every mask is binarised.
    """

    def _index(self) -> list[ClipFiles]:
        data = self.root / "Multi-sources" / "ms3_data"
        clips = []
        for row in _read_table(self.root / "Multi-sources" / "ms3_meta_data.csv", ("video_id", "split")):
            if row["split"] != self.split:
                continue
            name = row["video_id"]
            frames, masks = data / "visual_frames" / name, data / "gt_masks" / self.split / name
            clips.append(
                ClipFiles(
                    name,
                    "",
                    [frames / f"{name}.mp4_{i}.png" for i in range(1, self.seconds + 1)],
                    [masks / f"{name}_{i}.png" for i in range(1, self.seconds + 1)],
                    self._sound_file(data, self.split, name),
                )
            )
        return clips


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read a table of clips.

    Args:
        path: the CSV file.
        columns: the columns that name files or folders, or the split; a name may not lead out of the dataset.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such table; root must be the folder that holds {path.parent.name!r}, "
            "in AVSBench's own layout"
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames and "name" in reader.fieldnames and "video_id" in columns:
            reader.fieldnames = ["video_id" if field == "name" else field for field in reader.fieldnames]
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path}: expected a column {missing[0]!r}, got {', '.join(reader.fieldnames or ())}"
            )
        rows = list(reader)
    for line, row in enumerate(rows, start=2):
        for column in columns:
            name = row[column]
            if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
                raise ValueError(f"{path}, line {line}: expected a plain name as {column!r}, got {name!r}")
    return rows
