from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avslib.data.synthetic_scene import OBJECTS
from avslib.data.synthetic_score import SOUNDING, draw_score, sounding_prior

seeds = st.integers(0, 100_000)
counts = st.integers(2, 4)


@given(seed=seeds, count=counts, seconds=st.integers(1, 10))
def test_s4_has_one_source_for_the_whole_clip(seed: int, count: int, seconds: int) -> None:
    on = draw_score(np.random.default_rng(seed), count, setting="s4", seconds=seconds)
    assert on.shape == (seconds, count)
    assert (on.sum(axis=1) == 1).all()
    assert on.any(axis=0).sum() == 1


@given(seed=seeds, count=counts, seconds=st.integers(1, 10))
def test_ms3_sources_come_and_go_once(seed: int, count: int, seconds: int) -> None:
    on = draw_score(np.random.default_rng(seed), count, setting="ms3", seconds=seconds)
    assert 1 <= on.any(axis=0).sum() <= 3
    for source in on[:, on.any(axis=0)].T:
        assert source.sum() >= min(2, seconds)
        assert (np.diff(np.flatnonzero(source)) == 1).all()


@pytest.mark.parametrize("setting", ["s4", "ms3"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_prior_is_how_often_each_set_sounds(setting: str, count: int) -> None:
    prior = sounding_prior(count, setting=setting, seconds=5)
    np.testing.assert_allclose(prior.sum(axis=1), 1)
    rng = np.random.default_rng(0)
    draws = np.stack([draw_score(rng, count, setting=setting, seconds=5) for _ in range(3000)])
    columns = (draws << np.arange(count)).sum(axis=-1)
    often = np.stack([(columns == column).mean(axis=0) for column in range(2**count)], axis=-1)
    deviation = np.sqrt(prior * (1 - prior) / len(draws))
    assert (np.abs(often - prior) <= 4.5 * deviation + 1e-12).all()


def test_some_seconds_are_silent_and_most_clips_show_a_silent_object() -> None:
    priors = [(share, sounding_prior(count, setting="ms3", seconds=5)) for count, share in OBJECTS.items()]
    assert 0.05 < sum(share * prior[:, 0].mean() for share, prior in priors) < 0.12
    assert sum(share * SOUNDING["ms3"][count].get(count, 0) for count, share in OBJECTS.items()) < 0.2


@pytest.mark.parametrize("setting", SOUNDING)
def test_chances_sum_to_one(setting: str) -> None:
    assert sum(OBJECTS.values()) == pytest.approx(1)
    assert set(SOUNDING[setting]) == set(OBJECTS)
    assert [sum(chance.values()) for chance in SOUNDING[setting].values()] == pytest.approx([1, 1, 1])
