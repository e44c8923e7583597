from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avslib.data.synthetic_ceiling import audio_blind_ceiling, expected_scores
from avslib.data.synthetic_scene import SyntheticConfig, frame_times, make_scene, render_clip
from avslib.data.synthetic_score import sounding_prior
from avslib.data.synthetic_vision import visible_masks

PIXELS = 24


def score(predicted: set[int], truth: set[int]) -> float:
    """J of one frame of ``PIXELS`` pixels."""
    if not truth:
        return 1 - len(predicted) / PIXELS
    return len(predicted & truth) / len(predicted | truth)


def union(objects: list[set[int]], chosen: int) -> set[int]:
    return set(chain.from_iterable(pixels for i, pixels in enumerate(objects) if chosen >> i & 1))


@st.composite
def frames(draw: st.DrawFn) -> tuple[list[set[int]], NDArray[np.float64]]:
    """Objects as sets of pixels, and a chance for each set of them."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    ends = np.cumsum(sizes)
    objects = [set(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    weights = draw(
        st.lists(st.integers(0, 9), min_size=2 ** len(sizes), max_size=2 ** len(sizes)).filter(any)
    )
    return objects, np.array(weights) / sum(weights)


@given(frame=frames())
def test_expected_scores_are_averages_over_all_truths(
    frame: tuple[list[set[int]], NDArray[np.float64]],
) -> None:
    objects, prior = frame
    areas = np.array([len(pixels) / PIXELS for pixels in objects])
    expected = [
        sum(
            chance * score(union(objects, chosen), union(objects, truth))
            for truth, chance in enumerate(prior)
        )
        for chosen in range(len(prior))
    ]
    np.testing.assert_allclose(expected_scores(areas, prior), expected)


@given(frame=frames(), guess=st.sets(st.integers(0, PIXELS - 1)))
def test_no_other_set_of_pixels_does_better(
    frame: tuple[list[set[int]], NDArray[np.float64]], guess: set[int]
) -> None:
    objects, prior = frame
    areas = np.array([len(pixels) / PIXELS for pixels in objects])
    expected = sum(chance * score(guess, union(objects, truth)) for truth, chance in enumerate(prior))
    assert expected <= expected_scores(areas, prior).max() + 1e-12


def test_ceiling_of_one_s4_clip_by_hand() -> None:
    config = SyntheticConfig(setting="s4", size=48, seconds=1)
    areas = render_clip(4, config).objects[0].sum(axis=(1, 2))
    n = len(areas)
    choices = chain.from_iterable(combinations(areas, k) for k in range(1, n + 1))
    best = max(sum(area / sum(chosen) for area in chosen) / n for chosen in choices)
    assert audio_blind_ceiling(config, [4]) == pytest.approx(best)


@pytest.mark.parametrize("setting", ["s4", "ms3"])
def test_no_deaf_policy_beats_the_ceiling_and_the_best_one_reaches_it(setting: str) -> None:
    config = SyntheticConfig(setting=setting, size=32)
    clips = range(250)
    reached: dict[str, list[float]] = {"all": [], "none": [], "largest": [], "best": []}
    for index in clips:
        scene = make_scene(index, config)
        areas = visible_masks(scene.sprites, config.size, frame_times(config))[0].mean(axis=(2, 3))
        n = areas.shape[1]
        prior = sounding_prior(n, setting=setting, seconds=config.seconds)
        for t in range(config.seconds):
            truth = int((scene.on[t] << np.arange(n)).sum())
            realised = expected_scores(areas[t], np.eye(2**n)[truth])
            reached["all"].append(realised[-1])
            reached["none"].append(realised[0])
            reached["largest"].append(realised[1 << int(areas[t].argmax())])
            reached["best"].append(realised[expected_scores(areas[t], prior[t]).argmax()])
    ceiling = audio_blind_ceiling(config, clips)
    for scores in reached.values():
        by_clip = np.reshape(scores, (len(clips), -1)).mean(axis=1)
        assert by_clip.mean() < ceiling + 3 * by_clip.std() / np.sqrt(len(clips))
    best = np.reshape(reached["best"], (len(clips), -1)).mean(axis=1)
    assert best.mean() == pytest.approx(ceiling, abs=3 * best.std() / np.sqrt(len(clips)))


def test_no_clip_is_an_error() -> None:
    with pytest.raises(ValueError, match="indices: expected at least one clip"):
        audio_blind_ceiling(SyntheticConfig(), [])


def test_there_is_none_for_classes_and_for_negatives() -> None:
    with pytest.raises(ValueError, match="setting: expected one of 's4', 'ms3', got 'avss'"):
        audio_blind_ceiling(SyntheticConfig(setting="avss"), [0])
    with pytest.raises(ValueError, match="negative: expected None, got 'noise'; there the ceiling is 1"):
        audio_blind_ceiling(SyntheticConfig(negative="noise"), [0])
