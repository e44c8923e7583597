"""J: intersection over union of masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from avslib._checks import check_one_of
from avslib.metrics._batches import ClipBatchMean, clip_sums, mean_over_batches
from avslib.metrics._binary import check_binary, check_frames, not_binary
from avslib.metrics._plots import plot_bars
from avslib.metrics.classes import class_iou, mean_over_classes, two_classes
from avslib.metrics.protocols import READING, TWO_LOGITS, WHOLE_SET, check_arguments
from avslib.metrics.statistics import FrameStatistics, frame_statistics

EMPTY = ("tn_ratio", "skip", "zero_one")
BINS = 50
_OPTIONS = {
    "avsbench": ("clips_per_batch", "threshold", "empty"),
    "sama": ("clips_per_batch", "threshold", "empty"),
    "combo": ("ranks", "empty"),
    "stepping_stones": ("empty",),
    "davis": (),
    "dataset": ("threshold", "background"),
    "cavp": (),
    "ddeseg": (),
}


def frame_iou(logits: Tensor, masks: Tensor, *, threshold: float = 0.5, empty: str = "tn_ratio") -> Tensor:
    """Return the intersection over union of every frame.

    The prediction is ``sigmoid(logits) > threshold`` in float32: a logit of 2e-8 has probability 0.5 there
    and is background. ``empty`` sets the score of a frame without ground truth: ``"tn_ratio"`` for the
    fraction of its pixels that are predicted as background (AVSBench, Zhou et al., ECCV 2022);
    ``"zero_one"`` for 1 if nothing is predicted, else 0; ``"skip"`` for NaN.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.
        empty: score of a frame without ground truth.

    Returns:
        One score per frame, ``(B, T)``, float64, in ``[0, 1]``.

    Raises:
        ValueError: if a shape differs, ``masks`` holds anything but 0 and 1, ``threshold`` is not in
            ``[0, 1)``, or ``empty`` is unknown.

    Example:
        >>> logits = torch.tensor([[-9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, 9.0]]).view(1, 2, 1, 2, 2)
        >>> masks = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]).view(1, 2, 2, 2)
        >>> frame_iou(logits, masks)
        tensor([[0.6667, 0.7500]], dtype=torch.float64)
    """
    check_frames(logits, masks)
    check_binary(not_binary(masks))
    check_one_of("empty", empty, EMPTY)
    return _frame_iou(frame_statistics(logits, masks, threshold=threshold, curves=False), empty)


def mask_iou(logits: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return the mean of `frame_iou` over all frames, taken as one batch of the protocol.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Returns:
        A scalar, float64, in ``[0, 1]``.

    Raises:
        ValueError: if a shape differs, ``masks`` holds anything but 0 and 1, or ``threshold`` is not in
            ``[0, 1)``.

    Example:
        >>> mask_iou(torch.zeros(1, 5, 1, 4, 4), torch.ones(1, 5, 4, 4))
        tensor(0., dtype=torch.float64)
    """
    return frame_iou(logits, masks, threshold=threshold).mean()


