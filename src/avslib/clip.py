"""The record that is handed from loader to model to objective."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Clip(NamedTuple):
    """One frame and one log-mel example per second; a batch puts ``B`` in front.

    A named tuple, because data loaders collate it and Accelerate moves it field by field. In a batch ``id``
    is a tuple of ``B`` strings; torch's loader makes a list of it where batches are made before, as by
    :class:`~avslib.storage.ShardedClips`.
    """

    frames: Tensor
    """``(T, 3, H, W)``, RGB, ImageNet-normalised; or uint8, which models normalise."""
    log_mel: Tensor
    """``(T, 1, 96, 64)``, 96 steps of 10 ms by 64 mel bands; or ``(T, A)``, what a frozen audio encoder makes
    of them, see :class:`~avslib.storage.CachedAudio`."""
    masks: Tensor
    """``(T, H, W)``, int64 class of each pixel; 0 is background, S4 and MS3 know only 0 and 1."""
    labelled: Tensor
    """``(T,)``, bool; S4 trains on the first second only."""
    valid: Tensor
    """``(T,)``, bool; False where a shorter clip was padded."""
    id: str | tuple[str, ...]
    """Name of the clip in its dataset."""
