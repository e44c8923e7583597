"""Video files as PyAV opens them, with the errors that a user needs."""

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
"""That hold pictures and sound themselves; a playlist, which FFmpeg knows too, would open other files."""


_STREAM_LENGTHS = ("aiff", "asf", "avi", "flac", "ivf", "mov", "mxf", "rm", "w64", "wav")
"""Formats that store a length for each stream, by the first of FFmpeg's names for them."""
_FILE_LENGTHS = ("flv", "matroska")
"""That store one for the whole file. In all others FFmpeg looks for the end or guesses from the bit rate."""


def check_whole(path: str | Path, container: Any, stream: Any, end: float) -> None:
    """Refuse a stream that ends a second or more before its length, where the format stores one.

    Args:
        path: the file.
        container: as it was opened; where it stores no length for each stream, the file is read once more if
            the stream is shorter than the longest should be.
        stream: one of its streams, read to the end.
        end: when that ended, s from the beginning of the file.
    """
    kind = container.format.name.partition(",")[0]
    if kind in _STREAM_LENGTHS and stream.duration is not None:
        whole = float(stream.duration * stream.time_base)
    elif kind in _FILE_LENGTHS and stream.duration is None:  # else it is a guess
        whole = (container.duration or 0) / 1_000_000
        end += start_of(container)  # most that write such files count from 0, not from the first frame
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
    """Return when the last of all streams ends, s."""
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
    """Return when a file begins, s; its times count from some other moment."""
    return (container.start_time or 0) / 1_000_000


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """Open a file to read."""
    av = import_av()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such video file")
    source = str(Path(path).absolute())  # one that no protocol of FFmpeg's can be taken for
    with explained(path), av.open(source, options={"format_whitelist": _FORMATS}) as container:
        yield container


@contextlib.contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn an error of FFmpeg's into one that names the file."""
    try:
        yield
    except import_av().FFmpegError as error:
        raise ValueError(
            f"{path}: cannot be read or written as a video ({error}); does ffmpeg play it?"
        ) from error


def import_av() -> Any:
    """Return PyAV, or say how to get it."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError('reading and writing videos needs PyAV: pip install "avslib[video]"') from error
