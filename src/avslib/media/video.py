"""Video file <-> frames and sound."""

from __future__ import annotations

import bisect
import contextlib
import importlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avslib._checks import check_positive, check_shape
from avslib.media.audio import resample

_CLOCK_TOLERANCE = 1e-3
"""s; Matroska rounds presentation times to milliseconds."""
_FORMATS = (
    "3gp,aac,aiff,amr,asf,avi,dv,flac,flv,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,mpegvideo,"
    "mxf,nut,obu,ogg,rm,vob,w64,wav,yuv4mpegpipe"
)
"""That hold pictures and sound themselves; a playlist, which FFmpeg knows too, would open other files."""


class VideoInfo(NamedTuple):
    """What a video file says about itself, without its pictures."""

    times: tuple[float, ...]
    """When each frame is shown, s from the beginning of the file, ascending."""
    end: float
    """When the last frame leaves the screen, s."""
    fps: float
    """Frames a second as the file says, on average; 0 where it does not say."""
    has_sound: bool


def write_video(
    path: str | Path,
    frames: Tensor | Iterable[Tensor],
    *,
    fps: float,
    waveform: Tensor | None = None,
    sample_rate: int = 16_000,
) -> None:
    """Write an MP4 file with H.264 pictures and AAC sound.

    Pixels are yuv420p, the format that every player and browser shows. It needs even sizes: an odd last row
    or column is written twice.

    Args:
        path: the file, in a folder that exists.
        frames: ``(N, 3, H, W)``, uint8, RGB; or frames ``(3, H, W)`` one by one, of a film that is too long
            to hold.
        fps: frames a second.
        waveform: mono sound, ``(S,)``, float in ``[-1, 1]``; None for a silent film without a sound stream.
        sample_rate: Hz of the waveform, one that AAC knows, such as 16000, 22050, 44100 or 48000.

    Raises:
        ImportError: if PyAV is missing.
        ValueError: if a frame or ``waveform`` has another shape or type, there is no frame, or AAC does not
            know the rate.
    """
    if isinstance(frames, Tensor):
        check_shape("frames", frames, "n 3 h w")
    check_positive("fps", fps)
    if waveform is not None:
        check_shape("waveform", waveform, "s")
    av = _import_av()
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        raise ValueError("frames: expected at least one, got none")
    _check_picture(first)
    height, width = first.shape[1:]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    rate = Fraction(fps).limit_denominator(1001)
    with (
        _explained(path),
        av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        picture = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        picture.height, picture.width = height + height % 2, width + width % 2
        picture.pix_fmt = "yuv420p"
        sound = None if waveform is None else container.add_stream("aac", rate=sample_rate, layout="mono")
        for index, frame in enumerate(chain([first], coming)):
            if frame.shape != first.shape:
                raise ValueError(
                    f"frames: expected one size, {tuple(first.shape)}, got {tuple(frame.shape)} at {index}"
                )
            _check_picture(frame)
            if sound is not None and waveform is not None:  # beside its picture, where a player looks for it
                start, stop = (int(sample_rate * place / rate) for place in (index, index + 1))
                _add_sound(container, sound, waveform, start, stop)
            pixels = np.pad(frame.cpu().permute(1, 2, 0).numpy(), padding, mode="edge")
            encoded = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            encoded.pts, encoded.time_base = index, 1 / rate
            container.mux(picture.encode(encoded))
        container.mux(picture.encode())
        if sound is not None and waveform is not None:
            _add_sound(container, sound, waveform, stop, len(waveform))
            container.mux(sound.encode())


def _check_picture(frame: Tensor) -> None:
    check_shape("frames", frame, "3 h w")
    if frame.dtype != torch.uint8:
        raise ValueError(f"frames: expected uint8, got {frame.dtype}")


def _add_sound(container: Any, stream: Any, waveform: Tensor, start: int, stop: int) -> None:
    """Write some samples of a waveform, as many as there are."""
    samples = waveform[start:stop].detach().cpu().float().numpy()[None]
    if samples.size:
        block = _import_av().AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout="mono"
        )
        block.sample_rate, block.pts, block.time_base = stream.rate, start, Fraction(1, stream.rate)
        container.mux(stream.encode(block))


