"""Scores of classes, from the areas of frames or from areas summed over a whole set."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from avslib._checks import check_one_of
from avslib.metrics.protocols import WHOLE_SET

BETA_SQUARED = 0.3
BACKGROUND = ("keep", "drop_last", "drop")


def class_iou(areas: Tensor, protocol: str = "dataset") -> Tensor:
    """Return the intersection over union of every class from areas summed over a whole set.

    ``"dataset"`` is the plain ratio, and NaN for a class that never occurs. ``"cavp"`` (the evaluation that
    CAVP, Chen et al., CVPR 2024, published first) gives such a class 0. ``"ddeseg"`` (Liu et al., CVPR 2025)
    gives it NaN and adds 1e-10 to the union.

    Args:
        areas: number of pixels of every class in both prediction and ground truth, in the prediction, and in
            the ground truth, ``(..., K, 3)``.
        protocol: one of the names above.

    Returns:
        Scores ``(..., K)``, float64, in ``[0, 1]``; NaN for a class that does not count.

    Raises:
        ValueError: if there is no such protocol.

    Example:
        >>> areas = torch.tensor([[6, 8, 7], [1, 2, 3], [0, 0, 0]])
        >>> class_iou(areas)
        tensor([0.6667, 0.2500,    nan], dtype=torch.float64)
        >>> class_iou(areas, "cavp")
        tensor([0.6667, 0.2500, 0.0000], dtype=torch.float64)
    """
    check_one_of("protocol", protocol, WHOLE_SET)
    intersection, predicted, truth = areas.double().unbind(-1)
    union = predicted + truth - intersection
    if protocol == "cavp":
        return intersection / (union + torch.finfo(torch.float64).eps)
    if protocol == "ddeseg":
        return torch.where(union > 0, intersection / (union + 1e-10), math.nan)
    return intersection / union


def class_f(areas: Tensor, protocol: str = "dataset") -> Tensor:
    """Return F with beta^2 = 0.3 of every class from areas summed over a whole set.

    F = 1.3 TP / (1.3 TP + 0.3 FN + FP). ``"ddeseg"`` computes it from precision and recall, with 1e-10 added
    to every denominator.

    Args:
        areas: as for :func:`class_iou`.
        protocol: ``"dataset"``, ``"cavp"`` or ``"ddeseg"``.

    Returns:
        Scores ``(..., K)``, float64, in ``[0, 1]``; NaN for a class that never occurs.

    Raises:
        ValueError: if there is no such protocol.
    """
    check_one_of("protocol", protocol, WHOLE_SET)
    intersection, predicted, truth = areas.double().unbind(-1)
    if protocol == "ddeseg":
        precision, recall = intersection / (predicted + 1e-10), intersection / (truth + 1e-10)
        f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall + 1e-10)
        return torch.where(predicted + truth > 0, f, math.nan)
    # 1.3 TP + 0.3 FN + FP is the predicted area and 0.3 of the true one
    return (1 + BETA_SQUARED) * intersection / (predicted + BETA_SQUARED * truth)


def mean_over_classes(scores: Tensor, background: str = "keep") -> Tensor:
    """Return the mean over the classes that have a score.

    Args:
        scores: ``(..., K)``, NaN for a class without a score.
        background: classes to average: ``"keep"`` for all, ``"drop"`` for all but class 0, ``"drop_last"``
            for all but the last one, which AVSBench takes for the background.

    Returns:
        Scores ``(...)``; NaN if no class has a score.
    """
    start, length = int(background == "drop"), scores.shape[-1] - int(background != "keep")
    return scores.narrow(-1, start, length).nanmean(dim=-1)


def two_classes(sums: Tensor) -> Tensor:
    """Return the areas ``(..., 2, 3)`` of background and foreground.

    Args:
        sums: number of pixels, and of foreground pixels in the ground truth, in the prediction and in both,
            ``(..., 4)``.
    """
    pixels, truth, predicted, intersection = sums.unbind(-1)
    neither = pixels - truth - predicted + intersection
    background = torch.stack([neither, pixels - predicted, pixels - truth], dim=-1)
    return torch.stack([background, torch.stack([intersection, predicted, truth], dim=-1)], dim=-2)


class SemanticStatistics(NamedTuple):
    """Sums over frames for each class, which determine the scores of all semantic protocols."""

    iou: Tensor  # (K,), float64, sum of the IoU over the frames in which the class occurs
    f: Tensor  # (K,), float64, sum of F over the same frames
    seen: Tensor  # (K,), int64, frames in whose prediction or labels the class occurs
    labelled: Tensor  # (K,), int64, frames in whose labels the class occurs
    areas: Tensor  # (K, 3), int64, pixels in both, in the prediction, in the labels


def class_areas(predicted: Tensor, labels: Tensor, num_classes: int, *, ignored: Tensor) -> Tensor:
    """Count the pixels of every class in every frame, in one pass.

    Args:
        predicted: class of each pixel, ``(n, H, W)``, in ``[0, num_classes)``.
        labels: the same for the ground truth.
        num_classes: number of classes K.
        ignored: True where a pixel does not count, ``(n, H, W)``, bool.

    Returns:
        Number of pixels in both, in the prediction and in the labels, ``(n, K, 3)``, int64.
    """
    n, k = len(labels), num_classes
    first = torch.arange(n, device=labels.device).view(n, 1, 1)
    cell = (first * k + labels.long()).mul_(k).add_(predicted.long()).flatten()
    # bincount would wait for the accelerator to learn the length of its result
    counts = cell.new_zeros(n * k * k).scatter_add_(0, cell, (~ignored).flatten().long()).view(n, k, k)
    return torch.stack([counts.diagonal(dim1=1, dim2=2), counts.sum(dim=1), counts.sum(dim=2)], dim=-1)


def semantic_statistics(areas: Tensor) -> SemanticStatistics:
    """Return sums over frames, from the areas ``(n, K, 3)`` that :func:`class_areas` returned."""
    intersection, predicted, labelled = areas.double().unbind(-1)
    union = predicted + labelled - intersection
    f = (1 + BETA_SQUARED) * intersection / (predicted + BETA_SQUARED * labelled)
    return SemanticStatistics(
        (intersection / union).nan_to_num(nan=0.0).sum(dim=0),
        f.nan_to_num(nan=0.0).sum(dim=0),
        (union > 0).sum(dim=0),
        (labelled > 0).sum(dim=0),
        areas.sum(dim=0),
    )


def class_scores(
    statistics: SemanticStatistics, protocol: str, *, score: str, classes: str = "all"
) -> Tensor:
    """Return the score of every class.

    Args:
        statistics: sums over the frames of a whole set.
        protocol: as for :class:`SemanticIoU`.
        score: ``"iou"`` or ``"f"``.
        classes: as for :class:`SemanticIoU`.

    Returns:
        Scores ``(..., K)``, float64, in ``[0, 1]``; NaN for a class that does not count.
    """
    if protocol not in ("avsbench_semantic", "present"):
        return (class_iou if score == "iou" else class_f)(statistics.areas, protocol)
    sums = statistics.iou if score == "iou" else statistics.f
    if protocol == "present":
        return sums / statistics.labelled
    return (sums / statistics.seen).nan_to_num(nan=0.0 if classes == "all" else math.nan)
