"""Datasets with another sound, which show whether a model listens.

Frames and masks stay unchanged; the masks are those of the true sound. Each class says what a model that
listens finds under the other sound. Every sound goes through the same front end as the true one, since a
model could tell a different front end without listening.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from avslib._checks import check_one_of, check_positive
from avslib.clip import Clip
from avslib.data.reader import SAMPLE_RATE, ClipReader
from avslib.media.mel import fit_examples, log_mel_examples

CATEGORIES = ("any", "same", "other")


class ClipDataset(Protocol):
    """A map-style dataset of clips."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def __getitem__(self, index: int) -> Clip:
        """Return one clip."""


class OtherSound(Dataset[Clip], ABC):
    """The clips of a dataset with another sound in every second that is not padding.

    Args:
        clips: a map-style dataset of clips.
    """

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Return the clip with the other sound; a clip without a valid second is returned unchanged."""
        clip = self.clips[index]
        if not clip.valid.any():
            return clip
        is_heard = clip.valid.view(-1, *[1] * (clip.log_mel.ndim - 1))
        return clip._replace(log_mel=torch.where(is_heard, self._log_mel(index, clip), clip.log_mel))

    @abstractmethod
    def _log_mel(self, index: int, clip: Clip) -> Tensor:
        """Return the log-mel to hear instead, in the shape of the clip's; values in padding do not matter."""


class SilentSound(OtherSound):
    """The clips of a dataset in silence: every log-mel value is log 0.01, as VGGish hears silence.

    A model that listens finds nothing.

    Args:
        clips: a map-style dataset of clips with log-mels.

    Raises:
        ValueError: when reading a clip that has embeddings, see :class:`~avslib.storage.CachedAudio`.
    """

    def _log_mel(self, index: int, clip: Clip) -> Tensor:
        return _silence(clip)


class NoiseSound(OtherSound):
    """The clips of a dataset with white noise instead of their sound.

    A model that listens finds nothing, unless something in the picture hisses. The noise of a clip depends
    only on the seed and the clip's ``id``, so it is the same in any order and in any process.

    Args:
        clips: a map-style dataset of clips with log-mels; a reader's ``sound_transform`` and the distance
            between its examples apply to the noise too.
        rms: root mean square of the noise; full scale is 1.
        seed: seed of the noise.
        example_hop_steps: distance between two log-mel examples, as in
            :func:`~avslib.media.log_mel_examples`, for a dataset that is not a reader; a reader knows its
            own.

    Raises:
        ValueError: if ``rms`` or ``example_hop_steps`` is not above 0; and when reading a clip that has
            embeddings, see :class:`~avslib.storage.CachedAudio`.
    """

    def __init__(
        self, clips: ClipDataset, *, rms: float = 0.1, seed: int = 0, example_hop_steps: int = 96
    ) -> None:
        check_positive("rms", rms)
        check_positive("example_hop_steps", example_hop_steps)
        super().__init__(clips)
        self.rms = rms
        self.seed = seed
        self.example_hop_steps = example_hop_steps

    def _log_mel(self, index: int, clip: Clip) -> Tensor:
        _check_log_mel(clip)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {clip.id}".encode()))
        seconds = len(clip.frames)
        waveform = self.rms * torch.randn(seconds * SAMPLE_RATE, generator=generator)
        return examples_of(self.clips, waveform, seconds, hop_steps=self.example_hop_steps)


class SwappedSound(OtherSound):
    """The clips of a dataset, each with the sound of another one; every sound is used once.

    What a model that listens finds depends on the category of the other clip:

    - ``"any"``: mostly nothing, except what happens to be in view and makes that sound.
    - ``"other"``: the same with fewer exceptions. AVSBench-Robust (Li et al., 2025) calls this an off-screen
      sound, but chooses its categories differently.
    - ``"same"``: the same as before, since the same kind of object sounds. What it no longer finds shows what
      it hears beyond the kind of sound.

    If the other clip is shorter, its sound is repeated; a clip that could not be read is silent.

    Args:
        clips: a map-style dataset of at least two clips.
        shift: number of clips from each clip to the other one; None for half of the dataset's length. Only
            with ``"any"``.
        category: category of the other clip: ``"any"``, ``"same"`` or ``"other"``.
        categories: what sounds in each clip; None if the dataset knows, as a reader of S4 does.

    Raises:
        ValueError: if the shift gives a clip its own sound, or is given with another ``category`` than
            ``"any"``; if ``category`` is unknown; if the categories are not known, or not one for each clip;
            or if one of them holds a single clip (``"same"``) or more than half of all clips (``"other"``).
            For embeddings also when a clip is read whose other clip could not be, as nothing is known of
            silence.
    """

    def __init__(
        self,
        clips: ClipDataset,
        *,
        shift: int | None = None,
        category: str = "any",
        categories: Sequence[str] | None = None,
    ) -> None:
        super().__init__(clips)
        self.others = other_clips(clips, shift=shift, category=category, categories=categories)

    def _log_mel(self, index: int, clip: Clip) -> Tensor:
        other = self.clips[self.others[index]]
        heard = other.log_mel[other.valid]
        if not len(heard):
            return _silence(clip)
        return heard[torch.arange(len(clip.frames)) % len(heard)]


