"""WAV file <-> mono waveform, and its change of rate."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avslib._checks import check_positive, check_shape


def read_wav(path: str | Path) -> tuple[Tensor, int]:
    """Read a WAV file: PCM of 8, 16, 24 or 32 bits, or float.

    Returns:
        The mean of its channels, ``(S,)``, float32 in ``[-1, 1]``, and its rate in Hz. PCM is divided by its
        full scale, 16 bits by 32768.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no WAV file or ends too early. A file of unknown length, as a stream writes it,
            is read to its end.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such sound file")
    from scipy.io import wavfile

    with path.open("rb") as file:
        is_stream = file.read(8)[4:] == b"\xff\xff\xff\xff"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that are not sound
            if not is_stream:
                warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except Exception as error:  # a damaged header surfaces as one of many types
        raise ValueError(
            f"{path}: expected a whole WAV file of PCM or float samples ({error}); fetch it again, or "
            "convert it with `ffmpeg -i INPUT OUTPUT.wav`"
        ) from error
    scaled = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        scaled = (scaled - 128.0) / 128.0
    elif samples.dtype.kind == "i":  # scipy puts 24 bits into the upper bits of 32
        scaled /= -float(np.iinfo(samples.dtype).min)
    if scaled.ndim == 2:
        scaled = scaled.mean(axis=1)
    return torch.from_numpy(scaled.astype(np.float32)), int(rate)


def write_wav(path: str | Path, waveform: Tensor, rate: int) -> None:
    """Write a mono WAV file of 16 bits; what lies outside ``[-1, 1)`` is clipped.

    Args:
        path: the file, in a folder that exists.
        waveform: ``(S,)``, float in ``[-1, 1]``.
        rate: Hz.
    """
    check_shape("waveform", waveform, "s")
    check_positive("rate", rate)
    from scipy.io import wavfile

    samples = (waveform.detach().cpu().double() * 32768).round().clamp(-32768, 32767)
    wavfile.write(path, rate, samples.to(torch.int16).numpy())


def resample(waveform: Tensor, rate: int, new_rate: int) -> Tensor:
    """Change the rate of a waveform with a windowed sinc, close to the one that made AVSBench's log-mels.

    That was resampy's ``kaiser_best``. With its window torchaudio stays within 4e-4 of it in a waveform of
    44.1 kHz, and within 0.025 in the log-mel; torchaudio's own defaults differ by 0.5 there.

    Args:
        waveform: ``(..., S)``, float.
        rate: its rate, Hz.
        new_rate: the rate wanted, Hz.

    Returns:
        ``(..., ceil(S * new_rate / rate))``; the waveform itself if the rates are equal.

    Example:
        >>> import torch
        >>> resample(torch.zeros(44_100), 44_100, 16_000).shape
        torch.Size([16000])
    """
    check_shape("waveform", waveform, "... s")
    check_positive("rate", rate)
    check_positive("new_rate", new_rate)
    if rate == new_rate:
        return waveform
    import torchaudio

    return torchaudio.functional.resample(
        waveform,
        rate,
        new_rate,
        lowpass_filter_width=50,
        rolloff=0.917347,
        resampling_method="sinc_interp_kaiser",
        beta=12.9846,
    )
