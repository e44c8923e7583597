"""Necks: bring all levels of a pyramid to the same width."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class _Neck(nn.ModuleList):
    """Base of the necks: one module per level."""

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels, ``(N, C, h, w)`` each, at one width.

        Raises:
            ValueError: if the number of levels differs.
        """
        if len(pyramid) != len(self):
            raise ValueError(f"pyramid: expected {len(self)} levels, got {len(pyramid)}")
        return [level(features) for level, features in zip(self, pyramid, strict=True)]


class Neck(_Neck):
    """DiffusionAVS's neck: a 3x3 convolution, batch norm and ReLU per level.

    Args:
        in_channels: width of each level, finest first.
        out_channels: c, width of every output level.

    Mao et al., DiffusionAVS, section III-C, "Input Data Encoding": the paper says "four convolutional layers"
    and c = 128; the norm and the activation are ours.

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
    """AVSBench's neck: the sum of four 3x3 convolutions per level, with dilations 3, 6, 12 and 18.

    Where a level is smaller than the dilation, all weights of a kernel but the central one fall outside it.
    In the coarsest level of a 224 px frame, 7 px wide, this is true of two of the four convolutions.

    Args:
        in_channels: width of each level, finest first.
        out_channels: width of every output level.
        bias: whether the convolutions have a bias; ECMVAE's "aspp" neck is this one without bias.

    Zhou et al., Audio-Visual Segmentation (ECCV 2022), section 3.3, after the atrous spatial pyramid pooling
    of DeepLab; sizes and initialisation follow the published code.

    Example:
        >>> import torch
        >>> neck = DilatedNeck((64, 128), out_channels=32)
        >>> [tuple(level.shape) for level in neck([torch.rand(5, 64, 8, 8), torch.rand(5, 128, 4, 4)])]
        [(5, 32, 8, 8), (5, 32, 4, 4)]
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256, *, bias: bool = True) -> None:
        super().__init__(_DilatedSum(channels, out_channels, bias=bias) for channels in in_channels)


class ASPPNeck(_Neck):
    """C3N's neck: atrous spatial pyramid pooling per level, without norm or activation.

    Five branches are concatenated and projected by a 1x1 convolution: one 1x1 convolution of the map's mean,
    one of the map itself, and 3x3 convolutions of the map with dilations 6, 12 and 18.

    Args:
        in_channels: width of each level, finest first.
        out_channels: width of every branch and of every output level.

    Chen et al., DeepLabv3 (2017), section 3.3, as in the published code of C3N (Shi et al., 2024).

    Example:
        >>> import torch
        >>> neck = ASPPNeck((64, 128), out_channels=32)
        >>> [tuple(level.shape) for level in neck([torch.rand(5, 64, 8, 8), torch.rand(5, 128, 4, 4)])]
        [(5, 32, 8, 8), (5, 32, 4, 4)]
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__(_ASPP(channels, out_channels) for channels in in_channels)


class ReductionNeck(_Neck):
    """ECMVAE's neck: a 1x1 and two 3x3 convolutions per level, each followed by a batch norm.

    As in the published code, there are no activations, so in evaluation mode the neck is linear.

    Args:
        in_channels: width of each level, finest first.
        out_channels: width of every output level.

    Mao et al., ECMVAE (ICCV 2023); the details follow the published code.

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
