"""Video file -> frames and sound."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avslib.media._container import check_whole, import_av, opened, start_of
from avslib.media.audio import MAX_SECONDS, resample

_CLOCK_TOLERANCE = 1e-3
"""s; Matroska rounds presentation times to milliseconds."""
_GAP = 0.1
"""s; sound that comes later than this has a gap before it, and sooner a clock that is not exact."""
_PARTLY_TIMED = "mpeg"
"""MPEG's program stream, where some frames have no time: the first ones after a seek are one frame off."""

Samples = np.ndarray[Any, np.dtype[np.float32]]


class VideoInfo(NamedTuple):
    """What a video file says about itself, without its pictures."""

    times: tuple[float, ...]
    """When each frame is shown, s from the beginning of the file, ascending."""
    end: float
    """When the last frame leaves the screen, s."""
    fps: float
    """Frames a second as the file says, on average; 0 where it does not say."""
    has_sound: bool


def probe_video(path: str | Path) -> VideoInfo:
    """Read when each frame of a video is shown; nothing is decoded.

    Whether a file was cut off is known where its format stores how long it is: so not of MPEG's program and
    transport streams.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it is no video, holds no pictures or ends too early.
    """
    shown: list[tuple[float, float]] = []
    has_sound = False
    with opened(path) as container:
        stream, start = _pictures(path, container), start_of(container)
        for packet in container.demux(stream, *container.streams.audio[:1]):
            if packet.pts is None or packet.is_discard:
                continue
            if packet.stream.type == "audio":
                has_sound = True
            else:
                time, duration = (value * packet.time_base for value in (packet.pts, packet.duration or 0))
                shown.append((float(time) - start, float(duration)))
        if not shown:
            raise _untimed(path)
        fps = float(stream.average_rate or 0)
        last, duration = max(shown)
        end = last + (duration or (1 / fps if fps else 0.0))
        check_whole(path, container, stream, end)
    return VideoInfo(tuple(sorted(time for time, _ in shown)), end, fps, has_sound)


def read_frames(path: str | Path, seconds: Sequence[float]) -> Tensor:
    """Read the frames that are on the screen at given times.

    That is the last frame that starts at or before each time; after the end it is the last one.

    Args:
        path: a video file.
        seconds: presentation times, s from the beginning of the file, in any order.

    Returns:
        ``(N, 3, H, W)``, uint8, RGB, turned as the file says it is to be shown.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded or holds no pictures, or ``seconds`` is empty or negative.
    """
    order = sorted(range(len(seconds)), key=lambda index: seconds[index])
    pictures = dict(zip(order, iter_frames(path, [seconds[index] for index in order]), strict=True))
    return torch.stack([pictures[index] for index in range(len(order))])


def iter_frames(path: str | Path, seconds: Sequence[float]) -> Iterator[Tensor]:
    """Read the frames of :func:`read_frames` one by one, for a film that is too long to hold.

    Args:
        path: a video file.
        seconds: presentation times, s from the beginning of the file, none before the one in front of it.

    Yields:
        ``(3, H, W)``, uint8, RGB, turned as the file says it is to be shown.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded or holds no pictures, or ``seconds`` is empty, negative or not in
            order.
    """
    if not len(seconds) or not min(seconds) >= 0:
        raise ValueError(f"seconds: expected at least one time of 0 s or later, got {list(seconds)}")
    if list(seconds) != sorted(seconds):
        raise ValueError(f"seconds: expected times in order, got {list(seconds)}")
    due = 0
    shown = None
    for time, frame in _frames_from(path, seconds[0]):
        ended = bisect.bisect_left(seconds, time - _CLOCK_TOLERANCE, lo=due)
        if ended > due:
            yield from [_upright(shown or frame)] * (ended - due)
            due = ended
        shown = frame
        if due == len(seconds):
            return
    if shown is None:
        raise _untimed(path)
    yield from [_upright(shown)] * (len(seconds) - due)


