"""Condition encoders, which turn a frame and its sound into the vector that conditions the diffusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avslib._checks import check_one_of, check_shape
from avslib.latent.conv_encoder import ConvEncoder

CONDITIONS = ("none", "audio", "visual", "audio_visual")


class ConditionEncoder(nn.Module):
    """Condition encoder E_psi: encode a frame and its sound as the vector c that conditions the diffusion.

    The visual branch has the structure of :class:`~avslib.latent.GTEncoder`, the audio branch is two fully
    connected layers, and two more join them. c is as long as the latent because the contrastive loss compares
    the two.

    Args:
        latent_dim: D, length of the condition.
        audio_channels: length A of the audio embedding; VGGish gives 128.
        source: what c is made of. ``"audio_visual"`` is the paper's model; ``"audio"`` and ``"visual"``
            return the output of that branch; ``"none"`` is a vector of zeros (Table III).
        hidden_features: hidden width of the fully connected layers.

    Mao et al., DiffusionAVS, section III-B.

    Example:
        >>> encoder = ConditionEncoder().eval()
        >>> encoder(torch.rand(2, 5, 3, 64, 64), torch.rand(2, 5, 128)).shape
        torch.Size([2, 5, 24])
    """

    def __init__(
        self,
        latent_dim: int = 24,
        *,
        audio_channels: int = 128,
        source: str = "audio_visual",
        hidden_features: int = 256,
    ) -> None:
        super().__init__()
        check_one_of("source", source, CONDITIONS)
        self.latent_dim = latent_dim
        self.audio_channels = audio_channels
        self.visual = (
            ConvEncoder(3, latent_dim, hidden_features=hidden_features)
            if source in ("visual", "audio_visual")
            else None
        )
        self.audio = (
            _two_layers(audio_channels, hidden_features, latent_dim)
            if source in ("audio", "audio_visual")
            else None
        )
        self.join = (
            _two_layers(2 * latent_dim, hidden_features, latent_dim) if source == "audio_visual" else None
        )

    def forward(self, frames: Tensor, audio: Tensor) -> Tensor:
        """Return the condition of each second, ``(B, T, D)``.

        Args:
            frames: ``(B, T, 3, H, W)``, ImageNet-normalised, ``H, W >= 32``.
            audio: one embedding per second, ``(B, T, A)``.

        Raises:
            ValueError: if ``frames`` or ``audio`` has the wrong shape; the message names it.
        """
        size = check_shape("frames", frames, "b t 3 h w")
        check_shape("audio", audio, "b t a", b=size["b"], t=size["t"], a=self.audio_channels)
        codes = []
        if self.visual is not None:
            codes.append(self.visual(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))
        if self.audio is not None:
            codes.append(self.audio(audio))
        if self.join is not None:
            return self.join(torch.cat(codes, dim=-1))
        return codes[0] if codes else audio.new_zeros(size["b"], size["t"], self.latent_dim)


class FusedConditionEncoder(nn.Module):
    """Encode the fused pyramid and the sound of a frame as the vector c; a replacement for E_psi.

    :class:`ConditionEncoder` sees a frame through five convolutions of its own. The pyramid that the head
    decodes comes from the backbone and is fused with the sound of the clip, so it says more about the mask's
    code. Every level is averaged over the cells of a grid, and two fully connected layers join the cells and
    the sound. The gradient of the diffusion loss reaches the pyramid.

    Args:
        latent_dim: D, length of the condition.
        channels: C, width of every level.
        num_levels: number of levels of the pyramid.
        audio_channels: length A of the audio embedding.
        across_seconds: whether each second attends to all seconds of the clip between the two layers.
        grid: side of the grid, in cells.
        hidden_features: width between the two fully connected layers.

    Not in the paper.

    Example:
        >>> encoder = FusedConditionEncoder(channels=16, num_levels=2)
        >>> encoder([torch.rand(2, 5, 16, side, side) for side in (8, 4)], torch.rand(2, 5, 128)).shape
        torch.Size([2, 5, 24])
    """

    def __init__(
        self,
        latent_dim: int = 24,
        *,
        channels: int = 128,
        num_levels: int = 4,
        audio_channels: int = 128,
        across_seconds: bool = False,
        grid: int = 4,
        hidden_features: int = 256,
    ) -> None:
        super().__init__()
        self.audio_channels = audio_channels
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.read = nn.Linear(num_levels * channels * grid**2 + audio_channels, hidden_features)
        self.attend = (
            nn.TransformerEncoderLayer(
                hidden_features, nhead=4, dim_feedforward=hidden_features, dropout=0.0, batch_first=True
            )
            if across_seconds
            else None
        )
        self.write = nn.Linear(hidden_features, latent_dim)

    def forward(self, pyramid: Sequence[Tensor], audio: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the condition of each second, ``(B, T, D)``.

        Args:
            pyramid: fused features, ``(B, T, C, h, w)`` each.
            audio: one embedding per second, ``(B, T, A)``.
            valid: which seconds are not padding, ``(B, T)`` bool; None if there is no padding.

        Raises:
            ValueError: if ``audio`` has the wrong shape.
        """
        batch, seconds = pyramid[0].shape[:2]
        check_shape("audio", audio, "b t a", b=batch, t=seconds, a=self.audio_channels)
        cells = [
            self.pool(level.flatten(0, 1)).flatten(1).unflatten(0, (batch, seconds)) for level in pyramid
        ]
        features = nn.functional.leaky_relu(self.read(torch.cat([*cells, audio], dim=-1)), 0.2)
        if self.attend is not None:
            padding = None if valid is None else ~valid & valid.any(dim=1, keepdim=True)
            features = self.attend(features, src_key_padding_mask=padding)
        return self.write(features)


def _two_layers(in_features: int, hidden_features: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, hidden_features), nn.LeakyReLU(0.2), nn.Linear(hidden_features, out_features)
    )
