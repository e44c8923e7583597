"""A dataset that decodes each clip only once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.utils.data import Dataset

from avslib._jobs import write_whole
from avslib.clip import Clip
from avslib.data.reader import finish_clip
from avslib.data.sound import ClipDataset
from avslib.storage.stored import agree, check_decoded, check_fixed, describe_clips, narrow_masks

VERSION = 1
"""Version of the files; raised when their content changes."""
_PER_FOLDER = 1000


class CachedClips(Dataset[Clip]):
    """A dataset whose clips are stored when first read, and memory-mapped from then on.

    Several workers and processes can share a folder, because a file is moved into place only when it is
    complete. A clip without a ``valid`` frame could not be read and is not stored; a damaged file is written
    again. Five seconds at 224 px take 1.1 MB.

    Stored clips never change. So random augmentation comes after the cache, as its ``transform``, and a
    reader with a transform of its own is refused::

        clips = AVSBenchMS3(root, "train", normalize=False)
        clips = CachedClips(clips, "/scratch/ms3-train", transform=ClipTransform(v2.RandomHorizontalFlip()))

    Args:
        clips: a map-style dataset with uint8 frames, such as a reader with ``normalize=False``.
        folder: the folder to store the clips in; made if missing.
        transform: changes a clip, with frames as uint8 RGB, after it was read from the cache.
        normalize: False leaves ``frames`` as uint8 RGB.

    Raises:
        ValueError: if the folder is the cache of another dataset, there is no clip, the clips have a
            transform or normalised frames, or the first or the last one, which identify the dataset, is
            damaged.

    Example:
        >>> from avslib.data import AVSBenchMS3, write_avsbench
        >>> folder = getfixture("tmp_path")
        >>> write_avsbench(folder, setting="ms3", clips={"test": 3}, size=48, videos=False)
        >>> clips = CachedClips(AVSBenchMS3(folder, "test", normalize=False), folder / "cache")
        >>> clips[0].frames.shape
        torch.Size([5, 3, 224, 224])
    """

    def __init__(
        self,
        clips: ClipDataset,
        folder: str | Path,
        *,
        transform: Callable[[Clip], Clip] | None = None,
        normalize: bool = True,
    ) -> None:
        check_fixed(clips)
        self.clips = clips
        self.folder = Path(folder)
        self.transform = transform
        self.normalize = normalize
        agree(self.folder / "cache.json", {"version": VERSION, **describe_clips(clips)})

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Return one clip; it is decoded only if it is not stored."""
        index = range(len(self))[index]
        path = self.folder / f"{index // _PER_FOLDER:06}" / f"{index:09}.safetensors"
        clip = _load(path) if path.exists() else None
        if clip is None:
            clip = self.clips[index]
            if clip.valid.any():
                _store(path, clip)
        return finish_clip(clip, transform=self.transform, normalize=self.normalize)


def _store(path: Path, clip: Clip) -> None:
    check_decoded(clip)
    fields = dict(zip(Clip._fields[:5], clip[:5], strict=True)) | {"masks": narrow_masks(clip.masks)}
    tensors = {name: tensor.contiguous() for name, tensor in fields.items()}
    with write_whole(path) as unfinished:
        unfinished.write_bytes(save(tensors, metadata={"id": json.dumps(clip.id)}))


def _load(path: Path) -> Clip | None:
    try:
        with safe_open(path, framework="pt") as file:
            clip = Clip(
                frames=file.get_tensor("frames"),
                log_mel=file.get_tensor("log_mel"),
                masks=file.get_tensor("masks").long(),
                labelled=file.get_tensor("labelled"),
                valid=file.get_tensor("valid"),
                id=json.loads(file.metadata()["id"]),
            )
        check_decoded(clip)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        warnings.warn(f"{path}: is damaged and will be replaced ({error})", stacklevel=3)
        return None
    return clip
