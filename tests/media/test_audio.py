from __future__ import annotations

import io
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from avslib.media import audio
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


def test_an_empty_sound_stays_empty_and_integers_are_refused(tmp_path: Path) -> None:
    assert resample(torch.zeros(2, 0), 44_100, 16_000).shape == (2, 0)
    message = r"waveform: expected floating-point samples in \[-1, 1\], got torch\.int16; divide 16-bit"
    with pytest.raises(ValueError, match=message):
        resample(torch.zeros(100, dtype=torch.int16), 44_100, 16_000)
    with pytest.raises(ValueError, match=message):
        write_wav(tmp_path / "a.wav", torch.tensor([100, -100, 3000], dtype=torch.int16), 16_000)
    assert not (tmp_path / "a.wav").exists()


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


@given(
    form=st.sampled_from(["RIFF", "RIFX"]),
    sample=st.sampled_from(["u1", "i2", "i3", "i4", "f4", "f8"]),
    channels=st.integers(1, 3),
    frames=st.integers(0, 9),
    extensible=st.booleans(),
    spare=st.binary(max_size=5),
    seed=st.integers(0, 99),
)
def test_scipy_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    sample: str,
    channels: int,
    frames: int,
    extensible: bool,
    spare: bytes,
    seed: int,
) -> None:
    order, width = "<>"[form == "RIFX"], int(sample[1])
    rng = np.random.default_rng(seed)
    samples = rng.bytes(frames * channels * width)
    if sample[0] == "f":
        samples = rng.uniform(-1, 1, frames * channels).astype(order + sample).tobytes()
    block, kind = channels * width, 3 if sample[0] == "f" else 1
    header = struct.pack(order + "HHIIHH", kind, channels, 16_000, 16_000 * block, block, 8 * width)
    if extensible:
        guid = struct.pack(order + "IHH", kind, 0, 16) + bytes.fromhex("800000aa00389b71")
        header = struct.pack(order + "H", 0xFFFE) + header[2:]
        header += struct.pack(order + "HHI", 22, 8 * width, 0) + guid
    chunks = [(b"JUNK", spare), (b"fmt ", header), (b"fact", spare), (b"data", samples), (b"LIST", spare)]
    body = b"WAVE" + b"".join(
        name + struct.pack(order + "I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    whole = form.encode() + struct.pack(order + "I", len(body)) + body
    path = tmp_path_factory.getbasetemp() / "both.wav"
    path.write_bytes(whole)
    ours, rate = read_wav(path)
    their_rate, theirs = wavfile.read(io.BytesIO(whole))
    assert rate == their_rate
    expected = theirs.astype(np.float64).reshape(-1, channels)
    if sample == "u1":
        expected = (expected - 128) / 128
    elif sample[0] == "i":
        expected /= 2.0 ** (8 * theirs.dtype.itemsize - 1)
    np.testing.assert_array_equal(ours, expected.mean(axis=1).astype(np.float32))


def test_a_file_beyond_four_gigabytes_says_so_elsewhere(tmp_path: Path) -> None:
    samples = struct.pack("<2h", 16384, 0)
    plain = riff(samples, bits=16)
    sizes = struct.pack("<4sIQQQ", b"ds64", 24, len(plain) + 32 - 8, len(samples), 2)
    whole = b"RF64\xff\xff\xff\xffWAVE" + sizes + plain[12:40] + b"\xff\xff\xff\xff" + samples
    (tmp_path / "a.wav").write_bytes(whole)
    assert read_wav(tmp_path / "a.wav")[0].tolist() == [0.5, 0.0]
    (tmp_path / "cut.wav").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"cut\.wav: .*it announces 4 bytes of sound, and has 3"):
        read_wav(tmp_path / "cut.wav")


@pytest.mark.parametrize("length", [0, 3, 30, 60, 100])
def test_a_damaged_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(riff(bytes(200), bits=16)[:length])
    with pytest.raises(
        ValueError, match=r"cut\.wav: expected a whole WAV file .* fetch it again, or convert"
    ):
        read_wav(path)


def header(**fields: int) -> bytes:
    """Give a WAV file of four samples with other numbers in its header than belong there."""
    right = {"riff": 44, "kind": 1, "channels": 1, "rate": 8_000, "bytes_a_second": 16_000, "block": 2}
    riff, *numbers, data = (right | {"bits": 16, "data": 8} | fields).values()
    chunks = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, *numbers, b"data", data)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVE" + chunks + bytes(8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "it announces 0 channels"),
        ({"channels": 3}, "it announces 3 channels in 2 bytes"),
        ({"channels": 65535}, "it announces 65535 channels"),
        ({"block": 0, "bytes_a_second": 0}, "16 bits in 0 bytes"),
        ({"rate": 0, "bytes_a_second": 0}, "at 0 Hz"),
        ({"rate": 2**31, "bytes_a_second": 0}, "at 2147483648 Hz"),
        ({"rate": 768_001, "bytes_a_second": 1_536_002}, "at 768001 Hz"),
        ({"bytes_a_second": 1}, "it announces kind 0x1, 16 bits in 2 bytes, 1 bytes a s"),
        ({"bits": 0}, "0 bits in 2 bytes"),
        ({"bits": 65535}, "65535 bits in 2 bytes"),
        ({"kind": 2}, "it announces kind 0x2"),
        ({"kind": 0xFFFE}, "it announces kind 0xfffe"),
        ({"kind": 3}, "kind 0x3, 16 bits in 2 bytes"),
        ({"data": 9}, "it announces 9 bytes of sound, and has 8"),
        ({"data": 2**32 - 2}, "it announces 4294967294 bytes of sound, and has 8"),
        ({"riff": 2**32 - 2}, "it announces 4294967302 bytes in all, and has 52"),
        ({"riff": 0}, "it announces 8 bytes in all, and has 52"),
    ],
)
def test_an_absurd_header_is_refused(tmp_path: Path, fields: dict[str, int], message: str) -> None:
    (tmp_path / "a.wav").write_bytes(header())
    assert read_wav(tmp_path / "a.wav") == (pytest.approx(torch.zeros(4)), 8_000)
    (tmp_path / "absurd.wav").write_bytes(header(**fields))
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"absurd\.wav: expected a whole WAV file .*{message}"):
        read_wav(tmp_path / "absurd.wav")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_many_chunks_and_no_sound_take_no_time(tmp_path: Path) -> None:
    for name in (b"JUNK", b"fmt "):
        (tmp_path / "a.wav").write_bytes(riff(b"", bits=16)[:12] + (name + bytes(4)) * 10**6)
        with pytest.raises(ValueError, match=r"a\.wav: .*(holds no sound|ends too early)"):
            read_wav(tmp_path / "a.wav")


