"""The record that loaders pass to models and objectives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Clip(NamedTuple):
    """One frame and one log-mel example per second; a batch adds a leading axis ``B``.

    It is a named tuple, because data loaders collate those, and Accelerate moves them, field by field. In a
    batch ``id`` is a tuple of ``B`` strings; torch's loader turns it into a list if the dataset itself yields
    batches, as :class:`~avslib.storage.ShardedClips` does.
    """

    frames: Tensor
    """``(T, 3, H, W)``, RGB; ImageNet-normalised, or uint8, which models normalise."""
    log_mel: Tensor
    """``(T, 1, 96, 64)``, 96 steps of 10 ms by 64 mel bands; or ``(T, A)``, their embeddings by a frozen
    audio encoder, see :class:`~avslib.storage.CachedAudio`."""
    masks: Tensor
    """``(T, H, W)``, int64, the class of each pixel; 0 is background, and S4 and MS3 have only 0 and 1."""
    labelled: Tensor
    """``(T,)``, bool, whether a frame has ground truth; in S4 only the first second of a training clip
    does."""
    valid: Tensor
    """``(T,)``, bool; False where a shorter clip was padded."""
    id: str | tuple[str, ...]
    """Name of the clip in its dataset."""
