"""The fusion of a pyramid with the sound, by name."""

from __future__ import annotations

from avslib._checks import check_one_of
from avslib.fusion.film import PyramidFiLM
from avslib.fusion.pyramid import PyramidFusion

FUSIONS = ("tpavi", "film")


def pyramid_fusion(
    fusion: str, channels: int, *, audio_channels: int = 128, window: int | None = None
) -> PyramidFusion | PyramidFiLM:
    """Build the fusion of that name, for a pyramid of four levels.

    Args:
        fusion: ``"tpavi"`` for :class:`PyramidFusion`, or ``"film"`` for :class:`PyramidFiLM`.
        channels: C, width of every level.
        audio_channels: width A of the audio embedding.
        window: how many seconds attend to each other; None for the whole clip. In FiLM none do.

    Raises:
        ValueError: if there is no such fusion, a number is below 1, or ``"film"`` is given a ``window`` of
            several seconds.
    """
    check_one_of("fusion", fusion, FUSIONS)
    if fusion == "tpavi":
        return PyramidFusion(channels, audio_channels=audio_channels, window=window)
    if window not in (None, 1):
        raise ValueError(f"window: expected None or 1 with fusion='film', got {window}")
    return PyramidFiLM(channels, audio_channels=audio_channels)