def jaccard(
    statistics: FrameStatistics,
    clip: Tensor,
    protocol: str = "avsbench",
    *,
    clips_per_batch: float = 1,
    ranks: int = 1,
    empty: str = "tn_ratio",
    background: str = "drop",
) -> Tensor:
    """Compute the score of :class:`MaskIoU` from counts that :func:`frame_statistics` returned.

    Args:
        statistics: counts of frames, with one leading axis ``(n,)``, made with the reading of the protocol.
        clip: number of the clip that each frame belongs to, ``(n,)``, int64; batches follow this order.
        protocol: as for :class:`MaskIoU`, like the arguments that follow.
        clips_per_batch: clips in a batch.
        ranks: processes of ``"combo"``.
        empty: score of a frame without ground truth.
        background: whether the background counts in ``"dataset"``.

    Returns:
        A scalar, float64, in ``[0, 1]``; NaN without a clip.

    Raises:
        ValueError: if an option is unknown, a number is out of range, or the protocol has no such argument.

    Example:
        >>> logits = torch.tensor([[-9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, 9.0]]).view(1, 2, 1, 2, 2)
        >>> masks = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]).view(1, 2, 2, 2)
        >>> statistics = frame_statistics(logits, masks)
        >>> counts = FrameStatistics(*(field.flatten(0, 1) for field in statistics))
        >>> for word in ("avsbench", "dataset"):
        ...     print(round(jaccard(counts, torch.tensor([0, 0]), word).item(), 4))
        0.7083
        0.5
    """
    check_arguments(
        protocol,
        _OPTIONS,
        clips_per_batch=clips_per_batch,
        ranks=ranks,
        threshold=0.5,
        empty=empty,
        empty_words=EMPTY,
        background=background,
    )
    sums = clip_sums(_frame_sums(statistics, protocol, empty), clip)
    if protocol in WHOLE_SET:
        clips_per_batch = math.inf
    return mean_over_batches(
        sums,
        lambda sums: _score(sums, protocol, background),
        clips_per_batch=clips_per_batch,
        ranks=ranks,
    )


