"""F with beta^2 = 0.3, at the best of 255 thresholds."""

from __future__ import annotations

import torch
from torch import Tensor

from avslib.metrics._batches import ClipBatchMean, check_binary, check_frames, not_binary

BETA_SQUARED = 0.3
THRESHOLDS = 255


def threshold_counts(probabilities: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Count the pixels whose probability reaches each threshold.

    The thresholds are ``linspace(0, 1 - 1e-10, 255)`` in float32: the first is 0, the last exactly 1. One
    histogram a frame, of how many thresholds a pixel reaches, replaces 255 comparisons; it is exact where a
    probability is a threshold, and a NaN reaches none.

    Args:
        probabilities: ``(B, T, H, W)``, float32, in ``[0, 1]``.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.

    Returns:
        How many pixels reach each threshold and how many of them are foreground, ``(B, T, 255)``, int64.
    """
    b, t, _, _ = masks.shape
    device = masks.device
    # made on the CPU everywhere, since another device may round otherwise
    thresholds = torch.linspace(0, 1 - 1e-10, THRESHOLDS, device="cpu").to(device, non_blocking=True)
    # a probability reaches all thresholds below the nearest one, and none above it
    nearest = (probabilities * (THRESHOLDS - 1)).round_().nan_to_num_(nan=0.0).long()
    reached = nearest + (probabilities >= thresholds.take(nearest)).long()  # long: mixed types add slowly
    frame = torch.arange(b * t, device=device).view(b, t, 1, 1)
    cell = ((frame * 2 + masks.bool().long()) * (THRESHOLDS + 1) + reached).flatten()
    # not bincount, which waits for an accelerator to learn its own length
    counts = cell.new_zeros(b * t * 2 * (THRESHOLDS + 1))
    counts.scatter_add_(0, cell, cell.new_ones(1).expand_as(cell))
    at_least = counts.view(b, t, 2, THRESHOLDS + 1).flip(-1).cumsum(-1).flip(-1)[..., 1:]
    return at_least.sum(dim=2), at_least[:, :, 1]


def f_curves(logits: Tensor, masks: Tensor) -> Tensor:
    """Return F of every frame at every threshold (AVSBench, Zhou et al., ECCV 2022).

    A pixel is foreground where ``sigmoid(logits) >= threshold`` in float32, with thresholds
    ``linspace(0, 1 - 1e-10, 255)``. F = 1.3 P R / (0.3 P + R), and 0 where that is 0 / 0.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type; taken to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.

    Returns:
        One curve a frame, ``(B, T, 255)``, float64, in ``[0, 1]``; 0 everywhere if the ground truth is empty.

    Raises:
        ValueError: if a shape differs or ``masks`` holds anything but 0 and 1.

    Example:
        >>> logits = torch.tensor([-9.0, 0.0, 0.0, 9.0]).view(1, 1, 1, 2, 2)
        >>> masks = torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2)
        >>> f_curves(logits, masks)[0, 0, [0, 127, 253]]
        tensor([0.5652, 0.7222, 0.8125], dtype=torch.float64)
    """
    check_frames(logits, masks)
    check_binary(not_binary(masks))
    return _f_curves(logits, masks)


def f_score(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the best F of all frames, which are one batch of the protocol.

    The curves of `f_curves` are averaged over the frames with ground truth; the maximum is taken afterwards,
    so one threshold serves all frames.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type; taken to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.

    Returns:
        A scalar, float64, in ``[0, 1]``; 0 if all ground truth is empty.

    Raises:
        ValueError: if a shape differs or ``masks`` holds anything but 0 and 1.

    Example:
        >>> logits = torch.tensor([-9.0, 0.0, 0.0, 9.0]).view(1, 1, 1, 2, 2)
        >>> f_score(logits, torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2))
        tensor(0.8125, dtype=torch.float64)
    """
    check_frames(logits, masks)
    check_binary(not_binary(masks))
    return _best_f(_frame_sums(logits, masks).sum(dim=(0, 1)))


class FScore(ClipBatchMean):
    """F with beta^2 = 0.3, by a named protocol.

    ``"avsbench"`` (Zhou et al., ECCV 2022, and their test script): `f_score` of every batch, then the plain
    mean over batches; a batch without ground truth scores 0 and counts. The best threshold is chosen anew for
    every batch, with the ground truth in hand, so the number depends on the size of the batch. Batches are
    the protocol's, not the user's: ``clips_per_batch`` consecutive clips in the order in which they were
    seen, the last batch perhaps short and of the same weight.

    Several processes: with one clip a batch, the order of clips is indifferent. With more, the clips of
    process 0 come first, then those of process 1, and so on; a sampler that deals clips out in turn gives
    another order than the published script, so take one process to reproduce its number.

    Args:
        protocol: ``"avsbench"``.
        clips_per_batch: clips in a batch of the protocol; the published test script has 4, its argument's
            default is 1.

    Raises:
        ValueError: if ``protocol`` is unknown or ``clips_per_batch`` not above 0.

    Example:
        >>> metric = FScore(clips_per_batch=4)
        >>> metric.update(torch.full((2, 5, 1, 4, 4), 3.0), torch.ones(2, 5, 4, 4, dtype=torch.int64))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    def __init__(self, protocol: str = "avsbench", *, clips_per_batch: int = 1) -> None:
        settings = (BETA_SQUARED, THRESHOLDS)
        super().__init__(protocol, clips_per_batch=clips_per_batch, sums=THRESHOLDS + 1, settings=settings)

    def _frame_sums(self, logits: Tensor, masks: Tensor) -> Tensor:
        return _frame_sums(logits, masks)

    def _score(self, sums: Tensor, frames: Tensor) -> Tensor:
        return _best_f(sums)


def _f_curves(logits: Tensor, masks: Tensor) -> Tensor:
    selected, hit = threshold_counts(logits.detach().squeeze(2).float().sigmoid(), masks)
    truth = masks.bool().sum(dim=(-2, -1)).double()
    precision = hit / (selected.double() + 1e-20)
    recall = hit / (truth[..., None] + 1e-20)
    f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return f.nan_to_num(nan=0.0)


def _frame_sums(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the curve of every frame, and behind it 1 if the frame has ground truth, ``(B, T, 256)``."""
    present = masks.bool().flatten(2).any(dim=-1)
    return torch.cat([_f_curves(logits, masks), present[..., None].double()], dim=-1)


def _best_f(sums: Tensor) -> Tensor:
    """Return the maximum ``(...)`` of the mean curve from sums ``(..., 256)`` over frames."""
    return (sums[..., :-1] / sums[..., -1:].clamp(min=1)).amax(dim=-1)
