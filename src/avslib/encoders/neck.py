"""A pyramid of mixed widths as a pyramid of one width."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class _Neck(nn.ModuleList):
    """One module a level."""

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Return the pyramid ``(N, C, h, w)`` at one width.

        Raises:
            ValueError: if the number of levels differs.
        """
        if len(pyramid) != len(self):
            raise ValueError(f"pyramid: expected {len(self)} levels, got {len(pyramid)}")
        return [level(features) for level, features in zip(self, pyramid, strict=True)]


class Neck(_Neck):
    """One 3x3 convolution, batch norm and ReLU a level: every level to the same width.

    Args:
        in_channels: width of each level, finest first.
        out_channels: width of every level after it, c.

    Mao et al., DiffusionAVS, section III-C, "Input Data Encoding": the paper says "four convolutional layers"
    and c = 128; norm and activation are ours.

    Example:
        >>> import torch
        >>> neck = Neck((64, 128), out_channels=32)
        >>> [tuple(level.shape) for level in neck([torch.rand(5, 64, 8, 8), torch.rand(5, 128, 4, 4)])]
        [(5, 32, 8, 8), (5, 32, 4, 4)]
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 128) -> None:
        super().__init__(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            )
            for channels in in_channels
        )


class DilatedNeck(_Neck):
    """Four 3x3 convolutions a level, of dilation 3, 6, 12 and 18, summed: AVSBench's neck.

    Where a level is smaller than the dilation only the centres of the kernels meet it; in the coarsest level
    of a 224 px frame, 7 px wide, that is so for two of the four.

    Args:
        in_channels: width of each level, finest first.
        out_channels: width of every level after it.
        bias: whether the convolutions have one; ECMVAE's "aspp" neck is this one without.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3.3, after the atrous spatial pyramid pooling
    of DeepLab; sizes and initialisation are those of the published code.

    Example:
        >>> import torch
        >>> neck = DilatedNeck((64, 128), out_channels=32)
        >>> [tuple(level.shape) for level in neck([torch.rand(5, 64, 8, 8), torch.rand(5, 128, 4, 4)])]
        [(5, 32, 8, 8), (5, 32, 4, 4)]
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256, *, bias: bool = True) -> None:
        super().__init__(_DilatedSum(channels, out_channels, bias=bias) for channels in in_channels)


class ASPPNeck(_Neck):
    """Atrous spatial pyramid pooling a level, without norm or activation: C3N's neck.

    The mean of the map and a pixel through a 1x1 convolution each, and 3x3 convolutions of dilation 6, 12 and
    18, are concatenated and projected by a 1x1 convolution.

    Args:
        in_channels: width of each level, finest first.
        out_channels: width of every level after it, and of every branch.

    Chen et al., DeepLabv3 (2017), section 3.3, as the published code of C3N (Shi et al., 2024) has it.

    Example:
        >>> import torch
        >>> neck = ASPPNeck((64, 128), out_channels=32)
        >>> [tuple(level.shape) for level in neck([torch.rand(5, 64, 8, 8), torch.rand(5, 128, 4, 4)])]
        [(5, 32, 8, 8), (5, 32, 4, 4)]
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__(_ASPP(channels, out_channels) for channels in in_channels)


class ReductionNeck(_Neck):
    """A 1x1 and two 3x3 convolutions a level, each with a batch norm and nothing else: ECMVAE's neck.

    Without an activation in between, a level is linear in evaluation; so it is in the published code.

    Args:
        in_channels: width of each level, finest first.
        out_channels: width of every level after it.

    Mao et al., ECMVAE (ICCV 2023); the details are those of the published code.

    Example:
        >>> import torch
        >>> neck = ReductionNeck((64, 128), out_channels=32)
        >>> [tuple(level.shape) for level in neck([torch.rand(5, 64, 8, 8), torch.rand(5, 128, 4, 4)])]
        [(5, 32, 8, 8), (5, 32, 4, 4)]
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 128) -> None:
        super().__init__(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            for channels in in_channels
        )


class _DilatedSum(nn.ModuleList):
    def __init__(self, in_channels: int, out_channels: int, *, bias: bool) -> None:
        convs = [_dilated(in_channels, out_channels, d, bias=bias) for d in (3, 6, 12, 18)]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
        super().__init__(convs)

    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(torch.add, (conv(x) for conv in self))


class _ASPP(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mean = nn.Conv2d(in_channels, out_channels, 1)
        self.pixel = nn.Conv2d(in_channels, out_channels, 1)
        self.dilated = nn.ModuleList(_dilated(in_channels, out_channels, d) for d in (6, 12, 18))
        self.project = nn.Conv2d(5 * out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pixel = self.pixel(x)
        mean = self.mean(x.mean(dim=(-2, -1), keepdim=True)).expand_as(pixel)
        return self.project(torch.cat([mean, pixel, *(conv(x) for conv in self.dilated)], dim=1))


def _dilated(in_channels: int, out_channels: int, dilation: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)
