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


def check_whole(path: str | Path, stream: Any, end: float) -> None:
    """Refuse a stream that ends a second or more before it says; some formats do not say."""
    if stream.duration is not None and end < (duration := float(stream.duration * stream.time_base)) - 1:
        raise ValueError(
            f"{path}: ends after {end:.1f} s of {stream.type}, though it should have {duration:.1f} s; "
            "fetch it again"
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
