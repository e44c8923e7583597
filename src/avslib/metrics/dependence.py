"""Metrics of whether a model listens: J under another sound, and masks that come and go with the sound."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from avslib._checks import check_one_of, check_shape
from avslib.metrics._binary import BinaryMetric, check_frames
from avslib.metrics.jaccard import frame_iou
from avslib.metrics.statistics import frame_statistics

RATES = ("sounding", "silent", "onsets", "offsets")
MEASURES = ("seconds", "transitions")


def iou_drop(logits: Tensor, other_logits: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return by how much the J of every frame drops with another sound.

    A drop near 0 in many frames means that the masks were found without listening. A frame without ground
    truth has no drop: any prediction there is false, whatever the sound.

    Args:
        logits: prediction with the true sound, before the sigmoid, ``(B, T, 1, H, W)``.
        other_logits: prediction with the other sound, of the same shape.
        masks: ground truth for the true sound, ``(B, T, H, W)``, 0 and 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Returns:
        J with the true sound minus J with the other one, ``(B, T)``, float64, in ``[-1, 1]``; NaN in a frame
        without ground truth.

    Raises:
        ValueError: if a shape differs, ``masks`` holds anything but 0 and 1, or ``threshold`` is not in
            ``[0, 1)``.

    Example:
        >>> masks = torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2)
        >>> found = torch.tensor([-9.0, -9.0, 9.0, 9.0]).view(1, 1, 1, 2, 2)
        >>> half = torch.tensor([-9.0, -9.0, -9.0, 9.0]).view(1, 1, 1, 2, 2)
        >>> iou_drop(found, half, masks)
        tensor([[0.5000]], dtype=torch.float64)
    """
    check_shape("other_logits", other_logits, "b t 1 h w", **check_shape("logits", logits, "b t 1 h w"))
    return frame_iou(logits, masks, threshold=threshold, empty="skip") - frame_iou(
        other_logits, masks, threshold=threshold, empty="skip"
    )


def g_measure(true: float, others: Sequence[float]) -> float:
    """Combine the score with the true sound and the scores with negative sounds into one number.

    G = 2 s (1 - n) / (s + 1 - n) is the harmonic mean of s and 1 - n, where s is the score with the true
    sound and n the mean score with the negative sounds. It is 0 if either of the two is. A model that does
    not listen has n = s, and G is at most 1/2. AVSBench-Robust (Li et al., 2025) reports a G-mIoU and a G-F.
    Its repository says that they were put together in a spreadsheet and gives no formula, so this definition
    is ours.

    Args:
        true: score with the true sound, in ``[0, 1]``, larger is better.
        others: the same score with each negative sound, against the ground truth of the true one.

    Returns:
        A number in ``[0, 1]``.

    Raises:
        ValueError: if a score is not in ``[0, 1]`` or there is no negative sound.

    Example:
        >>> round(g_measure(0.8, [0.1, 0.3]), 4)  # listens
        0.8
        >>> round(g_measure(0.8, [0.8, 0.8]), 4)  # is deaf
        0.32
    """
    if not others:
        raise ValueError("others: expected the score under one negative sound or more, got none")
    for name, score in (("true", true), *(("others", score) for score in others)):
        if not 0 <= score <= 1:
            raise ValueError(f"{name}: expected scores in [0, 1], got {score}")
    rejected = 1 - sum(others) / len(others)
    return 2 * true * rejected / (true + rejected) if true and rejected else 0.0


