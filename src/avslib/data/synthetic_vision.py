"""The look of synthetic clips: shapes, textures, how objects move, and how they are drawn.

A shape is a function of the plane that is negative inside the shape, which lies within the unit circle. A
texture maps the plane to [0, 1], the position between an object's colour and its accent. Drawing evaluates
both on the square that an object covers, for all frames together. Lengths are in frame sides, so a clip is
the same at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.floating]  # float32 where it counts
BoolArray = NDArray[np.bool_]
Shape = Callable[[FloatArray, FloatArray], FloatArray]
Texture = Callable[[FloatArray, FloatArray, float], FloatArray]


def _norm(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.sqrt(x * x + y * y)


def disc(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the unit disc."""
    return _norm(x, y) - 1


def ring(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return a thick ring."""
    return np.abs(_norm(x, y) - 0.74) - 0.26


def star(points: int, inner: float) -> Shape:
    """Return a star whose corners alternate between radius 1 and ``inner``.

    With ``inner`` = cos(pi / points) it is a polygon.
    """
    sector = math.pi / points
    corner = (inner * math.cos(sector), inner * math.sin(sector))
    length = math.hypot(corner[1], 1 - corner[0])
    normal = (corner[1] / length, (1 - corner[0]) / length)

    def level(x: FloatArray, y: FloatArray) -> FloatArray:
        angle = np.abs(np.mod(np.arctan2(x, -y) + sector, 2 * sector) - sector)
        return _norm(x, y) * (normal[0] * np.cos(angle) + normal[1] * np.sin(angle)) - normal[0]

    return level


def polygon(corners: int) -> Shape:
    """Return a regular polygon."""
    return star(corners, math.cos(math.pi / corners))


def cross(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return a plus sign."""
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.34, np.maximum(x, y) - 0.94)


