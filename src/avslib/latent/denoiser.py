"""The noise estimator, which predicts noise from a noisy latent, its timestep and a condition."""

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
        max_period: bound of the periods, which grow from 2 pi to almost ``2 * pi * max_period`` timesteps.

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

    Four layers encode and four decode; each decoding layer except the first also reads the encoding layer at
    its depth. Condition and timestep enter every layer, so that no layer can lose them. What they add does
    not depend on the latent, so a sampler computes :meth:`condition_terms` and :meth:`timestep_terms` only
    once.

    Args:
        latent_dim: D, length of the latent.
        condition_dim: length of the condition.
        widths: widths of the four encoding layers; the decoding layers mirror them.
        timestep_features: length of the timestep embedding; even.
        negative_slope: slope of every LeakyReLU below 0.

    Raises:
        ValueError: if ``latent_dim`` is not above 0, or ``timestep_features`` is odd or below 2.

    Mao et al., DiffusionAVS, section III-A, "Technical details". The paper gives the eight layers and the
    LeakyReLU; the widths and the way the condition enters are ours.

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
        if timestep_features < 2 or timestep_features % 2:
            raise ValueError(
                f"timestep_features: expected an even number of at least 2, got {timestep_features}"
            )
        self.latent_dim = latent_dim
        self.condition_dim = condition_dim
        self.timestep_features = timestep_features
        self.negative_slope = negative_slope
        # a decoding layer reads the layer before it and the encoding layer at its depth, concatenated
        read = [widths[-1], *(2 * width for width in reversed(widths[:-1]))]
        write = [*reversed(widths[:-1]), latent_dim]
        self.encoder = nn.ModuleList(
            nn.Linear(before, after, bias=False) for before, after in pairwise((latent_dim, *widths))
        )
        self.decoder = nn.ModuleList(
            nn.Linear(before, after, bias=False) for before, after in zip(read, write, strict=True)
        )
        self.condition = nn.Linear(condition_dim, sum(self._widths()))
        self.timestep = nn.Linear(timestep_features, sum(self._widths()), bias=False)
        self._initialize()

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Predict the noise in a latent, ``(..., D)``, or what the scheduler's ``prediction_type`` names.

        Args:
            latent: noisy latent, ``(..., D)``.
            timestep: its noise level, ``(...)``.
            condition: one for each latent, ``(..., C)``.

        Raises:
            ValueError: if the latent or the condition has the wrong length, or their leading axes differ.
        """
        if condition.shape[:-1] != latent.shape[:-1]:
            raise ValueError(
                f"condition: expected one for each latent, {tuple(latent.shape[:-1])}, "
                f"got {tuple(condition.shape[:-1])}"
            )
        return self.denoise(latent, self.condition_terms(condition) + self.timestep_terms(timestep))

    def condition_terms(self, condition: Tensor) -> Tensor:
        """Return what the condition and the biases add to the layers, ``(..., C)`` to ``(..., W)``.

        W is the sum of the layers' widths.
        """
        check_shape("condition", condition, "... c", c=self.condition_dim)
        return self.condition(condition)

    def timestep_terms(self, timestep: Tensor) -> Tensor:
        """Return what the noise level adds to the layers, ``(...)`` to ``(..., W)``."""
        embedded = timestep_embedding(timestep, self.timestep_features)
        return self.timestep(embedded.to(self.timestep.weight.dtype))

    def denoise(self, latent: Tensor, terms: Tensor) -> Tensor:
        """Predict as :meth:`forward` does, ``(..., D)``, given the sum of both terms, ``(..., W)``."""
        check_shape("latent", latent, "... d", d=self.latent_dim)
        widths = self._widths()
        added = iter(terms.reshape(-1, sum(widths)).split(widths, dim=-1))
        x = latent.reshape(-1, self.latent_dim).to(self.condition.weight.dtype)
        skips: list[Tensor] = []
        for layer in self.encoder:
            x = self._activate(layer(x) + next(added))
            skips.append(x)
        x = skips.pop()
        for layer in self.decoder:
            x = layer(x) + next(added)
            if skips:
                x = torch.cat([self._activate(x), skips.pop()], dim=-1)
        return x.view(latent.shape)

    def _activate(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x, self.negative_slope, inplace=True)

    def _widths(self) -> list[int]:
        return [len(layer.weight) for layer in (*self.encoder, *self.decoder)]

    @torch.no_grad()
    def _initialize(self) -> None:
        """Initialise the parts of each layer as PyTorch does one linear layer that reads all inputs."""
        widths = self._widths()
        others = (self.condition.weight, self.condition.bias, self.timestep.weight)
        parts = zip(*(part.split(widths) for part in others), strict=True)
        for layer, theirs in zip((*self.encoder, *self.decoder), parts, strict=True):
            bound = (layer.weight.shape[1] + self.condition_dim + self.timestep_features) ** -0.5
            for part in (layer.weight, *theirs):
                nn.init.uniform_(part, -bound, bound)
