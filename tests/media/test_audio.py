from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from avslib.media.audio import read_wav, resample, write_wav


def riff(samples: bytes, *, bits: int, channels: int = 1, rate: int = 8_000, kind: int = 1) -> bytes:
    """A WAV file, written by hand."""
    width = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * width, width, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("samples", "bits", "kind"),
    [
        (struct.pack("<5B", 0, 64, 128, 192, 128), 8, 1),
        (struct.pack("<5h", -32768, -16384, 0, 16384, 0), 16, 1),
        (b"".join((v << 8).to_bytes(3, "little", signed=True) for v in (-32768, -16384, 0, 16384, 0)), 24, 1),
        (struct.pack("<5i", -(2**31), -(2**30), 0, 2**30, 0), 32, 1),
        (struct.pack("<5f", -1, -0.5, 0, 0.5, 0), 32, 3),
        (struct.pack("<5d", -1, -0.5, 0, 0.5, 0), 64, 3),
    ],
)
def test_every_width_is_the_same_sound(tmp_path: Path, samples: bytes, bits: int, kind: int) -> None:
    (tmp_path / "a.wav").write_bytes(riff(samples, bits=bits, kind=kind))
    waveform, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8_000
    assert waveform.dtype == torch.float32
    assert waveform.tolist() == [-1.0, -0.5, 0.0, 0.5, 0.0]


def test_channels_are_averaged(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "a.wav", 8_000, np.array([[16384, 0], [-32768, 16384]], np.int16))
    assert read_wav(str(tmp_path / "a.wav"))[0].tolist() == [0.25, -0.25]


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50))
def test_sixteen_bits_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, pcm: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.wav"
    waveform = torch.tensor(pcm) / 32768
    write_wav(path, waveform, 16_000)
    again, rate = read_wav(path)
    assert rate == 16_000
    assert torch.equal(again, waveform)


def test_too_loud_a_waveform_is_clipped(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", torch.tensor([2.0, 1.0, -3.0]), 16_000)
    assert read_wav(tmp_path / "a.wav")[0].tolist() == [32767 / 32768, 32767 / 32768, -1.0]


@pytest.mark.parametrize("trailing", [b"abcd\x04\0\0\0wxyz", b"ab", b"LIST\xff\0\0\0x"])
def test_what_follows_the_sound_does_not_matter(tmp_path: Path, trailing: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(riff(struct.pack("<2h", 16384, 0), bits=16) + trailing)
    assert read_wav(tmp_path / "a.wav")[0].tolist() == [0.5, 0.0]


def test_a_file_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    whole = riff(struct.pack("<2h", 16384, 0), bits=16)
    (tmp_path / "a.wav").write_bytes(b"RIFF\xff\xff\xff\xff" + whole[8:40] + b"\xff\xff\xff\xff" + whole[44:])
    assert read_wav(tmp_path / "a.wav")[0].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("length", [0, 3, 30, 60, 100])
def test_a_damaged_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(riff(bytes(200), bits=16)[:length])
    with pytest.raises(
        ValueError, match=r"cut\.wav: expected a whole WAV file .* fetch it again, or convert"
    ):
        read_wav(path)


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"ID3 this is no WAV file")
    with pytest.raises(ValueError, match=r"a\.mp3: expected a whole WAV file"):
        read_wav(tmp_path / "a.mp3")
    with pytest.raises(FileNotFoundError, match=r"none\.wav: no such sound file"):
        read_wav(tmp_path / "none.wav")


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_stays_that_tone_at_another_rate(rate: int) -> None:
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(rate, dtype=torch.float64) / rate)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(16_000, dtype=torch.float64) / 16_000)
    inner = slice(200, -200)  # the filter reaches over the ends
    torch.testing.assert_close(resample(tone, rate, 16_000)[inner], expected[inner], rtol=0, atol=2e-3)


def test_resampling_folds_nothing_back_and_keeps_leading_axes() -> None:
    tone = torch.sin(2 * torch.pi * 12_000 * torch.arange(44_100, dtype=torch.float64) / 44_100)
    low = resample(tone.expand(2, 3, -1), 44_100, 16_000)
    assert low.shape == (2, 3, 16_000)
    assert low[..., 200:-200].abs().max() < 1e-4
    assert resample(tone, 44_100, 44_100) is tone


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"waveform: expected shape \(s\), got \(2, 3\)"):
        write_wav(tmp_path / "a.wav", torch.zeros(2, 3), 16_000)
    with pytest.raises(ValueError, match="new_rate: expected a number above 0, got 0"):
        resample(torch.zeros(10), 16_000, 0)
