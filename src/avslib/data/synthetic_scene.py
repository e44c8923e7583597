"""Synthetic clips in which the sound alone decides which objects are ground truth.

Every frame shows two to four objects of different classes. Which of them sound, and when, is drawn
independently of how they look and move.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from avslib._checks import check_integer, check_not_negative, check_one_of, check_positive
from avslib.data import synthetic_sound as sound
from avslib.data import synthetic_vision as vision
from avslib.data.layout import SPLITS
from avslib.data.synthetic_families import FAMILIES, Family
from avslib.data.synthetic_score import SOUNDING, draw_score
from avslib.data.synthetic_sound import Timbre
from avslib.data.synthetic_vision import Sprite

OBJECTS = {2: 0.1, 3: 0.3, 4: 0.6}
"""Probability of each number of objects in a clip."""

FRAME_TIME = 15 / 16
"""Time within each second at which its frame is taken, s: the last of 16, as in AVSBench."""

PARTS = {"v1s": ("s4", 1), "v1m": ("ms3", 1), "v2": ("ms3", 2)}
"""Parts of AVSS, in turn by index: the setting that has such clips, and how many times as long they are."""

SETTINGS = (*SOUNDING, "avss")
NEGATIVES = ("silence", "noise", "offscreen")
CLIPS_PER_SPLIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Configuration of synthetic clips; a clip is a function of this and its index.

    Args:
        setting: ``"s4"``, where one object sounds all the time; ``"ms3"``, where one to three sound, each for
            the whole clip or for some seconds of it, so that some seconds are silent; or ``"avss"``, where
            the ground truth also says which class sounds. Clips of AVSS are, in turn by index, a clip of S4
            (the part ``v1s``), one of MS3 (``v1m``) and one of MS3 that is twice as long (``v2``).
        size: side of a frame, px; the scene does not depend on it.
        seconds: length of a clip, s; in AVSS, length of a clip of ``v1s`` or ``v1m``.
        seed: seed of all clips, 0 or more.
        negative: what is heard instead of the objects in the picture. The picture does not change, and the
            ground truth is empty. ``"silence"`` is only the faint noise that every clip has, ``"noise"`` is
            white noise, and ``"offscreen"`` is the sound of classes that are not in view. The last two start
            and stop as the objects would, and are as loud. None for the sound of the objects in the picture.

    Raises:
        ValueError: if the setting or the kind of negative is unknown, the frame is smaller than 32 px, the
            clip is empty, the seed is negative, or one of these numbers is not an integer.
    """

    setting: str = "ms3"
    size: int = 224
    seconds: int = 5
    seed: int = 0
    negative: str | None = None
    sample_rate: ClassVar[int] = sound.SAMPLE_RATE
    """Sample rate, Hz, fixed by the log-mel front end."""

    def __post_init__(self) -> None:
        check_one_of("setting", self.setting, SETTINGS)
        if self.negative is not None:
            check_one_of("negative", self.negative, NEGATIVES)
        for name in ("size", "seconds", "seed"):
            check_integer(name, getattr(self, name))
        check_positive("seconds", self.seconds)
        check_not_negative("seed", self.seed)
        if self.size < 32:
            raise ValueError(f"size: expected at least 32 px, got {self.size}")


class SyntheticClip(NamedTuple):
    """A clip with everything that is known about it, as NumPy arrays."""

    frames: NDArray[np.uint8]
    """``(T, H, W, 3)``, RGB."""
    masks: NDArray[np.uint8]
    """``(T, H, W)``, 1 where an object that sounds in this second is seen; in AVSS, the number of its
    class."""
    objects: NDArray[np.bool_]
    """``(T, n, H, W)``, where each object is seen, sounding or not; the farthest object first."""
    sounding: NDArray[np.bool_]
    """``(T, n)``, which object sounds; in a negative clip, none."""
    classes: tuple[str, ...]
    """Class of each object."""
    waveform: NDArray[np.float32]
    """``(S,)`` in [-1, 1] at 16 kHz."""
    id: str
    category: str
    """Class of the sounding object, or of one of them; in a negative clip, of one that would sound."""


class _Stream(IntEnum):
    """Independent random streams of one clip."""

    CAST = 0
    SCORE = 1
    LOOK = 2
    BACKDROP = 3
    SOUND = 4


def _rng(config: SyntheticConfig, index: int, *stream: int) -> Generator:
    return Generator(PCG64(SeedSequence([config.seed, index, *stream])))


def clip_indices(split: str, count: int) -> range:
    """Return the indices of a split's clips; no two splits share one.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        count: number of clips.

    Raises:
        ValueError: if the split is unknown or the count not in 1 to 1,000,000.

    Example:
        >>> clip_indices("val", 3)
        range(1000000, 1000003)
    """
    check_one_of("split", split, SPLITS)
    if not 1 <= count <= CLIPS_PER_SPLIT:
        raise ValueError(f"count: expected 1 to {CLIPS_PER_SPLIT} clips, got {count}")
    first = SPLITS.index(split) * CLIPS_PER_SPLIT
    return range(first, first + count)


