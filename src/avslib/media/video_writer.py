"""Write frames and sound to a video file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avslib._checks import check_shape
from avslib.media._container import explained, import_av
from avslib.media.audio import check_waveform


def write_video(
    path: str | Path,
    frames: Tensor | Iterable[Tensor],
    *,
    fps: float,
    waveform: Tensor | None = None,
    sample_rate: int = 16_000,
) -> None:
    """Write an MP4 file with H.264 pictures and AAC sound.

    Pixels are yuv420p, the format that every player and browser supports. It needs even sizes, so an odd last
    row or column is repeated.

    Args:
        path: the file, in a folder that exists.
        frames: ``(N, 3, H, W)``, uint8, RGB; or an iterable of frames ``(3, H, W)``, for a video too long to
            hold in memory.
        fps: frames per second.
        waveform: mono sound, ``(S,)``, float in ``[-1, 1]``; None for a video without a sound stream.
        sample_rate: sample rate of the waveform, Hz; AAC supports 16000, 22050, 44100, 48000 and others.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if the folder does not exist.
        ValueError: if a frame or ``waveform`` has another shape or type, there is no frame, ``fps`` is under
            1/1001 or not finite, or AAC does not support the sample rate.
    """
    if isinstance(frames, Tensor):
        check_shape("frames", frames, "n 3 h w")
    if not 1 / 1001 <= fps < math.inf:
        raise ValueError(f"fps: expected a finite number of at least 1/1001, got {fps}")
    if waveform is not None:
        check_waveform(waveform, "s")
    av = import_av()
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"{path}: no such folder to write into")
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        raise ValueError("frames: expected at least one, got none")
    _check_picture(first)
    height, width = first.shape[1:]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    rate = Fraction(fps).limit_denominator(1001)
    with (
        explained(path),
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
            if sound is not None and waveform is not None:  # next to its picture, where players look for it
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
    """Write samples ``start`` to ``stop`` of a waveform, or as many of them as there are."""
    samples = waveform[start:stop].detach().cpu().float().numpy()[None]
    if samples.size:
        block = import_av().AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout="mono"
        )
        block.sample_rate, block.pts, block.time_base = stream.rate, start, Fraction(1, stream.rate)
        container.mux(stream.encode(block))
