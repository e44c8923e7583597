"""Prior and posterior networks, which map a picture, a vector or both to a Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape
from avslib.latent.conv_encoder import strided_convolutions
from avslib.latent.gaussian import DiagonalGaussian


class GaussianEncoder(nn.Module):
    """Predict the distribution of a code from a picture, a vector or both.

    A prior sees the frame, the sound or both. Its posterior also sees the mask, as one more channel of the
    picture or as the picture itself. Five convolutions turn the picture into a vector, which may be
    summarised by a linear layer and is appended to the given vector. Two linear layers predict mean and
    log-variance.

    The published encoders fit one picture size only, because their last layer reads the whole last feature
    map. Here that map is pooled to ``grid`` x ``grid``. This changes nothing if H and W are ``32 * grid``,
    and makes every other size fit too.

    Args:
        latent_dim: D, length of the code.
        image_channels: channels of the picture; None if there is none.
        vector_dim: length of the vector; None if there is none.
        widths: width after each of the five convolutions. ECMVAE uses (16, 32, 64, 64, 64) if there is also a
            vector.
        summary_dim: length of the picture's summary; None for the pooled feature map without a summary.
            ECMVAE uses 32 if there is also a vector.
        grid: side of the pooled feature map, in cells.

    Raises:
        ValueError: if there is neither a picture nor a vector, or if a size is not above 0.

    Mao et al., ECMVAE, ICCV 2023, published code.

    Example:
        >>> encoder = GaussianEncoder(image_channels=4, vector_dim=128, summary_dim=32)
        >>> encoder(torch.randn(2, 5, 4, 64, 64), torch.randn(2, 5, 128)).mean.shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        latent_dim: int = 16,
        *,
        image_channels: int | None = None,
        vector_dim: int | None = None,
        widths: Sequence[int] = (16, 32, 64, 128, 128),
        summary_dim: int | None = None,
        grid: int = 7,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        check_positive("grid", grid)
        for name, size in (
            ("image_channels", image_channels),
            ("vector_dim", vector_dim),
            ("summary_dim", summary_dim),
        ):
            if size is not None:
                check_positive(name, size)
        if image_channels is None and vector_dim is None:
            raise ValueError("image_channels, vector_dim: expected one or both, got neither")
        self.image_channels = image_channels
        self.vector_dim = vector_dim
        features = 0 if vector_dim is None else vector_dim
        if image_channels is not None:
            # The published code has the bias. Batch norm cancels it, but the running mean depends on it.
            self.convolutions = strided_convolutions(image_channels, widths, bias=True, negative_slope=0.01)
            self.pool = nn.AdaptiveAvgPool2d(grid)
            cells = widths[-1] * grid**2
            self.summary = nn.Identity() if summary_dim is None else nn.Linear(cells, summary_dim)
            features += cells if summary_dim is None else summary_dim
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def forward(self, image: Tensor | None = None, vector: Tensor | None = None) -> DiagonalGaussian:
        """Return the distribution of each code, ``(..., D)``.

        Args:
            image: ``(..., image_channels, H, W)``, ``H, W >= 32``; None if the encoder has no picture.
            vector: ``(..., vector_dim)``, leading axes as in ``image``; None if the encoder has no vector.

        Raises:
            ValueError: if one is missing, unexpected or of the wrong shape; the message names it.
        """
        _check_presence("image", image, self.image_channels)
        _check_presence("vector", vector, self.vector_dim)
        parts = []
        if vector is not None and self.vector_dim is not None:
            check_shape("vector", vector, "... v", v=self.vector_dim)
            parts.append(vector)
        if image is not None and self.image_channels is not None:
            check_shape("image", image, "... c h w", c=self.image_channels)
            leading = image.shape[:-3]
            if vector is not None and vector.shape[:-1] != leading:
                raise ValueError(
                    f"vector: expected {tuple(leading)} in front of its last axis, as image has in front of "
                    f"its last three, got {tuple(vector.shape[:-1])}"
                )
            maps = self.pool(self.convolutions(image.reshape(-1, *image.shape[-3:])))
            summary = self.summary(maps.flatten(1))
            parts.append(summary.reshape(*leading, summary.shape[-1]))
        features = torch.cat(parts, dim=-1)
        return DiagonalGaussian(self.mean(features), self.log_variance(features))


def _check_presence(name: str, tensor: Tensor | None, size: int | None) -> None:
    if (tensor is None) != (size is None):
        expected, got = ("None", "a tensor") if size is None else ("a tensor", "None")
        raise ValueError(f"{name}: expected {expected}, as the encoder was built, got {got}")
