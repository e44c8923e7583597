"""Two clips -> one in which both are heard."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from avslib._checks import check_positive
from avslib.clip import Clip
from avslib.data.sound import ClipDataset
from avslib.data.sound_transforms import RandomGain
from avslib.media.mel import fit_examples, log_mel_examples

_SECOND = 16_000
"""Samples of a second of every waveform here."""
_EXAMPLE = 15_360
"""Samples from one log-mel example to the next."""


class ClipsWithWaveforms(ClipDataset, Protocol):
    """A map-style dataset of clips that also gives their sound, as readers of files do."""

    def waveform(self, index: int) -> Tensor:
        """Return the sound of one clip, ``(S,)`` at 16 kHz."""


class MixedClips(Dataset[Clip]):
    """The clips of a dataset, some of them with the sound of a random second clip added to their own.

    On screen, what sounds in the second clip is also seen, pasted over the first one's frames, and the union
    of both masks is ground truth; see `paste_sounding`. Off screen nothing is pasted: frames and ground truth
    stay as they were, and the model learns to pass over a sound that comes from nowhere in the picture. Such
    a sound cannot be told from one of a silent thing of the same kind that happens to be seen. On screen, all
    that is pasted sounds: leave enough clips as they are, or a model learns to find cut-outs.

    The log-mel is computed from the sum of the waveforms, which is not clipped. Read the clips with
    ``sound="wav"``: stored log-mels may differ from computed ones, and so tell which clips are mixed. For the
    same reason, pass what changes the reader's waveforms here too. If one of the two clips is nothing but
    padding, as one that could not be read is, the first is returned as it was. The draws come from torch's
    global generator, so every worker of a loader draws its own.

    Args:
        clips: a dataset of at least two clips, on screen of one length and size, that gives their waveforms.
            A sound shorter than its clip goes on with its last 0.96 s, as readers repeat the last example.
        probability: how many of the clips are mixed, in ``[0, 1]``.
        low_db: least gain of the second clip's sound, dB.
        high_db: its largest gain, dB. Far from 0, one of the sounds drowns the other, whose mask is still
            ground truth.
        on_screen: whether what sounds in the second clip is seen too.
        sound_transform: changes the sum ``(S,)`` before its log-mel.
        example_hop_steps: distance of two log-mel examples, as in :func:`~avslib.media.log_mel_examples`.

    Raises:
        ValueError: if a number is out of its range, or there are fewer than two clips.

    Example:
        >>> from avslib.data import AVSBenchMS3, write_avsbench
        >>> folder = getfixture("tmp_path")
        >>> write_avsbench(folder, setting="ms3", clips={"train": 2}, size=48, videos=False)
        >>> clips = AVSBenchMS3(folder, "train", size=None, sound="wav")
        >>> MixedClips(clips, probability=1)[0].id
        'synthetic_0000000+synthetic_0000001'
    """

    def __init__(
        self,
        clips: ClipsWithWaveforms,
        *,
        probability: float = 0.5,
        low_db: float = -6.0,
        high_db: float = 6.0,
        on_screen: bool = True,
        sound_transform: Callable[[Tensor], Tensor] | None = None,
        example_hop_steps: int = 96,
    ) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: expected a number in [0, 1], got {probability}")
        if len(clips) < 2:
            raise ValueError(f"clips: expected at least two to mix, got {len(clips)}")
        check_positive("example_hop_steps", example_hop_steps)
        self.clips = clips
        self.probability = probability
        self.gain = RandomGain(low_db, high_db)
        self.on_screen = on_screen
        self.sound_transform = sound_transform
        self.example_hop_steps = example_hop_steps

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Return one clip, by chance mixed with another; its ``id`` then names both, joined by ``+``.

        Raises:
            ValueError: if the two clips differ in length or size.
        """
        first = self.clips[index]
        if torch.rand(()).item() >= self.probability:
            return first
        shift = int(torch.randint(1, len(self), ()))
        other = (index + shift) % len(self)
        second = self.clips[other]
        if not (first.valid.any() and second.valid.any()):
            return first
        log_mel = self._log_mel(self.clips.waveform(index), self.clips.waveform(other), len(first.frames))
        mixed = paste_sounding(first, second) if self.on_screen else first
        padding = ~first.valid.view(-1, 1, 1, 1)
        return mixed._replace(
            log_mel=torch.where(padding, first.log_mel, log_mel), id=f"{first.id}+{second.id}"
        )

    def _log_mel(self, first: Tensor, second: Tensor, seconds: int) -> Tensor:
        waveform = _fit_length(first, seconds) + self.gain(_fit_length(second, seconds))
        if self.sound_transform is not None:
            waveform = self.sound_transform(waveform)
        examples = log_mel_examples(waveform, example_hop_steps=self.example_hop_steps)
        return fit_examples(examples, seconds)


def paste_sounding(first: Clip, second: Clip) -> Clip:
    """Show what sounds in the second clip in front of the first one.

    Pixels under the second clip's masks replace the first clip's, in the frames and, with their classes, in
    the masks. So the union of the masks is ground truth, with the second clip's class where they overlap.
    Where the second clip has no mask, for want of a label or since nothing that sounds is seen, nothing is
    pasted. Frames are labelled, and seconds valid, that are so in both clips.

    Args:
        first: the clip behind; its log-mel and its id stay.
        second: the clip in front, of the same length and size.

    Returns:
        The clip with both, whose masks are empty in the frames that are not labelled.

    Raises:
        ValueError: if the two clips differ in length or size.
    """
    if first.frames.shape != second.frames.shape:
        raise ValueError(
            "clips: expected clips of one length and size to mix, got frames "
            f"{tuple(first.frames.shape)} of {first.id!r} and {tuple(second.frames.shape)} of {second.id!r}"
        )
    valid = first.valid & second.valid
    labelled = first.labelled & second.labelled
    pasted = (second.masks > 0) & (second.labelled & valid).view(-1, 1, 1)
    masks = torch.where(pasted, second.masks, first.masks)
    return first._replace(
        frames=torch.where(pasted.unsqueeze(1), second.frames, first.frames),
        masks=masks * labelled.view(-1, 1, 1),
        labelled=labelled,
        valid=valid,
    )


def _fit_length(waveform: Tensor, seconds: int) -> Tensor:
    """Cut a waveform, or let its last 0.96 s go on, as `fit_examples` repeats the last example."""
    samples = seconds * _SECOND
    if not len(waveform):
        return waveform.new_zeros(samples)
    tail = waveform[-_EXAMPLE:]
    repeats = max(0, math.ceil((samples - len(waveform)) / len(tail)))
    return torch.cat([waveform, tail.repeat(repeats)])[:samples]