def read_audio(path: str | Path, *, seconds: float | None = None) -> tuple[Tensor, int]:
    """Read the sound of a video or sound file.

    Args:
        path: the file.
        seconds: how much of its beginning is decoded, s; None for all.

    Returns:
        The mean of its channels, ``(S,)``, float32 in ``[-1, 1]``, and its rate in Hz. It begins where the
        file begins: sound that sets in later than the pictures, or again after a gap, is preceded by zeros.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded, holds no sound, or has a gap of more than ``MAX_SECONDS``.
    """
    with opened(path) as container:
        if not container.streams.audio:
            raise ValueError(f"{path}: expected a video with sound, found no stream of sound")
        stream = container.streams.audio[0]
        rate, samples = int(stream.rate), 0
        most = None if seconds is None else round(seconds * rate)
        blocks: list[Samples] = []
        for block in _sound_from(path, container):
            blocks.append(block)
            samples += len(block)
            if most is not None and samples >= most:
                break
        else:
            if not blocks:
                raise ValueError(f"{path}: expected a video with sound, found a stream of sound without any")
            check_whole(path, container, stream, samples / rate)
        return torch.from_numpy(np.concatenate(blocks))[:most], rate


def read_sound(path: str | Path, video: VideoInfo, rate: int, *, seconds: float | None = None) -> Tensor:
    """Read the sound of a video at a rate; of a video without sound, no samples.

    Args:
        path: a video file.
        video: what :func:`probe_video` says of it.
        rate: Hz.
        seconds: how much of its beginning is read, s; None for all.

    Returns:
        The mean of its channels, ``(S,)``, float32 in ``[-1, 1]``, from the beginning of the file on.

    Raises:
        ImportError: if PyAV is missing.
        ValueError: if the sound cannot be decoded.
    """
    if not video.has_sound:
        return torch.zeros(0)
    if seconds is None:
        return resample(*read_audio(path), rate)
    more = seconds + 1  # the filter looks ahead
    return resample(*read_audio(path, seconds=more), rate)[: round(seconds * rate)]


def _pictures(path: str | Path, container: Any) -> Any:
    if not container.streams.video:
        raise ValueError(f"{path}: expected a video, found no stream of pictures")
    return container.streams.video[0]


def _untimed(path: str | Path) -> ValueError:
    return ValueError(
        f"{path}: expected a video, found no picture that says when it is shown; if it is a bare stream, as "
        ".h264 and .hevc are, convert it with `ffmpeg -i INPUT OUTPUT.mp4`"
    )


def _upright(frame: Any) -> Tensor:
    turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    return torch.from_numpy(turned.copy()).permute(2, 0, 1)


def _sound_from(path: str | Path, container: Any) -> Iterator[Samples]:
    """Yield the mean of a file's channels block by block, with zeros where there is no sound."""
    to_float = import_av().AudioResampler(format="fltp")
    stream, start, samples = container.streams.audio[0], start_of(container), 0
    for frame in container.decode(stream):
        gap = 0.0 if frame.time is None else frame.time - start - samples / stream.rate
        if gap > MAX_SECONDS:
            raise ValueError(f"{path}: expected sound without a gap of {gap:.0f} s; fetch it again")
        silence = round(gap * stream.rate) if gap > (_GAP if samples else 0) else 0
        for block in (
            np.zeros(silence, np.float32),
            *(part.to_ndarray().mean(axis=0) for part in to_float.resample(frame)),
        ):
            yield block
            samples += len(block)


def _frames_from(path: str | Path, second: float) -> Iterator[tuple[float, Any]]:
    """Yield ``(time, frame)`` from one at or before ``second`` on, or from the first one of all."""
    with opened(path) as container:
        if second <= 1 or container.format.name == _PARTLY_TIMED:
            yield from _decode(path, container)
            return
        # some indices count decoding times, a few frames ahead: aim a second earlier
        container.seek(int((second - 1 + start_of(container)) * 1_000_000))
        frames = _decode(path, container)
        first = next(frames, None)
        if first is not None and first[0] <= second:
            yield from chain([first], frames)
            return
    with opened(path) as container:  # anew: where a seek to the beginning leads depends on the format
        yield from _decode(path, container)


def _decode(path: str | Path, container: Any) -> Iterator[tuple[float, Any]]:
    """Yield ``(time, frame)`` to the end, which is not to come too early."""
    stream, start = _pictures(path, container), start_of(container)
    stream.thread_type = "AUTO"
    end = None
    for frame in container.decode(stream):
        if frame.time is not None:
            yield frame.time - start, frame
            end = frame.time - start + float(frame.duration * frame.time_base)
    if end is not None:
        check_whole(path, container, stream, end)
