"""Random changes of a clip's sound that keep its ground truth correct.

Each is a module that maps a waveform to a waveform or, for log-mels, a clip to a clip. Random numbers come
from torch's global generator, as in torchvision's transforms, so every worker of a loader draws its own.
Chain several of them with ``nn.Sequential``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avslib._checks import check_one_of, check_shape
from avslib.clip import Clip

_SLOPES = {"white": 0.0, "pink": 0.5}
"""How fast the magnitude of a noise falls with frequency, as the exponent of 1 / f."""


class RandomGain(nn.Module):
    """Make a waveform louder or softer by a random number of decibels.

    Values above 1 are not clipped: the log-mel front end has no such limit, and clipping would add tones that
    nothing in the picture makes. Keep the range moderate: a sound below the front end's floor is no longer
    heard, though its mask stays ground truth.

    Args:
        low_db: smallest gain, dB; -6 halves the amplitude.
        high_db: largest gain, dB.

    Raises:
        ValueError: if ``low_db`` is above ``high_db``.

    Example:
        >>> RandomGain(20, 20)(torch.tensor([0.01, -0.2]))
        tensor([ 0.1000, -2.0000])
    """

    def __init__(self, low_db: float = -6.0, high_db: float = 6.0) -> None:
        super().__init__()
        _check_range("low_db, high_db", low_db, high_db)
        self.low_db = low_db
        self.high_db = high_db

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the waveform ``(S,)`` times one random gain."""
        return waveform * _amplitude(_uniform(self.low_db, self.high_db))


class AddNoise(nn.Module):
    """Add noise at a random signal-to-noise ratio; nothing in the picture makes it, so masks stay correct.

    The ratio is that of the mean powers over the whole waveform. Silence, which has no such ratio, stays
    silent. If a clip sounds for one second of five, its noise is just as loud in the other four.

    Args:
        low_snr_db: smallest ratio, dB; at 0 the noise is as loud as the sound.
        high_snr_db: largest ratio, dB.
        colour: ``"white"``, with equal power per hertz, or ``"pink"``, with equal power per octave.

    Raises:
        ValueError: if ``low_snr_db`` is above ``high_snr_db``, or the colour is unknown.
    """

    def __init__(self, low_snr_db: float = 10.0, high_snr_db: float = 40.0, *, colour: str = "white") -> None:
        super().__init__()
        _check_range("low_snr_db, high_snr_db", low_snr_db, high_snr_db)
        check_one_of("colour", colour, _SLOPES)
        self.low_snr_db = low_snr_db
        self.high_snr_db = high_snr_db
        self.colour = colour

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the waveform ``(S,)`` with noise, not clipped, see `RandomGain`."""
        check_shape("waveform", waveform, "s")
        if not len(waveform):
            return waveform
        noise = _noise(waveform, _SLOPES[self.colour])
        return add_noise(waveform, noise, _uniform(self.low_snr_db, self.high_snr_db))


class RandomLogMelGain(nn.Module):
    """`RandomGain` for clips with stored log-mels; pass it to a reader as ``transform``.

    Args:
        low_db: smallest gain, dB.
        high_db: largest gain, dB.

    Raises:
        ValueError: if ``low_db`` is above ``high_db``.
    """

    def __init__(self, low_db: float = -6.0, high_db: float = 6.0) -> None:
        super().__init__()
        _check_range("low_db, high_db", low_db, high_db)
        self.low_db = low_db
        self.high_db = high_db

    def forward(self, clip: Clip) -> Clip:
        """Return the clip with its log-mel made louder or softer by one random gain."""
        return clip._replace(log_mel=log_mel_gain(clip.log_mel, _uniform(self.low_db, self.high_db)))


def add_noise(waveform: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Add noise so that the mean power of the sound is ``snr_db`` above that of the noise.

    Args:
        waveform: ``(S,)``; if it is silent throughout, nothing is added.
        noise: ``(S,)``, of any loudness.
        snr_db: signal-to-noise ratio, dB.

    Raises:
        ValueError: if the shapes differ, or the noise is silent.

    Example:
        >>> add_noise(torch.tensor([1.0, -1.0]), torch.tensor([5.0, 5.0]), 20)
        tensor([ 1.1000, -0.9000])
    """
    check_shape("noise", noise, "s", **check_shape("waveform", waveform, "s"))
    power = noise.square().mean()
    if not power > 0:
        raise ValueError(f"noise: expected an audible noise, got a mean power of {power.item()}")
    return waveform + noise * (waveform.square().mean() / power).sqrt() / _amplitude(snr_db)


def log_mel_gain(log_mel: Tensor, gain_db: float, *, log_offset: float = 0.01) -> Tensor:
    """Return the log-mel that the waveform would have if it were louder by ``gain_db``.

    This is exact: bands are sums of magnitudes, which a gain only scales, so ``log(m + 0.01)`` becomes
    ``log(g m + 0.01)``.

    Args:
        log_mel: of any shape.
        gain_db: gain, dB.
        log_offset: offset that was added before the logarithm.

    Example:
        >>> log_mel_gain(torch.tensor([1.01, 0.51]).log(), 20).exp()
        tensor([10.0100,  5.0100])
    """
    magnitude = (log_mel.exp() - log_offset).clamp(min=0)
    return (magnitude * _amplitude(gain_db) + log_offset).log()


def _amplitude(db: float) -> float:
    return 10.0 ** (db / 20.0)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _noise(like: Tensor, slope: float) -> Tensor:
    spectrum = torch.fft.rfft(torch.randn_like(like))
    cycles = torch.arange(len(spectrum), device=like.device, dtype=like.dtype).clamp(min=1)
    return torch.fft.irfft(spectrum * cycles**-slope, n=len(like))


def _check_range(names: str, low: float, high: float) -> None:
    if not low <= high:
        raise ValueError(f"{names}: expected the smaller number first, got {low:g} and {high:g}")
