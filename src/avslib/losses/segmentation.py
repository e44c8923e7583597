"""Losses between logits and masks, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avslib._checks import check_all, check_shape


def binary_cross_entropy(
    logits: Tensor, masks: Tensor, labelled: Tensor | None = None, *, saturate: bool = False
) -> Tensor:
    """Return the mean binary cross-entropy over the pixels of the labelled frames.

    The published code of these systems applies a sigmoid and then PyTorch's ``BCELoss``, which clamps
    logarithms at -100 and loses the gradient where the sigmoid saturates: in float32, a background pixel gets
    none from a logit of 17 upwards, and that of a foreground pixel fades below -28. So a pixel that is
    confidently wrong is never corrected. Computed from logits, as here, the gradient of such a pixel is the
    largest; elsewhere the two agree.

    The loss is computed in float32, or wider, even under autocast.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        labelled: which frames have ground truth, ``(B, T)``, bool; None for all. Other frames are not read,
            and get a gradient of exactly 0 even where they are NaN.
        saturate: whether to compute it as published: sigmoid, logarithms clamped at -100, no gradient where
            the sigmoid saturates.

    Returns:
        The mean, at least 0; 0, with a graph, if no frame is labelled.

    Raises:
        ValueError: if a shape differs, if K is not 1, or if a labelled mask holds anything but 0 and 1.

    Mao et al., DiffusionAVS, equation 12, L_seg.

    Example:
        >>> masks = torch.ones(1, 5, 32, 32, dtype=torch.int64)
        >>> binary_cross_entropy(torch.zeros(1, 5, 1, 32, 32), masks)  # undecided: log 2
        tensor(0.6931)
    """
    scores, truth = binary_frames(logits, masks, labelled)
    if saturate:
        with torch.autocast(scores.device.type, enabled=False):  # which refuses this function
            total = F.binary_cross_entropy(scores.sigmoid(), truth, reduction="sum")
    else:
        total = F.binary_cross_entropy_with_logits(scores, truth, reduction="sum")
    return total / max(scores.numel(), 1)  # a sum, so that without frames it is 0 and keeps its graph


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of labelled frames, as a module: see :func:`binary_cross_entropy`.

    Args:
        saturate: whether to lose the gradient where the sigmoid saturates, as published.

    Example:
        >>> loss = BinaryCrossEntropy()
        >>> loss(torch.zeros(1, 5, 1, 32, 32), torch.zeros(1, 5, 32, 32, dtype=torch.int64))
        tensor(0.6931)
    """

    def __init__(self, *, saturate: bool = False) -> None:
        super().__init__()
        self.saturate = saturate

    def forward(self, logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            labelled: which frames have ground truth, ``(B, T)``, bool; None for all.

        Raises:
            ValueError: as :func:`binary_cross_entropy` does.
        """
        return binary_cross_entropy(logits, masks, labelled, saturate=self.saturate)


def cross_entropy(logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over K classes and over the pixels of the labelled frames.

    The loss is computed in float32, or wider, even under autocast.

    Args:
        logits: scores before the softmax, ``(B, T, K, H, W)``.
        masks: class of each pixel, ``(B, T, H, W)``, integers from 0 to K - 1.
        labelled: which frames have ground truth, ``(B, T)``, bool; None for all. Other frames are not read.

    Returns:
        The mean, at least 0; 0, with a graph, if no frame is labelled.

    Raises:
        ValueError: if a shape differs, or if a labelled mask holds a class outside 0 to K - 1.

    Zhou et al., "Audio-Visual Segmentation with Semantics", 2023.

    Example:
        >>> masks = torch.zeros(1, 10, 32, 32, dtype=torch.int64)
        >>> cross_entropy(torch.zeros(1, 10, 71, 32, 32), masks)  # undecided: log 71
        tensor(4.2627)
    """
    size = check_shape("logits", logits, "b t k h w")
    scores, truth = _labelled_frames(logits, masks, labelled)
    check_all(
        (truth >= 0) & (truth < size["k"]),
        f"masks: expected classes from 0 to {size['k'] - 1} where labelled, got others",
    )
    return F.cross_entropy(scores, truth.long(), reduction="sum") / max(truth.numel(), 1)


class CrossEntropy(nn.Module):
    """Cross-entropy of labelled frames, as a module: see :func:`cross_entropy`.

    Example:
        >>> CrossEntropy()(torch.zeros(1, 10, 71, 32, 32), torch.zeros(1, 10, 32, 32, dtype=torch.int64))
        tensor(4.2627)
    """

    def forward(self, logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: scores before the softmax, ``(B, T, K, H, W)``.
            masks: class of each pixel, ``(B, T, H, W)``, integers from 0 to K - 1.
            labelled: which frames have ground truth, ``(B, T)``, bool; None for all.

        Raises:
            ValueError: as :func:`cross_entropy` does.
        """
        return cross_entropy(logits, masks, labelled)


def binary_frames(logits: Tensor, masks: Tensor, labelled: Tensor | None) -> tuple[Tensor, Tensor]:
    """Check a binary prediction and return its labelled frames and their masks, ``(n, H, W)`` each.

    Both have the dtype of the logits, or float32 if that is wider.

    Raises:
        ValueError: if a shape differs, if K is not 1, or if a labelled mask holds anything but 0 and 1.
    """
    check_shape("logits", logits, "b t 1 h w")
    scores, truth = _labelled_frames(logits, masks, labelled)
    check_all((truth == 0) | (truth == 1), "masks: expected the values 0 and 1 where labelled, got others")
    return scores.squeeze(1), truth.to(scores.dtype)


def _labelled_frames(logits: Tensor, masks: Tensor, labelled: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the labelled frames: logits ``(n, K, H, W)`` in float32 or wider, masks ``(n, H, W)``."""
    size = check_shape("logits", logits, "b t k h w")
    check_shape("masks", masks, "b t h w", b=size["b"], t=size["t"], h=size["h"], w=size["w"])
    if labelled is None:
        logits, masks = logits.flatten(0, 1), masks.flatten(0, 1)
    else:
        check_shape("labelled", labelled, "b t", b=size["b"], t=size["t"])
        logits, masks = logits[labelled.bool()], masks[labelled.bool()]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), masks
