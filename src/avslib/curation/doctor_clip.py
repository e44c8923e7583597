"""Examine the files of one clip."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from avslib.data.layout import ClipFiles, holds_classes
from avslib.data.reader import SAMPLE_RATE
from avslib.data.stored_log_mel import load_log_mel, log_mel_path
from avslib.media.audio import read_wav, resample
from avslib.media.frame import read_frame
from avslib.media.mask import read_brightness
from avslib.media.mel import fit_examples, log_mel_examples
from avslib.media.palette import read_classes

BLACKEST = 10
"""A frame without a pixel brighter than this, of 255, counts as black; black in a video is not always 0."""
FLOOR = math.log(0.01)
"""Log-mel of silence, the lowest possible value."""
ALIKE = 0.1
"""Largest mean distance of two log-mels of the same sound; 16 bits in the WAV file cause less than 0.001."""

Sound = tuple[Tensor, int]
"""Waveform and its sample rate, Hz."""


class Expectation(NamedTuple):
    """What to expect of every clip of a setting."""

    has_classes: bool
    """Whether masks hold classes as colours; otherwise they are binary."""
    always_sounds: bool
    """Whether every clip has at least one mask that is not empty."""
    reads_wav: bool
    """Whether readers use the WAV file by default, not the log-mel."""
    padding: str
    """How the log-mel of a short sound is padded: ``"repeat"`` or ``"zero"``."""
    hop_steps: int
    """Distance between two log-mel examples, steps of 10 ms."""

    def log_mel(self, sound: Sound, seconds: int) -> Tensor:
        """Compute the expected log-mel of a clip, ``(T, 1, 96, 64)``.

        Raises:
            ValueError: if the sound is too short for one example and ``padding`` is ``"repeat"``.
        """
        waveform, rate = sound
        examples = log_mel_examples(resample(waveform, rate, SAMPLE_RATE), example_hop_steps=self.hop_steps)
        return fit_examples(examples, seconds, padding=self.padding)


def expectation(root: Path, setting: str) -> Expectation:
    """Return what to expect of every clip of a setting."""
    semantic = holds_classes(root, setting)
    return Expectation(
        has_classes=semantic,
        always_sounds=setting == "s4",
        reads_wav=setting == "avss",
        padding="zero" if semantic else "repeat",
        hop_steps=100 if setting == "folder" else 96,
    )


class Problem(NamedTuple):
    """A problem with a file."""

    kind: str
    path: Path
    text: str
    is_unused: bool = False
    """Whether readers do not use the file by default."""


class Examined(NamedTuple):
    """Result of examining one clip."""

    problems: tuple[Problem, ...]
    frame_sizes: dict[Path, tuple[int, int]]
    mask_sizes: dict[Path, tuple[int, int]]
    fingerprint: str
    """Hash of its frame files, to find copies; empty if a frame is missing, damaged or black."""
    has_video: bool


def examine_clip(clip: ClipFiles, *, expected: Expectation, deep: bool) -> Examined:
    """Examine every file of a clip but its video.

    Args:
        clip: the paths of its files.
        expected: what to expect of a clip of its setting.
        deep: whether to compare its log-mel with one computed from the WAV file.
    """
    frame_sizes: dict[Path, tuple[int, int]] = {}
    mask_sizes: dict[Path, tuple[int, int]] = {}
    frames = list(_check_frames(clip, frame_sizes))
    masks = list(_check_masks(clip, expected, mask_sizes))
    sound, in_wav = _check_wav(clip, expected)
    log_mel, in_log_mel = _check_log_mel(clip, expected)
    if deep and log_mel is not None and sound is not None:
        in_log_mel += _check_same_sound(clip, expected, log_mel, sound)
    return Examined(
        problems=(*frames, *masks, *in_wav, *in_log_mel),
        frame_sizes=frame_sizes,
        mask_sizes=mask_sizes,
        fingerprint="" if frames else _fingerprint(clip.frames),
        has_video=clip.video.is_file(),
    )


def _check_frames(clip: ClipFiles, sizes: dict[Path, tuple[int, int]]) -> Iterator[Problem]:
    for path in clip.frames:
        if not path.is_file():
            yield Problem("missing-frame", path, "not there")
            continue
        try:
            frame = read_frame(path)
        except (OSError, ValueError) as error:
            yield Problem("damaged-frame", path, reason(error, path))
            continue
        sizes[path] = (frame.shape[1], frame.shape[2])
        if frame.max() <= BLACKEST:
            yield Problem("black-frame", path, f"no pixel is brighter than {BLACKEST} of 255")


def _check_masks(
    clip: ClipFiles, expected: Expectation, sizes: dict[Path, tuple[int, int]]
) -> Iterator[Problem]:
    read = _read_classes if expected.has_classes else _read_binary
    masks = [path for path in clip.masks if path is not None]
    shows_something = []
    for path in masks:
        if not path.is_file():
            yield Problem("missing-mask", path, "not there")
            continue
        try:
            mask, problems = read(path)
        except (OSError, ValueError) as error:
            yield Problem("damaged-mask", path, reason(error, path))
            continue
        yield from problems
        sizes[path] = (mask.shape[-2], mask.shape[-1])
        shows_something.append(bool(mask.any()))
    if expected.always_sounds and len(shows_something) == len(masks) > 0 and not any(shows_something):
        yield Problem("empty-mask", masks[0], f"black, like all masks of the clip ({len(masks)})")


def _read_binary(path: Path) -> tuple[Tensor, list[Problem]]:
    brightness = read_brightness(path)
    dark, light = int(brightness.min()), int(brightness.max())
    between = int(((brightness != dark) & (brightness != light)).sum())
    if not between and (dark == light or 2 * dark < light):
        return brightness, []
    text = f"expected black and one brightness, got {dark} to {light}, {between} pixels in between"
    return brightness, [Problem("mask-not-binary", path, text)]


def _read_classes(path: Path) -> tuple[Tensor, list[Problem]]:
    try:
        return read_classes(path, unknown="raise"), []
    except ValueError as error:
        return read_frame(path), [Problem("foreign-colour", path, reason(error, path))]


def _check_wav(clip: ClipFiles, expected: Expectation) -> tuple[Sound | None, list[Problem]]:
    path, is_unused = clip.wav, not expected.reads_wav
    if not path.is_file():
        return None, [Problem("missing-wav", path, "not there", is_unused)]
    try:
        waveform, rate = read_wav(path)
    except (OSError, ValueError) as error:
        return None, [Problem("damaged-wav", path, reason(error, path), is_unused)]
    seconds = len(clip.frames)
    needed = ((seconds - 1) * expected.hop_steps + 97.5) / 100
    problems = []
    if len(waveform) < needed * rate:
        text = f"{len(waveform) / rate:.3f} s of sound, and {seconds} examples take {needed:g} s"
        if len(waveform) < 0.975 * rate and expected.padding == "repeat":
            text += "; there is none to repeat, so sound='wav' raises"
        problems.append(Problem("short-sound", path, text))
    if not waveform.any():
        problems.append(Problem("silent-sound", path, "every sample is zero"))
    if odd := _odd_rate(rate):
        return None, [*problems, Problem("odd-rate", path, odd, is_unused)]
    return (waveform, rate), problems


@functools.lru_cache
def _odd_rate(rate: int) -> str:
    try:
        resample(torch.zeros(1), rate, SAMPLE_RATE)
    except ValueError as error:
        return str(error)
    return ""


def _check_log_mel(clip: ClipFiles, expected: Expectation) -> tuple[Tensor | None, list[Problem]]:
    path = log_mel_path(clip)
    problems = []
    if path != clip.log_mel and clip.log_mel.is_file():
        problems = [
            problem._replace(text=f"{problem.text}; readers take {path.name}", is_unused=True)
            for problem in _load(clip.log_mel, True)[1]
            if problem.kind == "hostile-log-mel"
        ]
    if not path.is_file():
        missing = Problem("missing-log-mel", path, "not there")
        return None, [] if expected.reads_wav else [missing]
    log_mel, loading = _load(path, expected.reads_wav)
    problems += loading
    if log_mel is None:
        return None, problems
    shape = (len(clip.frames), 1, 96, 64)
    if log_mel.shape != shape:
        text = f"expected {shape}, got {tuple(log_mel.shape)}"
        return None, [*problems, Problem("log-mel-shape", path, text, expected.reads_wav)]
    log_mel = log_mel.float()
    lowest = float(log_mel.amin())
    if not log_mel.isfinite().all():
        text = f"{int((~log_mel.isfinite()).sum())} values are NaN or infinite"
    elif lowest < FLOOR - 1e-3:
        text = f"the lowest value is {lowest:.1f}, below log 0.01 = -4.6: another front end made it"
    else:
        return log_mel, problems
    return None, [*problems, Problem("log-mel-values", path, text, expected.reads_wav)]


def _load(path: Path, is_unused: bool) -> tuple[Tensor | None, list[Problem]]:
    try:
        return load_log_mel(path), []
    except (OSError, ValueError) as error:
        is_hostile = "found the name" in str(error)  # of something that the pickle wants to call
        kind = "hostile-log-mel" if is_hostile else "damaged-log-mel"
        return None, [Problem(kind, path, reason(error, path), is_unused)]


def _check_same_sound(clip: ClipFiles, expected: Expectation, log_mel: Tensor, sound: Sound) -> list[Problem]:
    try:
        computed = expected.log_mel(sound, len(clip.frames))
    except ValueError:  # shorter than one example, which is already reported
        return []
    distance = float((log_mel - computed).abs().mean())
    if distance <= ALIKE:
        return []
    text = f"differs from that of {clip.wav.name} by {distance:.2f} in the mean"
    return [Problem("other-sound", log_mel_path(clip), text)]


def _fingerprint(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def reason(error: Exception, path: Path) -> str:
    """Extract the problem from an error message, without the path and the advice."""
    return str(error).removeprefix(f"{path}: ").partition("; ")[0]
