"""Drawing masks over the frames of a video."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from avslib._checks import check_shape
from avslib.media.video import iter_frames, probe_video, read_sound
from avslib.media.video_writer import write_video

ORANGE = torch.tensor([[0, 0, 0], [255, 140, 0]], dtype=torch.uint8)
"""Palette of binary masks, ``(2, 3)``; this orange is rare in most pictures."""
SOUND_RATE = 48_000
"""Sample rate of the sound in the written video, Hz."""


def draw_mask(frame: Tensor, mask: Tensor, palette: Tensor = ORANGE) -> Tensor:
    """Tint the pixels of a mask by half, and draw a line along its edge.

    Args:
        frame: ``(3, H, W)``, uint8, RGB.
        mask: the class of each pixel, ``(H, W)``, integers or bool; pixels of class 0 are not changed.
        palette: RGB of each class, ``(classes, 3)``, uint8, such as :func:`~avslib.media.class_palette`.

    Returns:
        ``(3, H, W)``, uint8.

    Raises:
        ValueError: if a shape or dtype is wrong, or if the palette has no colour for a class.

    Example:
        >>> frame = torch.full((3, 32, 32), 100, dtype=torch.uint8)
        >>> mask = torch.zeros(32, 32, dtype=torch.long)
        >>> mask[8:24, 8:24] = 1
        >>> draw_mask(frame, mask)[:, [0, 8, 16], [0, 8, 16]].mT.tolist()
        [[100, 100, 100], [255, 140, 0], [177, 120, 50]]
    """
    size = check_shape("frame", frame, "3 h w")
    if frame.dtype != torch.uint8:
        raise ValueError(f"frame: expected uint8, got {frame.dtype}")
    check_shape("mask", mask, "h w", **size)
    return _Ink.of(mask, palette).on(frame)


class _Ink(NamedTuple):
    """A mask, prepared for drawing over any frame."""

    inside: Tensor  # (H, W), bool
    line: Tensor  # (H, W), bool, the part of ``inside`` along edges
    colour: Tensor  # (3, H, W), uint8

    @classmethod
    def of(cls, mask: Tensor, palette: Tensor) -> _Ink:
        check_shape("palette", palette, "classes 3")
        if mask.is_floating_point():
            raise ValueError(f"mask: expected classes, integers or bool, got {mask.dtype}")
        mask = mask.long()
        if mask.numel() and not 0 <= mask.min() <= mask.max() < len(palette):
            raise ValueError(
                f"mask: expected classes from 0 to {len(palette) - 1}, as many as palette has colours, got "
                f"{mask.min()} to {mask.max()}"
            )
        reach = max(1, min(mask.shape) // 200)  # px, two in a frame of 480
        classes = mask[None, None].float()
        high, low = (sign * _highest_around(sign * classes, reach)[0, 0] for sign in (1, -1))
        inside = mask > 0
        return cls(inside, inside & (high != low), palette[mask].permute(2, 0, 1).contiguous())

    def on(self, frame: Tensor) -> Tensor:
        tinted = torch.where(self.inside, (frame >> 1) + (self.colour >> 1), frame)
        return torch.where(self.line, self.colour, tinted)


def _highest_around(values: Tensor, reach: int) -> Tensor:
    """Return the highest value within ``reach`` pixels of each pixel, one axis after the other."""
    for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        values = F.max_pool2d(values, kernel, 1, padding)
    return values


def write_overlay(
    path: str | Path,
    video: str | Path,
    moments: Sequence[float],
    mask_of: Callable[[int], Tensor],
    palette: Tensor = ORANGE,
) -> None:
    """Write a copy of a video, with its sound and with masks drawn over its frames.

    Every frame gets the mask of the nearest moment. Frames are read one by one; the sound is held in memory.

    Args:
        path: the MP4 file to write, in a folder that exists.
        video: the video that the masks belong to.
        moments: times of the masks, s, ascending.
        mask_of: maps the index of a moment to its mask, the class of each pixel ``(H, W)`` at the video's
            size; called in order, at most once for each moment.
        palette: RGB of each class, ``(classes, 3)``, uint8.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if the video does not exist.
        ValueError: if the video cannot be read, or a mask has another size.
    """
    info = probe_video(video)
    fps = info.fps or (len(info.times) / info.end if info.end else 1.0)
    times = [number / fps for number in range(max(1, round(info.end * fps)))]
    between = [(before + after) / 2 for before, after in pairwise(moments)]

    def drawn() -> Iterator[Tensor]:
        drawn_last, ink = -1, None
        for time, frame in zip(times, iter_frames(video, times), strict=True):
            nearest = bisect.bisect_left(between, time)
            if ink is None or nearest != drawn_last:
                mask = mask_of(nearest)
                check_shape("mask", mask, "h w", h=frame.shape[1], w=frame.shape[2])
                drawn_last, ink = nearest, _Ink.of(mask, palette)
            yield ink.on(frame)

    sound = read_sound(video, info, SOUND_RATE) if info.has_sound else None
    write_video(path, drawn(), fps=fps, waveform=sound, sample_rate=SOUND_RATE)
