"""Synthetic clips in which the sound alone decides what is ground truth.

Every frame shows two to four objects of different classes. Which of them sound, and when, is drawn apart
from how they look and move.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from avslib._checks import check_one_of, check_positive
from avslib.data import synthetic_sound as sound
from avslib.data import synthetic_vision as vision
from avslib.data.synthetic_score import SOUNDING, draw_score
from avslib.data.synthetic_sound import Timbre
from avslib.data.synthetic_vision import Shape, Sprite, Texture


@dataclass(frozen=True)
class Family:
    """A class: what its members look and sound like. Size, turn, hue, pitch, pace and room vary inside it."""

    name: str
    shape: Shape
    texture: Texture
    colour: tuple[float, float, float]
    """Hue in turns, saturation and value."""
    accent: tuple[float, float, float]
    """The same of the texture's other colour."""
    timbre: Timbre
    scale: float = 1.0
    """How much larger than others it is drawn, since a star fills less of its circle than a disc."""


# Neighbours on the colour wheel differ in shape and texture, so that colour alone does not name a class.
FAMILIES = (
    Family("heart", vision.heart, vision.plain, (0.98, 0.90, 0.92), (0.98, 0.90, 0.92), sound.hum),
    Family("cross", vision.cross, vision.halves, (0.01, 0.85, 0.85), (0.06, 0.20, 1.00), sound.whistle, 1.05),
    Family(
        "star", vision.star(5, 0.5), vision.shade, (0.13, 0.95, 1.00), (0.08, 0.95, 0.85), sound.siren, 1.15
    ),
    Family("disc", vision.disc, vision.stripes, (0.15, 0.90, 0.98), (0.15, 0.40, 0.22), sound.rumble),
    Family("leaf", vision.leaf, vision.waves, (0.29, 0.85, 0.80), (0.33, 0.90, 0.35), sound.hiss, 1.15),
    Family("diamond", vision.polygon(4), vision.checks, (0.35, 0.80, 0.75), (0.35, 0.10, 1.00), sound.clicks),
    Family(
        "ring",
        vision.ring,
        vision.plain,
        (0.48, 0.90, 0.85),
        (0.48, 0.90, 0.85),
        sound.chirps(400, 4000, 4.0),
    ),
    Family(
        "hexagon",
        vision.polygon(6),
        vision.dots,
        (0.57, 0.75, 0.95),
        (0.57, 0.90, 0.30),
        sound.chirps(6500, 2200, 2.2),
    ),
    Family("arrow", vision.arrow, vision.shade, (0.64, 0.90, 0.95), (0.64, 0.95, 0.55), sound.tremolo, 1.1),
    Family(
        "triangle",
        vision.polygon(3),
        vision.circles,
        (0.74, 0.70, 0.90),
        (0.15, 0.25, 1.00),
        sound.pluck,
        1.2,
    ),
    Family("flower", vision.flower, vision.spokes, (0.87, 0.65, 1.00), (0.87, 0.90, 0.50), sound.bell),
    Family(
        "crescent",
        vision.crescent,
        vision.blotches,
        (0.83, 0.10, 0.98),
        (0.83, 0.15, 0.55),
        sound.warble,
        1.1,
    ),
)
"""The twelve classes."""

OBJECTS = {2: 0.1, 3: 0.3, 4: 0.6}
"""How often a clip shows so many objects."""

FRAME_TIME = 15 / 16
"""s into each second at which its frame is taken: the last of 16, as in AVSBench."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Which synthetic clips to make; a clip is a function of this and its index.

    Args:
        setting: ``"s4"``, one object sounds all the time, or ``"ms3"``, one to three sound, each for the
            whole clip or for some seconds of it, so that some seconds are silent.
        size: side of a frame, px; the scene does not depend on it.
        seconds: length of a clip, s.
        seed: another seed, other clips.

    Raises:
        ValueError: if the setting is unknown, or the frame is smaller than 32 px, or the clip empty.
    """

    setting: str = "ms3"
    size: int = 224
    seconds: int = 5
    seed: int = 0
    sample_rate: ClassVar[int] = sound.SAMPLE_RATE
    """Hz, fixed by the log-mel front end."""

    def __post_init__(self) -> None:
        check_one_of("setting", self.setting, SOUNDING)
        check_positive("seconds", self.seconds)
        if self.size < 32:
            raise ValueError(f"size: expected at least 32 px, got {self.size}")


class SyntheticClip(NamedTuple):
    """A clip with everything that is known about it, as NumPy arrays."""

    frames: NDArray[np.uint8]
    """``(T, H, W, 3)``, RGB."""
    masks: NDArray[np.uint8]
    """``(T, H, W)``, 1 where an object is seen that sounds in this second."""
    objects: NDArray[np.bool_]
    """``(T, n, H, W)``, where each object is seen, sounding or not; the farthest object first."""
    sounding: NDArray[np.bool_]
    """``(T, n)``, which object sounds."""
    classes: tuple[str, ...]
    """Class of each object."""
    waveform: NDArray[np.float32]
    """``(S,)`` in [-1, 1] at 16 kHz."""
    id: str
    category: str
    """Class of the sounding object; in MS3 of one of them."""


class _Stream(IntEnum):
    """Independent sources of chance in one clip."""

    CAST = 0
    SCORE = 1
    LOOK = 2
    BACKDROP = 3
    SOUND = 4


def _rng(config: SyntheticConfig, index: int, *stream: int) -> Generator:
    return Generator(PCG64(SeedSequence([config.seed, index, *stream])))


