"""IoU and F of semantic masks, per class, by a named protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avslib._checks import check_all, check_one_of, check_positive, check_shape
from avslib.metrics._mask_metric import MaskMetric
from avslib.metrics._plots import plot_named_bars
from avslib.metrics.classes import (
    BACKGROUND,
    SemanticStatistics,
    class_areas,
    class_scores,
    mean_over_classes,
    semantic_statistics,
)

PROTOCOLS = ("avsbench_semantic", "present", "dataset", "cavp", "ddeseg")
_CHUNK = 2**22
"""Number of values that are processed at a time, so that a batch of any size takes little memory."""


class _SemanticScore(MaskMetric):
    """Base class of IoU and F of semantic masks, which share their sums in a ``MetricCollection``."""

    protocols = PROTOCOLS
    score = ""
    clips: Tensor

    def __init__(
        self,
        protocol: str = "avsbench_semantic",
        *,
        num_classes: int = 71,
        padding: str | None = None,
        background: str = "keep",
        classes: str = "all",
        ignore_index: int = -1,
    ) -> None:
        check_one_of("protocol", protocol, PROTOCOLS)
        check_one_of("background", background, BACKGROUND)
        check_one_of("classes", classes, ("all", "seen"))
        check_positive("num_classes", num_classes)
        if padding is None:
            padding = "count" if protocol == "avsbench_semantic" else "drop"
        check_one_of("padding", padding, ("count", "drop"))
        if classes != "all" and protocol != "avsbench_semantic":
            raise ValueError(f"classes: the protocol {protocol!r} has 'all', got {classes!r}")
        softmax = protocol != "cavp"  # cavp reads the logits, whose ties differ
        super().__init__(("semantic", num_classes, padding, ignore_index, softmax))
        self.protocol = protocol
        self.num_classes = num_classes
        self.padding = padding
        self.background = background
        self.classes = classes
        self.ignore_index = ignore_index
        self.softmax = softmax
        self.add_state("clips", torch.zeros((), dtype=torch.int64), "sum")
        for name, shape, dtype in (
            ("iou", (num_classes,), torch.float64),
            ("f", (num_classes,), torch.float64),
            ("seen", (num_classes,), torch.int64),
            ("labelled", (num_classes,), torch.int64),
            ("areas", (num_classes, 3), torch.int64),
        ):
            self.add_state(name, torch.zeros(shape, dtype=dtype), "sum")

    def update(
        self, logits: Tensor, masks: Tensor, valid: Tensor | None = None, *, padding: Tensor | None = None
    ) -> None:
        """Add clips, without waiting for an accelerator.

        Args:
            logits: scores before the softmax, ``(B, T, K, H, W)``, any float type, converted to float32; or
                the class of each pixel, ``(B, T, H, W)``, any integer type.
            masks: class of each pixel, ``(B, T, H, W)``.
            valid: False where a frame does not count, ``(B, T)``, bool. A clip without a valid frame is left
                out.
            padding: which of the frames that do not count are padding, ``(B, T)``, bool; None for all of
                them. The others enter no score, whatever the metric's ``padding``.

        Raises:
            ValueError: if a shape differs, or if a mask of a valid frame holds anything but classes and
                ``ignore_index``, or a prediction anything but classes. On an accelerator, where checking
                values would stall, ``compute`` raises the latter two.
        """
        size = check_shape("masks", masks, "b t h w")
        if logits.is_floating_point():
            check_shape("logits", logits, f"b t {self.num_classes} h w", **size)
        else:
            check_shape("logits", logits, "b t h w", **size)
        if valid is None:
            valid = torch.ones_like(masks[..., 0, 0], dtype=torch.bool)
        check_shape("valid", valid, "b t", b=size["b"], t=size["t"])
        valid = valid.bool()
        is_clip = valid.any(dim=1, keepdim=True)
        counted = valid
        if self.padding == "count":
            padding = ~valid if padding is None else padding
            check_shape("padding", padding, "b t", b=size["b"], t=size["t"])
            counted = valid | padding & is_clip
        frames = max(1, _CHUNK // max(1, logits[:1, :1].numel(), masks[:1, :1].numel()))
        folded = (tensor.flatten(0, 1).split(frames) for tensor in (logits.detach(), masks, valid, counted))
        areas, wrong = zip(*(self._frame_areas(*chunk) for chunk in zip(*folded, strict=True)), strict=True)
        wrong_frames = torch.stack(wrong).sum()
        if wrong_frames.device.type == "cpu":
            _check_classes(wrong_frames)
        self.wrong_frames += wrong_frames
        self.clips += is_clip.sum()
        for part in areas:
            for name, value in semantic_statistics(part)._asdict().items():
                setattr(self, name, getattr(self, name) + value)

    def _frame_areas(
        self, logits: Tensor, masks: Tensor, valid: Tensor, counted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the areas of frames ``(n, K, 3)``, and how many frames hold an invalid class."""
        if logits.is_floating_point():
            scores = logits.float()
            predicted = _first_largest(scores.softmax(dim=1) if self.softmax else scores)
        else:
            predicted = logits.long()
        labels = masks.long()
        ignored = labels == self.ignore_index
        inside = (labels >= 0) & (labels < self.num_classes) | ignored
        inside &= (predicted >= 0) & (predicted < self.num_classes)
        wrong = (~inside).flatten(1).any(dim=1) & valid
        is_valid = valid[:, None, None]
        areas = class_areas(
            torch.where(inside & is_valid, predicted, 0),  # padding is background in both
            torch.where(inside & is_valid & ~ignored, labels, 0),
            self.num_classes,
            ignored=ignored & is_valid | ~counted[:, None, None],
        )
        return areas, wrong.sum()

    def compute(self) -> Tensor:
        """Return the mean over classes, a float64 scalar in ``[0, 1]``; NaN without a clip.

        Raises:
            ValueError: if masks or predictions seen on an accelerator held anything but classes.
        """
        mean = mean_over_classes(self._class_scores(), self.background)
        return torch.where(self.clips > 0, mean, math.nan)

    def per_class(self) -> Tensor:
        """Return the score of every class, ``(K,)``, whatever ``background``; NaN for one without a score."""
        with self.sync_context():
            return self._class_scores()

    def _class_scores(self) -> Tensor:
        _check_classes(self.wrong_frames)
        statistics = SemanticStatistics(*(getattr(self, name) for name in SemanticStatistics._fields))
        return class_scores(statistics, self.protocol, score=self.score, classes=self.classes)

    def plot_classes(self, ax: Any = None, *, names: Sequence[str] | None = None) -> Any:
        """Plot a bar for the score of every class that has one; needs matplotlib.

        Args:
            ax: matplotlib axes to draw on; by default, new ones.
            names: names of the classes; by default, their numbers.

        Returns:
            The figure and its axes.
        """
        scores = self.per_class().tolist()
        names = [str(number) for number in range(len(scores))] if names is None else names
        kept = [(name, score) for name, score in zip(names, scores, strict=True) if not math.isnan(score)]
        return plot_named_bars(
            [name for name, _ in kept], [score for _, score in kept], ax, type(self).__name__
        )


