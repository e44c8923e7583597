"""Small films whose frames tell their number, at any times, with any sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BITS, BLOCK = 10, 16
MILLISECOND = Fraction(1, 1000)


def numbered(count: int, *, first: int = 0) -> Tensor:
    """Frames ``(count, 3, 16, 160)``: ten blocks, black or white, are the bits of the number."""
    bits = (torch.arange(first, first + count)[:, None] >> torch.arange(BITS)) & 1
    row = (bits * 255).to(torch.uint8).repeat_interleave(BLOCK, dim=1)
    return row[:, None, None].expand(-1, 3, BLOCK, -1).contiguous()


def numbers_of(frames: Tensor) -> list[int]:
    """What `numbered` drew, whatever size the frames have now."""
    rows = frames.float().mean(dim=(1, 2)).unflatten(1, (BITS, -1)).mean(dim=2)
    return [int(((row > 128) << torch.arange(BITS)).sum()) for row in rows]


def film(
    path: Path,
    milliseconds: Sequence[int],
    *,
    frames: Tensor | None = None,
    sound: npt.NDArray[np.int16] | None = None,
    rate: int = 16_000,
    codec: str = "libx264",
) -> Path:
    """Write a film of which each frame is shown at its own time.

    Args:
        milliseconds: when, one a frame; the last one is shown for as long as the one before it.
        frames: by default `numbered`.
        sound: ``(channels, S)``, PCM in MKV, AAC elsewhere.
        rate: of the sound, Hz.
    """
    frames = numbered(len(milliseconds)) if frames is None else frames
    gaps = [after - before for before, after in pairwise(milliseconds)]
    lasts = dict(zip(milliseconds, [*gaps, gaps[-1] if gaps else 40], strict=True))

    def mux(packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.duration = lasts[packet.pts]
            container.mux(packet)

    with av.open(str(path), "w") as container:
        picture = container.add_stream(codec, rate=1000)
        picture.height, picture.width = frames.shape[2:]
        picture.pix_fmt = "yuv420p"
        picture.codec_context.time_base = MILLISECOND
        if sound is not None:
            layout = "mono" if len(sound) == 1 else "stereo"
            pcm = path.suffix in (".mkv", ".mov", ".avi")
            speech = container.add_stream("pcm_s16le" if pcm else "aac", rate=rate, layout=layout)
        for time, frame in zip(milliseconds, frames, strict=True):
            pixels = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            encoded = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            encoded.pts, encoded.time_base = time, MILLISECOND
            mux(picture.encode(encoded))
        mux(picture.encode())
        if sound is not None:
            samples = np.ascontiguousarray(sound.T.reshape(1, -1))
            block = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(format="s16" if pcm else "fltp", layout=layout, rate=rate)
            for part in resampler.resample(block):
                container.mux(speech.encode(part))
            container.mux(speech.encode())
    return path


def tone(seconds: float, rate: int, *, channels: int = 1, hertz: float = 440) -> npt.NDArray[np.int16]:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.tile((wave * 32767).astype(np.int16), (channels, 1))