class ShiftedSound(OtherSound):
    """The clips of a dataset with their sound delayed; what falls off the end is heard at the start.

    A model that listens finds the same as before, but later: where sounds start and stop, the masks are
    wrong; where one sounds all the time, nothing changes. Whole log-mel examples are moved.

    Args:
        clips: a map-style dataset of clips of two seconds or more.
        seconds: delay, s; a negative one makes the sound come sooner.

    Raises:
        ValueError: if the delay gives a clip its own sound. Only a reader knows the length of every clip; of
            other datasets the first clip is checked, and the others when they are read.
    """

    def __init__(self, clips: ClipDataset, *, seconds: int = 1) -> None:
        super().__init__(clips)
        self.seconds = seconds
        if isinstance(clips, ClipReader):
            for files in clips.clips:
                self._check(files.id, len(files.frames[: clips.seconds]))
        else:
            self[0]

    def _log_mel(self, index: int, clip: Clip) -> Tensor:
        self._check(clip.id, int(clip.valid.sum()))
        shifted = clip.log_mel.clone()
        shifted[clip.valid] = clip.log_mel[clip.valid].roll(self.seconds, dims=0)
        return shifted

    def _check(self, name: str | tuple[str, ...], length: int) -> None:
        if self.seconds % length == 0:
            raise ValueError(
                f"seconds: {self.seconds} gives clip {name!r}, of {length} s, its own sound unshifted"
            )


def other_clips(
    clips: ClipDataset,
    *,
    shift: int | None = None,
    category: str = "any",
    categories: Sequence[str] | None = None,
) -> list[int]:
    """Return the index of another clip for each clip, each used once; for the arguments see `SwappedSound`.

    Raises:
        ValueError: as in `SwappedSound`.
    """
    check_one_of("category", category, CATEGORIES)
    count = len(clips)
    if category == "any":
        shift = count // 2 if shift is None else shift
        if shift % max(count, 1) == 0:
            raise ValueError(f"shift: {shift} gives each of {count} clips its own sound")
        return [(index + shift) % count for index in range(count)]
    if shift is not None:
        raise ValueError(f"shift: expected None with category={category!r}, got {shift}")
    names = categories_of(clips) if categories is None else list(categories)
    if len(names) != count:
        raise ValueError(f"categories: expected one of each of {count} clips, got {len(names)}")
    return _within(names) if category == "same" else _across(names)


def categories_of(clips: ClipDataset) -> list[str]:
    """Return what sounds in each clip of a reader.

    Raises:
        ValueError: if the dataset does not say.
    """
    names = [files.category for files in clips.clips] if isinstance(clips, ClipReader) else []
    if not names or not all(names):
        raise ValueError(
            f"categories: {type(clips).__name__} does not say what sounds in each clip, as AVSBenchS4 does; "
            "give categories yourself, or take category='any'"
        )
    return names


def examples_of(clips: ClipDataset, waveform: Tensor, seconds: int, *, hop_steps: int) -> Tensor:
    """Compute the log-mel ``(T, 1, 96, 64)`` of a changed sound like those of the dataset.

    Args:
        clips: the dataset; a reader knows how its log-mels are computed.
        waveform: ``(S,)`` at 16 kHz.
        seconds: T.
        hop_steps: distance between two examples, for a dataset that is not a reader.
    """
    if isinstance(clips, ClipReader):
        return clips.examples(waveform, seconds)
    return fit_examples(log_mel_examples(waveform, example_hop_steps=hop_steps), seconds)


def _members(names: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name, []).append(index)
    return members


def _within(names: Sequence[str]) -> list[int]:
    """Rotate every category by half of its length."""
    others = [0] * len(names)
    for name, members in _members(names).items():
        if len(members) == 1:
            raise ValueError(f"category: {name!r} has only one clip, so none to take the sound from")
        half = len(members) // 2
        for index, other in zip(members, members[half:] + members[:half], strict=True):
            others[index] = other
    return others


def _across(names: Sequence[str]) -> list[int]:
    """Line up the categories and rotate the row by the size of the largest, so that none meets itself."""
    blocks = _members(names)
    name, largest = max(
        ((name, len(members)) for name, members in blocks.items()), key=lambda block: block[1]
    )
    if 2 * largest > len(names):
        raise ValueError(
            f"category: {name!r} has {largest} of {len(names)} clips, more than half, so not every clip "
            "can get a sound of another category"
        )
    row = [index for members in blocks.values() for index in members]
    others = [0] * len(names)
    for index, other in zip(row, row[largest:] + row[:largest], strict=True):
        others[index] = other
    return others


def _check_log_mel(clip: Clip) -> None:
    """Refuse an embedding, since its encoder's embedding of silence or noise is not known here."""
    if clip.log_mel.ndim == 2:
        raise ValueError(
            f"clips: expected log-mels (t, 1, 96, 64), got embeddings {tuple(clip.log_mel.shape)} of "
            f"{clip.id!r}; use the clips that CachedAudio was given"
        )


def _silence(clip: Clip) -> Tensor:
    _check_log_mel(clip)
    return torch.full_like(clip.log_mel, math.log(0.01))
