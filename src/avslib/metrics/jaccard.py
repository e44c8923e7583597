"""J: mean intersection over union of masks."""

from __future__ import annotations

import torch
from torch import Tensor

from avslib.metrics._batches import ClipBatchMean, check_binary, check_frames, not_binary


def frame_iou(logits: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return the intersection over union of every frame.

    The prediction is ``sigmoid(logits) > threshold`` in float32: a logit of 2e-8 has probability 0.5 there
    and is background. A frame whose ground truth is empty scores the fraction of it that is predicted as
    background (AVSBench, Zhou et al., ECCV 2022).

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type; taken to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Returns:
        One score a frame, ``(B, T)``, float64, in ``[0, 1]``.

    Raises:
        ValueError: if a shape differs or ``masks`` holds anything but 0 and 1.

    Example:
        >>> logits = torch.tensor([[-9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, 9.0]]).view(1, 2, 1, 2, 2)
        >>> masks = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]).view(1, 2, 2, 2)
        >>> frame_iou(logits, masks)
        tensor([[0.6667, 0.7500]], dtype=torch.float64)
    """
    check_frames(logits, masks)
    check_binary(not_binary(masks))
    return _frame_iou(logits, masks, threshold)


def mask_iou(logits: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return the mean of `frame_iou` over all frames, which are one batch of the protocol.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type; taken to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Returns:
        A scalar, float64, in ``[0, 1]``.

    Raises:
        ValueError: if a shape differs or ``masks`` holds anything but 0 and 1.

    Example:
        >>> mask_iou(torch.zeros(1, 5, 1, 4, 4), torch.ones(1, 5, 4, 4))
        tensor(0., dtype=torch.float64)
    """
    return frame_iou(logits, masks, threshold=threshold).mean()


class MaskIoU(ClipBatchMean):
    """Mean intersection over union, "J" or "mIoU", by a named protocol.

    ``"avsbench"`` (Zhou et al., ECCV 2022, and their test script): `frame_iou`, averaged over the frames of a
    batch, then plainly over batches. Batches are the protocol's, not the user's: ``clips_per_batch``
    consecutive clips in the order in which they were seen, the last batch perhaps short and of the same
    weight. Among clips of one length the size of a batch matters only through a short last one.

    Several processes: with one clip a batch, the order of clips is indifferent. With more, the clips of
    process 0 come first, then those of process 1, and so on; a sampler that deals clips out in turn gives
    another order than the published script, so take one process to reproduce its number.

    Args:
        protocol: ``"avsbench"``.
        clips_per_batch: clips in a batch of the protocol; the published test script has 4, its argument's
            default is 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Raises:
        ValueError: if ``protocol`` is unknown or a number is out of its range.

    Example:
        >>> metric = MaskIoU()
        >>> metric.update(torch.full((2, 5, 1, 4, 4), 3.0), torch.ones(2, 5, 4, 4, dtype=torch.int64))
        >>> metric.compute()
        tensor(1.0000, dtype=torch.float64)
    """

    def __init__(
        self, protocol: str = "avsbench", *, clips_per_batch: int = 1, threshold: float = 0.5
    ) -> None:
        super().__init__(protocol, clips_per_batch=clips_per_batch, sums=1, settings=(threshold,))
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold: expected a probability in [0, 1), got {threshold}")
        self.threshold = threshold

    def _frame_sums(self, logits: Tensor, masks: Tensor) -> Tensor:
        return _frame_iou(logits, masks, self.threshold)[..., None]

    def _score(self, sums: Tensor, frames: Tensor) -> Tensor:
        return sums[..., 0] / frames


def _frame_iou(logits: Tensor, masks: Tensor, threshold: float) -> Tensor:
    predicted = (logits.detach().squeeze(2).float().sigmoid() > threshold).flatten(2)
    truth = masks.bool().flatten(2)
    union = (predicted | truth).sum(dim=-1).double()
    iou = (predicted & truth).sum(dim=-1) / (union + 1e-7)
    pixels = truth.shape[-1]  # the union is what was predicted where there is no truth
    return torch.where(truth.any(dim=-1), iou, (pixels - union) / (pixels + 1e-7))
