"""Inject a latent into the deepest feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avslib._checks import check_shape


class LatentInjection(nn.Module):
    """Latent code expanding D_tau: tile the latent over the grid, concatenate it and convolve.

    Args:
        channels: width of the feature map, in and out.
        latent_dim: D, length of the latent.
        kernel_size: size of the convolution's kernel; 1 in ECMVAE.

    Mao et al., DiffusionAVS, section III-C, "Prediction decoder".

    Example:
        >>> inject = LatentInjection()
        >>> inject(torch.rand(2, 5, 128, 7, 7), torch.rand(16, 2, 5, 24)).shape  # 16 samples of each latent
        torch.Size([16, 2, 5, 128, 7, 7])
    """

    def __init__(self, channels: int = 128, *, latent_dim: int = 24, kernel_size: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.latent_dim = latent_dim
        self.conv = nn.Conv2d(channels + latent_dim, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, features: Tensor, latent: Tensor) -> Tensor:
        """Return features that carry the latent.

        Args:
            features: ``(..., C, H, W)``.
            latent: ``(..., D)``; if it has more leading axes than the features, these are repeated.

        Raises:
            ValueError: if ``features`` or ``latent`` has another width.
        """
        size = check_shape("features", features, "... c h w", c=self.channels)
        check_shape("latent", latent, "... d", d=self.latent_dim)
        leading = torch.broadcast_shapes(features.shape[:-3], latent.shape[:-1])
        tiled = latent[..., None, None].expand(*leading, -1, size["h"], size["w"]).to(features.dtype)
        both = torch.cat([features.expand(*leading, -1, -1, -1), tiled], dim=-3)
        return self.conv(both.reshape(-1, *both.shape[-3:])).reshape(*leading, -1, size["h"], size["w"])
