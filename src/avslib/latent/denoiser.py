"""The noise estimator: noisy latent, timestep and condition to predicted noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape


def timestep_embedding(timestep: Tensor, features: int, *, max_period: float = 10_000.0) -> Tensor:
    """Embed a noise level as sines and cosines, ``(...)`` to ``(..., features)``.

    Args:
        timestep: noise level, integer or not.
        features: length of the embedding; even.
        max_period: period of the slowest sine, in timesteps.

    Vaswani et al., Attention Is All You Need, section 3.5.

    Example:
        >>> timestep_embedding(torch.zeros(2), 4)
        tensor([[0., 0., 1., 1.],
                [0., 0., 1., 1.]])
    """
    half = features // 2
    frequency = torch.exp(torch.arange(half, device=timestep.device) * (-math.log(max_period) / half))
    angle = timestep.float()[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class NoiseEstimator(nn.Module):
    """Noise estimator eps_theta: a UNet over vectors, of eight fully connected layers.

    Four layers encode and four decode; each decoding layer but the first also sees the encoding layer of its
    depth. Condition and timestep enter every layer, so that no layer can wash them out.

    Args:
        latent_dim: D, length of the latent.
        condition_dim: length of the condition.
        widths: width of the four encoding layers; the decoding ones mirror them.
        timestep_features: length of the timestep embedding; even.
        negative_slope: of every LeakyReLU.

    Mao et al., DiffusionAVS, section III-A, "Technical details". The paper gives the eight layers and the
    LeakyReLU; widths and the way the condition enters are ours.

    Example:
        >>> estimator = NoiseEstimator()
        >>> estimator(torch.randn(2, 5, 24), torch.full((2, 5), 7), torch.randn(2, 5, 24)).shape
        torch.Size([2, 5, 24])
    """

    def __init__(
        self,
        latent_dim: int = 24,
        *,
        condition_dim: int = 24,
        widths: Sequence[int] = (512, 512, 256, 256),
        timestep_features: int = 128,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        self.latent_dim = latent_dim
        self.condition_dim = condition_dim
        self.timestep_features = timestep_features
        self.negative_slope = negative_slope
        context = condition_dim + timestep_features
        self.encoder = nn.ModuleList(
            nn.Linear(before + context, after) for before, after in pairwise((latent_dim, *widths))
        )
        # what a decoding layer reads: the layer before it, beside the encoding layer it skips from
        read = [widths[-1], *(2 * width for width in reversed(widths[:-1]))]
        write = [*reversed(widths[:-1]), latent_dim]
        self.decoder = nn.ModuleList(
            nn.Linear(before + context, after) for before, after in zip(read, write, strict=True)
        )

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Return the noise that is believed to be in a latent, ``(..., D)``.

        Args:
            latent: noisy latent, ``(..., D)``.
            timestep: its noise level, ``(...)``.
            condition: ``(..., C)``.

        Raises:
            ValueError: if the latent or the condition has another length.
        """
        check_shape("latent", latent, "... d", d=self.latent_dim)
        check_shape("condition", condition, "... c", c=self.condition_dim)
        embedded = timestep_embedding(timestep, self.timestep_features).to(condition.dtype)
        context = torch.cat([condition, embedded.expand(*condition.shape[:-1], -1)], dim=-1)
        x = latent
        skips: list[Tensor] = []
        for layer in self.encoder:
            x = nn.functional.leaky_relu(layer(torch.cat([x, context], dim=-1)), self.negative_slope)
            skips.append(x)
        skips.pop()
        for depth, layer in enumerate(self.decoder):
            x = layer(torch.cat([x, context] if depth == 0 else [x, skips.pop(), context], dim=-1))
            if depth < len(self.decoder) - 1:
                x = nn.functional.leaky_relu(x, self.negative_slope)
        return x
