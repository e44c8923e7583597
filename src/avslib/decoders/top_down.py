"""The top-down decoder of AVSBench, C3N and ECMVAE: residual units, coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from avslib._checks import check_one_of, check_positive, check_shape

UNITS = ("pre_activation", "batch_norm")
UPSAMPLING = ("bilinear", "nearest")


class PreActivationUnit(nn.Module):
    """``conv(relu(conv(relu(x)))) + relu(x)``, the residual unit of AVSBench and C3N.

    He et al., Identity Mappings in Deep Residual Networks (ECCV 2016), add x itself. The published code
    rectifies x in place, so it adds ``relu(x)``.

    Args:
        channels: width, in and out.
        rectify_skip: whether to add ``relu(x)``, as published, or x itself.
    """

    def __init__(self, channels: int, *, rectify_skip: bool = True) -> None:
        super().__init__()
        self.rectify_skip = rectify_skip
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of x, ``(N, C, h, w)``."""
        rectified = F.relu(x)
        return self.conv2(F.relu(self.conv1(rectified))) + (rectified if self.rectify_skip else x)


class BatchNormUnit(nn.Module):
    """``relu(bn(conv(relu(bn(conv(x)))))) + x``, the residual unit of ECMVAE.

    Args:
        channels: width, in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.batch_norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.batch_norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of x, ``(N, C, h, w)``."""
        y = F.relu(self.batch_norm1(self.conv1(x)))
        return F.relu(self.batch_norm2(self.conv2(y))) + x


class TopDownDecoder(nn.Module):
    """Add up the levels from the coarsest to the finest, with residual units in between, and classify.

    A level passes through ``lateral`` and is added to the sum of the coarser levels. ``refine`` and a
    doubling follow. The coarsest level only has ``refine``; the ``lateral`` that published checkpoints have
    for it (``path4.resConfUnit1``, in ECMVAE ``fusion_block_1.resConfUnit1``) was never used. Where sizes are
    odd, a step upsamples to the size of the next finer level, so any ``H`` and ``W`` work; for multiples of
    32, every step doubles.

    Leading axes broadcast: if only the deepest level differs between samples, only it needs a sample axis.
    Every later step then has that axis, except the ``lateral`` of the finer levels.

    The pyramid is not modified. In AVSBench and C3N, the units rectify it in place, so the loss that later
    matches features with sound reads ``relu(level)``. To reproduce this, apply ``relu`` there.

    Args:
        channels: C, width of every level.
        num_classes: K, channels of the logits.
        num_levels: levels of the pyramid, finest first.
        unit: "pre_activation" (AVSBench, C3N) or "batch_norm" (ECMVAE).
        rectify_skip: whether a "pre_activation" unit adds ``relu(x)``, as published, or x.
        upsample: "bilinear" (AVSBench, C3N), with ``align_corners=True`` after each level and False in the
            head; or "nearest" (ECMVAE).
        head_channels: widths of the two convolutions before the last one; None for C/2 and C/8, as in
            AVSBench and C3N, where C is 256. ECMVAE has C/2 and C/4.

    Raises:
        ValueError: if ``unit`` or ``upsample`` is unknown, or if a width or number is below 1.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3.3; the details follow the published code of
    AVSBench and ECMVAE (Mao et al., ICCV 2023).

    Example:
        >>> import torch
        >>> decoder = TopDownDecoder(32)
        >>> pyramid = [torch.rand(2, 5, 32, side, side) for side in (28, 14, 7, 4)]
        >>> decoder(pyramid, size=(112, 112)).shape
        torch.Size([2, 5, 1, 112, 112])
    """

    def __init__(
        self,
        channels: int = 256,
        *,
        num_classes: int = 1,
        num_levels: int = 4,
        unit: str = "pre_activation",
        rectify_skip: bool = True,
        upsample: str = "bilinear",
        head_channels: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_positive("num_classes", num_classes)
        check_positive("num_levels", num_levels)
        first, second = head_channels or (max(1, channels // 2), max(1, channels // 8))
        check_one_of("unit", unit, UNITS)
        check_one_of("upsample", upsample, UPSAMPLING)

        def new_unit() -> nn.Module:
            if unit == "batch_norm":
                return BatchNormUnit(channels)
            return PreActivationUnit(channels, rectify_skip=rectify_skip)

        self.channels = channels
        self.upsample = upsample
        self.lateral = nn.ModuleList(new_unit() for _ in range(num_levels - 1))
        self.refine = nn.ModuleList(new_unit() for _ in range(num_levels))
        self.reduce = nn.Conv2d(channels, first, 3, padding=1)
        self.classify = nn.Sequential(
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, num_classes, 1),
        )

    def forward(self, pyramid: Sequence[Tensor], *, size: tuple[int, int]) -> Tensor:
        """Return logits ``(..., K, H, W)``.

        Args:
            pyramid: feature maps ``(..., C, h, w)``, finest first; their leading axes broadcast.
            size: ``(H, W)`` of the logits, px.

        Raises:
            ValueError: if the number of levels or a width differs.
        """
        if len(pyramid) != len(self.refine):
            raise ValueError(f"pyramid: expected {len(self.refine)} levels, got {len(pyramid)}")
        for i, level in enumerate(pyramid):
            check_shape(f"pyramid[{i}]", level, "... c h w", c=self.channels)
        x = _per_frame(self.refine[-1], pyramid[-1])
        for i in reversed(range(len(pyramid) - 1)):
            x = self._enlarge(x, pyramid[i].shape[-2:], align_corners=True)
            x = _per_frame(self.refine[i], x + _per_frame(self.lateral[i], pyramid[i]))
        height, width = size
        x = self._enlarge(x, ((height + 1) // 2, (width + 1) // 2), align_corners=True)
        x = self._enlarge(_per_frame(self.reduce, x), size, align_corners=False)
        return _per_frame(self.classify, x)

    def _enlarge(self, x: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
        corners = align_corners if self.upsample == "bilinear" else None
        resize = partial(F.interpolate, size=tuple(size), mode=self.upsample, align_corners=corners)
        return _per_frame(resize, x)


def _per_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y = function(x.reshape(-1, *x.shape[-3:]))
    return y.reshape(*x.shape[:-3], *y.shape[-3:])
