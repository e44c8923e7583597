"""Clips that are put away decoded, as shards or in a cache: what they must be, and how to know them again."""

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
    """Refuse a dataset that may change its clips at random, since one draw would be kept for ever.

    Raises:
        ValueError: if it has a transform or mixes its clips, or a dataset does that it is made from.
    """
    if isinstance(clips, MixedClips):
        raise ValueError(
            "clips: expected a dataset that does not mix its clips, whose first draw would be stored for ever"
        )
    for name in ("transform", "sound_transform"):
        if getattr(clips, name, None) is not None:
            raise ValueError(
                f"clips: expected a dataset without {name}, whose first draw would be stored for ever; give "
                "transform to what reads the stored clips"
            )
    for name in ("clips", "dataset"):  # as ours and torch's call what they are made from
        if (inner := getattr(clips, name, None)) is not None:
            check_fixed(inner)
    for part in getattr(clips, "datasets", ()):  # of torch's ConcatDataset
        check_fixed(part)


def check_decoded(clip: Clip) -> None:
    """Refuse a clip that is not as readers decode it.

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
    """Return masks as uint8 where their classes fit, else as int16.

    Raises:
        ValueError: if they fit neither.
    """
    lowest, highest = (int(value) for value in masks.aminmax())
    for dtype in (torch.uint8, torch.int16):
        limits = torch.iinfo(dtype)
        if limits.min <= lowest and highest <= limits.max:
            return masks.to(dtype)
    raise ValueError(f"masks: expected classes within int16, got {lowest} to {highest}")


def describe_clips(clips: ClipDataset) -> dict[str, object]:
    """Say what a dataset holds, to be compared with what was stored, in words that JSON knows.

    Where the dataset lies is no part of it. Of a ``torch.utils.data.Subset`` it is told which clips of what
    it is, and of a ``ConcatDataset`` what each part holds. The first and the last clip are read, and stand
    for what a dataset does not say about itself.

    Raises:
        ValueError: if these are not as readers decode them, or differ when they are read again.
    """
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
            "clips: expected the same clip each time it is read, but the dataset changes them at random, of "
            "which one draw would be stored for ever; let what reads the stored clips do that"
        )
    return described | {"first and last clip": first}


def agree(path: Path, settings: Mapping[str, object]) -> None:
    """Write down what a folder is to hold, or raise if something else is written there.

    Args:
        path: the JSON file that says it; made, with its folder, if missing.
        settings: what it shall be.

    Raises:
        ValueError: if the two differ; the message names the first difference.
    """
    if not path.exists():
        write_json(path, settings)
        return
    stored = read_json(path)
    for key, asked in settings.items():
        if stored.get(key) != asked:
            raise ValueError(
                f"folder: {path} says that it was made with {key}={stored.get(key)!r}, expected {asked!r}; "
                "take another folder, or delete this one"
            )


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON file that holds a dictionary.

    Raises:
        ValueError: if it does not.
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
    """Return what a dataset is a subset of, itself if of nothing, and which of its clips are in it."""
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
