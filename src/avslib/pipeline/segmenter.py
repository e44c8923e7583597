"""Segmenting a video file of any length, moment by moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from avslib._checks import check_integer, check_not_negative, check_positive
from avslib.curation.frame_rule import frame_moments, whole_seconds
from avslib.data.reader import SAMPLE_RATE
from avslib.media.frame import resize_frame
from avslib.media.mel import log_mel_examples
from avslib.media.video import VideoInfo, iter_frames, probe_video, read_sound
from avslib.models import AVSModel
from avslib.models.base import evaluating
from avslib.pipeline.windows import cut_windows

STEPS_A_SECOND = 100
"""Steps per second of the log-mel front end; the rate of the masks must divide this."""


class SegmentedFrame(NamedTuple):
    """The result for one moment of a video; all tensors are on the CPU, at the video's own size."""

    time: float
    """Time of the frame, s from the beginning of the file."""
    frame: Tensor
    """``(3, H, W)``, uint8, RGB."""
    probabilities: Tensor
    """``(K, H, W)``, float32 in ``[0, 1]``: of the foreground if K is 1, else of each class."""
    uncertainty: Tensor | None
    """``(K, H, W)``, standard deviation of the probability over samples; None without several samples."""

    def mask(self) -> Tensor:
        """Return the class of each pixel, ``(H, W)`` int64; 0 is background."""
        if len(self.probabilities) == 1:
            return (self.probabilities[0] > 0.5).long()
        return self.probabilities.argmax(dim=0)


