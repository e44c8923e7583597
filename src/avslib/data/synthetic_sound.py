"""The sound of synthetic clips: timbres, a room, and the mixing of sources that come and go.

A timbre draws its pitch and pace from a generator and returns a waveform of any scale; ``place_in_room`` and
``mix`` set its loudness. Timbres differ in their frequency band and in how they change within a second, so a
log-mel spectrogram tells them apart even when several sound together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Sample rate, Hz, as the log-mel examples of VGGish expect."""

FADE = 0.01
"""Time that a source takes to fade in or out, s, within the seconds in which it sounds."""

FloatArray = NDArray[np.float32]
Timbre = Callable[[Generator, int], FloatArray]


def _sine(cycles: NDArray[np.floating]) -> FloatArray:
    """Return the sine of a phase in cycles; wrapping it in float64 first makes float32 precise enough."""
    return np.sin((2 * math.pi * np.mod(cycles, 1)).astype(np.float32))


def _cycles(frequency: float | NDArray[np.floating], samples: int) -> NDArray[np.float64]:
    """Integrate a frequency in Hz to a phase in cycles."""
    return np.cumsum(np.broadcast_to(np.asarray(frequency, dtype=np.float64), (samples,))) / SAMPLE_RATE


def _beat(rng: Generator, rate: float, samples: int) -> FloatArray:
    """Return the time in s since the last beat, for beats at ``rate`` Hz from a random start."""
    return (np.mod(np.arange(samples) * (rate / SAMPLE_RATE) + rng.random(), 1) / rate).astype(np.float32)


def _band_noise(rng: Generator, low: float, high: float, samples: int) -> FloatArray:
    noise = rng.standard_normal(samples, dtype=np.float32)
    from scipy.signal import butter, sosfilt  # takes a second to load

    sections = butter(3, (low, high), btype="bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfilt(sections, noise), dtype=np.float32)


def white_noise(rng: Generator, samples: int) -> FloatArray:
    """Return white noise, which is not the timbre of any family."""
    return rng.standard_normal(samples, dtype=np.float32)


def hum(rng: Generator, samples: int) -> FloatArray:
    """Return a steady low tone with many harmonics."""
    cycles = _cycles(rng.uniform(140, 200), samples)
    return np.sum([_sine(h * cycles + rng.random()) / h for h in range(1, 8)], axis=0, dtype=np.float32)


def whistle(rng: Generator, samples: int) -> FloatArray:
    """Return a steady high sine."""
    return _sine(_cycles(rng.uniform(2600, 3400), samples))


def siren(rng: Generator, samples: int) -> FloatArray:
    """Return a sine that wails between about 500 and 1400 Hz."""
    wail = _sine(_cycles(rng.uniform(1.4, 2.4), samples) + rng.random())
    return _sine(_cycles(rng.uniform(800, 950) * np.exp(0.5 * wail.astype(np.float64)), samples))


def rumble(rng: Generator, samples: int) -> FloatArray:
    """Return a low band of noise."""
    centre = rng.uniform(220, 320)
    return _band_noise(rng, 0.7 * centre, 1.5 * centre, samples)


def hiss(rng: Generator, samples: int) -> FloatArray:
    """Return a high band of noise."""
    low = rng.uniform(4300, 5000)
    return _band_noise(rng, low, low + 2200, samples)


def clicks(rng: Generator, samples: int) -> FloatArray:
    """Return a train of short broadband clicks."""
    since = _beat(rng, rng.uniform(9, 13), samples)
    return rng.standard_normal(samples, dtype=np.float32) * np.exp(-since / np.float32(0.004))


def chirps(start: float, stop: float, rate: float) -> Timbre:
    """Return a timbre of sweeps from ``start`` to ``stop`` Hz, ``rate`` times a second."""

    def sweep(rng: Generator, samples: int) -> FloatArray:
        pitch, pace = rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.1) * rate
        position = _beat(rng, pace, samples).astype(np.float64) * pace / 0.7  # the last 0.3 is a rest
        frequency = pitch * start * (stop / start) ** np.minimum(position, 1)
        envelope = np.clip(np.minimum(12 * position, 12 * (1 - position)), 0, 1)
        return _sine(_cycles(frequency, samples)) * envelope.astype(np.float32)

    return sweep


def tremolo(rng: Generator, samples: int) -> FloatArray:
    """Return a square wave that pulses."""
    cycles = _cycles(rng.uniform(430, 560), samples)
    square = np.sum([_sine(h * cycles) / h for h in (1, 3, 5, 7)], axis=0, dtype=np.float32)
    pulse = _sine(_cycles(rng.uniform(5, 7), samples) + rng.random())
    return square * np.clip(0.5 + 1.5 * pulse, 0, 1)