def onset_counts(predicted: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Count the seconds, onsets and offsets that are predicted correctly, and how many there are.

    Only clips in which sounds start or stop are counted, that is, clips that have both seconds with ground
    truth and seconds without:

    - ``sounding``: seconds with ground truth; correct if something is predicted.
    - ``silent``: seconds without ground truth; correct if nothing is predicted.
    - ``onsets``: pairs of consecutive seconds of which only the second has ground truth; correct if the same
      holds for the prediction.
    - ``offsets``: the same for pairs of which only the first has ground truth.

    To follow single objects, pass each one as a clip of its own: whether the prediction touches it in each
    second, and whether it sounds.

    Args:
        predicted: whether something is predicted in each second, ``(B, T)``, bool.
        truth: whether there is something to find in each second, ``(B, T)``, bool.
        valid: False where a second is padding and does not count, ``(B, T)``, bool.

    Returns:
        The number of correct ones and their total, for the four kinds in this order and every clip,
        ``(B, 4, 2)``, int64; 0 for a clip in which nothing starts or stops.

    Raises:
        ValueError: if a shape differs.

    Example:
        >>> truth = torch.tensor([[False, True, True, False, False]])
        >>> late = torch.tensor([[False, False, True, False, False]])
        >>> onset_counts(late, truth)[0].tolist()
        [[1, 2], [3, 3], [0, 1], [1, 1]]
    """
    size = check_shape("predicted", predicted, "b t")
    check_shape("truth", truth, "b t", **size)
    valid = torch.ones_like(truth) if valid is None else valid.bool()
    check_shape("valid", valid, "b t", **size)
    on, off = truth & valid, ~truth & valid
    changes = (on.any(dim=1) & off.any(dim=1))[:, None]
    met = (predicted == truth)[:, :-1] & (predicted == truth)[:, 1:]
    kinds = (
        (on, predicted),
        (off, ~predicted),
        (off[:, :-1] & on[:, 1:], met),
        (on[:, :-1] & off[:, 1:], met),
    )
    counts = [torch.stack([(of & right).sum(dim=1), of.sum(dim=1)], dim=-1) for of, right in kinds]
    return torch.stack(counts, dim=1) * changes[..., None]


class OnsetAccuracy(BinaryMetric):
    """Accuracy with which masks come and go with the sound, in clips in which sounds start or stop.

    Where nothing sounds, the ground truth is empty, and the prediction should be empty too. A model that
    finds the same objects all the time fails there (Mao et al., DiffusionAVS, Fig. 4). The score is computed
    from `onset_counts`, summed over all clips:

    - ``"seconds"``: the mean of two rates: the rate of seconds with ground truth in which something is
      predicted, and that of seconds without ground truth in which nothing is. A model that predicts something
      always, or never, has exactly 1/2.
    - ``"transitions"``: the rate of onsets and offsets that are predicted in the right second. Such a model
      has exactly 0.

    Args:
        measure: ``"seconds"`` or ``"transitions"``.
        min_area: fraction of a frame, in ``[0, 1)``. A frame counts as predicted if more than this fraction
            of it has ``sigmoid(logits) > 0.5``, so that a few stray pixels can be ignored.

    Raises:
        ValueError: if ``measure`` is unknown or ``min_area`` is not in ``[0, 1)``.

    Example:
        >>> on = torch.tensor([0, 1, 1, 0, 0])
        >>> masks = on.view(1, 5, 1, 1).expand(1, 5, 4, 4)
        >>> late = torch.tensor([0, 0, 1, 0, 0]).view(1, 5, 1, 1, 1).expand(1, 5, 1, 4, 4) * 18 - 9.0
        >>> metric = OnsetAccuracy()
        >>> metric.update(late, masks)
        >>> metric.compute()  # (1/2 + 3/3) / 2
        tensor(0.7500, dtype=torch.float64)
        >>> metric.rates()
        {'sounding': 0.5, 'silent': 1.0, 'onsets': 0.0, 'offsets': 1.0}
    """

    counts: Tensor

    def __init__(self, measure: str = "seconds", *, min_area: float = 0.0) -> None:
        check_one_of("measure", measure, MEASURES)
        if not 0 <= min_area < 1:
            raise ValueError(f"min_area: expected a fraction in [0, 1), got {min_area}")
        super().__init__(("onsets", min_area))  # both measures have the same states
        self.measure = measure
        self.min_area = min_area
        self.add_state("counts", torch.zeros(len(RATES), 2, dtype=torch.int64), "sum")

    def update(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> None:
        """Add clips, without waiting for an accelerator.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            valid: False where a frame is padding and does not count, ``(B, T)``, bool.

        Raises:
            ValueError: if a shape differs, or if a mask of a valid frame holds anything but 0 and 1. On an
                accelerator, ``compute`` raises the latter.
        """
        check_frames(logits, masks, valid)
        counted = self._counted(masks, valid)
        statistics = frame_statistics(logits, masks, curves=False)
        predicted = statistics.predicted > self.min_area * statistics.pixels
        self.counts += onset_counts(predicted, statistics.truth > 0, counted).sum(dim=0)

    def compute(self) -> Tensor:
        """Return the score, a float64 scalar in ``[0, 1]``; NaN without a clip in which a sound changes.

        Raises:
            ValueError: if a mask seen on an accelerator held anything but 0 and 1.
        """
        self._check()
        right, total = self.counts.double().unbind(-1)
        if self.measure == "seconds":
            return (right / total)[:2].mean()
        return right[2:].sum() / total[2:].sum()

    def rates(self) -> dict[str, float]:
        """Return the four rates by name; NaN where there is nothing to count."""
        with self.sync_context():
            counts = self.counts.tolist()
        return {
            name: right / total if total else math.nan
            for name, (right, total) in zip(RATES, counts, strict=True)
        }