def crescent(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return a waxing moon."""
    return np.maximum(_norm(x, y) - 1, 0.8 - _norm(x - 0.5, y))


def arrow(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return an arrow that points up."""
    head = np.maximum(0.71 * (np.abs(x) - y - 1), y)
    shaft = np.maximum(np.abs(x) - 0.36, np.abs(y - 0.4) - 0.5)
    return np.minimum(head, shaft)


def heart(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return a heart: two discs and the wedge that touches both."""
    x = np.abs(x)
    lobe = _norm(x - 0.38, y + 0.3) - 0.51
    wedge = np.maximum(0.7836 * x + 0.6213 * (y - 1), 0.017 - y)
    seam = np.maximum(x - 0.38, np.abs(y - 0.1) - 0.3)  # else the outline would show where the parts meet
    return np.minimum(np.minimum(lobe, wedge), seam)


def flower(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return five petals around a centre."""
    angle = np.mod(np.arctan2(x, y), 2 * math.pi / 5) - math.pi / 5
    radius = _norm(x, y)
    petal = _norm(radius * np.cos(angle) - 0.62, radius * np.sin(angle)) - 0.37
    return np.minimum(petal, radius - 0.5)


def leaf(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return a leaf: the lens in which two discs overlap."""
    return _norm(np.abs(x) + 0.62, y) - 1.175


def _sharpen(wave: FloatArray, slope: float = 2.5) -> FloatArray:
    """Turn a wave around 0 into two tones with a narrow ramp between them."""
    return np.clip(0.5 + slope * wave, 0, 1)


def shade(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return a plain gradient from top to bottom."""
    return np.clip(0.5 + 0.55 * y + 0.1 * math.sin(phase), 0, 1)


def stripes(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return vertical stripes."""
    return _sharpen(np.sin(10 * x + phase))


def checks(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return a chessboard."""
    return _sharpen(np.sin(7 * x + phase) * np.sin(7 * y + 2 * phase), 4)


def dots(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return dots on a grid."""
    return _sharpen(np.cos(9 * x + phase) + np.cos(9 * y + 2 * phase) - 0.7)


def circles(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return rings around the centre."""
    return _sharpen(np.sin(13 * _norm(x, y) + phase))


def spokes(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return rays from the centre."""
    return _sharpen(np.sin(7 * np.arctan2(y, x) + phase))


def waves(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return horizontal waves."""
    return _sharpen(np.sin(11 * y + 1.6 * np.sin(6 * x + phase)))


def halves(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return two fields with a slanted border."""
    return _sharpen(x + 0.5 * y + 0.15 * math.sin(phase), 8)


def blotches(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return irregular spots."""
    first = np.sin(8.3 * x + 3.1 * y + phase) + np.sin(7.1 * y - 4.7 * x + 2.3 * phase)
    return _sharpen(first + np.sin(5.9 * (x + y) + 4.1 * phase), 1.2)


def plain(x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    """Return one tone."""
    return np.zeros_like(x)


class Sprite(NamedTuple):
    """One object of one clip: how it looks and where it goes."""

    shape: Shape
    texture: Texture
    phase: float
    """Phase that shifts the texture, in radians."""
    colour: tuple[float, float, float]
    """RGB in [0, 1]."""
    accent: tuple[float, float, float]
    """RGB of the texture's second colour, in [0, 1]."""
    radius: float
    """Radius of the circle around the shape, in frame sides."""
    start: tuple[float, float]
    """Centre at the start of the clip, without the sway, (x, y) in frame sides."""
    velocity: tuple[float, float]
    """Frame sides per second."""
    swing: tuple[float, float]
    """Amplitude of the sway around the straight path, in frame sides."""
    swing_rate: float
    """Radians a second."""
    swing_phase: float
    angle: float
    """Rotation at the start of the clip, in radians."""
    spin: float
    """Radians a second."""


def sample_path(rng: Generator, radius: float, seconds: int) -> dict[str, tuple[float, float]]:
    """Draw a path that keeps an object inside the frame: the start, velocity and swing of a ``Sprite``."""
    swing = rng.uniform(0.0, 0.04, 2)
    low, high = radius + swing, 1 - radius - swing
    start = rng.uniform(low, high)
    end = np.clip(start + rng.uniform(-0.3, 0.3, 2), low, high)
    velocity = (end - start) / seconds
    return {
        name: (float(v[0]), float(v[1]))
        for name, v in (("start", start), ("velocity", velocity), ("swing", swing))
    }


class _Box(NamedTuple):
    """The square of pixels that an object covers, frame by frame, and the object's own coordinates there."""

    corners: NDArray[np.int64]  # (T, 2), top left pixel, (x, y)
    side: int
    x: FloatArray  # (T, side, side)
    y: FloatArray

    def slices(self, t: int) -> tuple[slice, slice]:
        x, y = self.corners[t]
        return slice(y, y + self.side), slice(x, x + self.side)


def _locate(sprite: Sprite, size: int, times: NDArray[np.float64]) -> _Box:
    """Find the pixels around an object at each time, and the object's coordinates of their centres."""
    sway = np.sin(sprite.swing_rate * times + sprite.swing_phase)[:, None]
    centres = np.add(sprite.start, np.multiply(sprite.velocity, times[:, None])) + np.multiply(
        sprite.swing, sway
    )
    side = min(size, math.ceil(2 * sprite.radius * size) + 2)
    corners = np.clip(np.floor(centres * size - side / 2).astype(np.int64), 0, size - side)
    offset = (corners - centres * size + 0.5)[:, :, None] + np.arange(side)  # (T, 2, side)
    offset = (offset / (sprite.radius * size)).astype(np.float32)
    u, v = offset[:, 0, None, :], offset[:, 1, :, None]
    angle = (sprite.angle + sprite.spin * times)[:, None, None].astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    return _Box(corners, side, cos * u + sin * v, cos * v - sin * u)


def visible_masks(
    sprites: Sequence[Sprite], size: int, times: NDArray[np.float64]
) -> tuple[BoolArray, FloatArray]:
    """Find the pixels in which each object is visible.

    Args:
        sprites: the objects, the farthest first.
        size: side of the frame, px.
        times: ``(T,)`` s.

    Returns:
        The masks ``(T, n, size, size)`` of the parts not hidden by nearer objects, and the share ``(T, n)``
        of each object that is visible.
    """
    masks = np.zeros((len(times), len(sprites), size, size), dtype=np.bool_)
    for i, sprite in enumerate(sprites):
        box = _locate(sprite, size, times)
        inside = sprite.shape(box.x, box.y) < 0
        for t in range(len(times)):
            masks[t, i][box.slices(t)] = inside[t]
    whole = masks.sum(axis=(2, 3))
    for i in range(len(sprites) - 2, -1, -1):
        masks[:, i] &= ~masks[:, i + 1 :].any(axis=1)
    return masks, (masks.sum(axis=(2, 3)) / np.maximum(whole, 1)).astype(np.float32)


def draw_background(rng: Generator, size: int) -> FloatArray:
    """Draw a backdrop of low contrast: a muted colour, smooth clouds of three sizes and fine grain.

    Returns:
        RGB, ``(size, size, 3)`` in about [0, 1].
    """
    base = rng.uniform(0.25, 0.75) + rng.uniform(-0.12, 0.12, 3)
    backdrop = np.broadcast_to(base.astype(np.float32), (size, size, 3)).copy()
    for cells, contrast in ((2, 0.09), (5, 0.05), (13, 0.03)):
        tint = rng.normal(0, 0.35, (cells, cells, 3)) + rng.normal(0, 1, (cells, cells, 1))
        for channel in range(3):
            cloud = Image.fromarray((contrast * tint[:, :, channel]).astype(np.float32))
            backdrop[:, :, channel] += np.asarray(cloud.resize((size, size), Image.Resampling.BICUBIC))
    grain = rng.standard_normal((size, size, 1), dtype=np.float32)
    return backdrop + np.float32(0.015) * grain


def draw_frames(
    sprites: Sequence[Sprite], backdrop: FloatArray, times: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Draw the objects over a backdrop, the farthest first.

    Args:
        sprites: the objects.
        backdrop: ``(size, size, 3)``.
        times: ``(T,)`` s.

    Returns:
        RGB, ``(T, size, size, 3)``.
    """
    size = backdrop.shape[0]
    frames = np.repeat(backdrop[None], len(times), axis=0)
    for sprite in sprites:
        box = _locate(sprite, size, times)
        depth = sprite.shape(box.x, box.y) * np.float32(-sprite.radius * size)  # px inside the border
        opacity = np.clip(depth + 0.5, 0, 1)[..., None]
        rim = np.clip(0.45 + 0.3 * depth, 0.45, 1)[..., None]  # a dark outline separates objects that touch
        mix = sprite.texture(box.x, box.y, sprite.phase)[..., None]
        colour, accent = np.array([sprite.colour, sprite.accent], dtype=np.float32)
        paint = (colour + mix * (accent - colour)) * rim
        for t in range(len(times)):
            under = frames[t][box.slices(t)]
            under += opacity[t] * (paint[t] - under)
    return (np.clip(frames, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
