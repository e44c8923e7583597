"""Measures of a report on semantic masks, the counterpart of the measures on binary masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from avslib._checks import check_shape
from avslib.metrics.classes import SemanticStatistics, class_scores, mean_over_classes
from avslib.metrics.measures import Measure, binary_measures
from avslib.metrics.protocols import PROTOCOLS
from avslib.metrics.semantic import PROTOCOLS as OF_CLASSES
from avslib.metrics.semantic import SemanticIoU, _check_classes, _first_largest

CLASS_ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("avsbench_semantic", "avsbench_semantic", {}),
    ("avsbench_semantic, no padding", "avsbench_semantic", {"padding": "drop"}),
    ("avsbench_semantic, noBg", "avsbench_semantic", {"background": "drop_last"}),
    ("avsbench_semantic, no background", "avsbench_semantic", {"background": "drop"}),
    ("avsbench_semantic, seen classes", "avsbench_semantic", {"classes": "seen"}),
    ("present", "present", {}),
    ("present, no background", "present", {"background": "drop"}),
    ("dataset", "dataset", {}),
    ("dataset, no background", "dataset", {"background": "drop"}),
    ("cavp", "cavp", {}),
    ("ddeseg", "ddeseg", {}),
)
"""Rows of a report on semantic masks: the name in a table, the protocol, and its arguments."""

_SUMS = 7
"""Number of sums per class: IoU, F, frames in which it occurs, frames labelled with it, and three areas."""


class ClassBatch:
    """Predicted classes of some clips, counted once for all measures that read them in the same way.

    Args:
        logits: ``(B, T, K, H, W)``, or the class of each pixel, ``(B, T, H, W)``, any integer type.
        masks: class of each pixel, ``(B, T, H, W)``.
        valid: which frames count, ``(B, T)``, bool.
        num_classes: number of classes K, including the background.
        padding: which of the other frames are padding, ``(B, T)``, bool; None for all of them.

    Raises:
        ValueError: if a shape differs. ``sums`` raises it if the mask or prediction of a valid frame holds an
            invalid class.
    """

    def __init__(
        self,
        logits: Tensor,
        masks: Tensor,
        valid: Tensor,
        *,
        num_classes: int,
        padding: Tensor | None = None,
    ) -> None:
        size = check_shape("masks", masks, "b t h w")
        shape = f"b t {num_classes} h w" if logits.is_floating_point() else "b t h w"
        check_shape("logits", logits, shape, **size)
        padding = ~valid if padding is None else padding
        for name, frames in (("valid", valid), ("padding", padding)):
            check_shape(name, frames, "b t", b=size["b"], t=size["t"])
        self.logits = logits
        self.masks = masks
        self.valid = valid
        self.padding = padding
        self.num_classes = num_classes
        self._sums: dict[str, Tensor] = {}

    def sums(self, protocol: str) -> Tensor:
        """Return the sums of each clip, ``(B, 7 K + 1)``, computed on first use.

        The first 7 K are the state of :class:`SemanticIoU` after that clip alone, the last is the number of
        padding frames.
        """
        reading = _reading(protocol)
        if reading not in self._sums:
            metric = SemanticIoU(protocol, num_classes=self.num_classes, padding="drop")
            metric.to(self.masks.device)
            parts = (self.logits, self.masks, self.valid, self.padding)
            clips = zip(*(part.split(1) for part in parts), strict=True)
            self._sums[reading] = torch.cat([_sums_of_clip(metric, *clip) for clip in clips])
        return self._sums[reading]

    def has_truth(self) -> Tensor:
        """Return which frames have anything but background in their ground truth, ``(B, T)``."""
        return (self.masks > 0).flatten(2).any(dim=2)

    def frames(self) -> dict[str, Tensor]:
        """Return what a report keeps for every valid frame: nothing."""
        return {}

    def totals(self) -> dict[str, Tensor]:
        """Return the totals over all clips: the number of frames labelled with each class, ``(K,)``."""
        sums = self.sums("avsbench_semantic")[:, :-1].sum(dim=0)
        return {"labelled": sums.unflatten(0, (self.num_classes, _SUMS))[:, 3]}


def semantic_measures(*, num_classes: int = 71) -> tuple[list[Measure], dict[str, str]]:
    """List the measures that apply to predicted classes, and why the other protocols do not.

    Args:
        num_classes: number of classes K, including the background.

    Returns:
        The measures in table order, and the reason for each protocol that is left out.

    Example:
        >>> measures, left_out = semantic_measures(num_classes=3)
        >>> measures[4].name
        'J, avsbench_semantic, noBg'
        >>> left_out["avsbench"]
        'of binary masks'
    """
    measures = [
        _measure(score, row, protocol, num_classes, **options)
        for row, protocol, options in CLASS_ROWS
        for score in ("J", "F")
    ]
    return measures, dict.fromkeys((word for word in PROTOCOLS if word not in OF_CLASSES), "of binary masks")


def measures_of(measured: Mapping[str, Any]) -> tuple[list[Measure], dict[str, str]]:
    """Call ``semantic_measures`` if the arguments include ``num_classes``, else ``binary_measures``."""
    return (semantic_measures if "num_classes" in measured else binary_measures)(**measured)


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the class of each pixel, ``(B, T, H, W)``, from logits ``(B, T, K, H, W)`` or classes."""
    if not logits.is_floating_point():
        return logits
    return torch.stack([_first_largest(clip.detach().float().softmax(dim=1)) for clip in logits])


