"""Embeddings of the sound of a dataset: computed once, read back in the place of log-mels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from avslib._checks import check_positive, check_shape
from avslib._jobs import write_whole
from avslib.clip import Clip
from avslib.data.sound import ClipDataset
from avslib.encoders import AudioEncoder
from avslib.encoders.state_dict import weights_sha256
from avslib.storage.stored import check_fixed

VERSION = 1
"""Of the file: a change of what is written raises it."""
_TOLERANCE = 1e-4
"""Between two means of one second's log-mel: machines differ in the last bits, other sounds by far more."""


def cache_audio(
    clips: ClipDataset,
    audio_encoder: AudioEncoder,
    path: str | Path,
    *,
    batch_size: int = 64,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Embed the sound of every clip and write the embeddings to a file, whole or not at all.

    :class:`CachedAudio` reads it. A second of sound takes 4 A + 4 bytes, 0.5 kB with VGGish; all of them are
    held in memory until they are written. A file that is there is replaced.

    Args:
        clips: a map-style dataset, such as a reader, without a transform.
        audio_encoder: a frozen one; on the device that is to be used.
        path: the safetensors file; its folder is made if missing.
        batch_size: log-mel examples that are embedded at once.
        progress: called with the number of clips after every batch, as tqdm's ``update`` likes it.

    Raises:
        ValueError: if the encoder is not frozen, or the clips have a transform, or there is none.

    Example:
        >>> from avslib.data import AVSBenchMS3, write_avsbench
        >>> from avslib.encoders import AudioEncoder
        >>> folder = getfixture("tmp_path")
        >>> write_avsbench(folder, setting="ms3", clips={"test": 3}, size=48, videos=False)
        >>> clips, encoder = AVSBenchMS3(folder, "test"), AudioEncoder("mel_cnn", frozen=True)
        >>> cache_audio(clips, encoder, folder / "test.safetensors")
        >>> CachedAudio(clips, folder / "test.safetensors", encoder)[0].log_mel.shape
        torch.Size([5, 128])
    """
    check_positive("batch_size", batch_size)
    made_by = _describe(audio_encoder)
    check_fixed(clips)
    if not len(clips):
        raise ValueError("clips: expected at least one, got none")
    seconds: list[int] = []
    means: list[Tensor] = []
    embeddings: list[Tensor] = []
    for log_mels in _batches(clips, batch_size):
        examples = torch.cat(log_mels)
        seconds += map(len, log_mels)
        means.append(_mean_log_mel(examples))
        embeddings.append(_embed(audio_encoder, examples, batch_size))
        if progress is not None:
            progress(len(log_mels))
    tensors = {
        "embeddings": torch.cat(embeddings),
        "mean_log_mel": torch.cat(means),
        "offsets": torch.tensor([0, *seconds]).cumsum(dim=0),
    }
    with write_whole(path) as unfinished:
        unfinished.write_bytes(save(tensors, metadata=made_by | {"dataset": type(clips).__name__}))


class CachedAudio(Dataset[Clip]):
    """The clips of a dataset with stored embeddings ``(T, A)`` as their ``log_mel``.

    Every model takes them there, and does not call its audio encoder. An embedding belongs to a sound and to
    an encoder. So the file must have been made by an encoder with these weights, and every clip must sound as
    it did then: the mean log-mel of each second that is no padding is compared, of the first and the last
    clip here and of the others as they are read. Nothing else matters. The file of a bare reader serves its
    clips in another size, behind :class:`~avslib.storage.CachedClips`, or with a transform of the frames;
    it does not serve those under another sound.

    The embeddings stay in the file, so the dataset can be sent to workers and takes no memory.

    Args:
        clips: the clips, with their own log-mels, in the order in which they were embedded.
        path: the file that :func:`cache_audio` wrote.
        audio_encoder: the model's, frozen, with its weights loaded.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or is of other clips, sounds or weights; or the encoder is not
            frozen.
    """

    def __init__(self, clips: ClipDataset, path: str | Path, audio_encoder: AudioEncoder) -> None:
        self.clips = clips
        self.path = Path(path)
        self._made_by = _describe(audio_encoder)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file; cache_audio makes it")
        with _open(self.path, self._made_by) as file:
            stored = file.get_slice("offsets").get_shape()[0] - 1
        if stored != len(clips):
            raise ValueError(f"clips: {self.path} was made of {stored} clips, got {len(clips)}; make it anew")
        for index in (0, -1):
            self[index]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Return one clip.

        Raises:
            ValueError: if it sounds otherwise than when it was embedded.
        """
        index = range(len(self))[index]
        clip = self.clips[index]
        with _open(self.path, self._made_by) as file:  # costs 0.1 ms, and nothing is left open to be sent
            begin, end = file.get_slice("offsets")[index : index + 2].tolist()
            embedding = file.get_slice("embeddings")[begin:end]
            expected = file.get_slice("mean_log_mel")[begin:end]
        self._check_sound(clip, expected)
        return clip._replace(log_mel=embedding)

    def _check_sound(self, clip: Clip, expected: Tensor) -> None:
        heard = _mean_log_mel(clip.log_mel)
        if len(heard) != len(expected):
            difference = f"{len(heard)} s, expected {len(expected)}"
        else:
            other = clip.valid & ~((heard - expected).abs() <= _TOLERANCE)
            if not other.any():
                return
            second = int(other.nonzero()[0])
            difference = (
                f"a mean log-mel of {heard[second]:.4f} at {second} s, expected {expected[second]:.4f}"
            )
        raise ValueError(
            f"clips: {clip.id!r} does not sound as it did when {self.path} was made: got {difference}; give "
            "the clips that were embedded, with their own sound, or make the file anew with cache_audio"
        )


def _describe(audio_encoder: AudioEncoder) -> dict[str, str]:
    """Say which network an encoder is, to be compared with what was stored."""
    if not audio_encoder.frozen:
        raise ValueError(
            "audio_encoder: expected a frozen one, whose embeddings stay the same, got frozen=False; a model "
            "has one with freeze_audio=True"
        )
    return {
        "version": str(VERSION),
        "network": type(audio_encoder.network).__name__,
        "weights_sha256": weights_sha256(audio_encoder.network),
    }


def _batches(clips: ClipDataset, batch_size: int) -> Iterator[list[Tensor]]:
    """Yield the log-mels of clip after clip, as many as make a batch."""
    waiting: list[Tensor] = []
    for index in range(len(clips)):
        waiting.append(clips[index].log_mel)
        if sum(map(len, waiting)) >= batch_size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


@torch.inference_mode()
def _embed(audio_encoder: AudioEncoder, log_mel: Tensor, batch_size: int) -> Tensor:
    weight = next(audio_encoder.parameters())
    return torch.cat([audio_encoder(part.to(weight)).float().cpu() for part in log_mel.split(batch_size)])


def _mean_log_mel(log_mel: Tensor) -> Tensor:
    """Return one number a second to know a sound again by, ``(T,)``."""
    check_shape("log_mel", log_mel, "t 1 96 64")
    return log_mel.float().mean(dim=(1, 2, 3))


@contextlib.contextmanager
def _open(path: Path, made_by: dict[str, str]) -> Iterator[Any]:
    """Open a file of embeddings, and raise unless such an encoder made it, or if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = file.metadata() or {}
            for key, expected in made_by.items():
                if stored.get(key) != expected:
                    raise ValueError(
                        f"audio_encoder: {path} was made with {key}={stored.get(key)!r}, expected "
                        f"{expected!r}; give the encoder that made it, or make it anew with cache_audio"
                    )
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: is damaged; make it anew with cache_audio ({error})") from error
