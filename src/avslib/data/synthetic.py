"""Synthetic audio-visual clips in memory; ``synthetic_files`` writes them in the layout of AVSBench."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from avslib.clip import Clip
from avslib.data.layout import SPLITS
from avslib.data.reader import fit_clip
from avslib.data.synthetic_ceiling import audio_blind_ceiling
from avslib.data.synthetic_families import FAMILIES
from avslib.data.synthetic_files import write_avsbench
from avslib.data.synthetic_scene import (
    PARTS,
    SyntheticClip,
    SyntheticConfig,
    clip_indices,
    name_clip,
    render_clip,
    without_classes,
)
from avslib.media.frame import normalize_frames
from avslib.media.mel import fit_examples, log_mel_examples

__all__ = [
    "FAMILIES",
    "SPLITS",
    "SyntheticAVS",
    "SyntheticClip",
    "SyntheticConfig",
    "audio_blind_ceiling",
    "clip_indices",
    "name_clip",
    "render_clip",
    "write_avsbench",
]


class SyntheticAVS(Dataset[Clip]):
    """Synthetic clips in memory, each rendered when it is first read.

    They are the clips that ``write_avsbench`` writes for the same configuration and split, except that AVSS
    stores its frames as JPEG files.

    Args:
        config: the kind of clips. In AVSS all are padded to the length of the longest, as in the real
            dataset.
        count: number of clips.
        split: ``"train"``, ``"val"`` or ``"test"``; in S4, and in ``v1s`` of AVSS, only the first second of a
            training clip is labelled.

    Raises:
        ValueError: if the split is unknown or the count not in 1 to 1,000,000.

    Example:
        >>> clips = SyntheticAVS(SyntheticConfig(size=64), 2, split="val")
        >>> clips[0].frames.shape, clips[0].log_mel.shape, clips[0].masks.shape
        (torch.Size([5, 3, 64, 64]), torch.Size([5, 1, 96, 64]), torch.Size([5, 64, 64]))
    """

    def __init__(self, config: SyntheticConfig, count: int, *, split: str = "train") -> None:
        self.config = config
        self.split = split
        self.indices = clip_indices(split, count)
        self._rendered: dict[int, Clip] = {}

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Clip:
        """Return one clip; to save memory, its frames are kept as bytes and normalised at each read."""
        index = self.indices[index]
        if index not in self._rendered:
            self._rendered[index] = self._render(index)
        clip = self._rendered[index]
        clip = Clip(
            frames=normalize_frames(clip.frames),
            log_mel=clip.log_mel.clone(),
            masks=clip.masks.long(),
            labelled=clip.labelled.clone(),
            valid=clip.valid.clone(),
            id=clip.id,
        )
        if self.config.setting != "avss":
            return clip
        return fit_clip(clip, self.config.seconds * max(times for _, times in PARTS.values()))

    def _render(self, index: int) -> Clip:
        clip = render_clip(index, self.config)
        seconds = len(clip.frames)
        labelled = torch.ones(seconds, dtype=torch.bool)
        if (without_classes(index, self.config).setting, self.split) == ("s4", "train"):
            labelled[1:] = False
        return Clip(
            frames=torch.from_numpy(np.ascontiguousarray(clip.frames.transpose(0, 3, 1, 2))),
            log_mel=fit_examples(log_mel_examples(torch.from_numpy(clip.waveform)), seconds),
            masks=torch.from_numpy(clip.masks) * labelled[:, None, None],
            labelled=labelled,
            valid=torch.ones(seconds, dtype=torch.bool),
            id=clip.id,
        )
