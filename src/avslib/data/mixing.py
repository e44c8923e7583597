"""Mix pairs of clips, so that both are heard."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from avslib._checks import check_positive
from avslib.clip import Clip
from avslib.data.reader import ClipReader
from avslib.data.sound import ClipDataset, examples_of
from avslib.data.sound_transforms import RandomGain

_EXAMPLE = 15_360
"""Number of samples from one log-mel example to the next."""


class ClipsWithWaveforms(ClipDataset, Protocol):
    """A map-style dataset of clips that also gives their sound, as readers of files do."""

    def waveform(self, index: int) -> Tensor:
        """Return the sound of one clip, ``(S,)`` at 16 kHz."""


class MixedClips(Dataset[Clip]):
    """The clips of a dataset, some of them with the sound of a random second clip added to their own.

    With ``on_screen``, what sounds in the second clip is also pasted over the frames of the first, and the
    union of both masks is the ground truth; see `paste_sounding`. Everything that is pasted sounds, so leave
    enough clips unmixed, or a model learns to find cut-outs. Without ``on_screen``, nothing is pasted: frames
    and ground truth stay unchanged, and the model learns to ignore a sound whose source is not in the
    picture. It cannot tell such a sound from that of a silent object of the same kind that happens to be in
    view.

    The waveforms are added without clipping, and the log-mel of the sum is computed like those of the clips:
    a reader's ``sound_transform`` changes the sum. A reader must have ``sound="wav"``, since stored log-mels
    may differ from computed ones, which would tell a model which clips are mixed. If one of the two clips is
    all padding, like a clip that could not be read, the first is returned unchanged. Random numbers come from
    torch's global generator, so every worker of a loader draws its own.

    Args:
        clips: a dataset of at least two clips that gives their waveforms; with ``on_screen``, all must have
            the same length and size. If the second sound is shorter than the first, its last 0.96 s is
            repeated.
        probability: probability that a clip is mixed, in ``[0, 1]``.
        low_db: smallest gain of the second clip's sound, dB.
        high_db: largest gain, dB. Far from 0 dB, one sound drowns the other, whose mask is still ground
            truth.
        on_screen: whether what sounds in the second clip is seen too.
        sound_transform: changes the sum ``(S,)`` before its log-mel is computed; None if the reader has one.
        example_hop_steps: distance between two log-mel examples, as in
            :func:`~avslib.media.log_mel_examples`, for a dataset that is not a reader; a reader knows its
            own.

    Raises:
        ValueError: if a number is out of its range, there are fewer than two clips, they have no waveforms, a
            reader reads stored log-mels, or both the reader and this dataset have a ``sound_transform``.

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
        check_waveforms(clips, example_hop_steps)
        has_own = isinstance(clips, ClipReader) and clips.sound_transform is not None
        if sound_transform is not None and has_own:
            raise ValueError(
                "sound_transform: expected None, since that of the clips changes the sum too, got another"
            )
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
        """Return one clip, possibly mixed with another; its ``id`` then names both, joined by ``+``.

        Raises:
            ValueError: with ``on_screen``, if the two clips differ in length or size.
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
        waveform = first + self.gain(_go_on(second, len(first)))
        if self.sound_transform is not None:
            waveform = self.sound_transform(waveform)
        return examples_of(self.clips, waveform, seconds, hop_steps=self.example_hop_steps)


def check_waveforms(clips: ClipsWithWaveforms, hop_steps: int) -> None:
    """Refuse clips if the log-mel of a changed sound could not be computed like their own.

    Raises:
        ValueError: if they have no waveforms, a reader reads stored log-mels, or the distance between two
            examples is not above 0.
    """
    if not hasattr(clips, "waveform"):
        raise ValueError(
            f"clips: expected a dataset that gives waveforms, as a reader does, got {type(clips).__name__}"
        )
    if isinstance(clips, ClipReader) and clips.sound != "wav":
        raise ValueError(f"clips: expected a reader with sound='wav', got sound={clips.sound!r}")
    check_positive("example_hop_steps", hop_steps)


def paste_sounding(first: Clip, second: Clip) -> Clip:
    """Paste what sounds in the second clip over the first.

    Pixels under the second clip's masks replace the first clip's, in the frames and, with their classes, in
    the masks. The union of the masks is the ground truth, with the second clip's class where they overlap.
    Nothing is pasted where the second clip's mask is empty, because the frame is not labelled or nothing that
    sounds is in view. A frame is labelled, or valid, only if it is so in both clips.

    Args:
        first: the clip in the background, whose log-mel and id are kept.
        second: the clip in the foreground, of the same length and size.

    Returns:
        The combined clip; its masks are empty in frames that are not labelled.

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


def _go_on(waveform: Tensor, samples: int) -> Tensor:
    """Cut a waveform, or repeat its last 0.96 s, as `fit_examples` repeats the last example."""
    if not len(waveform):
        return waveform.new_zeros(samples)
    tail = waveform[-_EXAMPLE:]
    repeats = max(0, math.ceil((samples - len(waveform)) / len(tail)))
    return torch.cat([waveform, tail.repeat(repeats)])[:samples]
