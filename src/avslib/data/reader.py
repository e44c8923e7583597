"""Read clips from files: the base class of all datasets on disk."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from avslib._checks import check_one_of, check_positive
from avslib.clip import Clip
from avslib.data.layout import SPLITS, ClipFiles, refuse_links_out
from avslib.data.stored_log_mel import load_examples, log_mel_path
from avslib.media._image import MAX_PIXELS
from avslib.media.audio import read_wav, resample
from avslib.media.frame import normalize_frames, read_frame
from avslib.media.mask import read_mask
from avslib.media.mel import fit_examples, log_mel_examples

SAMPLE_RATE = 16_000
"""Sample rate of every waveform from which a log-mel is computed, Hz."""
_SOUNDS = ("log_mel", "wav")
_FITS = ("stretch", "crop")


class ReaderOptions(TypedDict, total=False):
    """The arguments of :class:`ClipReader` that all readers share."""

    size: int | tuple[int, int] | None
    fit: str
    sound: str
    seconds: int | None
    transform: Callable[[Clip], Clip] | None
    sound_transform: Callable[[Tensor], Tensor] | None
    normalize: bool
    on_error: str
    follow_links: bool
    max_pixels: int


class ClipReader(Dataset[Clip], ABC):
    """A dataset on disk, which checks that its files exist when it is built and reads a clip on demand.

    Args:
        root: the folder into which the dataset was unpacked.
        split: ``"train"``, ``"val"`` or ``"test"``.
        size: ``(H, W)`` to which frames and masks are resized, px, or one number for a square; None for their
            own size.
        fit: how they are resized: ``"stretch"`` changes the aspect ratio, ``"crop"`` scales the picture until
            it covers ``size`` and cuts out its centre.
        sound: ``"log_mel"`` to read the stored log-mels, from safetensors files or else from pickles, as
            published; ``"wav"`` to compute them.
        seconds: T of every clip: longer clips are cut, shorter ones are padded with frames that are not
            ``valid``; None for the length of clips in the setting.
        transform: changes a clip after it is cut and before it is normalised and padded; its frames are uint8
            RGB.
        sound_transform: changes the waveform ``(S,)`` at 16 kHz before its log-mel is computed; needs
            ``sound="wav"``.
        normalize: whether to normalise ``frames``; False keeps them as uint8 RGB, which takes a quarter of
            the memory. Every model of this library accepts those and normalises them on its device.
        on_error: ``"raise"``, or ``"skip"`` to replace a clip that cannot be read by a black one, with a
            warning; it needs a ``size``. None of its frames is ``valid`` or ``labelled``, so losses and
            metrics ignore it. The dataset keeps its length, and ``evaluate`` reports how many such clips
            there were.
        follow_links: whether symbolic links may lead to files outside ``root``.
        max_pixels: most pixels that a picture may have.

    Raises:
        FileNotFoundError: if the table or a file that it lists is not there.
        ValueError: if an argument is not one of the words above or a number is not above 0, the table is
            damaged, names a file outside of ``root``, or lists no clip of the split.
    """

    num_classes: ClassVar[int] = 1
    """Number of classes in the masks, background included; 1 if the masks are binary."""

    _seconds: ClassVar[int | None] = None
    _padding: str = "repeat"
    _hop_steps: ClassVar[int] = 96
    _hint: ClassVar[str] = (
        "unpack the whole set, or take the clip out of the table; `avslib doctor` lists all that lacks"
    )

    def __init__(
        self,
        root: str | Path,
        split: str | None,
        *,
        size: int | tuple[int, int] | None = (224, 224),
        fit: str = "stretch",
        sound: str = "log_mel",
        seconds: int | None = None,
        transform: Callable[[Clip], Clip] | None = None,
        sound_transform: Callable[[Tensor], Tensor] | None = None,
        normalize: bool = True,
        on_error: str = "raise",
        follow_links: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_one_of("sound", sound, _SOUNDS)
        check_one_of("fit", fit, _FITS)
        check_one_of("on_error", on_error, ("raise", "skip"))
        if seconds is not None:
            check_positive("seconds", seconds)
        if sound_transform is not None and sound != "wav":
            raise ValueError(f"sound_transform: needs sound='wav', got sound={sound!r}")
        if on_error == "skip" and size is None:
            raise ValueError(
                "on_error: 'skip' needs a size, since it tells how large a black clip is, got None"
            )
        self.root = Path(root)
        self.split = split
        self.size = size if size is None else _as_height_and_width(size)
        self.fit = fit
        self.sound = sound
        self.seconds = self._seconds if seconds is None else seconds
        self.transform = transform
        self.sound_transform = sound_transform
        self.normalize = normalize
        self.on_error = on_error
        self.max_pixels = max_pixels
        self.clips = self._clips_of(split)
        self._check_files(follow_links)

    @abstractmethod
    def _list(self) -> list[ClipFiles]:
        """List the clips of all splits and where their files should be."""

    def _clips_of(self, split: str | None) -> list[ClipFiles]:
        check_one_of("split", str(split), SPLITS)
        clips = [clip for clip in self._list() if clip.split == split]
        if not clips:
            raise ValueError(f"split: no clip of {self.root} is in {split!r}")
        return clips

    def _read_mask(self, path: Path) -> Tensor:
        return read_mask(path, self.size, fit=self.fit, max_pixels=self.max_pixels)

    def _sound_file(self, files: ClipFiles) -> Path:
        return files.wav if self.sound == "wav" else log_mel_path(files)

    def _sound_root(self) -> Path:
        """Return the folder that the sounds may not leave."""
        return self.root

    def _check_files(self, follow_links: bool) -> None:
        pictures = [path for clip in self.clips for path in (*clip.frames, *clip.masks) if path is not None]
        sounds = [path for clip in self.clips for path in (self._sound_file(clip), *clip.more_wavs)]
        expected = pictures + sounds
        if not follow_links:
            for root, paths in ((self.root, pictures), (self._sound_root(), sounds)):
                refuse_links_out(paths, root, to_allow="read")
        missing = [path for path in expected if not path.is_file()]
        if not missing:
            return
        message = (
            f"{missing[0]}: not there, as {len(missing)} of the {len(expected)} files that the table lists "
            f"for {self.split!r}"
        )
        if self.on_error == "skip":
            warnings.warn(f"{message}; their clips are read as black ones without ground truth", stacklevel=3)
            return
        hint = self._hint
        if all(path.suffix in (".pkl", ".safetensors") for path in missing):
            hint = 'compute them with `avslib prepare`, or read the WAV files with sound="wav"'
        raise FileNotFoundError(f"{message}; {hint}")

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Read one clip.

        Raises:
            ValueError: if a file is damaged; the message names it.
            FileNotFoundError: if a file has gone since the reader was built.
        """
        files = self.clips[index]
        try:
            clip = self._read(files)
        except (OSError, ValueError) as error:
            if self.on_error == "raise":
                raise
            warnings.warn(f"clip {files.id!r} is left out: {error}", stacklevel=2)
            clip = self._blank(files)
        return self._finish(clip)

    def waveform(self, index: int) -> Tensor:
        """Read the sound of a clip from its WAV file: the mean of its channels ``(S,)`` at 16 kHz.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged.
        """
        return self._read_sound(self.clips[index])

    def examples(self, waveform: Tensor, seconds: int) -> Tensor:
        """Compute the log-mel that a clip of this dataset would have with a given sound.

        This makes a changed sound differ from the clip's own by the change alone: it goes through
        ``sound_transform``, and its examples are spaced and padded like those of the files with
        ``sound="wav"``.

        Args:
            waveform: ``(S,)`` at 16 kHz.
            seconds: T.

        Returns:
            ``(T, 1, 96, 64)``.

        Raises:
            ValueError: if it is too short for one example and the dataset pads by repeating the last one.
        """
        return self._examples(waveform, seconds, name="waveform")

    def _examples(self, waveform: Tensor, seconds: int, *, name: object) -> Tensor:
        if self.sound_transform is not None:
            waveform = self.sound_transform(waveform)
        return clip_examples(waveform, seconds, name=name, padding=self._padding, hop_steps=self._hop_steps)

    def _read(self, files: ClipFiles) -> Clip:
        places, mask_places = files.frames[: self.seconds], files.masks[: self.seconds]
        frames = [read_frame(path, self.size, fit=self.fit, max_pixels=self.max_pixels) for path in places]
        size = frames[0].shape[-2:]
        empty = torch.zeros(size, dtype=torch.int64)
        masks = [empty if path is None else self._read_mask(path) for path in mask_places]
        for path, picture in zip((*places, *mask_places), (*frames, *masks), strict=True):
            if picture.shape[-2:] != size:
                raise ValueError(
                    f"{path}: expected the size of the clip's first frame, {tuple(size)}, "
                    f"got {tuple(picture.shape[-2:])}"
                )
        return Clip(
            frames=torch.stack(frames),
            log_mel=self._read_log_mel(files)[: self.seconds],
            masks=torch.stack(masks),
            labelled=torch.tensor([path is not None for path in mask_places]),
            valid=torch.ones(len(places), dtype=torch.bool),
            id=files.id,
        )

    def _blank(self, files: ClipFiles) -> Clip:
        seconds, size = len(files.frames[: self.seconds]), self.size or (1, 1)
        return Clip(
            frames=torch.zeros(seconds, 3, *size, dtype=torch.uint8),
            log_mel=torch.zeros(seconds, 1, 96, 64),
            masks=torch.zeros(seconds, *size, dtype=torch.int64),
            labelled=torch.zeros(seconds, dtype=torch.bool),
            valid=torch.zeros(seconds, dtype=torch.bool),
            id=files.id,
        )

    def _finish(self, clip: Clip) -> Clip:
        """Transform and normalise a clip, then cut or pad it; padding is zero in every field."""
        clip = finish_clip(clip, transform=self.transform, normalize=self.normalize)
        return clip if self.seconds in (None, len(clip.frames)) else fit_clip(clip, self.seconds)

    def _read_log_mel(self, files: ClipFiles) -> Tensor:
        seconds = len(files.frames)
        path = self._sound_file(files)
        if self.sound == "wav":
            return self._examples(self._read_sound(files), seconds, name=path)
        return load_examples(path, seconds)

    def _read_sound(self, files: ClipFiles) -> Tensor:
        return self._read_waveform(files.wav)

    def _read_waveform(self, path: Path) -> Tensor:
        waveform, rate = read_wav(path)
        try:
            return resample(waveform, rate, SAMPLE_RATE)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def finish_clip(clip: Clip, *, transform: Callable[[Clip], Clip] | None, normalize: bool) -> Clip:
    """Transform a decoded clip, then normalise its frames if asked to."""
    if transform is not None:
        clip = transform(clip)
    return clip._replace(frames=normalize_frames(clip.frames)) if normalize else clip


