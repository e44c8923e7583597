"""A dataset with an off-screen sound added to its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from avslib.clip import Clip
from avslib.data.mixing import ClipsWithWaveforms, check_waveforms
from avslib.data.sound import OtherSound, examples_of, other_clips


class OffScreenSound(OtherSound):
    """The clips of a dataset, each with the sound of another one added to its own.

    A model that listens finds the same as before: only by chance does the added sound come from something in
    the picture, and ``category="other"`` makes that less likely. Clips are paired as in
    :class:`~avslib.data.SwappedSound`, and nothing is random; to train with such sounds, use
    :class:`~avslib.data.MixedClips`. AVSBench-Robust (Li et al., 2025) intends the same, but its published
    code returns the clip's own sound alone.

    Args:
        clips: a dataset of at least two clips that gives their waveforms. A reader must have ``sound="wav"``,
            so that the true sound goes through the same front end, including its ``sound_transform``.
        gain_db: gain of the other sound, dB.
        category: category of the other clip: ``"any"``, ``"same"`` or ``"other"``.
        categories: what sounds in each clip; None if the dataset knows.
        example_hop_steps: distance between two log-mel examples, as in
            :func:`~avslib.media.log_mel_examples`, for a dataset that is not a reader; a reader knows its
            own.

    Raises:
        ValueError: if the clips have no waveforms, a reader reads stored log-mels, there is no other clip,
            the categories do not give one, see :class:`~avslib.data.SwappedSound`, or ``example_hop_steps``
            is not above 0.
    """

    clips: ClipsWithWaveforms

    def __init__(
        self,
        clips: ClipsWithWaveforms,
        *,
        gain_db: float = 0.0,
        category: str = "any",
        categories: Sequence[str] | None = None,
        example_hop_steps: int = 96,
    ) -> None:
        check_waveforms(clips, example_hop_steps)
        super().__init__(clips)
        self.others = other_clips(clips, category=category, categories=categories)
        self.gain_db = gain_db
        self.example_hop_steps = example_hop_steps

    def _log_mel(self, index: int, clip: Clip) -> Tensor:
        if not self.clips[self.others[index]].valid.any():  # could not be read
            return clip.log_mel
        own, other = self.clips.waveform(index), self.clips.waveform(self.others[index])
        added = torch.zeros_like(own)
        added[: len(other)] = other[: len(own)] * 10 ** (self.gain_db / 20)
        return examples_of(self.clips, own + added, len(clip.frames), hop_steps=self.example_hop_steps)
