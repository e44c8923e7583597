"""Metrics that average over the batches of a protocol, whatever batches the user evaluates with."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.utilities import dim_zero_cat

from avslib._checks import check_integer, check_positive, check_shape
from avslib.metrics._binary import BinaryMetric, check_frames


def check_batches(clips_per_batch: float, ranks: int) -> None:
    """Raise ``ValueError`` unless both are integers above 0; ``clips_per_batch`` may be infinite."""
    check_positive("clips_per_batch", clips_per_batch)
    if clips_per_batch != math.inf and clips_per_batch % 1:
        raise ValueError(f"clips_per_batch: expected a whole number or infinity, got {clips_per_batch}")
    check_integer("ranks", ranks)
    check_positive("ranks", ranks)


def mean_over_batches(
    sums: Tensor, score: Callable[[Tensor], Tensor], *, clips_per_batch: float = 1, ranks: int = 1
) -> Tensor:
    """Return the mean score of batches of consecutive clips.

    Args:
        sums: sums of each clip, ``(n, sums)``; those of a batch are their total.
        score: maps sums of batches ``(..., sums)`` to scores ``(...)``; a batch with score NaN is left out.
        clips_per_batch: clips in a batch; the last batch may be shorter. ``math.inf`` for one batch of all.
        ranks: processes that share the batches, in consecutive blocks as even as possible, longer ones first.
            The result is the mean of the processes' means; a process without a batch is left out.

    Returns:
        A scalar; NaN without a clip.

    Raises:
        ValueError: if ``clips_per_batch`` or ``ranks`` is not an integer above 0.
    """
    check_batches(clips_per_batch, ranks)
    if len(sums) == 0:
        return sums.new_full((), math.nan)
    k = len(sums) if clips_per_batch == math.inf else int(clips_per_batch)
    missing = -len(sums) % k  # clips that the last batch lacks; a row of zeros changes no sum
    scores = score(reduce(F.pad(sums, (0, 0, 0, missing)), "(n k) s -> n s", "sum", k=k))
    return torch.stack([part.nanmean() for part in scores.tensor_split(ranks)]).nanmean()


def clip_sums(frame_sums: Tensor, clip: Tensor) -> Tensor:
    """Add up the sums of the frames of each clip.

    Args:
        frame_sums: sums of each frame, ``(n, sums)``.
        clip: number of the clip that each frame belongs to, ``(n,)``, int64.

    Returns:
        Sums of each clip that has a frame, ordered by clip number, ``(clips, sums)``.
    """
    check_shape("clip", clip, "n")
    check_shape("statistics", frame_sums, "n s", n=len(clip))
    numbers, place = clip.unique(return_inverse=True)
    return frame_sums.new_zeros(len(numbers), frame_sums.shape[1]).index_add_(0, place, frame_sums)


class ClipBatchMean(BinaryMetric):
    """Mean over batches of consecutive clips, where the score of a batch follows from sums over its frames.

    With one clip per batch, the score of each clip is added as soon as it is seen. The state is then two
    numbers, which do not depend on the order of clips or the number of processes. With all clips in one
    batch, the state is the sums over all clips. In between, the sums of every clip are kept until ``compute``
    groups them into batches. A clip without a valid frame is left out.

    Args:
        settings: arguments of the metric, which tell it apart from other metrics.
        sums: number of sums per clip.
        clips_per_batch: clips in a batch of the protocol; ``math.inf`` for all clips.
        ranks: processes of the protocol, see :func:`mean_over_batches`.
        two_logits: whether two logits per pixel are accepted too.
    """

    total: Tensor
    batches: Tensor
    set_sums: Tensor
    clip_sums: list[Tensor]
    clip_index: list[Tensor]

    def __init__(
        self,
        settings: tuple[object, ...],
        *,
        sums: int,
        clips_per_batch: float = 1,
        ranks: int = 1,
        two_logits: bool = False,
    ) -> None:
        super().__init__(settings)
        check_batches(clips_per_batch, ranks)
        self.clips_per_batch = clips_per_batch
        self.ranks = ranks
        self.two_logits = two_logits
        self.sums = sums
        self.add_state("batches", torch.zeros((), dtype=torch.int64), "sum")
        if self._keeps_clips:
            self.add_state("clip_sums", [], "cat")
            self.add_state("clip_index", [], "cat")
        elif clips_per_batch == math.inf:
            self.add_state("set_sums", torch.zeros(sums, dtype=torch.float64), "sum")
        else:
            self.add_state("total", torch.zeros((), dtype=torch.float64), "sum")

    @property
    def _keeps_clips(self) -> bool:
        return self.ranks > 1 or self.clips_per_batch not in (1, math.inf)

    @abstractmethod
    def _frame_sums(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        """Return the sums of each frame, ``(B, T, sums)``, float64.

        If it also updates other states, it must use only the frames that are ``counted``, ``(B, T)``.
        """

    @abstractmethod
    def _score(self, sums: Tensor) -> Tensor:
        """Return the scores ``(...)`` of batches from their sums ``(..., sums)``; NaN for no score."""

    def update(
        self, logits: Tensor, masks: Tensor, valid: Tensor | None = None, *, index: Tensor | None = None
    ) -> None:
        """Add clips, without waiting for an accelerator.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
                Protocols with two logits also accept ``(B, T, 2, H, W)``.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            valid: False where a frame is padding and does not count, ``(B, T)``, bool.
            index: position of each clip in the order of the protocol, ``(B,)``, any integer type, or None for
                the order in which clips come. With it, batches of several clips do not depend on the order
                of clips or the number of processes.

        Raises:
            ValueError: if a shape differs, if the type of ``index`` is not an integer type, or if a mask of a
                valid frame holds anything but 0 and 1. On an accelerator, where checking values would stall,
                ``compute`` raises the last of these.
        """
        check_frames(logits, masks, valid, two_logits=self.two_logits)
        if index is not None:
            check_shape("index", index, "b", b=len(masks))
            if index.is_floating_point() or index.dtype == torch.bool:
                raise ValueError(f"index: expected an integer type, got {index.dtype}")
        counted = self._counted(masks, valid)
        frames = self._frame_sums(logits, masks, counted)
        sums = torch.where(counted[..., None], frames, 0.0).sum(dim=1)
        is_clip = counted.any(dim=1)
        if self._keeps_clips:
            place = torch.full_like(is_clip, _ANYWHERE, dtype=torch.int64) if index is None else index.long()
            # sums[is_clip] would wait for the accelerator to learn the length of its result
            self.clip_index.append(torch.where(is_clip, place, _NO_CLIP))
            self.clip_sums.append(sums)
        elif self.clips_per_batch == math.inf:
            self.set_sums += sums.sum(dim=0)
            self.batches += is_clip.any()
        else:
            score = self._score(sums)
            is_batch = is_clip & ~score.isnan()
            self.total += torch.where(is_batch, score, 0.0).sum()
            self.batches += is_batch.sum()

    def compute(self) -> Tensor:
        """Return the mean over batches, a float64 scalar in ``[0, 1]``; NaN without a clip.

        Raises:
            ValueError: if a mask seen on an accelerator held anything but 0 and 1; or, where a batch holds
                several clips, if ``index`` was given for only some clips, held a position twice, or was
                negative.
        """
        self._check()
        if self.clips_per_batch == math.inf:
            return torch.where(self.batches > 0, self._score(self.set_sums), math.nan)
        if not self._keeps_clips:
            return self.total / self.batches
        index, sums = dim_zero_cat(self.clip_index), dim_zero_cat(self.clip_sums)
        index, sums = index[index != _NO_CLIP], sums[index != _NO_CLIP]
        return mean_over_batches(
            sums[_order(index)], self._score, clips_per_batch=self.clips_per_batch, ranks=self.ranks
        )

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; one without a clip adds empty sums of the right shape."""
        if self._keeps_clips and len(self.clip_sums) == 0:
            self.clip_sums.append(self.settings.new_zeros(0, self.sums))
            self.clip_index.append(self.wrong_frames.new_zeros(0))
        super().sync(*args, **kwargs)


_NO_CLIP = torch.iinfo(torch.int64).min
_ANYWHERE = _NO_CLIP + 1


def _order(index: Tensor) -> Tensor:
    """Return the order in which clips go into batches."""
    if (index == _ANYWHERE).all():
        return torch.arange(len(index), device=index.device)
    if (index == _ANYWHERE).any():
        raise ValueError("index: expected the place of every clip, got it for some only")
    if (index < 0).any():
        raise ValueError(f"index: expected places from 0 on, got {index.min()}")
    order = index.argsort()
    if (index[order].diff() == 0).any():
        raise ValueError("index: expected another place for every clip, got one twice")
    return order