def clip_examples(waveform: Tensor, seconds: int, *, name: object, padding: str, hop_steps: int) -> Tensor:
    """Compute the log-mel of a clip, ``(T, 1, 96, 64)``.

    Args:
        waveform: its sound, ``(S,)`` at 16 kHz.
        seconds: T.
        name: name of the sound in an error message: its file, if it comes from one.
        padding: what follows a sound that is too short: ``"repeat"`` or ``"zero"``.
        hop_steps: distance between two examples, in steps of 10 ms.

    Raises:
        ValueError: if ``padding`` is ``"repeat"`` and the sound is too short for one example.
    """
    examples = log_mel_examples(waveform, example_hop_steps=hop_steps)
    if not len(examples) and padding == "repeat":
        raise ValueError(
            f"{name}: expected at least 0.975 s of sound, got {len(waveform) / SAMPLE_RATE:.3f} s"
        )
    return fit_examples(examples, seconds, padding=padding)


def fit_clip(clip: Clip, seconds: int) -> Clip:
    """Cut a clip, or pad it with frames that are not ``valid`` and are zero in every field."""
    frames, log_mel, masks, labelled, valid = (_fit_length(tensor, seconds) for tensor in clip[:5])
    return Clip(frames, log_mel, masks, labelled, valid, clip.id)


def _as_height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    check_positive("size", min(height, width))
    return height, width


def _fit_length(tensor: Tensor, seconds: int) -> Tensor:
    """Cut a field of a clip along its first axis, or pad it with zeros."""
    lacking = max(0, seconds - len(tensor))
    return F.pad(tensor[:seconds], (0, 0) * (tensor.ndim - 1) + (0, lacking))
