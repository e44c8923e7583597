"""Losses between logits and masks that measure their overlap."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from avslib.losses.segmentation import binary_cross_entropy, binary_frames


def dice_loss(
    logits: Tensor, masks: Tensor, labelled: Tensor | None = None, *, published_smoothing: bool = True
) -> Tensor:
    """Return 1 minus the soft Dice score of a frame, averaged over the labelled frames.

    The published code adds 1 to the intersection I before doubling it: ``2 (I + 1) / (P + T + 1)``, where P
    and T are the sums of the probabilities and of the mask. So the loss can be negative; it falls to -1 where
    mask and prediction are both empty.

    The loss is computed in float32, or wider, even under autocast.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        labelled: which frames have ground truth, ``(B, T)``, bool; None for all. Other frames are not read.
        published_smoothing: whether to smooth as published. False adds 1 after doubling,
            ``(2 I + 1) / (P + T + 1)``, which keeps the loss in [0, 1].

    Returns:
        The mean; 0, with a graph, if no frame is labelled.

    Raises:
        ValueError: if a shape differs, if K is not 1, or if a labelled mask holds anything but 0 and 1.

    Shi et al., C3N, published code; Milletari et al., "V-Net", 2016, for the score.

    Example:
        >>> import torch
        >>> nothing, masks = torch.full((1, 5, 1, 32, 32), -99.0), torch.zeros(1, 5, 32, 32)
        >>> dice_loss(nothing, masks), dice_loss(nothing, masks, published_smoothing=False)
        (tensor(-1.), tensor(0.))
    """
    scores, truth = binary_frames(logits, masks, labelled)
    probabilities = scores.sigmoid()
    intersection = (probabilities * truth).sum(dim=(-2, -1))
    total = probabilities.sum(dim=(-2, -1)) + truth.sum(dim=(-2, -1))
    score = (2 * intersection + (2 if published_smoothing else 1)) / (total + 1)
    return (1 - score).sum() / max(len(scores), 1)


class DiceLoss(nn.Module):
    """Soft Dice loss of labelled frames, as a module: see :func:`dice_loss`.

    Args:
        published_smoothing: whether to smooth the score as published, so that it may exceed 1.

    Example:
        >>> import torch
        >>> DiceLoss()(torch.full((1, 5, 1, 32, 32), -99.0), torch.zeros(1, 5, 32, 32))
        tensor(-1.)
    """

    def __init__(self, *, published_smoothing: bool = True) -> None:
        super().__init__()
        self.published_smoothing = published_smoothing

    def forward(self, logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            labelled: which frames have ground truth, ``(B, T)``, bool; None for all.

        Raises:
            ValueError: as :func:`dice_loss` does.
        """
        return dice_loss(logits, masks, labelled, published_smoothing=self.published_smoothing)


class CrossEntropyDice(nn.Module):
    """The loss of C3N: the sum of binary cross-entropy and the Dice loss.

    Where little is foreground, cross-entropy is already low for an empty prediction, but Dice is not.

    Example:
        >>> import torch
        >>> CrossEntropyDice()(torch.zeros(1, 5, 1, 32, 32), torch.ones(1, 5, 32, 32, dtype=torch.int64))
        tensor(1.0256)
    """

    def forward(self, logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar; the arguments are those of :func:`dice_loss`."""
        return binary_cross_entropy(logits, masks, labelled) + dice_loss(logits, masks, labelled)


def structure_loss(
    logits: Tensor, masks: Tensor, labelled: Tensor | None = None, *, weight_cross_entropy: bool = False
) -> Tensor:
    """Return cross-entropy plus 1 minus soft IoU, where pixels near a boundary count up to six times.

    The weight of a pixel is 1 plus 5 times the absolute difference between the mask and its mean over
    31 x 31 pixels. Pixels outside the picture count as background. The cross-entropy uses 0.0005 and 0.9995
    instead of the masks' 0 and 1.

    As published, the weights act on the IoU alone: the cross-entropy is averaged over all pixels before it is
    weighted, and the weighted mean of one number is that number.

    The loss is computed in float32, or wider, even under autocast.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        labelled: which frames have ground truth, ``(B, T)``, bool; None for all. Other frames are not read.
        weight_cross_entropy: whether to weight the cross-entropy of each pixel too, as originally intended.

    Returns:
        The mean over frames, at least 0; 0, with a graph, if no frame is labelled.

    Raises:
        ValueError: if a shape differs, if K is not 1, or if a labelled mask holds anything but 0 and 1.

    Wei et al., "F3Net: Fusion, Feedback and Focus for Salient Object Detection", AAAI 2020; Mao et al.,
    ECMVAE, ICCV 2023, published code.

    Example:
        >>> import torch
        >>> structure_loss(torch.zeros(1, 5, 1, 32, 32), torch.zeros(1, 5, 32, 32))  # log 2, and no overlap
        tensor(1.6912)
    """
    scores, truth = binary_frames(logits, masks, labelled)
    surroundings = F.avg_pool2d(truth[:, None], (31, 1), stride=1, padding=(15, 0))
    surroundings = F.avg_pool2d(surroundings, (1, 31), stride=1, padding=(0, 15)).squeeze(1)
    weights = 1 + 5 * (surroundings - truth).abs()
    smooth = truth * 0.999 + 0.0005
    cross_entropy = F.binary_cross_entropy_with_logits(
        scores, smooth, weights if weight_cross_entropy else None, reduction="none"
    ).sum(dim=(-2, -1))
    pixels = weights.sum(dim=(-2, -1)) if weight_cross_entropy else masks.shape[-2] * masks.shape[-1]
    probabilities = scores.sigmoid()
    intersection = (weights * probabilities * truth).sum(dim=(-2, -1))
    union = (weights * (probabilities + truth)).sum(dim=(-2, -1)) - intersection
    overlap = (intersection + 1) / (union + 1)
    return (cross_entropy / pixels + 1 - overlap).sum() / max(len(scores), 1)


class StructureLoss(nn.Module):
    """Cross-entropy and IoU with boundary weights, as a module: see :func:`structure_loss`.

    Args:
        weight_cross_entropy: whether to weight the cross-entropy too; the published code does not.

    Example:
        >>> import torch
        >>> StructureLoss()(torch.zeros(1, 5, 1, 32, 32), torch.zeros(1, 5, 32, 32))
        tensor(1.6912)
    """

    def __init__(self, *, weight_cross_entropy: bool = False) -> None:
        super().__init__()
        self.weight_cross_entropy = weight_cross_entropy

    def forward(self, logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            labelled: which frames have ground truth, ``(B, T)``, bool; None for all.

        Raises:
            ValueError: as :func:`structure_loss` does.
        """
        return structure_loss(logits, masks, labelled, weight_cross_entropy=self.weight_cross_entropy)
