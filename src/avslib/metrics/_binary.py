"""Checks that all metrics of binary masks share."""

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
    """Raise ``ValueError`` if a frame is marked as wrong, or if a count of wrong frames is not 0."""
    check_all(
        wrong == 0, "masks: expected the values 0 and 1, got others; grey levels must be read as 0 and 1"
    )


class BinaryMetric(MaskMetric):
    """A metric of binary masks that counts the frames whose mask is not binary."""

    def _counted(self, masks: Tensor, valid: Tensor | None) -> Tensor:
        """Return which frames count, ``(B, T)``, and check that their masks hold only 0 and 1.

        On an accelerator, where checking values would stall, ``_check`` raises the error later.
        """
        counted = torch.ones_like(masks[..., 0, 0], dtype=torch.bool) if valid is None else valid.bool()
        wrong = not_binary(masks) & counted
        if wrong.device.type == "cpu":
            check_binary(wrong)
        self.wrong_frames += wrong.sum()
        return counted

    def _check(self) -> None:
        check_binary(self.wrong_frames)
