"""A pyramid of mixed widths as a pyramid of one width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Neck(nn.ModuleList):
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

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Return the pyramid ``(N, C, h, w)`` at one width.

        Raises:
            ValueError: if the number of levels differs.
        """
        if len(pyramid) != len(self):
            raise ValueError(f"pyramid: expected {len(self)} levels, got {len(pyramid)}")
        return [level(features) for level, features in zip(self, pyramid, strict=True)]
