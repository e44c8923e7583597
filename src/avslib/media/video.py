"""Read the frames and the sound of video files."""

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
"""Tolerance of presentation times, s; Matroska rounds them to milliseconds."""
_GAP = 0.1
"""Shortest gap in the sound, s; a smaller delay only means that the clock is not exact."""
_PARTLY_TIMED = "mpeg"
"""MPEG's program stream, where some frames have no time, so the first ones after a seek are one frame off."""

Samples = np.ndarray[Any, np.dtype[np.float32]]


class VideoInfo(NamedTuple):
    """Frame times, frame rate and presence of sound of a video file."""

    times: tuple[float, ...]
    """When each frame is shown, s from the beginning of the file, ascending."""
    end: float
    """When the last frame ends, s from the beginning of the file."""
    fps: float
    """Average frame rate stated by the file, frames per second; 0 if it states none."""
    has_sound: bool


def probe_video(path: str | Path) -> VideoInfo:
    """Read when each frame of a video is shown, without decoding it.

    Truncation is only detected if the format stores a length; MPEG program and transport streams do not.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a video, holds no pictures or is truncated.
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
    """Read the frames that are shown at given times.

    For each time this is the last frame that starts at or before it; after the end it is the last frame.

    Args:
        path: a video file.
        seconds: presentation times, s from the beginning of the file, in any order.

    Returns:
        ``(N, 3, H, W)``, uint8, RGB, with the rotation stored in the file applied.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded or holds no pictures, if it is truncated and a frame near its end
            is asked for, or if ``seconds`` is empty or negative.
    """
    order = sorted(range(len(seconds)), key=lambda index: seconds[index])
    pictures = dict(zip(order, iter_frames(path, [seconds[index] for index in order]), strict=True))
    return torch.stack([pictures[index] for index in range(len(order))])


def iter_frames(path: str | Path, seconds: Sequence[float]) -> Iterator[Tensor]:
    """Read frames like :func:`read_frames`, but one by one, for a video too long to hold in memory.

    Args:
        path: a video file.
        seconds: presentation times, s from the beginning of the file, in ascending order.

    Yields:
        ``(3, H, W)``, uint8, RGB, with the rotation stored in the file applied.

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
        seconds: decode only this much of the beginning, s; None for all.

    Returns:
        The mean of its channels, ``(S,)``, float32 in ``[-1, 1]``, and its sample rate in Hz. It starts at
        the beginning of the file: zeros fill gaps in the sound and the time before a late start.

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
    """Read the sound of a video at a given sample rate; without sound, return no samples.

    Args:
        path: a video file.
        video: what :func:`probe_video` returned for it.
        rate: sample rate of the result, Hz.
        seconds: read only this much of the beginning, s; None for all.

    Returns:
        The mean of its channels, ``(S,)``, float32 in ``[-1, 1]``, starting at the beginning of the file.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
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
    """Yield the mean of the channels block by block, with zeros where there is no sound."""
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
    """Yield ``(time, frame)``, starting at or before ``second``, or at the first frame."""
    with opened(path) as container:
        if second <= 1 or container.format.name == _PARTLY_TIMED:
            yield from _decode(path, container)
            return
        # some indices hold decoding times, a few frames ahead: seek to a second earlier
        container.seek(int((second - 1 + start_of(container)) * 1_000_000))
        frames = _decode(path, container)
        first = next(frames, None)
        if first is not None and first[0] <= second:
            yield from chain([first], frames)
            return
    with opened(path) as container:  # reopened: the result of seeking to the beginning depends on the format
        yield from _decode(path, container)


def _decode(path: str | Path, container: Any) -> Iterator[tuple[float, Any]]:
    """Yield ``(time, frame)`` to the end, and raise if the file is truncated."""
    stream, start = _pictures(path, container), start_of(container)
    stream.thread_type = "AUTO"
    end = None
    for frame in container.decode(stream):
        if frame.time is not None:
            yield frame.time - start, frame
            end = frame.time - start + float(frame.duration * frame.time_base)
    if end is not None:
        check_whole(path, container, stream, end)
