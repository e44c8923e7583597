"""Measures of a report: the score of every protocol, as a function of sums over clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avslib.metrics._batches import mean_over_batches
from avslib.metrics._binary import check_binary, check_frames, not_binary
from avslib.metrics.boundary import boundary_f
from avslib.metrics.f_score import _curves as pr_curves
from avslib.metrics.f_score import _frame_sums as f_sums
from avslib.metrics.f_score import _score as f_of
from avslib.metrics.jaccard import _frame_iou, davis_iou
from avslib.metrics.jaccard import _frame_sums as j_sums
from avslib.metrics.jaccard import _score as j_of
from avslib.metrics.protocols import READING, TWO_LOGITS, WHOLE_SET
from avslib.metrics.statistics import FrameStatistics, frame_statistics

ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("avsbench", "avsbench", {}),
    ("avsbench, 4 clips a batch", "avsbench", {"clips_per_batch": 4}),
    ("avsbench, one batch", "avsbench", {"clips_per_batch": math.inf}),
    ("avsbench, no silent frames", "avsbench", {"empty": "skip"}),
    ("sama", "sama", {}),
    ("combo", "combo", {}),
    ("combo, 8 GPUs", "combo", {"ranks": 8}),
    ("stepping_stones", "stepping_stones", {}),
    ("davis", "davis", {}),
    ("dataset", "dataset", {}),
    ("dataset, with background", "dataset", {"background": "keep"}),
    ("cavp", "cavp", {}),
    ("ddeseg", "ddeseg", {}),
)
"""Rows of a report on binary masks: the name in a table, the protocol, and its arguments."""

_CURVED = tuple({READING[protocol] for _, protocol, _ in ROWS if protocol not in WHOLE_SET})


class Batch:
    """Predictions for some clips, counted once for all measures that read them in the same way.

    Args:
        logits: ``(B, T, 1 or 2, H, W)``.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        valid: which frames count, ``(B, T)``, bool.

    Raises:
        ValueError: if a shape differs, or the mask of a valid frame holds anything but 0 and 1.
    """

    def __init__(self, logits: Tensor, masks: Tensor, valid: Tensor) -> None:
        check_frames(logits, masks, valid, two_logits=True)
        check_binary(not_binary(masks) & valid)
        self.logits = logits
        self.masks = masks
        self.valid = valid
        self._statistics: dict[str, FrameStatistics] = {}

    def statistics(self, reading: str) -> FrameStatistics:
        """Return the counts of every frame, computed on first use."""
        if reading not in self._statistics:
            self._statistics[reading] = frame_statistics(
                self.logits, self.masks, reading=reading, curves=reading in _CURVED
            )
        return self._statistics[reading]

    @cached_property
    def davis(self) -> Tensor:
        """J, F of contours and 1 for every frame, ``(B, T, 3)``."""
        j, f = davis_iou(self.statistics("probability")), boundary_f(self.logits, self.masks)
        return torch.stack([j, f, torch.ones_like(j)], dim=-1)

    def clip_sums(self, frame_sums: Tensor) -> Tensor:
        """Add up the sums of the valid frames of each clip, ``(B, T, s)`` -> ``(B, s)``."""
        return torch.where(self.valid[..., None], frame_sums.double(), 0.0).sum(dim=1)

    def has_truth(self) -> Tensor:
        """Return which frames have ground truth, ``(B, T)``."""
        return self.statistics("probability").truth > 0

    def frames(self) -> dict[str, Tensor]:
        """Return what a report keeps for every valid frame: AVSBench's J, and whether it has ground truth."""
        iou = _frame_iou(self.statistics("probability"), "tn_ratio")
        return {"frame_iou": iou[self.valid], "frame_truth": self.has_truth()[self.valid]}

    def totals(self) -> dict[str, Tensor]:
        """Return the totals of precision, recall and F over frames with ground truth, ``(3, 255)``."""
        curves = pr_curves(self.statistics("probability"))
        return {"curves": curves[self.valid & self.has_truth()].sum(dim=0)}


class Measure(NamedTuple):
    """One score by one protocol."""

    score: str
    """``"J"``, ``"F"``, ``"J&F"``, or another name that the protocol uses."""
    row: str
    """Name in a table of the protocol with these arguments."""
    protocol: str
    sums: str
    """Name of the sums of clips that it reads; measures that read the same sums share the name."""
    clip_sums: Callable[[Any], Tensor]
    """Function from a ``Batch`` or ``ClassBatch`` to the sums of each of its clips, ``(B, s)``, float64."""
    of: Callable[[Tensor], Tensor]
    """Function from the sums of the protocol's batches ``(..., s)`` to their scores ``(...)``."""
    clips_per_batch: float = 1
    ranks: int = 1
    of_clips: bool = True
    """Whether the score of a single clip is meaningful."""
    per_class: Callable[[Tensor], Tensor] | None = None
    """Function from sums ``(..., s)`` to the score of every class, ``(..., K)``; None for binary masks."""

    def value(self, sums: Tensor) -> Tensor:
        """Return the score of clips from their sums, ``(n, s)``, in the protocol's order."""
        return mean_over_batches(sums, self.of, clips_per_batch=self.clips_per_batch, ranks=self.ranks)

    @property
    def name(self) -> str:
        """Score and row, which together identify a measure."""
        return f"{self.score}, {self.row}"


