"""Pixel counts of frames, which determine all scores of binary masks except the F of contours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from avslib._checks import check_one_of, check_shape

THRESHOLDS = 255
CHUNK = {"cpu": 2**18, "accelerator": 2**22}
"""Number of pixels processed at a time, which bounds the memory and, on a CPU, fits its cache."""


class FrameStatistics(NamedTuple):
    """Pixel counts of frames, which determine all scores of binary masks except the F of contours.

    The leading axes are those of the frames, ``(B, T)`` or ``(n,)``. A frame takes a few hundred numbers, so
    the counts of a whole test set fit in memory, and no protocol needs to see a pixel again.
    """

    pixels: Tensor  # (...), int64, all pixels
    truth: Tensor  # (...), int64, foreground pixels in the ground truth
    predicted: Tensor  # (...), int64, foreground pixels in the prediction
    intersection: Tensor  # (...), int64, foreground pixels in both
    selected: Tensor  # (..., 255), int32, pixels whose score reaches each threshold; (..., 0) without curves
    hit: Tensor  # (..., 255), int32, those of them that are foreground in the ground truth


def frame_statistics(
    logits: Tensor,
    masks: Tensor,
    *,
    reading: str = "probability",
    threshold: float = 0.5,
    curves: bool = True,
) -> FrameStatistics:
    """Count the pixels of every frame.

    The reading turns logits into a prediction, and into a score that is compared with thresholds. It differs
    between published evaluations; ``avslib.metrics.READING`` gives the reading of each protocol:

    - ``"probability"``: foreground where the probability, the sigmoid of one logit or the softmax of two, is
      above ``threshold``; the probability is the score.
    - ``"logit"``: the same prediction, from one logit only; the logit itself is the score.
    - ``"argmax"``: foreground where its logit is the larger one; the probability is the score.
    - ``"argmax_probability"``: foreground where its probability is the larger one, which is the score; for
      one logit, the same as ``"probability"``.
    - ``"stepping_stones"``: foreground where its logit is the larger one; sigmoid(2 l1 - l0) is the score.

    Where a reading needs two logits, a single logit l stands for the pair (0, l), which has the same
    probability.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, or of background and foreground before the
            softmax, ``(B, T, 2, H, W)``; any float type, converted to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        reading: one of the names above.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.
        curves: whether to count at the 255 thresholds, which takes most of the time.

    Returns:
        The counts, with leading axes ``(B, T)``.

    Raises:
        ValueError: if a shape differs, the reading is unknown or the threshold is not in ``[0, 1)``.

    Example:
        >>> logits = torch.tensor([-9.0, 0.0, 0.0, 9.0]).view(1, 1, 1, 2, 2)
        >>> statistics = frame_statistics(logits, torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2))
        >>> statistics.truth.item(), statistics.predicted.item(), statistics.intersection.item()
        (2, 1, 1)
        >>> statistics.selected[0, 0, [0, 127, 254]]  # at 0, 1/2 and 1
        tensor([4, 3, 0], dtype=torch.int32)
    """
    check_one_of("reading", reading, READINGS)
    check_threshold(threshold)
    channels = 1 if reading == "logit" or logits.dim() < 3 or logits.shape[2] != 2 else 2
    size = check_shape("logits", logits, f"b t {channels} h w")
    check_shape("masks", masks, "b t h w", **size)
    b, t, _, _ = masks.shape
    parts = [
        _count(*READINGS[reading](part.float(), threshold), truth.bool(), curves)
        for truth, part in frame_chunks(masks.flatten(0, 1), logits.detach().flatten(0, 1))
    ]
    return FrameStatistics(*(torch.cat(field).unflatten(0, (b, t)) for field in zip(*parts, strict=True)))


def check_threshold(threshold: float) -> None:
    """Raise ``ValueError`` unless the threshold is a probability below 1."""
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold: expected a probability in [0, 1), got {threshold}")


def frame_chunks(masks: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split masks ``(n, H, W)``, and other tensors of these frames, into chunks of a few frames."""
    chunk = CHUNK["cpu" if masks.device.type == "cpu" else "accelerator"]
    frames = max(1, chunk // max(1, masks[:1].numel()))
    return zip(*(tensor.split(frames) for tensor in (masks, *others)), strict=True)


def _count(predicted: Tensor, scores: Tensor, truth: Tensor, curves: bool) -> FrameStatistics:
    """Return the counts of frames ``(n, H, W)``."""
    n, h, w = truth.shape
    if curves:
        selected, hit = (counts.int() for counts in _threshold_counts(scores, truth))
    else:
        selected = hit = torch.zeros(n, 0, dtype=torch.int32, device=truth.device)
    return FrameStatistics(
        pixels=torch.full((n,), h * w, device=truth.device),
        truth=truth.flatten(1).count_nonzero(dim=1),
        predicted=predicted.flatten(1).count_nonzero(dim=1),
        intersection=(predicted & truth).flatten(1).count_nonzero(dim=1),
        selected=selected,
        hit=hit,
    )


def _threshold_counts(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many pixels reach each threshold, and how many of them are foreground, ``(n, 255)``, int64.

    The thresholds are ``linspace(0, 1 - 1e-10, 255)`` in float32: the first is 0, the last exactly 1. One
    histogram per frame of how many thresholds each pixel reaches replaces 255 comparisons. It is exact where
    a score equals a threshold; NaN reaches none.
    """
    n, device = len(truth), truth.device
    # made on the CPU everywhere, since other devices may round differently
    thresholds = torch.linspace(0, 1 - 1e-10, THRESHOLDS, device="cpu").to(device, non_blocking=True)
    # a score reaches all thresholds below the nearest one, and none above it
    nearest = (scores * (THRESHOLDS - 1)).round_().nan_to_num_(nan=0.0).clamp_(0, THRESHOLDS - 1).long()
    reached = nearest.add_((scores >= thresholds.take(nearest)).long())  # long: mixed types add slowly
    first = torch.arange(0, 2 * n, 2, device=device).view(n, 1, 1)
    cell = truth.long().add_(first).mul_(THRESHOLDS + 1).add_(reached).flatten()
    # bincount would wait for the accelerator to learn the length of its result
    counts = cell.new_zeros(n * 2 * (THRESHOLDS + 1))
    counts.scatter_add_(0, cell, cell.new_ones(1).expand_as(cell))
    at_least = counts.view(n, 2, THRESHOLDS + 1).flip(-1).cumsum(-1).flip(-1)[..., 1:]
    return at_least.sum(dim=1), at_least[:, 1]


def _probability(logits: Tensor) -> Tensor:
    return logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)[:, 1]


def _pair(logits: Tensor) -> tuple[Tensor, Tensor]:
    background = torch.zeros_like(logits[:, 0]) if logits.shape[1] == 1 else logits[:, 0]
    return background, logits[:, -1]


def _read_probability(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    probability = _probability(logits)
    return probability > threshold, probability


def _read_logit(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    return _probability(logits) > threshold, logits[:, 0]


def _read_argmax(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    background, foreground = _pair(logits)
    return foreground > background, _probability(logits)


def _read_argmax_probability(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    if logits.shape[1] == 1:
        return _read_probability(logits, threshold)
    background, foreground = logits.softmax(dim=1).unbind(1)
    return foreground > background, foreground


def _read_stepping_stones(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    background, foreground = _pair(logits)
    return foreground > background, (2 * foreground - background).sigmoid()


READINGS: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "probability": _read_probability,
    "logit": _read_logit,
    "argmax": _read_argmax,
    "argmax_probability": _read_argmax_probability,
    "stepping_stones": _read_stepping_stones,
}
"""Functions from logits ``(n, 1 or 2, H, W)``, float32, and a threshold to a prediction and a score,
``(n, H, W)``."""
