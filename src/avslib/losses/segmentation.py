"""Losses between logits and masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avslib._checks import check_shape


def binary_cross_entropy(logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy over the pixels of the labelled frames.

    The published code of the lineage takes a sigmoid first and then PyTorch's ``BCELoss``, which clamps
    logarithms at -100 and loses the gradient where the sigmoid saturates: in float32 a background pixel gets
    none from a logit of 17, and that of a foreground pixel fades below -28. So a pixel that is wrong and sure
    of it is never corrected. On logits its gradient is the largest; elsewhere the two agree.

    Computed in float32, or wider, also under autocast.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        labelled: which frames have ground truth, ``(B, T)``, bool; None for all. Other frames are not read,
            and get a gradient of exactly 0 even where they are NaN.

    Returns:
        The mean, at least 0; 0, with a graph, if no frame is labelled.

    Raises:
        ValueError: if a shape differs, K = 1 included, or if a labelled mask holds anything but 0 and 1.

    Mao et al., DiffusionAVS, equation 12, L_seg.

    Example:
        >>> masks = torch.ones(1, 5, 32, 32, dtype=torch.int64)
        >>> binary_cross_entropy(torch.zeros(1, 5, 1, 32, 32), masks)  # undecided: log 2
        tensor(0.6931)
    """
    size = check_shape("logits", logits, "b t 1 h w")
    check_shape("masks", masks, "b t h w", **size)
    logits = logits.squeeze(2)
    if labelled is not None:
        check_shape("labelled", labelled, "b t", b=size["b"], t=size["t"])
        logits, masks = logits[labelled.bool()], masks[labelled.bool()]
    if ((masks != 0) & (masks != 1)).any():
        raise ValueError("masks: expected the values 0 and 1 where labelled, got others")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="sum")
    return total / max(logits.numel(), 1)  # a sum, so that no frame at all gives 0 and keeps its graph


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of labelled frames as a module: see :func:`binary_cross_entropy`.

    Example:
        >>> loss = BinaryCrossEntropy()
        >>> loss(torch.zeros(1, 5, 1, 32, 32), torch.zeros(1, 5, 32, 32, dtype=torch.int64))
        tensor(0.6931)
    """

    def forward(self, logits: Tensor, masks: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            labelled: which frames have ground truth, ``(B, T)``, bool; None for all.

        Raises:
            ValueError: as :func:`binary_cross_entropy` does.
        """
        return binary_cross_entropy(logits, masks, labelled)
