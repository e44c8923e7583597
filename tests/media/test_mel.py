from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.media import mel
from avslib.media.audio import read_wav, resample, write_wav
from avslib.media.mel import LogMel, fit_examples, log_mel_examples, mel_matrix
from tests._golden import arrays, assert_matches, inputs


def literal_examples(waveform: Tensor) -> Tensor:
    """VGGish's front end, one number at a time where that is bearable."""
    x = waveform.double().numpy()
    rows = []
    hann = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)])
    mel_of = [1127 * math.log(1 + 31.25 * k / 700) for k in range(257)]
    low, high = (1127 * math.log(1 + f / 700) for f in (125, 7500))
    edges = [low + (high - low) * i / 65 for i in range(66)]
    start = 0
    while start + 400 <= len(x):
        magnitude = np.abs(np.fft.rfft(x[start : start + 400] * hann, 512))
        row = []
        for band in range(64):
            left, middle, right = edges[band : band + 3]
            total = 0.0
            for k in range(1, 257):
                if left < mel_of[k] < right:
                    slope = min((mel_of[k] - left) / (middle - left), (right - mel_of[k]) / (right - middle))
                    total += slope * magnitude[k]
            row.append(math.log(total + 0.01))
        rows.append(row)
        start += 160
    count = len(rows) // 96
    return torch.tensor(rows[: 96 * count], dtype=torch.float64).reshape(count, 1, 96, 64).float()


def test_examples_are_the_literal_front_end() -> None:
    waveform = torch.randn(16_500, generator=torch.Generator().manual_seed(0)) * 0.1
    torch.testing.assert_close(log_mel_examples(waveform), literal_examples(waveform), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "B_logmel_15599_empty",
        "B_logmel_15600",
        "B_logmel_16k_mono_1s",
        "B_logmel_16k_mono_5s",
        "B_logmel_fullscale_square",
        "B_logmel_silence_1s",
    ],
)
def test_examples_are_the_published_ones(name: str) -> None:
    assert_matches(name, "examples", log_mel_examples(torch.from_numpy(inputs(name)["wave"])))


def test_the_published_waveform_after_resampling_gives_the_published_examples() -> None:
    name = "B_logmel_44k_stereo_1s"
    resampled = torch.from_numpy(arrays(name)["out.resampled"])
    # what the reference had resampled in float64 is stored in float32, hence its tolerance of 1e-4
    assert_matches(name, "examples", log_mel_examples(resampled))


def test_our_resampler_is_close_to_the_published_one() -> None:
    name = "B_logmel_44k_stereo_1s"
    mono = torch.from_numpy(inputs(name)["wave"]).mean(dim=1)
    expected = arrays(name)
    resampled = resample(mono, 44_100, 16_000)
    np.testing.assert_allclose(resampled, expected["out.resampled"], atol=4e-4)
    np.testing.assert_allclose(log_mel_examples(resampled), expected["out.examples"], atol=0.025)


def test_a_wav_file_gives_the_published_examples(tmp_path: Path) -> None:
    from scipy.io import wavfile

    for name in ("B_wavfile_16k_mono", "B_wavfile_44k_stereo"):
        wavfile.write(tmp_path / "a.wav", 44_100 if "44k" in name else 16_000, inputs(name)["pcm"])
        waveform, rate = read_wav(tmp_path / "a.wav")
        examples = log_mel_examples(resample(waveform, rate, 16_000))
        if rate == 16_000:
            assert_matches(name, "examples", examples)
        else:  # another resampler than the published one
            np.testing.assert_allclose(examples, arrays(name)["out.examples"], atol=0.025)


def test_the_matrix_and_the_window_are_the_published_ones() -> None:
    assert_matches("B_mel_matrix", "mel_matrix", mel_matrix(bins=257, sample_rate=16_000))
    assert_matches("B_mel_matrix", "window", torch.hann_window(400, periodic=True, dtype=torch.float64))


def test_a_short_clip_repeats_its_last_example_as_the_published_log_mels_do(tmp_path: Path) -> None:
    name = "B_avsbench_s4_pad_repeat"
    write_wav(tmp_path / "a.wav", torch.from_numpy(inputs(name)["pcm"] / 32768), 16_000)
    assert_matches(name, "log_mel", fit_examples(log_mel_examples(read_wav(tmp_path / "a.wav")[0]), 5))


@given(samples=st.integers(0, 50_000))
def test_the_number_of_examples_is_that_of_whole_ones(samples: int) -> None:
    count = 0
    while (96 * (count + 1) - 1) * 160 + 400 <= samples:
        count += 1
    assert log_mel_examples(torch.zeros(samples)).shape == (count, 1, 96, 64)