def _cast(index: int, config: SyntheticConfig) -> list[Family]:
    """Draw the classes of a clip, the farthest object first."""
    rng = _rng(config, index, _Stream.CAST)
    count = rng.choice(list(OBJECTS), p=list(OBJECTS.values()))
    return [FAMILIES[i] for i in rng.permutation(len(FAMILIES))[:count]]


def _score(index: int, config: SyntheticConfig, count: int) -> NDArray[np.bool_]:
    """Draw who sounds when, from a stream of its own."""
    rng = _rng(config, index, _Stream.SCORE)
    return draw_score(rng, count, setting=config.setting, seconds=config.seconds)


def name_clip(index: int, config: SyntheticConfig) -> tuple[str, str]:
    """Return a clip's id and category without rendering it."""
    cast = _cast(index, config)
    first = int(_score(index, config, len(cast)).any(axis=0).argmax())
    return f"synthetic_{index:07d}", cast[first].name


def _look(rng: Generator, family: Family, *, shrink: float, count: int, seconds: int) -> Sprite:
    """Draw one member of a family and its path."""
    radius = family.scale * shrink * rng.uniform(0.15, 0.24 - 0.015 * (count - 2))
    shift, dim = rng.uniform(-0.025, 0.025), rng.uniform(0.8, 1.0)
    (h, s, v), (ah, as_, av) = family.colour, family.accent
    return Sprite(
        shape=family.shape,
        texture=family.texture,
        phase=rng.uniform(0, 2 * math.pi),
        colour=colorsys.hsv_to_rgb((h + shift) % 1, s, v * dim),
        accent=colorsys.hsv_to_rgb((ah + shift) % 1, as_, av * dim),
        radius=radius,
        swing_rate=rng.uniform(0.5, 2.0),
        swing_phase=rng.uniform(0, 2 * math.pi),
        angle=rng.uniform(-0.5, 0.5),
        spin=rng.uniform(-0.12, 0.12),
        **vision.sample_path(rng, radius, seconds),
    )


def _stage(index: int, config: SyntheticConfig, cast: Sequence[Family]) -> list[Sprite]:
    """Place the objects so that 40 % or more of each is seen in every frame.

    Scenes are drawn until one fits, judged on a coarse grid; the objects of each next scene are a little
    smaller, so that one soon does.
    """
    rng = _rng(config, index, _Stream.LOOK)
    times = frame_times(config)
    best: tuple[float, list[Sprite]] = (-1.0, [])
    for attempt in range(40):
        sprites = [
            _look(rng, family, shrink=0.985**attempt, count=len(cast), seconds=config.seconds)
            for family in cast
        ]
        _, seen = vision.visible_masks(sprites, 56, times)
        best = max(best, (float(seen.min()), sprites), key=lambda scene: scene[0])
        if best[0] >= 0.45:
            break
    return best[1]


def frame_times(config: SyntheticConfig) -> NDArray[np.float64]:
    """Return when the frame of each second is taken, ``(T,)`` s."""
    return np.arange(config.seconds, dtype=np.float64) + FRAME_TIME


class Scene(NamedTuple):
    """A clip before it is drawn."""

    cast: list[Family]
    sprites: list[Sprite]
    on: NDArray[np.bool_]
    """``(T, n)``, which object sounds in which second."""


def make_scene(index: int, config: SyntheticConfig) -> Scene:
    """Decide who is seen, where, and who is heard in clip ``index``."""
    cast = _cast(index, config)
    return Scene(cast, _stage(index, config, cast), _score(index, config, len(cast)))


def render_clip(
    index: int, config: SyntheticConfig, *, seconds: Sequence[float] | NDArray[np.float64] | None = None
) -> SyntheticClip:
    """Make one clip; the same index and configuration give the same clip, whatever was made before.

    The sound of second t is that of the sources that are on in it and of a faint noise. Log-mel example t
    starts at 0.96 t s, not at t s, and so hears up to 0.16 s of the second before: the real dataset has that
    too.

    Args:
        index: which clip.
        config: which kind of clip.
        seconds: when frames are taken, in s from 0 to the length of the clip; by default at the end of each
            second. The waveform is always the whole one.

    Example:
        >>> clip = render_clip(7, SyntheticConfig(size=64))
        >>> clip.frames.shape, clip.classes
        ((5, 64, 64, 3), ('disc', 'arrow'))
        >>> bool((clip.masks == (clip.objects & clip.sounding[:, :, None, None]).any(axis=1)).all())
        True
    """
    scene = make_scene(index, config)
    times = frame_times(config) if seconds is None else np.asarray(seconds, dtype=np.float64)
    on = scene.on[np.clip(times.astype(np.int64), 0, config.seconds - 1)]
    objects, _ = vision.visible_masks(scene.sprites, config.size, times)
    backdrop = vision.draw_background(_rng(config, index, _Stream.BACKDROP), config.size)
    name, category = name_clip(index, config)
    rngs = [_rng(config, index, _Stream.SOUND, source) for source in range(len(scene.cast) + 1)]
    return SyntheticClip(
        frames=vision.draw_frames(scene.sprites, backdrop, times),
        masks=np.any(objects & on[:, :, None, None], axis=1).view(np.uint8),
        objects=objects,
        sounding=on,
        classes=tuple(family.name for family in scene.cast),
        waveform=sound.mix([family.timbre for family in scene.cast], scene.on, rngs),
        id=name,
        category=category,
    )
