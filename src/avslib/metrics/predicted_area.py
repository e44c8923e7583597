"""Scores of the predicted area where nothing should be predicted: a wrong sound or a null reference."""

from __future__ import annotations

import torch
from torch import Tensor

from avslib._checks import check_one_of, check_shape
from avslib.metrics._batches import ClipBatchMean
from avslib.metrics.statistics import frame_statistics


class _PredictedArea(ClipBatchMean):
    """A score of the predicted area alone."""

    higher_is_better = False

    def update(
        self,
        logits: Tensor,
        masks: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        index: Tensor | None = None,
    ) -> None:
        """Add clips, without waiting for an accelerator.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
            masks: ``(B, T, H, W)``, not used; accepted so that the metric fits in a ``MetricCollection``.
            valid: False where a frame is padding and does not count, ``(B, T)``, bool.
            index: position of each clip in the order of the protocol, ``(B,)``, any integer type, or None for
                the order in which clips come.

        Raises:
            ValueError: if a shape differs or the type of ``index`` is not an integer type.
        """
        size = check_shape("logits", logits, "b t 1 h w")
        if masks is not None:
            check_shape("masks", masks, "b t h w", **size)
        nothing = torch.zeros((), device=logits.device).expand(*size.values())
        super().update(logits, nothing, valid, index=index)

    def _frame_sums(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        statistics = frame_statistics(logits, masks, curves=False)
        return torch.stack([statistics.predicted, statistics.pixels], dim=-1).double()


class FalsePositiveRate(_PredictedArea):
    """The fraction of a frame that is predicted under a wrong sound (AVSBench-Robust, Li et al., 2025).

    The fraction is averaged over the frames of a batch, then over batches. The prediction is
    ``sigmoid(logits) > 0.5``. No ground truth is used, since nothing in the clip makes that sound.

    Args:
        protocol: ``"robust"``.
        clips_per_batch: clips in a batch; the published test script uses 1.

    Raises:
        ValueError: if the protocol is unknown or ``clips_per_batch`` is not a whole number above 0.

    Example:
        >>> metric = FalsePositiveRate()
        >>> metric.update(torch.tensor([-9.0, -9.0, -9.0, 9.0]).view(1, 1, 1, 2, 2))
        >>> metric.compute()
        tensor(0.2500, dtype=torch.float64)
    """

    protocols = ("robust",)

    def __init__(self, protocol: str = "robust", *, clips_per_batch: float = 1) -> None:
        check_one_of("protocol", protocol, self.protocols)
        super().__init__(
            ("false positives", protocol, clips_per_batch), sums=2, clips_per_batch=clips_per_batch
        )
        self.protocol = protocol

    def _frame_sums(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        predicted, pixels = super()._frame_sums(logits, masks, counted).unbind(-1)
        return torch.stack([predicted / (pixels + 1e-7), torch.ones_like(predicted)], dim=-1)

    def _score(self, sums: Tensor) -> Tensor:
        return sums[..., 0] / sums[..., 1]


class NullScore(_PredictedArea):
    """S: the root of the fraction that is predicted for a null reference (Ref-AVS, Wang et al., ECCV 2024).

    The square root of the predicted fraction of all pixels in a batch is averaged over batches, so it depends
    on the size of a batch. The prediction is ``sigmoid(logits) > 0.5``.

    Args:
        protocol: ``"refavs"``.
        clips_per_batch: clips in a batch; the published script uses 4.

    Raises:
        ValueError: if the protocol is unknown or ``clips_per_batch`` is not a whole number above 0.

    Example:
        >>> metric = NullScore()
        >>> metric.update(torch.tensor([-9.0, -9.0, -9.0, 9.0]).view(1, 1, 1, 2, 2))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    protocols = ("refavs",)

    def __init__(self, protocol: str = "refavs", *, clips_per_batch: float = 1) -> None:
        check_one_of("protocol", protocol, self.protocols)
        super().__init__(("S", protocol, clips_per_batch), sums=2, clips_per_batch=clips_per_batch)
        self.protocol = protocol

    def _score(self, sums: Tensor) -> Tensor:
        return (sums[..., 0] / sums[..., 1]).sqrt()
