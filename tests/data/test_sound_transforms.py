from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avslib.clip import Clip
from avslib.data.sound_transforms import AddNoise, RandomGain, RandomLogMelGain, add_noise, log_mel_gain
from avslib.media.mel import log_mel_examples

decibels = st.floats(-40, 40)


def tone(seconds: int = 1, hertz: float = 440.0, amplitude: float = 0.3) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(seconds * 16_000) / 16_000)


def power(samples: list[float]) -> float:
    return sum(sample**2 for sample in samples) / len(samples)


@given(gain=decibels)
def test_a_gain_is_20_log10_of_the_ratio_of_amplitudes(gain: float) -> None:
    waveform = tone()
    louder = RandomGain(gain, gain)(waveform)
    for before, after in zip(waveform[1:30].tolist(), louder[1:30].tolist(), strict=True):
        assert 20 * math.log10(after / before) == pytest.approx(gain, abs=1e-4)


def test_gains_are_even_in_decibels_over_their_range() -> None:
    torch.manual_seed(0)
    gain, one = RandomGain(-12, 6), torch.ones(1)
    drawn = sorted(20 * math.log10(gain(one).item()) for _ in range(2000))
    assert -12 <= drawn[0] < -11.9
    assert 5.9 < drawn[-1] <= 6
    assert drawn[1000] == pytest.approx(-3, abs=0.5)


def test_what_rises_above_1_is_not_clipped() -> None:
    assert RandomGain(20, 20)(tone()).max() == pytest.approx(3, abs=1e-3)


@given(snr=decibels, loudness=decibels, seed=st.integers(0, 99))
def test_the_ratio_of_powers_is_the_one_asked_for(snr: float, loudness: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    waveform, noise = torch.randn(2, 500, generator=rng, dtype=torch.float64)
    added = add_noise(waveform, noise * 10 ** (loudness / 20), snr) - waveform
    ratio = power(waveform.tolist()) / power(added.tolist())
    assert 10 * math.log10(ratio) == pytest.approx(snr, abs=1e-6)
    torch.testing.assert_close(added / added[0], noise / noise[0])


@pytest.mark.parametrize("colour", ["white", "pink"])
@pytest.mark.parametrize("samples", [16_000, 15_999, 2])
def test_noise_has_the_ratio_that_was_drawn(colour: str, samples: int) -> None:
    torch.manual_seed(0)
    waveform = tone()[:samples]
    noisy = AddNoise(15, 15, colour=colour)(waveform)
    assert noisy.dtype == torch.float32
    ratio = waveform.square().mean() / (noisy - waveform).square().mean()
    assert 10 * ratio.log10().item() == pytest.approx(15, abs=1e-2)


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -1.0)])
def test_the_colour_is_how_power_falls_with_frequency(colour: str, slope: float) -> None:
    torch.manual_seed(0)
    waveform = torch.full((2**18,), 0.1, dtype=torch.float64)
    noise = AddNoise(0, 0, colour=colour)(waveform) - waveform
    spectrum = torch.fft.rfft(noise).abs().square()
    octaves = [(2.0**i, spectrum[2**i : 2 ** (i + 1)].mean().item()) for i in range(8, 17)]
    (low, low_power), (high, high_power) = octaves[0], octaves[-1]
    assert math.log(high_power / low_power) / math.log(high / low) == pytest.approx(slope, abs=0.05)


def test_silence_stays_silent() -> None:
    silence = torch.zeros(16_000)
    assert torch.equal(AddNoise(0, 0)(silence), silence)
    assert torch.equal(AddNoise(0, 0, colour="pink")(silence), silence)
    assert torch.equal(RandomGain(40, 40)(silence), silence)
    log_mel = torch.full((1, 1, 96, 64), math.log(0.01))
    torch.testing.assert_close(log_mel_gain(log_mel, 40), log_mel)


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_a_sound_without_a_sample_stays_so(colour: str) -> None:
    assert AddNoise(colour=colour)(torch.zeros(0)).shape == (0,)


@given(gain=st.floats(-30, 20))
def test_a_gain_of_the_log_mel_is_that_of_the_waveform(gain: float) -> None:
    rng = torch.Generator().manual_seed(0)
    waveform = tone() + 0.01 * torch.randn(16_000, generator=rng)
    expected = log_mel_examples(RandomGain(gain, gain)(waveform))
    actual = log_mel_gain(log_mel_examples(waveform), gain)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


@given(first=decibels, second=decibels)
def test_gains_add_up(first: float, second: float) -> None:
    log_mel = torch.linspace(-4.6, 3, 200, dtype=torch.float64)
    twice = log_mel_gain(log_mel_gain(log_mel, first), second)
    torch.testing.assert_close(twice, log_mel_gain(log_mel, first + second))


def test_another_offset_is_taken_into_account() -> None:
    waveform = tone()
    stored = log_mel_examples(waveform, log_offset=0.1)
    expected = log_mel_examples(2 * waveform, log_offset=0.1)
    actual = log_mel_gain(stored, 20 * math.log10(2), log_offset=0.1)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


def test_a_clip_with_a_stored_log_mel_becomes_louder_and_stays_the_same_clip() -> None:
    clip = Clip(
        frames=torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        log_mel=log_mel_examples(tone()),
        masks=torch.ones(1, 8, 8, dtype=torch.int64),
        labelled=torch.ones(1, dtype=torch.bool),
        valid=torch.ones(1, dtype=torch.bool),
        id="tone",
    )
    before = clip.log_mel.clone()
    louder = RandomLogMelGain(6, 6)(clip)
    torch.testing.assert_close(louder.log_mel, log_mel_gain(before, 6))
    assert torch.equal(clip.log_mel, before)
    assert louder._replace(log_mel=clip.log_mel) == clip


@pytest.mark.parametrize("transform", [RandomGain(), AddNoise(), AddNoise(colour="pink")])
def test_a_seed_tells_the_draw_and_the_waveform_stays(transform: nn.Module) -> None:
    waveform = tone()
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(nn.Sequential(transform, RandomGain())(waveform))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(waveform, tone())


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="low_db, high_db: expected the smaller number first, got 6 and -6"):
        RandomGain(6, -6)
    with pytest.raises(ValueError, match="low_db, high_db: expected the smaller number first, got 6 and -6"):
        RandomLogMelGain(6, -6)
    with pytest.raises(ValueError, match=r"low_snr_db, high_snr_db: .* got nan and 3"):
        AddNoise(math.nan, 3)
    with pytest.raises(ValueError, match="colour: expected one of 'white', 'pink', got 'brown'"):
        AddNoise(colour="brown")
    with pytest.raises(ValueError, match="noise: expected an audible noise, got a mean power of 0"):
        add_noise(tone(), torch.zeros(16_000), 0)
    with pytest.raises(ValueError, match=r"noise: expected shape \(s\) with s=16000, got \(3,\)"):
        add_noise(tone(), torch.ones(3), 0)
    with pytest.raises(ValueError, match=r"waveform: expected shape \(s\), got \(2, 16000\)"):
        AddNoise()(torch.zeros(2, 16_000))
