"""F with beta^2 = 0.3, at the best of 255 thresholds or from the areas of a whole set."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from avslib._checks import check_shape
from avslib.metrics._batches import ClipBatchMean, clip_sums, mean_over_batches
from avslib.metrics._binary import check_binary, check_frames, not_binary
from avslib.metrics._plots import new_axes
from avslib.metrics.classes import BETA_SQUARED, class_f, mean_over_classes, two_classes
from avslib.metrics.protocols import READING, TWO_LOGITS, WHOLE_SET, check_arguments
from avslib.metrics.statistics import THRESHOLDS, FrameStatistics, frame_statistics

EMPTY = ("zero", "skip")
_OPTIONS = {
    "avsbench": ("clips_per_batch", "empty"),
    "sama": ("clips_per_batch", "empty"),
    "combo": ("ranks", "empty"),
    "stepping_stones": ("empty",),
    "dataset": ("threshold", "background"),
    "cavp": (),
    "ddeseg": (),
}


def f_curves(logits: Tensor, masks: Tensor) -> Tensor:
    """Return F of every frame at every threshold (AVSBench, Zhou et al., ECCV 2022).

    A pixel is foreground where ``sigmoid(logits) >= threshold`` in float32, with thresholds
    ``linspace(0, 1 - 1e-10, 255)``. F = 1.3 P R / (0.3 P + R), and 0 where that is 0 / 0.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.

    Returns:
        One curve per frame, ``(B, T, 255)``, float64, in ``[0, 1]``; all 0 if the ground truth is empty.

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
    return _curves(frame_statistics(logits, masks))[..., 2, :]


