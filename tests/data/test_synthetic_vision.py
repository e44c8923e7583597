from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avslib.data.synthetic_families import FAMILIES, Family
from avslib.data.synthetic_scene import SyntheticConfig, frame_times, make_scene
from avslib.data.synthetic_vision import BoolArray, Sprite, draw_background, draw_frames, visible_masks

TIMES = frame_times(SyntheticConfig())
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def footprint_over_the_whole_frame(sprite: Sprite, size: int, time: float) -> BoolArray:
    """The object's pixels by its definition: no boxes, one moment."""
    sway = math.sin(sprite.swing_rate * time + sprite.swing_phase)
    x, y = (sprite.start[i] + sprite.velocity[i] * time + sprite.swing[i] * sway for i in range(2))
    rows, columns = (np.indices((size, size)) + 0.5) / size
    u, v = (columns - x) / sprite.radius, (rows - y) / sprite.radius
    turn = sprite.angle + sprite.spin * time
    return sprite.shape(math.cos(turn) * u + math.sin(turn) * v, math.cos(turn) * v - math.sin(turn) * u) < 0


@given(index=st.integers(0, 10_000), size=st.sampled_from((32, 45, 64)))
def test_masks_are_what_the_nearest_object_covers(index: int, size: int) -> None:
    sprites = make_scene(index, SyntheticConfig(size=size)).sprites
    masks, shares = visible_masks(sprites, size, TIMES)
    for t, time in enumerate(TIMES):
        nearest = np.full((size, size), -1)
        whole = np.zeros(len(sprites))
        for i, sprite in enumerate(sprites):
            covered = footprint_over_the_whole_frame(sprite, size, time)
            nearest[covered] = i
            whole[i] = covered.sum()
        expected = np.stack([nearest == i for i in range(len(sprites))])
        # at most a pixel or two lie so close to the border that float32 and float64 disagree
        assert (masks[t] != expected).sum() <= 2
        np.testing.assert_allclose(shares[t], expected.sum(axis=(1, 2)) / whole, atol=0.05)


@given(index=st.integers(0, 10_000))
def test_frames_show_the_backdrop_where_there_is_no_object(index: int) -> None:
    sprites = make_scene(index, SyntheticConfig(size=48)).sprites
    backdrop = draw_background(np.random.default_rng(index), 48)
    frames = draw_frames(sprites, backdrop, TIMES)
    empty = draw_frames([], backdrop, TIMES)
    assert frames.shape == (5, 48, 48, 3)
    assert frames.dtype == np.uint8
    covered = visible_masks(sprites, 48, TIMES)[0].any(axis=1)
    wide = covered.copy()  # and the pixels around, which the soft border reaches
    for axis in (1, 2, 1, 2):
        wide |= np.roll(wide, 1, axis) | np.roll(wide, -1, axis)
    # the soft tip of a crescent reaches farther still
    assert (frames[~wide] != empty[~wide]).mean() < 0.002
    assert (frames[covered] != empty[covered]).any(axis=-1).mean() > 0.95


def test_a_scene_is_the_same_at_every_size() -> None:
    sprites = make_scene(3, SyntheticConfig()).sprites
    coarse, _ = visible_masks(sprites, 64, TIMES)
    fine, _ = visible_masks(sprites, 256, TIMES)
    share = fine.reshape(5, len(sprites), 64, 4, 64, 4).mean(axis=(3, 5))
    assert ((share > 0.5) != coarse).mean() < 0.005


@families
def test_shape_fills_its_circle_and_stays_in_it(family: Family) -> None:
    y, x = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j].astype(np.float32)
    inside = family.shape(x, y) < 0
    assert not inside[np.hypot(x, y) > 1.01].any()
    assert 0.3 < inside[np.hypot(x, y) <= 1].mean() <= 1


@families
def test_shape_grows_no_faster_than_the_distance(family: Family) -> None:
    y, x = np.mgrid[-1.2:1.2:241j, -1.2:1.2:241j].astype(np.float32)
    level = family.shape(x, y)
    for axis in (0, 1):
        assert np.abs(np.diff(level, axis=axis)).max() < 0.01 * 1.01


@families
def test_texture_lies_between_colour_and_accent(family: Family) -> None:
    y, x = np.mgrid[-1:1:81j, -1:1:81j].astype(np.float32)
    for phase in (0.0, 1.0, 5.0):
        mix = family.texture(x, y, phase)
        assert mix.shape == x.shape
        assert mix.min() >= 0
        assert mix.max() <= 1


def test_classes_look_different() -> None:
    looks = {(family.shape, family.texture, family.colour) for family in FAMILIES}
    assert len(looks) == len({family.name for family in FAMILIES}) == 12
