"""Scores that are means over a protocol's own batches, whatever batches the user evaluates with."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from avslib._checks import check_one_of, check_positive, check_shape


def check_frames(logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> None:
    """Raise ``ValueError`` unless the shapes are ``(B, T, 1, H, W)``, ``(B, T, H, W)`` and ``(B, T)``."""
    size = check_shape("logits", logits, "b t 1 h w")
    check_shape("masks", masks, "b t h w", **size)
    if valid is not None:
        check_shape("valid", valid, "b t", b=size["b"], t=size["t"])


def not_binary(masks: Tensor) -> Tensor:
    """Return which frames ``(B, T)`` of masks ``(B, T, H, W)`` hold anything but 0 and 1."""
    return ((masks != 0) & (masks != 1)).flatten(-2).any(-1)


def check_binary(wrong: Tensor) -> None:
    """Raise ``ValueError`` if a frame, or a count of frames, is wrong; waits for an accelerator."""
    if wrong.any():
        raise ValueError(
            "masks: expected the values 0 and 1, got others; grey levels must be read as 0 and 1"
        )


class ClipBatchMean(Metric):
    """Mean over batches of ``clips_per_batch`` consecutive clips of a score made of sums over frames.

    With one clip a batch the score of a clip is added as soon as it is seen: two numbers, the same in any
    order and over any number of processes. With more, the sums of every clip are kept until ``compute``
    groups them. A clip without a valid frame is no clip.

    Args:
        protocol: name of the protocol.
        clips_per_batch: clips in a batch of the protocol.
        sums: how many sums a clip keeps.
        settings: numbers in which the sums of two metrics may differ.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    settings: Tensor
    total: Tensor
    batches: Tensor
    wrong_frames: Tensor
    clip_sums: list[Tensor]
    clip_frames: list[Tensor]

    def __init__(
        self, protocol: str, *, clips_per_batch: int, sums: int, settings: tuple[float, ...]
    ) -> None:
        super().__init__()
        check_one_of("protocol", protocol, ("avsbench",))
        check_positive("clips_per_batch", clips_per_batch)
        self.protocol = protocol
        self.clips_per_batch = clips_per_batch
        self.sums = sums
        self.add_state("wrong_frames", torch.zeros((), dtype=torch.int64), "sum")
        # torchmetrics' MetricCollection lets metrics whose states agree after the first batch share one state
        # from then on: a perfect first batch would make F read the sums of J.
        self.add_state("settings", torch.tensor(settings, dtype=torch.float64), "max")
        if clips_per_batch == 1:
            self.add_state("total", torch.zeros((), dtype=torch.float64), "sum")
            self.add_state("batches", torch.zeros((), dtype=torch.int64), "sum")
        else:
            self.add_state("clip_sums", [], "cat")
            self.add_state("clip_frames", [], "cat")

    @abstractmethod
    def _frame_sums(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return what each frame adds to the sums of its batch, ``(B, T, sums)``, float64."""

    @abstractmethod
    def _score(self, sums: Tensor, frames: Tensor) -> Tensor:
        """Return the scores ``(n,)`` of batches from sums ``(n, sums)`` and numbers of frames ``(n,)``."""

    def update(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> None:
        """Add clips; nothing here waits for an accelerator.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type; taken to float32.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            valid: False where a frame is padding and does not count, ``(B, T)``, bool.

        Raises:
            ValueError: if a shape differs, or if a mask of a valid frame holds anything but 0 and 1. On an
                accelerator, where looking at values would stall, ``compute`` says the latter.
        """
        check_frames(logits, masks, valid)
        counted = torch.ones_like(masks[..., 0, 0], dtype=torch.bool) if valid is None else valid
        wrong = not_binary(masks) & counted
        if wrong.device.type == "cpu":
            check_binary(wrong)
        self.wrong_frames += wrong.sum()
        sums = torch.where(counted[..., None], self._frame_sums(logits, masks), 0.0).sum(dim=1)
        frames = counted.sum(dim=1)
        if self.clips_per_batch == 1:
            self.total += torch.where(frames > 0, self._score(sums, frames), 0.0).sum()
            self.batches += (frames > 0).sum()
        else:
            self.clip_sums.append(sums)
            self.clip_frames.append(frames)

    def compute(self) -> Tensor:
        """Return the mean over batches, a float64 scalar in ``[0, 1]``; NaN without a clip.

        Raises:
            ValueError: if a mask seen on an accelerator held anything but 0 and 1.
        """
        check_binary(self.wrong_frames)
        if self.clips_per_batch == 1:
            return self.total / self.batches
        sums, frames = dim_zero_cat(self.clip_sums), dim_zero_cat(self.clip_frames)
        sums, frames = sums[frames > 0], frames[frames > 0]
        missing = -len(frames) % self.clips_per_batch  # of the last batch; an empty row changes no sum
        sums = reduce(F.pad(sums, (0, 0, 0, missing)), "(n k) s -> n s", "sum", k=self.clips_per_batch)
        frames = reduce(F.pad(frames, (0, missing)), "(n k) -> n", "sum", k=self.clips_per_batch)
        return self._score(sums, frames).mean()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; one that has seen no clip brings sums of the right shape."""
        if self.clips_per_batch > 1 and not self.clip_sums:
            self.clip_sums.append(self.settings.new_zeros(0, self.sums))
            self.clip_frames.append(self.wrong_frames.new_zeros(0))
        super().sync(*args, **kwargs)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several on a scale from 0 to 1; needs matplotlib.

        Args:
            val: what ``compute`` returned, or a list of it; by default, what it returns now.
            ax: matplotlib axes to draw on; by default, new ones.

        Returns:
            The figure and its axes.
        """
        return self._plot(val, ax)
