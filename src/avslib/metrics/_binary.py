"""What all scores of binary masks have in common: their checks."""

from __future__ import annotations

import torch
from torch import Tensor

from avslib._checks import check_all, check_shape
from avslib.metrics._mask_metric import MaskMetric


def check_frames(
    logits: Tensor, masks: Tensor, valid: Tensor | None = None, *, two_logits: bool = False
) -> None:
    """Raise ``ValueError`` unless the shapes are ``(B, T, 1, H, W)``, ``(B, T, H, W)`` and ``(B, T)``."""
    channels = 2 if two_logits and logits.dim() == 5 and logits.shape[2] == 2 else 1
    size = check_shape("logits", logits, f"b t {channels} h w")
    check_shape("masks", masks, "b t h w", **size)
    if valid is not None:
        check_shape("valid", valid, "b t", b=size["b"], t=size["t"])


def not_binary(masks: Tensor) -> Tensor:
    """Return which frames ``(B, T)`` of masks ``(B, T, H, W)`` hold anything but 0 and 1."""
    return ((masks != 0) & (masks != 1)).flatten(-2).any(-1)


def check_binary(wrong: Tensor) -> None:
    """Raise ``ValueError`` if a frame, or a count of frames, is wrong."""
    check_all(
        wrong == 0, "masks: expected the values 0 and 1, got others; grey levels must be read as 0 and 1"
    )


class BinaryMetric(MaskMetric):
    """A metric of binary masks, which knows whether a mask was not."""

    def _counted(self, masks: Tensor, valid: Tensor | None) -> Tensor:
        """Return which frames count, ``(B, T)``, and look for values other than 0 and 1 in them.

        On an accelerator, where looking at values would stall, ``_check`` says what is wrong.
        """
        counted = torch.ones_like(masks[..., 0, 0], dtype=torch.bool) if valid is None else valid.bool()
        wrong = not_binary(masks) & counted
        if wrong.device.type == "cpu":
            check_binary(wrong)
        self.wrong_frames += wrong.sum()
        return counted

    def _check(self) -> None:
        check_binary(self.wrong_frames)