def probe_video(path: str | Path) -> VideoInfo:
    """Read when each frame of a video is shown; nothing is decoded.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it is no video, holds no pictures or ends too early.
    """
    shown: list[tuple[float, float]] = []
    has_sound = False
    with _opened(path) as container:
        stream, start = _pictures(path, container), _start(container)
        for packet in container.demux(stream, *container.streams.audio[:1]):
            if packet.pts is None or packet.is_discard:
                continue
            if packet.stream.type == "audio":
                has_sound = True
            else:
                time, duration = (value * packet.time_base for value in (packet.pts, packet.duration or 0))
                shown.append((float(time) - start, float(duration)))
        if not shown:
            raise ValueError(f"{path}: expected a video, found a stream of pictures without any")
        fps = float(stream.average_rate or 0)
        last, duration = max(shown)
        end = last + (duration or (1 / fps if fps else 0.0))
        _check_whole(path, stream, end)
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
    with _opened(path) as container:
        stream = _pictures(path, container)
        for time, frame in _frames_from(container, seconds[0]):
            ended = bisect.bisect_left(seconds, time - _CLOCK_TOLERANCE, lo=due)
            if ended > due:
                yield from [_upright(shown or frame)] * (ended - due)
                due = ended
            shown = frame
            if due == len(seconds):
                return
        if shown is None:
            raise ValueError(f"{path}: expected a video, found a stream of pictures without any")
        _check_whole(path, stream, time + float(shown.duration * shown.time_base))
        yield from [_upright(shown)] * (len(seconds) - due)


def read_audio(path: str | Path) -> tuple[Tensor, int]:
    """Read the sound of a video or sound file.

    Returns:
        The mean of its channels, ``(S,)``, float32 in ``[-1, 1]``, and its rate in Hz. It begins where the
        file begins: sound that sets in later than the pictures is preceded by zeros.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded or holds no sound.
    """
    av = _import_av()
    with _opened(path) as container:
        if not container.streams.audio:
            raise ValueError(f"{path}: expected a video with sound, found no stream of sound")
        stream = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp")
        blocks: list[np.ndarray[Any, np.dtype[np.float32]]] = []
        for frame in container.decode(stream):
            if not blocks and frame.time is not None:
                silence = round((frame.time - _start(container)) * stream.rate)
                blocks.append(np.zeros(max(silence, 0), np.float32))
            blocks.extend(block.to_ndarray().mean(axis=0) for block in to_float.resample(frame))
        if not blocks:
            raise ValueError(f"{path}: expected a video with sound, found a stream of sound without any")
        waveform = torch.from_numpy(np.concatenate(blocks))
        _check_whole(path, stream, len(waveform) / stream.rate)
        return waveform, int(stream.rate)


def read_sound(path: str | Path, video: VideoInfo, rate: int) -> Tensor:
    """Read the sound of a video at a rate; of a video without sound, no samples.

    Args:
        path: a video file.
        video: what :func:`probe_video` says of it.
        rate: Hz.

    Returns:
        The mean of its channels, ``(S,)``, float32 in ``[-1, 1]``, from the beginning of the file on.

    Raises:
        ImportError: if PyAV is missing.
        ValueError: if the sound cannot be decoded.
    """
    if not video.has_sound:
        return torch.zeros(0)
    return resample(*read_audio(path), rate)


def _pictures(path: str | Path, container: Any) -> Any:
    if not container.streams.video:
        raise ValueError(f"{path}: expected a video, found no stream of pictures")
    return container.streams.video[0]


def _upright(frame: Any) -> Tensor:
    turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    return torch.from_numpy(turned.copy()).permute(2, 0, 1)


def _frames_from(container: Any, second: float) -> Iterator[tuple[float, Any]]:
    """Yield ``(time, frame)`` from one at or before ``second`` on."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    start = _start(container)

    def decode() -> Iterator[tuple[float, Any]]:
        for frame in container.decode(stream):
            if frame.time is not None:
                yield frame.time - start, frame

    if second > 1:  # some indices count decoding times, a few frames ahead: aim a second earlier
        container.seek(int((second - 1 + start) * 1_000_000))
        frames = decode()
        first = next(frames, None)
        if first is not None and first[0] <= second:
            yield first
            yield from frames
            return
        container.seek(int(start * 1_000_000))
    yield from decode()


def _check_whole(path: str | Path, stream: Any, end: float) -> None:
    """Refuse a stream that ends a second or more before it says; some formats do not say."""
    if stream.duration is not None and end < (duration := float(stream.duration * stream.time_base)) - 1:
        raise ValueError(
            f"{path}: ends after {end:.1f} s of {stream.type}, though it should have {duration:.1f} s; "
            "fetch it again"
        )


def _start(container: Any) -> float:
    return (container.start_time or 0) / 1_000_000


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    av = _import_av()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such video file")
    source = str(Path(path).absolute())  # one that no protocol of FFmpeg's can be taken for
    with _explained(path), av.open(source, options={"format_whitelist": _FORMATS}) as container:
        yield container


@contextlib.contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    try:
        yield
    except _import_av().FFmpegError as error:
        raise ValueError(
            f"{path}: cannot be read or written as a video ({error}); does ffmpeg play it?"
        ) from error


def _import_av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError('reading and writing videos needs PyAV: pip install "avslib[video]"') from error