def part_of(index: int) -> str:
    """Return the part of AVSS that a clip belongs to, one of ``PARTS``."""
    return tuple(PARTS)[index % len(PARTS)]


def without_classes(index: int, config: SyntheticConfig) -> SyntheticConfig:
    """Return the configuration of S4 or MS3 that gives the same clip as AVSS, but without its classes.

    Example:
        >>> clip = without_classes(5, SyntheticConfig(setting="avss"))
        >>> part_of(5), clip.setting, clip.seconds
        ('v2', 'ms3', 10)
    """
    if config.setting != "avss":
        return config
    setting, times = PARTS[part_of(index)]
    return replace(config, setting=setting, seconds=times * config.seconds)


def _cast(index: int, config: SyntheticConfig) -> tuple[list[Family], list[Family]]:
    """Draw the classes that a clip shows, the farthest object first, and those that it does not."""
    rng = _rng(config, index, _Stream.CAST)
    count = rng.choice(list(OBJECTS), p=list(OBJECTS.values()))
    families = [FAMILIES[i] for i in rng.permutation(len(FAMILIES))]
    return families[:count], families[count:]


def _voices(index: int, config: SyntheticConfig) -> list[Timbre]:
    """Return the timbre that is heard for each object."""
    seen, unseen = _cast(index, config)
    if config.negative == "noise":
        return [sound.white_noise] * len(seen)
    return [family.timbre for family in (unseen[: len(seen)] if config.negative == "offscreen" else seen)]


def _score(index: int, config: SyntheticConfig, count: int) -> NDArray[np.bool_]:
    """Draw which object sounds in which second, from a random stream of its own."""
    config = without_classes(index, config)
    rng = _rng(config, index, _Stream.SCORE)
    return draw_score(rng, count, setting=config.setting, seconds=config.seconds)


def name_clip(index: int, config: SyntheticConfig) -> tuple[str, str]:
    """Return a clip's id and category without rendering it."""
    cast, _ = _cast(index, config)
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
    """Place the objects so that at least 40 % of each is visible in every frame.

    Scenes are drawn until one fits, judged on a coarse grid, at most 40; then the best of them is taken. Each
    new scene has slightly smaller objects, so that one soon fits.
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
    """Return the time at which the frame of each second is taken, ``(T,)`` s."""
    return np.arange(config.seconds, dtype=np.float64) + FRAME_TIME


class Scene(NamedTuple):
    """A clip before it is drawn."""

    cast: list[Family]
    sprites: list[Sprite]
    on: NDArray[np.bool_]
    """``(T, n)``, which object sounds in which second; in a negative clip, which would."""


def make_scene(index: int, config: SyntheticConfig) -> Scene:
    """Decide which objects are seen in clip ``index``, where, and which are heard."""
    config = without_classes(index, config)
    cast, _ = _cast(index, config)
    return Scene(cast, _stage(index, config, cast), _score(index, config, len(cast)))


def render_clip(
    index: int, config: SyntheticConfig, *, seconds: Sequence[float] | NDArray[np.float64] | None = None
) -> SyntheticClip:
    """Render one clip; the same index and configuration always give the same clip.

    The sound of second t is that of the sources that are on in it, over a faint noise. Log-mel example t
    starts at 0.96 t s, not at t s, so it also hears 0.04 t s of the second before, as in the real dataset.

    Args:
        index: index of the clip.
        config: the kind of clip.
        seconds: times at which frames are taken, in s from 0 to the length of the clip; by default near the
            end of each second. The waveform is always complete.

    Example:
        >>> clip = render_clip(7, SyntheticConfig(size=64))
        >>> clip.frames.shape, clip.classes
        ((5, 64, 64, 3), ('disc', 'arrow'))
        >>> bool((clip.masks == (clip.objects & clip.sounding[:, :, None, None]).any(axis=1)).all())
        True
    """
    scene = make_scene(index, config)
    own_times = frame_times(without_classes(index, config))
    times = own_times if seconds is None else np.asarray(seconds, dtype=np.float64)
    sounding = scene.on[np.clip(times.astype(np.int64), 0, len(scene.on) - 1)] & (config.negative is None)
    objects, _ = vision.visible_masks(scene.sprites, config.size, times)
    numbers = [1 + FAMILIES.index(family) if config.setting == "avss" else 1 for family in scene.cast]
    labels = sounding * np.array(numbers, dtype=np.uint8)
    backdrop = vision.draw_background(_rng(config, index, _Stream.BACKDROP), config.size)
    name, category = name_clip(index, config)
    rngs = [_rng(config, index, _Stream.SOUND, source) for source in range(len(scene.cast) + 1)]
    return SyntheticClip(
        frames=vision.draw_frames(scene.sprites, backdrop, times),
        masks=np.max(objects * labels[:, :, None, None], axis=1),  # no pixel belongs to two objects
        objects=objects,
        sounding=sounding,
        classes=tuple(family.name for family in scene.cast),
        waveform=sound.mix(_voices(index, config), scene.on & (config.negative != "silence"), rngs),
        id=name,
        category=category,
    )
