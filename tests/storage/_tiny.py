"""A dataset of small clips, each with another content, that costs nothing to make."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from avslib.clip import Clip


class TinyClips(Dataset[Clip]):
    def __init__(self, count: int, *, seconds: int = 2, classes: int = 2) -> None:
        self.count = count
        self.seconds = seconds
        self.classes = classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        index = range(self.count)[index]
        generator = torch.Generator().manual_seed(index)
        seconds = self.seconds
        return Clip(
            frames=torch.randint(256, (seconds, 3, 4, 6), dtype=torch.uint8, generator=generator),
            log_mel=torch.randn(seconds, 1, 96, 64, generator=generator),
            masks=torch.randint(self.classes, (seconds, 4, 6), generator=generator),
            labelled=torch.arange(seconds) <= index % seconds,
            valid=torch.ones(seconds, dtype=torch.bool),
            id=f"clip.{index}",
        )


def assert_same(actual: Clip, expected: Clip) -> None:
    for name, ours, theirs in zip(Clip._fields, actual, expected, strict=True):
        if isinstance(theirs, torch.Tensor):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)
        else:
            assert ours == theirs
