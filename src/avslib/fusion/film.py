"""Feature-wise linear modulation: the sound of a second scales and shifts its visual features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from avslib._checks import check_positive, check_shape
from avslib.fusion.pyramid import Fused, check_pyramid, silence


class FiLM(nn.Module):
    """Scale and shift every channel of a second's features, by a linear layer of its sound.

    Computes ``y = (1 + scale(audio)) * x + shift(audio)``. Unlike :class:`~avslib.fusion.TPAVI`, it has no
    attention: no second hears another, and all pixels of a second are treated alike. Later layers must
    decide which of them sound.

    Args:
        channels: width C of the visual features, in and out.
        audio_channels: width A of the audio embedding; VGGish gives 128.

    Raises:
        ValueError: if a width is below 1.

    Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018. None of the systems
    reproduced here uses it.

    Example:
        >>> import torch
        >>> FiLM(16)(torch.rand(2, 5, 16, 7, 7), torch.rand(2, 5, 128)).shape
        torch.Size([2, 5, 16, 7, 7])
    """

    def __init__(self, channels: int, *, audio_channels: int = 128) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_positive("audio_channels", audio_channels)
        self.channels = channels
        self.modulate = nn.Linear(audio_channels, 2 * channels)

    def forward(self, x: Tensor, audio: Tensor) -> Tensor:
        """Return the modulated features, ``(B, T, C, H, W)``.

        Args:
            x: visual features, ``(B, T, C, H, W)``.
            audio: one embedding per second, ``(B, T, A)``.

        Raises:
            ValueError: if ``x`` or ``audio`` has another shape; the message names it.
        """
        size = check_shape("x", x, "b t c h w", c=self.channels)
        check_shape("audio", audio, "b t a", b=size["b"], t=size["t"], a=self.modulate.in_features)
        scale, shift = self.modulate(audio)[..., None, None].chunk(2, dim=2)
        return x * (1 + scale) + shift


class PyramidFiLM(nn.ModuleList):
    """One :class:`FiLM` per level, called like :class:`~avslib.fusion.PyramidFusion`.

    Args:
        channels: C, width of every level.
        num_levels: levels of the pyramid, finest first.
        audio_channels: width A of the audio embedding.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(self, channels: int, *, num_levels: int = 4, audio_channels: int = 128) -> None:
        check_positive("num_levels", num_levels)
        super().__init__(FiLM(channels, audio_channels=audio_channels) for _ in range(num_levels))
        self.channels = channels

    def forward(self, pyramid: Sequence[Tensor], audio: Tensor, valid: Tensor | None = None) -> Fused:
        """Fuse each level with the sound.

        Args:
            pyramid: feature maps ``(B, T, C, h, w)``, finest first.
            audio: one embedding per second, ``(B, T, A)``.
            valid: which frames are not padding, ``(B, T)`` bool; the features of padding become 0.

        Returns:
            The fused pyramid; the aligned sound is None at every level.

        Raises:
            ValueError: if an argument has another shape.
        """
        check_pyramid(pyramid, len(self), self.channels, valid)
        fused = [silence(film(x, audio), valid) for film, x in zip(self, pyramid, strict=True)]
        return Fused(fused, [None] * len(fused))
