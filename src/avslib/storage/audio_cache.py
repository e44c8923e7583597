"""Compute the audio embeddings of a dataset once, and read them back instead of log-mels."""

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
"""Version of the file; raised when its content changes."""
_TOLERANCE = 1e-4
"""Tolerance for the mean log-mel of a second: machines differ in the last bits, other sounds by far more."""


def cache_audio(
    clips: ClipDataset,
    audio_encoder: AudioEncoder,
    path: str | Path,
    *,
    batch_size: int = 64,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Embed the sound of every clip and write the embeddings to a file, completely or not at all.

    :class:`CachedAudio` reads the file. A second of sound takes 4 A + 4 bytes, 0.5 kB with VGGish. All
    embeddings are held in memory until they are written. An existing file is replaced.

    Args:
        clips: a map-style dataset, such as a reader, without a transform.
        audio_encoder: a frozen encoder, on the device to use.
        path: the safetensors file; its folder is made if missing.
        batch_size: number of log-mel examples that are embedded together.
        progress: called with the number of clips after every batch, for example tqdm's ``update``.

    Raises:
        ValueError: if the encoder is not frozen, the clips have a transform, or there are no clips.

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
    """A dataset whose clips hold stored embeddings ``(T, A)`` as their ``log_mel``.

    Every model accepts embeddings there, and then does not call its audio encoder.

    An embedding depends on the sound and on the encoder. So the file must have been made by an encoder with
    the same weights, and every clip must have the same sound. To check this, the mean log-mel of each second
    that is not padding is compared: for the first and the last clip when the dataset is made, for the others
    when they are read. Only the sound matters: a file made from a plain reader also fits its clips in another
    size, from :class:`~avslib.storage.CachedClips`, or with transformed frames, but not with another sound.

    The embeddings stay in the file, so the dataset takes little memory and can be sent to workers.

    Args:
        clips: the clips, with their own log-mels, in the order in which they were embedded.
        path: the file that :func:`cache_audio` wrote.
        audio_encoder: the model's audio encoder, frozen, with its weights loaded.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or was made from other clips, sounds or weights; or the encoder is
            not frozen.
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
            raise ValueError(
                f"clips: {self.path} was made of {stored} clips, got {len(clips)}; create it again"
            )
        for index in (0, -1):
            self[index]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Return one clip.

        Raises:
            ValueError: if its sound differs from the one that was embedded.
        """
        index = range(len(self))[index]
        clip = self.clips[index]
        with _open(self.path, self._made_by) as file:  # costs 0.1 ms, and no open file is sent to workers
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
            "the clips that were embedded, with their own sound, or create the file again with cache_audio"
        )


def _describe(audio_encoder: AudioEncoder) -> dict[str, str]:
    """Describe the network of an encoder, to compare it with the stored description."""
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
    """Yield the log-mels of consecutive clips, enough for a batch at a time."""
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
    """Return one number per second that identifies a sound, ``(T,)``."""
    check_shape("log_mel", log_mel, "t 1 96 64")
    return log_mel.float().mean(dim=(1, 2, 3))


@contextlib.contextmanager
def _open(path: Path, made_by: dict[str, str]) -> Iterator[Any]:
    """Open a file of embeddings; raise if it is damaged or another encoder made it."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = file.metadata() or {}
            for key, expected in made_by.items():
                if stored.get(key) != expected:
                    raise ValueError(
                        f"audio_encoder: {path} was made with {key}={stored.get(key)!r}, expected "
                        f"{expected!r}; give the encoder that made it, or create it again with cache_audio"
                    )
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: is damaged; create it again with cache_audio ({error})") from error
