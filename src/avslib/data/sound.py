"""A dataset with another sound: what a model does with it tells whether it listens."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch.utils.data import Dataset

from avslib.clip import Clip


class ClipDataset(Protocol):
    """A map-style dataset of clips."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def __getitem__(self, index: int) -> Clip:
        """Return one clip."""


class SilentSound(Dataset[Clip]):
    """The clips of a dataset without their sound: every log-mel value is log 0.01, as VGGish hears silence.

    Args:
        clips: a map-style dataset of clips.
    """

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Return the clip with its sound taken away."""
        clip = self.clips[index]
        return clip._replace(log_mel=torch.full_like(clip.log_mel, math.log(0.01)))


class SwappedSound(Dataset[Clip]):
    """The clips of a dataset, each with the sound of another one.

    Args:
        clips: a map-style dataset of at least two clips.
        shift: how far away in the dataset the other clip is; None for half of its length.

    Raises:
        ValueError: if the shift gives a clip its own sound.
    """

    def __init__(self, clips: ClipDataset, *, shift: int | None = None) -> None:
        self.clips = clips
        self.shift = len(clips) // 2 if shift is None else shift
        if self.shift % max(len(clips), 1) == 0:
            raise ValueError(f"shift: {self.shift} gives each of {len(clips)} clips its own sound")

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Return the clip with the other clip's sound."""
        other = self.clips[(index + self.shift) % len(self.clips)]
        return self.clips[index]._replace(log_mel=other.log_mel)
