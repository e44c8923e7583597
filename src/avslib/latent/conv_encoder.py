"""Convolutions that encode a picture as a vector, shared by all encoders of frames and masks here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


def strided_convolutions(
    in_channels: int, channels: Sequence[int], *, bias: bool = False, negative_slope: float = 0.2
) -> nn.Sequential:
    """Build 4x4 convolutions that each halve the picture, with batch norm and LeakyReLU.

    Args:
        in_channels: channels of the picture.
        channels: width after each convolution.
        bias: whether the convolutions have a bias; the batch norm that follows cancels it.
        negative_slope: slope of every LeakyReLU below 0.

    Returns:
        A module that maps ``(N, in_channels, H, W)`` to ``(N, channels[-1], H / 2 ** n, W / 2 ** n)``, where
        n is ``len(channels)``.
    """
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(negative_slope),
            )
            for before, after in pairwise((in_channels, *channels))
        )
    )


class ConvEncoder(nn.Module):
    """Five strided convolutions and two fully connected layers, ``(N, C, H, W)`` to ``(N, F)``.

    A picture of 224 x 224 ends as a 7 x 7 feature map. Other sizes are pooled to that grid, so the fully
    connected layers fit every ``H, W >= 32``.

    Args:
        in_channels: channels of the picture.
        out_features: length of the vector.
        channels: width after each convolution.
        hidden_features: width between the two fully connected layers.
        grid: side of the pooled feature map, in cells.
        negative_slope: slope of every LeakyReLU below 0.

    Mao et al., DiffusionAVS, section III-A, "Ground-Truth Latent Encoder". The paper gives the channels; the
    width between the two fully connected layers is ours, chosen so that the latent parts have about the 4 M
    parameters stated in the paper.
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        channels: Sequence[int] = (16, 32, 64, 64, 64),
        hidden_features: int = 256,
        grid: int = 7,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.convolutions = strided_convolutions(in_channels, channels, negative_slope=negative_slope)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.linear = nn.Sequential(
            nn.Linear(channels[-1] * grid**2, hidden_features),
            nn.LeakyReLU(negative_slope),
            nn.Linear(hidden_features, out_features),
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Return the code of each picture, ``(N, C, H, W)`` to ``(N, F)``.

        Raises:
            ValueError: if, in training mode, the batch is one picture that shrinks to a single pixel.
        """
        cells = 2 ** (len(self.convolutions) + 1)
        if self.training and len(picture) == 1 and max(picture.shape[-2:]) < cells:
            raise ValueError(
                f"picture: expected {cells} px at least, or several pictures, for the batch norms to be "
                f"trained on, got {tuple(picture.shape)}"
            )
        return self.linear(self.pool(self.convolutions(picture)).flatten(1))