def test_too_long_a_sound_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "long.wav").open("wb") as file:
        samples = 3601 * 8_000 * 2
        file.write(header(riff=samples + 36, data=samples)[:44])
        file.truncate(44 + samples)
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"long\.wav: expected a sound of at most 3600 s, got 3601 s; max_seconds="
    ):
        read_wav(tmp_path / "long.wav")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    (tmp_path / "short.wav").write_bytes(header())
    assert len(read_wav(tmp_path / "short.wav", max_seconds=4 / 8_000)[0]) == 4
    with pytest.raises(ValueError, match=r"expected a sound of at most 0\.0004 s"):
        read_wav(tmp_path / "short.wav", max_seconds=0.0004)
    with pytest.raises(ValueError, match="max_seconds: expected a number above 0, got 0"):
        read_wav(tmp_path / "short.wav", max_seconds=0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_samples_that_would_spoil_all_that_follows_are_refused(
    tmp_path: Path, value: float, channels: int
) -> None:
    samples = struct.pack("<4d", 0, value, value, 0.5)
    (tmp_path / "a.wav").write_bytes(riff(samples, bits=64, kind=3, channels=channels))
    with pytest.raises(ValueError, match=r"a\.wav: expected finite samples, got NaN or infinity"):
        read_wav(tmp_path / "a.wav")


def test_a_number_that_numpy_warns_of_is_refused_too(tmp_path: Path) -> None:
    samples = struct.pack("<f", 0.5) + bytes.fromhex("0100807f")  # a signalling NaN
    (tmp_path / "a.wav").write_bytes(riff(samples, bits=32, kind=3))
    with pytest.raises(ValueError, match=r"a\.wav: expected finite samples"):
        read_wav(tmp_path / "a.wav")


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


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 22_050, 22_255, 32_000, 37_800, 44_056, 48_000, 96_000, 192_000]
)
def test_every_rate_in_use_can_be_changed(rate: int) -> None:
    samples = rate // 10
    assert len(resample(torch.zeros(samples), rate, 16_000)) == math.ceil(samples * 16_000 / rate)


@pytest.mark.parametrize(("rate", "new_rate"), [(48_000, 16_000), (44_100, 16_000), (8_000, 22_050)])
@pytest.mark.parametrize("samples", [1, 999, 2_000, 2_001, 20_000])
def test_a_long_waveform_is_changed_a_part_at_a_time(
    rate: int, new_rate: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = torch.randn(2, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = resample(waveform, rate, new_rate)
    monkeypatch.setattr(audio, "_SAMPLES", 1_000)
    torch.testing.assert_close(resample(waveform, rate, new_rate), whole, rtol=0, atol=1e-12)


def test_rates_that_would_take_gigabytes_are_refused() -> None:
    message = (
        "expected a larger common divisor than 1, got 44101 and 16000 Hz; convert the sound with `ffmpeg"
    )
    with pytest.raises(ValueError, match=message):
        resample(torch.zeros(10), 44_101, 16_000)


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"waveform: expected shape \(s\), got \(2, 3\)"):
        write_wav(tmp_path / "a.wav", torch.zeros(2, 3), 16_000)
    with pytest.raises(ValueError, match="new_rate: expected a number above 0, got 0"):
        resample(torch.zeros(10), 16_000, 0)
