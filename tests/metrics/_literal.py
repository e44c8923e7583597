"""Every protocol of binary masks once more: slow, and in the words of its definition."""

from __future__ import annotations

import math
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor


class Frame(NamedTuple):
    logits: Tensor  # (1 or 2, H, W)
    mask: Tensor  # (H, W)


Clips = list[list[Frame]]
THRESHOLDS = torch.linspace(0, 1 - 1e-10, 255)


def clips_of(logits: Tensor, masks: Tensor, valid: Tensor) -> Clips:
    """The clips of a batch, without frames of padding and without clips of it."""
    clips = [
        [Frame(logits[b, t], masks[b, t]) for t in range(masks.shape[1]) if valid[b, t]]
        for b in range(len(masks))
    ]
    return [clip for clip in clips if clip]


def pair(logits: Tensor) -> tuple[Tensor, Tensor]:
    return (torch.zeros_like(logits[0]), logits[0]) if len(logits) == 1 else (logits[0], logits[1])


def probability(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits[0]) if len(logits) == 1 else torch.softmax(logits, 0)[1]


def predict(logits: Tensor, protocol: str, threshold: float) -> Tensor:
    background, foreground = pair(logits)
    if protocol in ("cavp", "stepping_stones") or (protocol == "ddeseg" and len(logits) == 2):
        return foreground > background
    return probability(logits) > threshold


def score_map(logits: Tensor, protocol: str) -> Tensor:
    background, foreground = pair(logits)
    if protocol == "sama":
        return foreground
    return (
        torch.sigmoid(2 * foreground - background) if protocol == "stepping_stones" else probability(logits)
    )


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def in_batches(clips: Clips, clips_per_batch: float) -> list[list[Frame]]:
    size = len(clips) if clips_per_batch == math.inf else int(clips_per_batch)
    return [list(chain(*clips[i : i + size])) for i in range(0, len(clips), max(1, size))]


def on_ranks(scores: list[float | None], ranks: int) -> float:
    """detectron2's InferenceSampler: blocks as even as possible, the first ones longer."""
    sizes = [len(scores) // ranks + (rank < len(scores) % ranks) for rank in range(ranks)]
    starts = [sum(sizes[:rank]) for rank in range(ranks)]
    blocks = [
        [score for score in scores[start : start + size] if score is not None]
        for start, size in zip(starts, sizes, strict=True)
    ]
    return mean([mean(block) for block in blocks if block])


def confusion(clips: Clips, protocol: str, threshold: float) -> list[tuple[int, int, int]]:
    """(TP, FP, FN) of background and foreground over the whole set."""
    counts = [[0, 0, 0], [0, 0, 0]]
    for frame in chain(*clips):
        predicted = predict(frame.logits, protocol, threshold)
        for label in (0, 1):
            p, m = predicted == bool(label), frame.mask == label
            counts[label][0] += int((p & m).sum())
            counts[label][1] += int((p & ~m).sum())
            counts[label][2] += int((~p & m).sum())
    return [(tp, fp, fn) for tp, fp, fn in counts]


def literal_j(
    clips: Clips,
    protocol: str,
    *,
    clips_per_batch: float = 1,
    ranks: int = 1,
    threshold: float = 0.5,
    empty: str = "tn_ratio",
    background: str = "drop",
) -> float:
    if not clips:
        return math.nan
    if protocol in ("dataset", "cavp", "ddeseg"):
        ratios = []
        for tp, fp, fn in confusion(clips, protocol, threshold):
            if protocol == "cavp":
                ratios.append(tp / (tp + fp + fn + 2.220446049250313e-16))
            elif tp + fp + fn:
                ratios.append(tp / (tp + fp + fn + (1e-10 if protocol == "ddeseg" else 0)))
            else:
                ratios.append(math.nan)
        if protocol == "dataset" and background == "drop":
            return ratios[1]
        return mean([ratio for ratio in ratios if not math.isnan(ratio)])
    epsilon = 0 if protocol == "davis" else 1e-7
    empty = "zero_one" if protocol == "davis" else empty
    scores: list[float | None] = []
    for batch in in_batches(clips, clips_per_batch):
        values = []
        for frame in batch:
            predicted, mask = predict(frame.logits, protocol, threshold), frame.mask == 1
            if mask.any():
                both, either = int((predicted & mask).sum()), int((predicted | mask).sum())
                values.append(both / (either + epsilon))
            elif empty == "tn_ratio":
                values.append(int((~predicted).sum()) / (mask.numel() + epsilon))
            elif empty == "zero_one":
                values.append(float(not predicted.any()))
        scores.append(mean(values) if values else None)
    return on_ranks(scores, ranks)


def f_at(scores: Tensor, mask: Tensor, threshold: Tensor) -> float:
    selected = scores >= threshold
    hit = int((selected & (mask == 1)).sum())
    precision = hit / (int(selected.sum()) + 1e-20)
    recall = hit / (int((mask == 1).sum()) + 1e-20)
    return 1.3 * precision * recall / (0.3 * precision + recall) if hit else 0.0


def literal_f(
    clips: Clips,
    protocol: str,
    *,
    clips_per_batch: float = 1,
    ranks: int = 1,
    threshold: float = 0.5,
    empty: str = "zero",
    background: str = "drop",
) -> float:
    if not clips:
        return math.nan
    if protocol in ("dataset", "cavp", "ddeseg"):
        fs = []
        for tp, fp, fn in confusion(clips, protocol, threshold):
            if tp + fp + fn == 0:
                fs.append(math.nan)
            elif protocol == "ddeseg":
                p, r = tp / (tp + fp + 1e-10), tp / (tp + fn + 1e-10)
                fs.append(1.3 * p * r / (0.3 * p + r + 1e-10))
            else:
                fs.append(1.3 * tp / (1.3 * tp + 0.3 * fn + fp))
        if protocol == "dataset" and background == "drop":
            return fs[1]
        return mean([f for f in fs if not math.isnan(f)])
    scores: list[float | None] = []
    for batch in in_batches(clips, clips_per_batch):
        curves = [
            [f_at(score_map(frame.logits, protocol), frame.mask, threshold) for threshold in THRESHOLDS]
            for frame in batch
            if (frame.mask == 1).any()
        ]
        if curves:
            scores.append(max(mean(list(column)) for column in zip(*curves, strict=True)))
        else:
            scores.append(None if empty == "skip" else 0.0)
    return on_ranks(scores, ranks)