def f_score(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the best F of all frames, taken as one batch of the protocol.

    The curves of `f_curves` are averaged over the frames with ground truth before the maximum is taken, so
    all frames share one threshold.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
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
    sums = _frame_sums(frame_statistics(logits, masks), "avsbench").sum(dim=(0, 1))
    return _score(sums, "avsbench", "zero", "drop")


def f_measure(
    statistics: FrameStatistics,
    clip: Tensor,
    protocol: str = "avsbench",
    *,
    clips_per_batch: float = 1,
    ranks: int = 1,
    empty: str = "zero",
    background: str = "drop",
) -> Tensor:
    """Compute the score of :class:`FScore` from counts that :func:`frame_statistics` returned.

    Args:
        statistics: counts of frames, with one leading axis ``(n,)``, made with the reading of the protocol.
        clip: number of the clip that each frame belongs to, ``(n,)``, int64; batches follow this order.
        protocol: as for :class:`FScore`, like the arguments that follow.
        clips_per_batch: clips in a batch.
        ranks: processes of ``"combo"``.
        empty: score of a batch without ground truth.
        background: whether the background counts in ``"dataset"``.

    Returns:
        A scalar, float64, in ``[0, 1]``; NaN without a clip.

    Raises:
        ValueError: if an option is unknown, a number is out of range, the protocol has no such argument, or
            the counts lack curves.

    Example:
        >>> logits = torch.tensor([-9.0, 0.0, 0.0, 9.0]).view(1, 1, 1, 2, 2)
        >>> statistics = frame_statistics(logits, torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2))
        >>> counts = FrameStatistics(*(field.flatten(0, 1) for field in statistics))
        >>> for word in ("avsbench", "dataset"):
        ...     print(round(f_measure(counts, torch.tensor([0]), word).item(), 4))
        0.8125
        0.8125
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
    if protocol in WHOLE_SET:
        clips_per_batch = math.inf
    else:
        check_shape("statistics.selected", statistics.selected, f"n {THRESHOLDS}", n=len(clip))
    sums = clip_sums(_frame_sums(statistics, protocol), clip)
    return mean_over_batches(
        sums,
        lambda sums: _score(sums, protocol, empty, background),
        clips_per_batch=clips_per_batch,
        ranks=ranks,
    )


class FScore(ClipBatchMean):
    """F with beta^2 = 0.3, by a named protocol.

    - ``"avsbench"`` (Zhou et al., ECCV 2022, and their test script): the mean over batches of `f_score`. A
      batch without ground truth scores 0 and counts. The best threshold is chosen for each batch with the
      help of the ground truth, so the number depends on the size of a batch. Batches are those of the
      protocol, not of the user: ``clips_per_batch`` consecutive clips. The last batch may be shorter, but has
      the same weight.
    - ``"sama"`` (SAMA-AVS, Liu et al., WACV 2024): the same, but thresholds are compared with the logits,
      since the sigmoid is commented out in the published code.
    - ``"combo"`` (COMBO, Yang et al., CVPR 2024): one clip per batch. detectron2's test sampler deals the
      clips to ``ranks`` GPUs in consecutive blocks, and the score is the mean of the GPUs' means. Takes one
      logit or two.
    - ``"stepping_stones"`` (Ma et al., ECCV 2024): one clip per batch. From two logits, the published code
      computes the probability as sigmoid(2 l1 - l0) instead of sigmoid(l1 - l0). A single logit is taken as
      l1, with l0 = 0.
    - ``"dataset"``, ``"cavp"``, ``"ddeseg"``: one F for the whole set, see :func:`~avslib.metrics.class_f`,
      with the prediction of :class:`~avslib.metrics.MaskIoU`. ``"dataset"`` scores the foreground alone, or
      with ``background="keep"`` the mean of background and foreground; the others always score this mean.
      They take one logit or two; of two, ``"cavp"`` and ``"ddeseg"`` predict the larger one.

    With several processes the number is the same, whatever the order of clips. Where batches hold several
    clips, or ranks are emulated, this needs ``index`` in ``update``; without it the clips of process 0 come
    first, then those of process 1, and so on.

    Args:
        protocol: one of the names above.
        clips_per_batch: clips in a batch of ``"avsbench"`` or ``"sama"``; ``math.inf`` for one threshold for
            all clips. AVSBench's published test uses 4; the default of its test script is 1.
        ranks: number of GPUs of ``"combo"``; its published test scripts use 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground in ``"dataset"``.
        empty: score of a batch without ground truth: ``"zero"`` for 0, ``"skip"`` to leave the batch out.
        background: whether ``"dataset"`` includes the background: ``"drop"`` or ``"keep"``.

    Raises:
        ValueError: if an option is unknown, a number is out of range, or the protocol has no such argument.

    Example:
        >>> metric = FScore(clips_per_batch=4)
        >>> metric.update(torch.full((2, 5, 1, 4, 4), 3.0), torch.ones(2, 5, 4, 4, dtype=torch.int64))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    protocols = tuple(_OPTIONS)
    curve_sums: Tensor
    curve_frames: Tensor

    def __init__(
        self,
        protocol: str = "avsbench",
        *,
        clips_per_batch: float = 1,
        ranks: int = 1,
        threshold: float = 0.5,
        empty: str = "zero",
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
        whole_set = protocol in WHOLE_SET
        super().__init__(
            ("F", protocol, clips_per_batch, ranks, threshold, empty, background),
            sums=4 if whole_set else THRESHOLDS + 1,
            clips_per_batch=math.inf if whole_set else clips_per_batch,
            ranks=ranks,
            two_logits=protocol in TWO_LOGITS,
        )
        self.protocol = protocol
        self.threshold = threshold
        self.empty = empty
        self.background = background
        if not whole_set:
            self.add_state("curve_sums", torch.zeros(3, THRESHOLDS, dtype=torch.float64), "sum")
            self.add_state("curve_frames", torch.zeros((), dtype=torch.int64), "sum")

    def _frame_sums(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        whole_set = self.protocol in WHOLE_SET
        reading, threshold = READING[self.protocol], self.threshold
        statistics = frame_statistics(
            logits, masks, reading=reading, threshold=threshold, curves=not whole_set
        )
        if not whole_set:
            seen = counted & (statistics.truth > 0)
            self.curve_sums += torch.where(seen[..., None, None], _curves(statistics), 0.0).sum(dim=(0, 1))
            self.curve_frames += seen.sum()
        return _frame_sums(statistics, self.protocol)

    def _score(self, sums: Tensor) -> Tensor:
        return _score(sums, self.protocol, self.empty, self.background)

    def curves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return precision, recall and F at the 255 thresholds, averaged over frames with ground truth.

        Raises:
            ValueError: if the protocol has no thresholds.
        """
        if self.protocol in WHOLE_SET:
            raise ValueError(f"protocol: {self.protocol!r} has one threshold and no curves")
        with self.sync_context():
            precision, recall, f = self.curve_sums / self.curve_frames
        return precision, recall, f

    def plot_curve(self, ax: Any = None) -> Any:
        """Plot precision over recall at the 255 thresholds, and mark the best F; needs matplotlib.

        Args:
            ax: matplotlib axes to draw on; by default, new ones.

        Returns:
            The figure and its axes.

        Raises:
            ValueError: if the protocol has no thresholds.
        """
        precision, recall, f = (curve.cpu() for curve in self.curves())
        best = f.argmax()
        figure, ax = new_axes(ax)
        ax.plot(recall, precision)
        ax.plot(recall[best], precision[best], "o", label=f"F = {f[best]:.3f}")
        ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
        ax.legend()
        return figure, ax


def _curves(statistics: FrameStatistics) -> Tensor:
    """Return precision, recall and F of each frame at each threshold, ``(..., 3, 255)``."""
    precision = statistics.hit / (statistics.selected.double() + 1e-20)
    recall = statistics.hit / (statistics.truth.double()[..., None] + 1e-20)
    f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return torch.stack([precision, recall, f.nan_to_num(nan=0.0)], dim=-2)


def _frame_sums(statistics: FrameStatistics, protocol: str) -> Tensor:
    """Return the areas of each frame, or its F curve followed by 1 if it has ground truth, else 0."""
    if protocol in WHOLE_SET:
        return torch.stack(statistics[:4], dim=-1).double()
    present = (statistics.truth > 0).double()[..., None]
    return torch.cat([_curves(statistics)[..., 2, :], present], dim=-1)


def _score(sums: Tensor, protocol: str, empty: str, background: str) -> Tensor:
    if protocol in WHOLE_SET:
        background = background if protocol == "dataset" else "keep"
        return mean_over_classes(class_f(two_classes(sums), protocol), background)
    frames = sums[..., -1]
    best = (sums[..., :-1] / frames[..., None].clamp(min=1)).amax(dim=-1)  # maximum of the mean curve
    return torch.where(frames > 0, best, math.nan) if empty == "skip" else best
