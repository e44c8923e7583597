"""Open video files with PyAV, with errors that tell the user what to do."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FORMATS = (
    "3gp,aac,aiff,amr,asf,avi,dv,flac,flv,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,mpegvideo,"
    "mxf,nut,obu,ogg,rm,vob,w64,wav,yuv4mpegpipe"
)
"""Formats that contain pictures and sound themselves, unlike playlists, which make FFmpeg open others."""


_STREAM_LENGTHS = ("aiff", "asf", "avi", "flac", "ivf", "mov", "mxf", "rm", "w64", "wav")
"""Formats that store a length for each stream, by the first name that FFmpeg gives them."""
_FILE_LENGTHS = ("flv", "matroska")
"""Formats that store one length for the whole file. For others FFmpeg finds or guesses the end."""


def check_whole(path: str | Path, container: Any, stream: Any, end: float) -> None:
    """Refuse a stream that ends more than a second before the length that its format stores.

    Args:
        path: the file.
        container: the opened file. If it stores only one length for all streams and this stream is shorter,
            the file is read once more.
        stream: one of its streams, read to the end.
        end: when that stream ended, s from the beginning of the file.
    """
    kind = container.format.name.partition(",")[0]
    if kind in _STREAM_LENGTHS and stream.duration is not None:
        whole = float(stream.duration * stream.time_base)
    elif kind in _FILE_LENGTHS and stream.duration is None:  # a duration here would be a guess
        whole = (container.duration or 0) / 1_000_000
        end += start_of(container)  # most writers of such files count from 0, not from the first frame
        if end < whole - 1:
            end = _last_end(path)
    else:
        return
    if end < whole - 1:
        raise ValueError(
            f"{path}: ends after {end:.1f} s of {stream.type}, though it should have {whole:.1f} s; "
            "fetch it again"
        )


def _last_end(path: str | Path) -> float:
    """Return when the last stream ends, s."""
    with opened(path) as container:
        return max(
            (
                float((packet.pts + (packet.duration or 0)) * packet.time_base)
                for packet in container.demux()
                if packet.pts is not None
            ),
            default=0.0,
        )


def start_of(container: Any) -> float:
    """Return the time at which a file begins, s; it need not be 0."""
    return (container.start_time or 0) / 1_000_000


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """Open a file for reading."""
    av = import_av()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such video file")
    source = str(Path(path).absolute())  # so that FFmpeg does not take it for a protocol
    with explained(path), av.open(source, options={"format_whitelist": _FORMATS}) as container:
        yield container


@contextlib.contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn an FFmpeg error into one that names the file."""
    try:
        yield
    except import_av().FFmpegError as error:
        raise ValueError(
            f"{path}: cannot be read or written as a video ({error}); does ffmpeg play it?"
        ) from error


def import_av() -> Any:
    """Return PyAV, or raise an error that says how to install it."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError('reading and writing videos needs PyAV: pip install "avslib[video]"') from error