class SemanticIoU(_SemanticScore):
    """Mean over classes of the intersection over union, by a named protocol.

    - ``"avsbench_semantic"`` (Zhou et al., 2023, and their AVSS test script): the IoU of each class is
      averaged over the frames in whose prediction or ground truth the class occurs, then over all classes. A
      class that never occurs scores 0. One stray pixel of a class makes its frame count.
    - ``"present"``: the same, but over the frames in whose ground truth the class occurs. A class that occurs
      in no ground truth does not count. Stray pixels lower only the scores of the classes that they cover.
      There is no published code.
    - ``"dataset"``, ``"cavp"``, ``"ddeseg"``: from areas summed over all frames, see
      :func:`~avslib.metrics.class_iou`.

    The number does not depend on the batches, the order of clips or the number of processes. In one
    ``MetricCollection``, IoU and F of all protocols that read frames in the same way count each pixel once.

    Args:
        protocol: one of the names above.
        num_classes: number of classes K, including the background; 71 in AVSBench-semantic.
        padding: treatment of frames that are not ``valid``: ``"count"`` takes them as background in both
            prediction and ground truth, as AVSBench does with the last five frames of its five-second clips;
            ``"drop"`` leaves them out. None for ``"count"`` in ``"avsbench_semantic"`` and ``"drop"``
            elsewhere.
        background: classes to average: ``"keep"`` for all; ``"drop"`` for all but class 0, the background;
            ``"drop_last"`` for all but the last, which AVSBench prints as "noBg".
        classes: ``"all"``, or in ``"avsbench_semantic"`` also ``"seen"`` for the mean over the classes that
            occur, which the test script prints while it runs.
        ignore_index: label of pixels that do not count; AVSBench uses -1, CAVP 255.

    Raises:
        ValueError: if an option is unknown, or the protocol has no such argument.

    Example:
        >>> metric = SemanticIoU(num_classes=3)
        >>> metric.update(torch.tensor([[[[0, 1, 1, 2]]]]), torch.tensor([[[[0, 0, 1, 1]]]]))
        >>> metric.per_class()
        tensor([0.5000, 0.3333, 0.0000], dtype=torch.float64)
        >>> metric.compute()
        tensor(0.2778, dtype=torch.float64)
    """

    score = "iou"


class SemanticFScore(_SemanticScore):
    """Mean over classes of F with beta^2 = 0.3 of the predicted classes, by a named protocol.

    The protocols and arguments are those of :class:`SemanticIoU`. Instead of the IoU of a frame they use
    F = 1.3 P R / (0.3 P + R), or 0 where that is 0 / 0. For F of the whole set, see
    :func:`~avslib.metrics.class_f`.

    Args:
        protocol: as for :class:`SemanticIoU`, like the arguments that follow.
        num_classes: number of classes K, including the background.
        padding: treatment of frames that are not ``valid``.
        background: classes to average.
        classes: whether classes that never occur count.
        ignore_index: label of pixels that do not count.

    Raises:
        ValueError: if an option is unknown, or the protocol has no such argument.

    Example:
        >>> metric = SemanticFScore(num_classes=3)
        >>> metric.update(torch.tensor([[[[0, 1, 1, 2]]]]), torch.tensor([[[[0, 0, 1, 1]]]]))
        >>> metric.per_class()
        tensor([0.8125, 0.5000, 0.0000], dtype=torch.float64)
    """

    score = "f"


def _check_classes(wrong: Tensor) -> None:
    check_all(
        wrong == 0,
        "masks: expected classes in [0, num_classes) or ignore_index, and such classes predicted, got others",
    )


def _first_largest(scores: Tensor) -> Tensor:
    """Return the argmax over dimension 1, three times as fast as PyTorch's on a CPU."""
    k = scores.shape[1]
    rank = torch.arange(k, 0, -1, device=scores.device, dtype=torch.uint8 if k < 256 else torch.int32)
    is_largest = scores == scores.amax(dim=1, keepdim=True)
    return (k - (is_largest * rank.view(1, k, 1, 1)).amax(dim=1).long()) % k  # NaN is class 0
