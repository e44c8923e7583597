"""TPAVI at the levels of a pyramid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from avslib._checks import check_one_of, check_positive, check_shape
from avslib.fusion.tpavi import TPAVI

ATTENTION = ("visual", "audio")  # in AVSBench's order: in training a batch norm sees one, then the other


class Fused(NamedTuple):
    """The output of :class:`PyramidFusion`, one entry per level, finest first."""

    pyramid: list[Tensor]  # (B, T, C, h, w)
    audio: list[Tensor | None]  # (B, T, C), the sound aligned to that level; None where none was fused


class PyramidFusion(nn.ModuleList):
    """One :class:`TPAVI` per level.

    Args:
        channels: C, width of every level.
        num_levels: levels of the pyramid, finest first.
        audio_channels: width A of the audio embedding; None if it has C channels and needs no alignment.
        levels: levels to fuse, where 0 is the finest; None for all. The others pass through.
        attention: what the pixels attend to: the sound ("audio"), the pixels of all frames ("visual"), or
            both, with the same weights and averaged.
        window: how many seconds attend to each other; None for the whole clip. AVSBench's semantic setting
            cuts 10 s into two windows of 5. The last window may be shorter.
        normalize: as in :class:`TPAVI`.
        audio_bias: as in :class:`TPAVI`.
        mode: as in :class:`TPAVI`.

    Raises:
        ValueError: if a word, a level or a number is not allowed.

    Example:
        >>> import torch
        >>> fuse = PyramidFusion(16, num_levels=2, levels=[1])
        >>> pyramid = [torch.rand(2, 5, 16, side, side) for side in (8, 4)]
        >>> fused, aligned = fuse(pyramid, torch.rand(2, 5, 128))
        >>> fused[0] is pyramid[0], fused[1].shape
        (True, torch.Size([2, 5, 16, 4, 4]))
        >>> aligned[0] is None, aligned[1].shape
        (True, torch.Size([2, 5, 16]))
    """

    def __init__(
        self,
        channels: int,
        *,
        num_levels: int = 4,
        audio_channels: int | None = 128,
        levels: Collection[int] | None = None,
        attention: Sequence[str] = ("audio",),
        window: int | None = None,
        normalize: bool = False,
        audio_bias: bool = True,
        mode: str = "dot",
    ) -> None:
        check_positive("num_levels", num_levels)
        levels = range(num_levels) if levels is None else levels
        if not all(0 <= level < num_levels for level in levels):
            raise ValueError(f"levels: expected numbers from 0 to {num_levels - 1}, got {levels}")
        if not attention or isinstance(attention, str):
            raise ValueError(f"attention: expected a sequence of at least one word, got {attention!r}")
        for word in attention:
            check_one_of("attention", word, ATTENTION)
        if window is not None:
            check_positive("window", window)
        if "audio" not in attention:
            audio_channels = None  # no weights for a sound that is never heard
        super().__init__(
            TPAVI(
                channels,
                audio_channels=audio_channels,
                mode=mode,
                normalize=normalize,
                audio_bias=audio_bias,
            )
            if level in levels
            else nn.Identity()
            for level in range(num_levels)
        )
        self.channels = channels
        self.audio_channels = channels if audio_channels is None else audio_channels
        self.attention = tuple(word for word in ATTENTION if word in attention)
        self.window = window

    def forward(
        self, pyramid: Sequence[Tensor], audio: Tensor | None = None, valid: Tensor | None = None
    ) -> Fused:
        """Fuse each level with the sound.

        Args:
            pyramid: feature maps ``(B, T, C, h, w)``, finest first.
            audio: one embedding per second, ``(B, T, A)``; not needed if pixels only attend to pixels.
            valid: which frames are not padding, ``(B, T)`` bool. As in AVSBench's semantic setting, padding
                is set to 0 before and after fusion, but attention still counts it, as does a batch norm in
                training.

        Raises:
            ValueError: if an argument has another shape or the sound is missing.
        """
        clip = check_pyramid(pyramid, len(self), self.channels, valid)
        if "audio" not in self.attention:
            audio = None
        elif audio is not None:
            check_shape("audio", audio, "b t a", **clip, a=self.audio_channels)
        elif any(isinstance(block, TPAVI) for block in self):
            raise ValueError("audio: expected one embedding per second, got None")

        fused, aligned = [], []
        for block, features in zip(self, pyramid, strict=True):
            x, sound = silence(features, valid), None
            if isinstance(block, TPAVI):
                x, sound = self._fuse(block, x, audio)
                x = silence(x, valid)
            fused.append(x)
            aligned.append(sound)
        return Fused(fused, aligned)

    def _fuse(self, block: TPAVI, x: Tensor, audio: Tensor | None) -> tuple[Tensor, Tensor | None]:
        t = x.shape[1]
        window = min(self.window or t, t)
        whole, rest = t - t % window, t % window
        if not rest:
            return self._fuse_windows(block, x, audio, window)
        first, last = (
            self._fuse_windows(block, x[:, part], None if audio is None else audio[:, part], length)
            for part, length in ((slice(whole), window), (slice(whole, t), rest))
        )
        sound = None if first[1] is None or last[1] is None else torch.cat([first[1], last[1]], dim=1)
        return torch.cat([first[0], last[0]], dim=1), sound

    def _fuse_windows(
        self, block: TPAVI, x: Tensor, audio: Tensor | None, window: int
    ) -> tuple[Tensor, Tensor | None]:
        b = x.shape[0]
        x = rearrange(x, "b (k t) c h w -> (b k) t c h w", t=window)
        if audio is not None:
            audio = rearrange(audio, "b (k t) a -> (b k) t a", t=window)
        fused = [block(x, audio if word == "audio" else None) for word in self.attention]
        mean = fused[0][0] if len(fused) == 1 else (fused[0][0] + fused[1][0]) / 2
        sound = fused[-1][1]
        if sound is not None:
            sound = rearrange(sound, "(b k) t c -> b (k t) c", b=b)
        return rearrange(mean, "(b k) t c h w -> b (k t) c h w", b=b), sound


def check_pyramid(
    pyramid: Sequence[Tensor], num_levels: int, channels: int, valid: Tensor | None
) -> dict[str, int]:
    """Raise ``ValueError`` if a pyramid or ``valid`` has another shape; return B and T."""
    if len(pyramid) != num_levels:
        raise ValueError(f"pyramid: expected {num_levels} levels, got {len(pyramid)}")
    size = check_shape("pyramid[0]", pyramid[0], "b t c h w", c=channels)
    clip = {"b": size["b"], "t": size["t"]}
    for i, features in enumerate(pyramid):
        check_shape(f"pyramid[{i}]", features, "b t c h w", **clip, c=channels)
    if valid is not None:
        check_shape("valid", valid, "b t", **clip)
    return clip


def silence(features: Tensor, valid: Tensor | None) -> Tensor:
    """Return features ``(B, T, C, h, w)`` with those of padding set to 0."""
    return features if valid is None else features.masked_fill(~valid[..., None, None, None], 0)