class VideoSegmenter:
    """Segment what makes the sound in a video file of any length, size and frame rate, with or without sound.

    For each second the model gets the frame at 15/16 of it and the log-mel example that begins with it (in
    AVSBench's clips it begins up to 0.16 s earlier), in windows of ``window`` seconds. Frames are resized
    without keeping their aspect ratio; sound is mixed to one channel at 16 kHz. Frames are held for one
    window only, so apart from the sound, memory does not grow with the length of the video.

    With a ``rate`` above 1, the model sees the video several times, each time a fraction of a second later.
    Each time its input is again a clip of one frame per second.

    Args:
        model: any model of this library, on the device to use; it is called in evaluation mode.
        size: ``(H, W)`` of the frames that the model sees, at least 32 px each, or the side of a square; None
            for ``model.frame_size``.
        rate: masks per second, a divisor of 100.
        window: seconds that the model sees together.
        overlap: seconds that neighbouring windows share; their probabilities are averaged there.
        num_samples: samples per frame of a stochastic model; a deterministic one gives one prediction.
        seed: seed of the noise. The same video, seed and device give the same masks.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> from avslib import create_model
        >>> from avslib.media import write_video
        >>> film = getfixture("tmp_path") / "film.mp4"
        >>> write_video(film, torch.zeros(75, 3, 90, 120, dtype=torch.uint8), fps=25)
        >>> segmenter = VideoSegmenter(create_model("avsbench.small"), size=(64, 64))
        >>> for found in segmenter(film):
        ...     print(found.time, tuple(found.mask().shape))
        0.9375 (90, 120)
        1.9375 (90, 120)
        2.9375 (90, 120)
    """

    def __init__(
        self,
        model: AVSModel,
        *,
        size: int | tuple[int, int] | None = None,
        rate: int = 1,
        window: int = 5,
        overlap: int = 0,
        num_samples: int = 8,
        seed: int = 0,
    ) -> None:
        size = model.frame_size if size is None else (size, size) if isinstance(size, int) else size
        if len(size) != 2 or min(size) < 32:
            raise ValueError(f"size: expected height and width, at least 32 px, got {tuple(size)}")
        numbers = {"rate": rate, "window": window, "overlap": overlap, "num_samples": num_samples}
        for name, number in {**numbers, "seed": seed}.items():
            check_integer(name, number)
        check_positive("rate", rate)
        check_positive("window", window)
        if STEPS_A_SECOND % rate:
            raise ValueError(f"rate: expected a divisor of {STEPS_A_SECOND}, got {rate}")
        check_positive("num_samples", num_samples)
        check_not_negative("seed", seed)
        cut_windows(1, window, overlap)
        self.model = model
        self.size = size
        self.rate = rate
        self.window = window
        self.overlap = overlap
        self.num_samples = num_samples if model.stochastic else 1
        self.seed = seed

    def moments(self, video: str | Path) -> list[float]:
        """Return the times at which a video is segmented, s from the beginning of the file.

        Raises:
            ImportError: if PyAV is missing.
            FileNotFoundError: if the file does not exist.
            ValueError: if the file is not a video.
        """
        info = probe_video(video)
        moments = self._moments(info)
        return moments[: _count(moments, info)]

    def __call__(self, video: str | Path) -> Iterator[SegmentedFrame]:
        """Segment a video, and yield the result for each of its :meth:`moments`.

        Args:
            video: a file that PyAV can read.

        Raises:
            ImportError: if PyAV is missing.
            FileNotFoundError: if the file does not exist.
            ValueError: if the file is not a video, or is damaged.
        """
        info = probe_video(video)
        seconds, moments = whole_seconds(info), self._moments(info)
        count = _count(moments, info)
        waveform = read_sound(video, info, SAMPLE_RATE)
        pictures = enumerate(iter_frames(video, moments))
        held: dict[int, Tensor] = {}
        found: dict[int, list[Tensor]] = defaultdict(list)
        windows = cut_windows(seconds, self.window, self.overlap)
        for window, following in pairwise([*windows, range(seconds, seconds)]):
            places = range(self.rate * window.start, self.rate * window.stop)
            held |= islice(pictures, places.stop - max(held, default=places.start - 1) - 1)
            frames = torch.stack([resize_frame(held[place], self.size) for place in places])
            with evaluating(self.model):
                looks = self._look(frames, self._examples(waveform, window), window.start)
            for place, values in zip(places, looks, strict=True):
                found[place].append(values)
            for place in range(places.start, self.rate * following.start):
                picture, values = held.pop(place), torch.stack(found.pop(place)).mean(dim=0)
                if place < count:
                    yield self._at_own_size(moments[place], picture, values)

    def _moments(self, info: VideoInfo) -> list[float]:
        """Return ``rate`` times for each whole second; the last ones may be after the end of the video."""
        ends = frame_moments(info, whole_seconds(info), rule="end")
        return [end + look / self.rate for end in ends for look in range(self.rate)]

    def _examples(self, waveform: Tensor, window: range) -> Tensor:
        """Return the log-mel examples of a window, ``(N, 1, 96, 64)``, with silence after the sound."""
        heard = waveform[window.start * SAMPLE_RATE : (window.stop + 1) * SAMPLE_RATE]
        heard = F.pad(heard, (0, (len(window) + 1) * SAMPLE_RATE - len(heard)))
        hop = STEPS_A_SECOND // self.rate
        return log_mel_examples(heard, example_hop_steps=hop)[: len(window) * self.rate]

    @torch.no_grad()
    def _look(self, frames: Tensor, examples: Tensor, start: int) -> Tensor:
        """Return the probabilities of a window, followed by any uncertainties, ``(N, K or 2 K, h, w)``."""
        device = next(self.model.parameters()).device
        looks = []
        for look in range(self.rate):
            noise = {}
            if self.model.stochastic:
                mixed = int(np.random.SeedSequence((self.seed, start, look)).generate_state(1)[0])
                generator = torch.Generator(device).manual_seed(mixed)
                noise = {"num_samples": self.num_samples, "generator": generator}
            clip = (tensor[None, look :: self.rate].to(device) for tensor in (frames, examples))
            output = self.model(*clip, **noise)
            values = output.probabilities()
            if output.samples is not None:
                values = torch.cat([values, output.uncertainty()], dim=2)
            looks.append(values[0].cpu())
        return rearrange(looks, "p t k h w -> (t p) k h w")

    def _at_own_size(self, time: float, picture: Tensor, values: Tensor) -> SegmentedFrame:
        size = (picture.shape[-2], picture.shape[-1])
        values = F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]
        probabilities, *uncertainty = values.split(self.model.num_classes)
        return SegmentedFrame(time, picture, probabilities, uncertainty[0] if uncertainty else None)


def _count(moments: list[float], info: VideoInfo) -> int:
    """Return how many of the times are within the video, at least 1."""
    return max(1, sum(time <= info.end for time in moments))