class MaskIoU(ClipBatchMean):
    """Intersection over union, "J" or "mIoU", by a named protocol.

    - ``"avsbench"`` (Zhou et al., ECCV 2022, and their test script): `frame_iou`, averaged over the frames of
      a batch, then over batches. Batches are those of the protocol, not of the user: ``clips_per_batch``
      consecutive clips. The last batch may be shorter, but has the same weight. If all clips have the same
      length, the size of a batch matters only through a shorter last batch. ``"sama"`` is the same.
    - ``"combo"`` (COMBO, Yang et al., CVPR 2024): one clip per batch. detectron2's test sampler deals the
      clips to ``ranks`` GPUs in consecutive blocks, and the score is the mean of the GPUs' means. Takes one
      logit or two.
    - ``"stepping_stones"`` (Ma et al., ECCV 2024): one clip per batch. The prediction is the larger of two
      logits l0 and l1. A single logit is taken as l1, with l0 = 0.
    - ``"davis"`` (Perazzi et al., CVPR 2016): mean over the frames of a clip, then over clips. There is no
      epsilon, and a frame without ground truth scores 1 if nothing is predicted in it, else 0.
    - ``"dataset"``, ``"cavp"``, ``"ddeseg"``: one ratio for the whole set, see
      :func:`~avslib.metrics.class_iou`. ``"dataset"`` scores the foreground alone, or with
      ``background="keep"`` the mean of background and foreground; the others always score this mean. They
      take one logit or two; of two, ``"cavp"`` and ``"ddeseg"`` predict the larger one.

    With several processes the number is the same, whatever the order of clips. Where batches hold several
    clips, or ranks are emulated, this needs ``index`` in ``update``; without it the clips of process 0 come
    first, then those of process 1, and so on.

    Args:
        protocol: one of the names above.
        clips_per_batch: clips in a batch of ``"avsbench"`` or ``"sama"``; ``math.inf`` for one batch of all
            clips. AVSBench's published test uses 4; the default of its test script is 1.
        ranks: number of GPUs of ``"combo"``; its published test scripts use 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground; Ref-AVS uses 0.4.
        empty: score of a frame without ground truth, see `frame_iou`; ``"skip"`` leaves out such frames, and
            batches that have no other frames.
        background: whether ``"dataset"`` includes the background: ``"drop"`` or ``"keep"``.

    Raises:
        ValueError: if an option is unknown, a number is out of range, or the protocol has no such argument.

    Example:
        >>> metric = MaskIoU()
        >>> metric.update(torch.full((2, 5, 1, 4, 4), 3.0), torch.ones(2, 5, 4, 4, dtype=torch.int64))
        >>> metric.compute()
        tensor(1.0000, dtype=torch.float64)
    """

    protocols = tuple(_OPTIONS)
    frame_histogram: Tensor

    def __init__(
        self,
        protocol: str = "avsbench",
        *,
        clips_per_batch: float = 1,
        ranks: int = 1,
        threshold: float = 0.5,
        empty: str = "tn_ratio",
        background: str = "drop",
    ) -> None:
        check_arguments(
            protocol,
            _OPTIONS,
            clips_per_batch=clips_per_batch,
            ranks=ranks,
            threshold=threshold,
            empty=empty,
            empty_words=EMPTY,
            background=background,
        )
        super().__init__(
            ("J", protocol, clips_per_batch, ranks, threshold, empty, background),
            sums=4 if protocol in WHOLE_SET else 2,
            clips_per_batch=math.inf if protocol in WHOLE_SET else clips_per_batch,
            ranks=ranks,
            two_logits=protocol in TWO_LOGITS,
        )
        self.protocol = protocol
        self.threshold = threshold
        self.empty = empty
        self.background = background
        self.add_state("frame_histogram", torch.zeros(BINS, dtype=torch.int64), "sum")

    def _frame_sums(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        statistics = frame_statistics(
            logits, masks, reading=READING[self.protocol], threshold=self.threshold, curves=False
        )
        iou = _protocol_iou(statistics, self.protocol, self.empty)
        place = (iou.nan_to_num() * BINS).long().clamp(max=BINS - 1)
        self.frame_histogram.scatter_add_(0, place.flatten(), (counted & ~iou.isnan()).flatten().long())
        return _frame_sums(statistics, self.protocol, self.empty)

    def _score(self, sums: Tensor) -> Tensor:
        return _score(sums, self.protocol, self.background)

    def plot_histogram(self, ax: Any = None) -> Any:
        """Plot a histogram of the J of frames; needs matplotlib.

        For the protocols of the whole set, the J of a frame without ground truth is that of AVSBench.

        Args:
            ax: matplotlib axes to draw on; by default, new ones.

        Returns:
            The figure and its axes.
        """
        with self.sync_context():
            frames = self.frame_histogram.tolist()
        return plot_bars(frames, [i / BINS for i in range(BINS)], ax, "J of a frame", "frames")


def _frame_iou(statistics: FrameStatistics, empty: str, epsilon: float = 1e-7) -> Tensor:
    union = (statistics.predicted + statistics.truth - statistics.intersection).double()
    iou = statistics.intersection / (union + epsilon)
    if empty == "tn_ratio":  # without ground truth, the union is the predicted area
        alone = (statistics.pixels - union) / (statistics.pixels.double() + epsilon)
    elif empty == "zero_one":
        alone = (union == 0).double()
    else:
        alone = torch.full_like(union, math.nan)
    return torch.where(statistics.truth > 0, iou, alone)


def davis_iou(statistics: FrameStatistics) -> Tensor:
    """Return the region similarity J of DAVIS for every frame, ``(...)``."""
    return _frame_iou(statistics, "zero_one", epsilon=0.0)


def _protocol_iou(statistics: FrameStatistics, protocol: str, empty: str) -> Tensor:
    return davis_iou(statistics) if protocol == "davis" else _frame_iou(statistics, empty)


def _frame_sums(statistics: FrameStatistics, protocol: str, empty: str) -> Tensor:
    """Return the areas of each frame, or its score followed by 1, or 0 and 0 if it has no score."""
    if protocol in WHOLE_SET:
        return torch.stack(statistics[:4], dim=-1).double()
    iou = _protocol_iou(statistics, protocol, empty)
    return torch.stack([iou.nan_to_num(nan=0.0), (~iou.isnan()).double()], dim=-1)


def _score(sums: Tensor, protocol: str, background: str) -> Tensor:
    if protocol in WHOLE_SET:
        background = background if protocol == "dataset" else "keep"
        return mean_over_classes(class_iou(two_classes(sums), protocol), background)
    return sums[..., 0] / sums[..., 1]
