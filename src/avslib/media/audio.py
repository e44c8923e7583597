"""Read, write and resample mono waveforms."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avslib._checks import check_positive, check_shape

MAX_SECONDS = 3600.0
"""Default limit on the length of a sound that is read, s."""

_MAX_RATE = 768_000  # Hz; the highest rate of today's devices
_MAX_CHUNKS = 1000  # before the samples; a file has about three
_MAX_FILTER = (
    2**24
)  # numbers; to 16 kHz from 44.1 kHz it takes 70,560, from an old computer's 22,255 Hz 1.4e7
_SAMPLES = 2**20
"""Samples that are resampled at a time: resampling a whole waveform takes five times its memory."""
_UNKNOWN = 0xFFFFFFFF  # size in the header of a stream, which is written before the sound ends
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_END = bytes.fromhex("800000aa00389b71")  # end of the GUIDs that stand for numbered formats


def read_wav(path: str | Path, *, max_seconds: float = MAX_SECONDS) -> tuple[Tensor, int]:
    """Read a WAV file: PCM of 8, 16, 24 or 32 bits, or float.

    Args:
        path: a RIFF, RIFX or RF64 file.
        max_seconds: longest sound that is read, s.

    Returns:
        The mean of its channels, ``(S,)``, float32, and its sample rate in Hz. PCM is divided by its full
        scale, 32768 for 16 bits, and so lies in ``[-1, 1]``; floats are not scaled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a WAV file, is truncated, or holds samples that are not finite; if it is
            longer than ``max_seconds``, before any samples are read; or if ``max_seconds`` is not above 0. A
            file of unknown length, written by a stream, is read to its end.
    """
    check_positive("max_seconds", max_seconds)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such sound file")
    with path.open("rb") as file:
        try:
            sound = _read_header(file)
        except ValueError as error:
            raise ValueError(
                f"{path}: expected a whole WAV file of PCM or float samples ({error}); fetch it again, or "
                "convert it with `ffmpeg -i INPUT OUTPUT.wav`"
            ) from error
        block = sound.channels * int(sound.code[-1])
        seconds = sound.size // block / sound.rate
        if seconds > max_seconds:
            raise ValueError(
                f"{path}: expected a sound of at most {max_seconds:g} s, got {seconds:.0f} s; max_seconds= "
                "raises the limit"
            )
        samples = _decode(file.read(sound.size // block * block), sound)
    if not samples.isfinite().all():
        raise ValueError(f"{path}: expected finite samples, got NaN or infinity")
    return samples, sound.rate


def write_wav(path: str | Path, waveform: Tensor, rate: int) -> None:
    """Write a mono WAV file of 16 bits; samples outside ``[-1, 1)`` are clipped.

    Args:
        path: the file, in a folder that exists.
        waveform: ``(S,)``, float in ``[-1, 1]``.
        rate: sample rate, Hz.

    Raises:
        ValueError: if the waveform has another shape or holds integers, or ``rate`` is not above 0.
    """
    check_waveform(waveform, "s")
    check_positive("rate", rate)
    from scipy.io import wavfile

    samples = (waveform.detach().cpu().double() * 32768).round().clamp(-32768, 32767)
    wavfile.write(path, rate, samples.to(torch.int16).numpy())


def resample(waveform: Tensor, rate: int, new_rate: int) -> Tensor:
    """Resample a waveform with a windowed sinc, close to the resampler that made AVSBench's log-mels.

    AVSBench used resampy's ``kaiser_best``. With the same window, torchaudio stays within 4e-4 of it for a
    waveform at 44.1 kHz, and within 0.025 in the log-mel, where torchaudio's defaults differ by 0.5.

    Args:
        waveform: ``(..., S)``, float.
        rate: its sample rate, Hz.
        new_rate: the new sample rate, Hz.

    Returns:
        ``(..., ceil(S * new_rate / rate))``; the waveform itself if the rates are equal or it is empty.

    Raises:
        ValueError: if the waveform holds integers or a rate is not above 0; or if the greatest common divisor
            of the rates is so small that the filter would be too large, as for 44101 and 16000 Hz.

    Example:
        >>> import torch
        >>> resample(torch.zeros(44_100), 44_100, 16_000).shape
        torch.Size([16000])
    """
    check_waveform(waveform, "... s")
    check_positive("rate", rate)
    check_positive("new_rate", new_rate)
    if rate == new_rate or waveform.shape[-1] == 0:
        return waveform
    step = math.gcd(rate, new_rate)
    if (rate // step) * (new_rate // step) > _MAX_FILTER:
        raise ValueError(
            f"rate, new_rate: expected a larger common divisor than {step}, got {rate} and {new_rate} Hz; "
            f"convert the sound with `ffmpeg -i INPUT -ar {new_rate} OUTPUT.wav`"
        )
    import torchaudio

    convert = torchaudio.transforms.Resample(
        rate,
        new_rate,
        lowpass_filter_width=50,
        rolloff=0.917347,
        resampling_method="sinc_interp_kaiser",
        beta=12.9846,
        dtype=waveform.dtype,
    ).to(waveform.device)
    before, after = rate // step, new_rate // step  # the filter turns this many samples into that many
    reach, at_a_time = math.ceil(convert.width / before), max(1, _SAMPLES // before)
    parts = []
    for first in range(0, math.ceil(waveform.shape[-1] / before), at_a_time):
        start = max(0, first - reach)
        converted = convert(waveform[..., start * before : (first + at_a_time + reach) * before])
        parts.append(converted[..., (first - start) * after : (first - start + at_a_time) * after])
    return torch.cat(parts, dim=-1)


def check_waveform(waveform: Tensor, shape: str) -> None:
    """Raise ``ValueError`` unless a waveform is floating-point and has the given shape; see `check_shape`."""
    check_shape("waveform", waveform, shape)
    if not waveform.is_floating_point():
        raise ValueError(
            f"waveform: expected floating-point samples in [-1, 1], got {waveform.dtype}; "
            "divide 16-bit samples by 32768"
        )


class _Sound(NamedTuple):
    """Format and size of the samples, from the header."""

    rate: int
    channels: int
    code: str  # type of one sample in NumPy's notation, or "i3"
    size: int  # of all samples, bytes


def _read_header(file: BinaryIO) -> _Sound:
    """Read the header up to the first sample, and check the sizes in it against the size of the file."""
    file_bytes = file.seek(0, 2)
    file.seek(0)
    (form,) = _unpack(file, "4s")
    if form not in (b"RIFF", b"RIFX", b"RF64"):
        raise ValueError(f"it begins with {form!r}")
    order = ">" if form == b"RIFX" else "<"
    riff_bytes, kind = _unpack(file, order + "I4s")
    sound, long_size = None, 0
    for _ in range(_MAX_CHUNKS):
        name, size = _unpack(file, order + "4sI")
        if name == b"data":
            break
        begin = file.tell()
        if name == b"fmt ":
            sound = _read_format(file.read(min(size, 40)), order)
        elif name == b"ds64" and form == b"RF64":
            riff_bytes, long_size = _unpack(file, "<QQ")
        file.seek(begin + size + size % 2)
    if kind != b"WAVE" or name != b"data" or sound is None:
        raise ValueError("it holds no sound")
    begin = file.tell()
    if form == b"RF64":
        size = long_size
    elif _UNKNOWN in (riff_bytes, size):
        riff_bytes = file_bytes - 8
        size = min(size, file_bytes - begin)
    if begin + size > file_bytes:
        raise ValueError(f"it announces {size} bytes of sound, and has {file_bytes - begin}")
    if (
        not begin <= riff_bytes + 8 <= file_bytes + size % 2
    ):  # some writers count a final byte that they do not write
        raise ValueError(f"it announces {riff_bytes + 8} bytes in all, and has {file_bytes}")
    return sound._replace(size=size)


def _read_format(header: bytes, order: str) -> _Sound:
    kind, channels, rate, bytes_a_second, block, bits = _unpack(io.BytesIO(header), order + "HHIIHH")
    if kind == _EXTENSIBLE and header[32:] == _GUID_END:
        (kind,) = struct.unpack(order + "I", header[24:28])
    if channels == 0 or block % channels or not 1 <= rate <= _MAX_RATE:
        raise ValueError(f"it announces {channels} channels in {block} bytes at {rate} Hz")
    width = block // channels
    is_pcm = kind == _PCM and width in (1, 2, 3, 4) and (width > 1) * 8 < bits <= width * 8
    is_float = kind == _FLOAT and width in (4, 8) and bits == width * 8
    if not (is_pcm or is_float) or (is_pcm and bytes_a_second != rate * block):
        raise ValueError(
            f"it announces kind {kind:#x}, {bits} bits in {width} bytes, {bytes_a_second} bytes a s"
        )
    letter = "f" if is_float else "i" if width > 1 else "u"
    return _Sound(rate, channels, f"{order}{letter}{width}", 0)


def _decode(data: bytes, sound: _Sound) -> Tensor:
    if sound.code.endswith("i3"):
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        filled = slice(1, 4) if sound.code.startswith("<") else slice(0, 3)  # the upper three bytes
        wide[:, filled] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = wide.view(sound.code[0] + "i4")[:, 0]
    else:
        samples = np.frombuffer(data, sound.code)
    with np.errstate(over="ignore", invalid="ignore"):  # floats that are not finite are refused later
        scaled = samples.astype(np.float64)
        if samples.dtype.kind == "u":
            scaled = (scaled - 128.0) / 128.0
        elif samples.dtype.kind == "i":
            scaled /= -float(np.iinfo(samples.dtype).min)
        if sound.channels > 1:
            scaled = scaled.reshape(-1, sound.channels).mean(axis=1)
        return torch.from_numpy(scaled.astype(np.float32))


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    data = file.read(struct.calcsize(layout))
    if len(data) < struct.calcsize(layout):
        raise ValueError("it ends too early")
    return struct.unpack(layout, data)