def _measure(
    score: str,
    row: str,
    protocol: str,
    num_classes: int,
    *,
    padding: str | None = None,
    background: str = "keep",
    classes: str = "all",
) -> Measure:
    per_class = partial(
        _per_class,
        num_classes=num_classes,
        score={"J": "iou", "F": "f"}[score],
        protocol=protocol,
        count_padding=protocol == "avsbench_semantic" and padding != "drop",
        classes=classes,
    )
    return Measure(
        score,
        row,
        protocol,
        f"classes/{_reading(protocol)}",
        lambda batch: batch.sums(protocol),
        lambda sums: mean_over_classes(per_class(sums), background),
        clips_per_batch=math.inf,
        # in the other protocols a class that a clip lacks scores 0, so they say little about a single clip
        of_clips=protocol in ("present", "dataset", "ddeseg"),
        per_class=per_class,
    )


def _per_class(
    sums: Tensor, *, num_classes: int, score: str, protocol: str, count_padding: bool, classes: str
) -> Tensor:
    """Return the score of every class, ``(..., K)``, from sums of clips, ``(..., 7 K + 1)``."""
    of_classes = sums[..., :-1].unflatten(-1, (num_classes, _SUMS))
    if count_padding:  # padding is perfectly predicted background; its area is not used
        perfect = torch.zeros_like(of_classes)
        perfect[..., 0, :4] = sums[..., -1:]
        of_classes = of_classes + perfect
    iou, f, seen, labelled = of_classes[..., :4].unbind(-1)
    statistics = SemanticStatistics(iou, f, seen, labelled, of_classes[..., 4:])
    return class_scores(statistics, protocol, score=score, classes=classes)


def _sums_of_clip(
    metric: SemanticIoU, logits: Tensor, masks: Tensor, valid: Tensor, padding: Tensor
) -> Tensor:
    metric.reset()
    metric.update(logits, masks, valid)
    _check_classes(metric.wrong_frames)
    parts = [getattr(metric, name).double() for name in SemanticStatistics._fields]
    sums = torch.cat([part.view(metric.num_classes, -1) for part in parts], dim=1).flatten()
    padded = torch.where(valid.any(), (padding & ~valid).sum(), 0)
    return torch.cat([sums, padded.double().view(1)])[None]


def _reading(protocol: str) -> str:
    return "scores" if protocol == "cavp" else "softmax"