def pluck(rng: Generator, samples: int) -> FloatArray:
    """Return a string that is plucked repeatedly; higher partials decay faster."""
    since = _beat(rng, rng.uniform(2.4, 3.6), samples)
    cycles = _cycles(rng.uniform(270, 350), samples)
    partials = [_sine(h * cycles) * np.exp(since * np.float32(-3 - 2.5 * h)) / h**0.5 for h in range(1, 9)]
    return np.sum(partials, axis=0, dtype=np.float32)


def bell(rng: Generator, samples: int) -> FloatArray:
    """Return a bell: inharmonic partials, struck about twice a second."""
    since = _beat(rng, rng.uniform(1.8, 2.4), samples)
    pitch = rng.uniform(950, 1150)
    partials = [
        _sine(_cycles(ratio * pitch, samples)) * np.exp(since * np.float32(-decay)) * np.float32(loudness)
        for ratio, decay, loudness in (
            (1, 2.5, 1),
            (2.01, 3.5, 0.7),
            (2.76, 4, 0.8),
            (4.07, 5, 0.6),
            (5.4, 6, 0.5),
        )
    ]
    return np.sum(partials, axis=0, dtype=np.float32)


def warble(rng: Generator, samples: int) -> FloatArray:
    """Return a sine with a fast, wide vibrato."""
    vibrato = _sine(_cycles(rng.uniform(6, 8), samples) + rng.random())
    return _sine(_cycles(rng.uniform(1700, 2100) * (1 + 0.12 * vibrato.astype(np.float64)), samples))


def place_in_room(rng: Generator, sound: FloatArray) -> FloatArray:
    """Add a few echoes of a random room and bring the sound to a random loudness.

    Args:
        rng: random number generator that draws the room and the loudness.
        sound: ``(S,)``, of any scale.

    Returns:
        ``(S,)`` with a root mean square of 0.035 to 0.09 and a peak of at most 0.5.
    """
    wet = rng.uniform(0, 0.5)
    heard = sound.copy()
    for delay in rng.uniform(0.01, 0.12, 6):
        lag = int(delay * SAMPLE_RATE)
        gain = wet * rng.choice((-1, 1)) * math.exp(-delay / 0.06)
        heard[lag:] += np.float32(gain) * sound[:-lag]
    rms, peak = float(np.sqrt(np.mean(heard**2))), float(np.abs(heard).max())
    loudness = 0.09 * 10 ** (rng.uniform(-8, 0) / 20)
    return heard * np.float32(min(loudness / rms, 0.5 / peak))


def gate(on: NDArray[np.bool_]) -> FloatArray:
    """Turn seconds into a gain for every sample, with short fades where a source starts or stops.

    Args:
        on: ``(T,)``, in which seconds the source sounds.

    Returns:
        ``(T * 16000,)`` in [0, 1], zero in every second that is off.
    """
    gain = np.repeat(on.astype(np.float32), SAMPLE_RATE)
    fade = np.linspace(0, 1, int(FADE * SAMPLE_RATE), dtype=np.float32)
    before = np.concatenate(([False], on[:-1]))
    after = np.concatenate((on[1:], [False]))
    for second in np.flatnonzero(on & ~before):
        gain[second * SAMPLE_RATE :][: len(fade)] *= fade
    for second in np.flatnonzero(on & ~after):
        gain[(second + 1) * SAMPLE_RATE - len(fade) : (second + 1) * SAMPLE_RATE] *= fade[::-1]
    return gain


def mix(timbres: Sequence[Timbre], on: NDArray[np.bool_], rngs: Sequence[Generator]) -> FloatArray:
    """Mix the sources of a clip over a faint background noise.

    Args:
        timbres: one for each source.
        on: ``(T, n)``, which source sounds in which second.
        rngs: ``n + 1`` generators: one for each source, so that a source does not depend on the others, and
            one for the background.

    Returns:
        ``(T * 16000,)`` in [-1, 1], in steps of 1/32768, so that a 16-bit file holds it exactly.
    """
    samples = on.shape[0] * SAMPLE_RATE
    *sources, background = rngs
    waveform = np.float32(background.uniform(0.0002, 0.001)) * background.standard_normal(
        samples, dtype=np.float32
    )
    for timbre, seconds, rng in zip(timbres, on.T, sources, strict=True):
        if seconds.any():
            waveform += place_in_room(rng, timbre(rng, samples)) * gate(seconds)
    return np.clip(np.round(waveform * 32768), -32768, 32767).astype(np.float32) / np.float32(32768)
