from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from avslib.data.synthetic_families import FAMILIES, Family
from avslib.data.synthetic_sound import FADE, SAMPLE_RATE, gate, mix, place_in_room, white_noise
from avslib.media.mel import log_mel_examples

seconds_on = st.lists(st.booleans(), min_size=1, max_size=5).map(lambda on: np.array(on))
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def rngs(count: int, seed: int = 0) -> list[Generator]:
    return [np.random.default_rng([seed, i]) for i in range(count)]


@given(on=seconds_on)
def test_gate_opens_in_the_seconds_that_are_on(on: NDArray[np.bool_]) -> None:
    gain = gate(on).reshape(len(on), SAMPLE_RATE)
    fade = int(FADE * SAMPLE_RATE)
    np.testing.assert_array_equal(gain[:, fade:-fade], np.repeat(on[:, None], SAMPLE_RATE - 2 * fade, axis=1))
    assert not gain[~on].any()
    assert np.abs(np.diff(gain.ravel())).max(initial=0) <= 1 / (fade - 1) + 1e-6
    assert not on[0] or gain[0, 0] == 0
    for second in np.flatnonzero(on[:-1] & on[1:]):
        assert gain[second, -1] == gain[second + 1, 0] == 1


@given(on=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_source_sounds_the_same_whoever_else_sounds(on: list[tuple[bool, bool]], seed: int) -> None:
    timbres = [FAMILIES[seed % 12].timbre, FAMILIES[(seed + 5) % 12].timbre]
    both = np.array(on)
    parts = [mix(timbres, both & np.array(who), rngs(3, seed)) for who in ((1, 0), (0, 1), (0, 0))]
    together = mix(timbres, both, rngs(3, seed))
    np.testing.assert_allclose(together, parts[0] + parts[1] - parts[2], atol=2.1 / 32768)


@families
def test_a_source_is_heard_in_its_seconds_only(family: Family) -> None:
    on = np.array([False, True, True, False])
    waveform = mix([family.timbre], on[:, None], rngs(2)).reshape(4, SAMPLE_RATE)
    assert waveform.dtype == np.float32
    loudness = np.sqrt((waveform**2).mean(axis=1))
    assert loudness[~on].max() < 0.0011
    assert loudness[~on].min() > 0  # a faint noise is always there
    assert loudness[on].min() > 0.015
    np.testing.assert_array_equal(waveform * 32768, np.round(waveform * 32768))


def test_white_noise_is_as_loud_at_every_pitch_and_time() -> None:
    noise = white_noise(np.random.default_rng(0), 5 * SAMPLE_RATE)
    power = np.abs(np.fft.rfft(noise)) ** 2
    bands = power[1:].reshape(10, -1).mean(axis=1) / len(noise)
    np.testing.assert_allclose(bands, 1, rtol=0.1)
    np.testing.assert_allclose((noise.reshape(5, -1) ** 2).mean(axis=1), 1, rtol=0.05)
    heard = mix([white_noise], np.ones((1, 1), dtype=np.bool_), rngs(2))
    assert 0.03 < np.sqrt((heard**2).mean()) < 0.091  # as any source


@families
def test_room_sets_loudness(family: Family) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        heard = place_in_room(rng, 100 * family.timbre(rng, SAMPLE_RATE))
        assert np.abs(heard).max() <= 0.5 + 1e-6
        assert 0.01 < np.sqrt((heard**2).mean()) < 0.091


def test_a_log_mel_tells_the_timbres_apart() -> None:
    on = np.ones((1, 1), dtype=np.bool_)

    def spectra(seeds: range) -> NDArray[np.float64]:
        waveforms = [mix([family.timbre], on, rngs(2, seed)) for family in FAMILIES for seed in seeds]
        mels = [
            log_mel_examples(torch.from_numpy(waveform))[0, 0].mean(dim=0).numpy() for waveform in waveforms
        ]
        return np.stack(mels).reshape(len(FAMILIES), len(seeds), 64)

    centroids = spectra(range(12)).mean(axis=1)
    held_out = spectra(range(100, 108))
    nearest = ((held_out[:, :, None] - centroids) ** 2).sum(axis=-1).argmin(axis=-1)
    assert (nearest == np.arange(12)[:, None]).mean() > 0.95