def binary_measures(*, logits: int = 1, wrong_sound: bool = False) -> tuple[list[Measure], dict[str, str]]:
    """List the measures that apply to predictions of binary masks, and why the other protocols do not.

    Args:
        logits: number of logits per pixel, 1 or 2.
        wrong_sound: whether the predictions were made under a wrong sound, so that every predicted pixel is
            a false positive.

    Returns:
        The measures in table order, and the reason for each protocol that is left out.

    Raises:
        ValueError: if ``logits`` is neither 1 nor 2.

    Example:
        >>> measures, left_out = binary_measures(logits=2)
        >>> left_out["sama"]
        'takes one logit, got two'
    """
    if logits not in (1, 2):
        raise ValueError(f"logits: expected 1 or 2 a pixel for binary masks, got {logits}")
    measures: list[Measure] = []
    left_out: dict[str, str] = {}
    for row, protocol, options in ROWS:
        if logits == 2 and protocol not in TWO_LOGITS:
            left_out[protocol] = "takes one logit, got two"
        elif protocol == "davis":
            scores = (("J", partial(_mean, 0)), ("contour F", partial(_mean, 1)), ("J&F", _j_and_f))
            measures += [Measure(score, row, protocol, "davis", _davis, of) for score, of in scores]
        else:
            measures += [_j(row, protocol, **options), _f(row, protocol, **options)]
    if logits == 2:
        left_out |= dict.fromkeys(("robust", "refavs"), "takes one logit, got two")
    elif wrong_sound:
        measures += [
            Measure("false-positive rate", "robust", "robust", "predicted", _predicted, partial(_mean, 0)),
            Measure(
                "S",
                "refavs, 4 clips a batch",
                "refavs",
                "predicted",
                _predicted,
                _root,
                clips_per_batch=4,
                of_clips=False,
            ),
        ]
    else:
        left_out |= dict.fromkeys(("robust", "refavs"), "of predictions under a wrong sound")
    left_out |= dict.fromkeys(("avsbench_semantic", "present"), "of masks of classes")
    return measures, left_out


def _j(
    row: str,
    protocol: str,
    *,
    clips_per_batch: float = 1,
    ranks: int = 1,
    empty: str = "tn_ratio",
    background: str = "drop",
) -> Measure:
    whole_set, reading = protocol in WHOLE_SET, READING[protocol]
    return Measure(
        "J",
        row,
        protocol,
        f"areas/{reading}" if whole_set else f"J/{reading}/{empty}",
        lambda batch: batch.clip_sums(j_sums(batch.statistics(reading), protocol, empty)),
        lambda sums: j_of(sums, protocol, background),
        math.inf if whole_set else clips_per_batch,
        ranks,
        of_clips=whole_set or clips_per_batch == ranks == 1,
    )


def _f(
    row: str,
    protocol: str,
    *,
    clips_per_batch: float = 1,
    ranks: int = 1,
    empty: str = "zero",
    background: str = "drop",
) -> Measure:
    whole_set, reading = protocol in WHOLE_SET, READING[protocol]
    return Measure(
        "F",
        row,
        protocol,
        f"areas/{reading}" if whole_set else f"F/{reading}",
        lambda batch: batch.clip_sums(f_sums(batch.statistics(reading), protocol)),
        lambda sums: f_of(sums, protocol, empty, background),
        math.inf if whole_set else clips_per_batch,
        ranks,
        of_clips=whole_set or clips_per_batch == ranks == 1,
    )


def _davis(batch: Batch) -> Tensor:
    return batch.clip_sums(batch.davis)


def _predicted(batch: Batch) -> Tensor:
    """Return the sums over frames of the predicted fraction, the predicted area, the whole area, and 1."""
    statistics = batch.statistics("probability")
    predicted, pixels = statistics.predicted.double(), statistics.pixels.double()
    fraction = predicted / (pixels + 1e-7)
    return batch.clip_sums(torch.stack([fraction, predicted, pixels, torch.ones_like(pixels)], dim=-1))


def _mean(column: int, sums: Tensor) -> Tensor:
    return sums[..., column] / sums[..., -1]


def _j_and_f(sums: Tensor) -> Tensor:
    return (sums[..., 0] + sums[..., 1]) / 2 / sums[..., 2]


def _root(sums: Tensor) -> Tensor:
    return (sums[..., 1] / sums[..., 2]).sqrt()