def test_leading_axes_and_other_constants() -> None:
    waveforms = torch.randn(2, 3, 20_000) * 0.1
    together = LogMel()(waveforms)
    assert together.shape == (2, 3, 1, 1, 96, 64)
    torch.testing.assert_close(together[1, 2], log_mel_examples(waveforms[1, 2]))
    overlapping = LogMel(mel_bands=20, example_steps=10, example_hop_steps=5)(waveforms[0, 0])
    steps = log_mel_examples(waveforms[0, 0], mel_bands=20, example_steps=1, example_hop_steps=1)[:, 0, 0]
    torch.testing.assert_close(
        overlapping, torch.stack([steps[i : i + 10][None] for i in range(0, len(steps) - 9, 5)])
    )


@pytest.mark.parametrize(("steps", "hop"), [(96, 96), (96, 100), (10, 3)])
def test_the_examples_of_a_long_sound_are_those_computed_at_once(
    steps: int, hop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveforms = 0.1 * torch.randn(2, 16_000 * 45, generator=torch.Generator().manual_seed(0))
    in_parts = log_mel_examples(waveforms, example_steps=steps, example_hop_steps=hop)
    monkeypatch.setattr(mel, "_STEPS", 10**6)
    assert torch.equal(in_parts, log_mel_examples(waveforms, example_steps=steps, example_hop_steps=hop))


def test_gradients_reach_every_sample_that_is_heard() -> None:
    waveform = torch.randn(16_000, requires_grad=True)
    log_mel_examples(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad[1:15_599].ne(0).all()
    assert waveform.grad[15_600:].eq(0).all()


def test_gradients_flow_after_an_inference_that_came_first() -> None:
    mel._cached_mel_matrix.cache_clear()
    with torch.inference_mode():
        log_mel_examples(torch.zeros(15_600))
    waveform = torch.randn(15_600, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_mel_examples(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.any()


def test_silence_has_a_finite_gradient() -> None:
    waveform = torch.zeros(15_600, requires_grad=True)
    log_mel_examples(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_device_does_not_matter() -> None:
    waveform = torch.randn(2, 16_000) * 0.1
    on_device = log_mel_examples(waveform.cuda())
    assert on_device.is_cuda
    torch.testing.assert_close(on_device.cpu(), log_mel_examples(waveform), rtol=0, atol=1e-6)


def test_padding_and_cutting() -> None:
    examples = torch.randn(3, 1, 96, 64)
    torch.testing.assert_close(fit_examples(examples, 2), examples[:2])
    torch.testing.assert_close(fit_examples(examples, 3), examples)
    torch.testing.assert_close(fit_examples(examples, 5), examples[[0, 1, 2, 2, 2]])
    zeros = fit_examples(examples, 5, padding="zero")
    assert torch.equal(zeros[:3], examples)
    assert not zeros[3:].any()
    assert fit_examples(examples[:0], 5, padding="zero").shape == (5, 1, 96, 64)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"shorter than 0.975 s gives none, so append silence"):
        fit_examples(torch.zeros(0, 1, 96, 64), 5)
    with pytest.raises(ValueError, match="padding: expected one of 'repeat', 'zero', got 'wrap'"):
        fit_examples(torch.zeros(1, 1, 96, 64), 5, padding="wrap")
    with pytest.raises(ValueError, match=r"got torch.int16; divide 16-bit samples by 32768"):
        log_mel_examples(torch.zeros(16_000, dtype=torch.int16))
    with pytest.raises(ValueError, match=r"<= 4000 Hz \(half of sample_rate\), got 125 and 7500"):
        log_mel_examples(torch.zeros(16_000), sample_rate=8_000)
    with pytest.raises(ValueError, match="example_steps: expected a number above 0, got 0"):
        log_mel_examples(torch.zeros(16_000), example_steps=0)
    for constants, message in (
        ({"example_steps": 0}, "example_steps: expected a number above 0, got 0"),
        ({"min_hz": 9000.0}, "got 9000 and 7500"),
        ({"mel_bands": 0}, "mel_bands: expected a number above 0, got 0"),
        ({"log_offset": -1.0}, "log_offset: expected a number above 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            LogMel(**constants)
    with pytest.raises(ValueError, match="bins: expected a number above 0, got 0"):
        mel_matrix(bins=0, sample_rate=16_000)


def test_it_can_be_built_without_a_device_and_used_on_one() -> None:
    mel._cached_mel_matrix.cache_clear()
    with torch.device("meta"):
        front_end = LogMel(mel_bands=40)
    assert front_end(torch.zeros(16_000)).isfinite().all()
