from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avslib.data.synthetic_scene import (
    FAMILIES,
    SyntheticClip,
    SyntheticConfig,
    frame_times,
    make_scene,
    name_clip,
    render_clip,
)
from avslib.data.synthetic_vision import visible_masks

configs = st.builds(
    SyntheticConfig,
    setting=st.sampled_from(("s4", "ms3")),
    size=st.just(48),
    seconds=st.sampled_from((1, 3, 5)),
    seed=st.integers(0, 3),
)


def digest(clip: SyntheticClip) -> str:
    parts = [clip.frames, clip.masks, clip.objects, clip.sounding, clip.waveform]
    text = "/".join((*clip.classes, clip.id, clip.category)).encode()
    return hashlib.sha256(b"".join(part.tobytes() for part in parts) + text).hexdigest()


@given(config=configs, index=st.integers(0, 3_000_000))
def test_the_ground_truth_is_what_is_seen_of_what_sounds(config: SyntheticConfig, index: int) -> None:
    clip = render_clip(index, config)
    t, n = clip.sounding.shape
    assert t == config.seconds
    assert 2 <= n == len(set(clip.classes)) <= 4
    assert clip.frames.shape == (t, 48, 48, 3)
    assert clip.objects.shape == (t, n, 48, 48)
    assert clip.objects.sum(axis=1).max() == 1
    assert clip.objects.any(axis=(2, 3)).all()
    union = np.zeros((t, 48, 48), dtype=np.uint8)
    for second in range(t):
        for i in np.flatnonzero(clip.sounding[second]):
            union[second][clip.objects[second, i]] = 1
    np.testing.assert_array_equal(clip.masks, union)
    loudness = np.sqrt((clip.waveform.reshape(t, -1) ** 2).mean(axis=1))
    silent = ~clip.sounding.any(axis=1)
    assert (loudness[silent] < 0.0011).all()
    assert (loudness[~silent] > 0.01).all()
    assert not clip.masks[silent].any()
    assert (clip.id, clip.category) == name_clip(index, config)
    assert clip.sounding[:, clip.classes.index(clip.category)].any()


def test_a_clip_is_the_same_in_any_order_and_any_process() -> None:
    config = SyntheticConfig(size=48)
    forward = [digest(render_clip(i, config)) for i in range(4)]
    backward = [digest(render_clip(i, config)) for i in reversed(range(4))]
    assert forward == backward[::-1]
    assert len(set(forward)) == 4
    assert digest(render_clip(0, replace(config, seed=1))) not in forward
    code = (
        "from tests.data.test_synthetic_scene import SyntheticConfig, digest, render_clip\n"
        "print(digest(render_clip(2, SyntheticConfig(size=48))))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == forward[2]


def test_size_changes_neither_sound_nor_scene() -> None:
    small, large = (render_clip(5, SyntheticConfig(size=size)) for size in (48, 96))
    np.testing.assert_array_equal(small.waveform, large.waveform)
    np.testing.assert_array_equal(small.sounding, large.sounding)
    assert small.classes == large.classes


def test_frames_are_the_last_of_sixteen_a_second() -> None:
    config = SyntheticConfig(size=48, seconds=2)
    clip = render_clip(1, config)
    film = render_clip(1, config, seconds=np.arange(32) / 16)
    np.testing.assert_array_equal(film.frames[15::16], clip.frames)
    np.testing.assert_array_equal(film.masks[15::16], clip.masks)
    np.testing.assert_array_equal(film.waveform, clip.waveform)


def test_every_object_stays_in_sight() -> None:
    config = SyntheticConfig()
    shares = [
        visible_masks(make_scene(i, config).sprites, 112, frame_times(config))[1].min() for i in range(60)
    ]
    assert min(shares) >= 0.4


def test_the_picture_does_not_tell_who_sounds() -> None:
    config = SyntheticConfig(size=32)
    scenes = [make_scene(index, config) for index in range(250)]
    by_depth = [[s.on[:, i].mean() for s in scenes if len(s.cast) == 4] for i in range(4)]
    by_family = [[s.on[:, s.cast.index(f)].mean() for s in scenes if f in s.cast] for f in FAMILIES]
    for groups in (by_depth, by_family):
        means = np.array([np.mean(group) for group in groups])
        errors = np.array([np.std(group) / np.sqrt(len(group)) for group in groups])
        assert (np.abs(means - means.mean()) < 4 * errors).all()
    traits = np.array(
        [(s.radius, s.start[0], s.start[1], s.spin, *s.colour) for x in scenes for s in x.sprites]
    )
    heard = np.concatenate([x.on.mean(axis=0) - x.on.mean() for x in scenes])
    correlation = np.corrcoef(np.column_stack([traits, heard]).T)[-1, :-1]
    assert np.abs(correlation).max() < 4 / np.sqrt(len(heard))


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="setting: expected one of 's4', 'ms3', got 'avss'"):
        SyntheticConfig(setting="avss")
    with pytest.raises(ValueError, match="size: expected at least 32 px, got 16"):
        SyntheticConfig(size=16)
    with pytest.raises(ValueError, match="seconds: expected a number above 0, got 0"):
        SyntheticConfig(seconds=0)
