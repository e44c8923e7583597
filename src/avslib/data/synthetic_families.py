"""The classes of synthetic clips: how their members look and sound."""

from __future__ import annotations

from dataclasses import dataclass

from avslib.data import synthetic_sound as sound
from avslib.data import synthetic_vision as vision
from avslib.data.synthetic_sound import Timbre
from avslib.data.synthetic_vision import Shape, Texture
from avslib.media.palette import NUM_CLASSES


@dataclass(frozen=True)
class Family:
    """A class: how its members look and sound; size, angle, hue, pitch, pace and room vary within it."""

    name: str
    shape: Shape
    texture: Texture
    colour: tuple[float, float, float]
    """Hue in turns, saturation and value."""
    accent: tuple[float, float, float]
    """The same for the texture's second colour."""
    timbre: Timbre
    scale: float = 1.0
    """Factor by which it is drawn larger than others, since a star fills less of its circle than a disc."""


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
"""The twelve classes; in AVSS the first has number 1."""

CLASS_NAMES = (
    "background",
    *(family.name for family in FAMILIES),
    *(f"unused_{number}" for number in range(len(FAMILIES) + 1, NUM_CLASSES)),
)
"""Names of the classes by their number in AVSS, which has 71; no pixel belongs to the last 58."""
