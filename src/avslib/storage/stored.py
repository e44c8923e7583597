"""Check and identify clips that are stored decoded, as shards or in a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from avslib._checks import check_shape
from avslib._jobs import write_whole
from avslib.clip import Clip
from avslib.data.mixing import MixedClips
from avslib.data.reader import ClipReader
from avslib.data.sound import ClipDataset


def check_fixed(clips: ClipDataset) -> None:
    """Refuse a dataset that may change its clips at random, since one draw would be stored for ever.

    Raises:
        ValueError: if it, or a dataset that it wraps, has a transform or mixes its clips.
    """
    if isinstance(clips, MixedClips):
        raise ValueError(
            "clips: expected a dataset that does not mix its clips, since the first draw would be stored "
            "permanently"
        )
    for name in ("transform", "sound_transform"):
        if getattr(clips, name, None) is not None:
            raise ValueError(
                f"clips: expected a dataset without {name}, since the first draw would be stored "
                "permanently; give the transform to the reader of the stored clips"
            )
    for name in ("clips", "dataset"):  # names of the wrapped dataset in avslib and torch
        if (inner := getattr(clips, name, None)) is not None:
            check_fixed(inner)
    for part in getattr(clips, "datasets", ()):  # of torch's ConcatDataset
        check_fixed(part)


def check_decoded(clip: Clip) -> None:
    """Refuse a clip whose fields differ in type or shape from those of a reader.

    Raises:
        ValueError: if a field has another type or shape; the message names it.
    """
    if clip.frames.dtype != torch.uint8:
        raise ValueError(
            f"frames: expected uint8, got {clip.frames.dtype}; read the clips with normalize=False"
        )
    size = check_shape("frames", clip.frames, "t 3 h w")
    check_shape("masks", clip.masks, "t h w", **size)
    check_shape("log_mel", clip.log_mel, "t 1 96 64", t=size["t"])
    for name, flags in (("labelled", clip.labelled), ("valid", clip.valid)):
        check_shape(name, flags, "t", t=size["t"])


def narrow_masks(masks: Tensor) -> Tensor:
    """Return masks as uint8 if their classes fit, else as int16.

    Raises:
        ValueError: if their classes fit neither.
    """
    lowest, highest = (int(value) for value in masks.aminmax())
    for dtype in (torch.uint8, torch.int16):
        limits = torch.iinfo(dtype)
        if limits.min <= lowest and highest <= limits.max:
            return masks.to(dtype)
    raise ValueError(f"masks: expected classes within int16, got {lowest} to {highest}")


def describe_clips(clips: ClipDataset) -> dict[str, object]:
    """Describe a dataset, in values that JSON can hold, to compare it with a stored description.

    The location of the dataset is not included. For a ``torch.utils.data.Subset`` the description holds the
    type of the whole dataset and the indices, for a ``ConcatDataset`` a description of each part. The first
    and the last clip are read, since their content identifies what the dataset does not state.

    Raises:
        ValueError: if there is no clip, these clips have other types or shapes than a reader's, or they
            change when read again.
    """
    if not len(clips):
        raise ValueError("clips: expected at least one, got none")
    described: dict[str, object] = {"dataset": type(clips).__name__, "clips": len(clips)}
    whole, indices = _whole_of(clips)
    if whole is not clips:
        described |= {"of": type(whole).__name__, "indices": _digest(json.dumps(indices).encode())}
    if isinstance(whole, ClipReader):
        described |= {
            "split": whole.split,
            "size": None if whole.size is None else list(whole.size),
            "fit": whole.fit,
            "sound": whole.sound,
            "seconds": whole.seconds,
            "ids": _digest(json.dumps([whole.clips[index].id for index in indices]).encode()),
        }
    if isinstance(whole, ConcatDataset):
        parts = cast("list[ClipDataset]", whole.datasets)
        described["parts"] = [describe_clips(part) for part in parts if len(part)]
    first, again = _digest_ends(clips), _digest_ends(clips)
    if first != again:
        raise ValueError(
            "clips: expected the same clip each time it is read, but the dataset changes them at random, "
            "and one draw would be stored permanently; change them when reading the stored clips instead"
        )
    return described | {"first and last clip": first}


def agree(path: Path, settings: Mapping[str, object]) -> None:
    """Store the settings of a folder, or raise if it was made with other settings.

    Args:
        path: the JSON file with the settings; made, with its folder, if missing.
        settings: the settings that it must hold.

    Raises:
        ValueError: if the settings differ; the message names the first difference.
    """
    if not path.exists():
        write_json(path, settings)
        return
    stored = read_json(path)
    for key, asked in settings.items():
        if stored.get(key) != asked:
            raise ValueError(
                f"folder: {path} says that it was made with {key}={stored.get(key)!r}, expected {asked!r}; "
                "choose another folder, or delete this one"
            )


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON file that holds a dictionary.

    Raises:
        ValueError: if it is not JSON or holds something else.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON ({error})") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: expected a dictionary, got a {type(stored).__name__}")
    return stored


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file in one step."""
    with write_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _whole_of(clips: ClipDataset) -> tuple[ClipDataset, list[int]]:
    """Return the dataset that ``clips`` is a subset of, or ``clips`` itself, and the subset's indices."""
    indices = list(range(len(clips)))
    while isinstance(clips, Subset):
        indices = [int(clips.indices[index]) for index in indices]
        clips = cast(ClipDataset, clips.dataset)
    return clips, indices


def _digest_ends(clips: ClipDataset) -> str:
    ends = [clips[index] for index in (0, len(clips) - 1)]
    for clip in ends:
        check_decoded(clip)
    return _digest(*(part for clip in ends for part in _parts(clip)))


def _parts(clip: Clip) -> tuple[bytes, ...]:
    name = clip.id if isinstance(clip.id, str) else json.dumps(clip.id)
    return (name.encode(), *(tensor.contiguous().numpy().tobytes() for tensor in clip[:5]))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
