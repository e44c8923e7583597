"""Find where the samples lie in a folder of shards."""

from __future__ import annotations

import mmap
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from avslib._jobs import UNFINISHED
from avslib.data.layout import PLAIN
from avslib.storage.shard_format import list_members
from avslib.storage.stored import read_json

INDEX = "index.json"


class ShardIndex(NamedTuple):
    """Where the samples of one tar file lie."""

    file: str
    """Name of the file."""
    bytes: int
    """Size of the file."""
    begins: list[int]
    """Byte at which each sample begins, followed by the byte at which the last one ends."""


def index_shard(path: Path) -> ShardIndex:
    """Find where the samples of a shard lie, from the headers in it.

    Raises:
        ValueError: if the shard is damaged or empty; the message names it.
    """
    begins: list[int] = []
    key, end = None, 0
    with path.open("rb") as file:
        if not (size := path.stat().st_size):
            raise ValueError(f"{path}: expected a tar file, got 0 bytes")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                for member in list_members(data):
                    if member.key != key:
                        begins.append(member.begin)
                    key, end = member.key, member.start + member.size
            except ValueError as error:
                raise ValueError(f"{path}: {error}; the shard is damaged, copy or pack it again") from error
    if not begins:
        raise ValueError(f"{path}: expected samples, got none")
    return ShardIndex(path.name, size, [*begins, end])


def read_index(folder: Path) -> list[ShardIndex]:
    """Read where the samples of all shards lie, from ``index.json`` or else from the headers in ``*.tar``.

    Raises:
        FileNotFoundError: if there is neither an index nor a tar file.
        ValueError: if the index is damaged, or the shards are not complete yet.
    """
    if not (folder / INDEX).is_file():
        shards = list_shards(folder)
        if not shards:
            raise FileNotFoundError(f"{folder}: expected {INDEX} or tar files, found neither")
        return [index_shard(path) for path in shards]
    stored = read_json(folder / INDEX)
    if "shards" not in stored:
        raise ValueError(f"{folder / INDEX}: expected a list of shards; pack did not finish, so run it again")
    shards_stored = stored["shards"]
    if not isinstance(shards_stored, list) or not shards_stored or not all(map(_is_index, shards_stored)):
        raise ValueError(f"{folder / INDEX}: damaged; without it the index is made from the shards")
    return [ShardIndex(shard["file"], shard["bytes"], shard["begins"]) for shard in shards_stored]


def list_shards(folder: Path) -> list[Path]:
    """List the tar files in a folder, except those that a killed run left unfinished."""
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith(UNFINISHED))


def _is_index(stored: object) -> bool:
    if not isinstance(stored, dict) or not {*ShardIndex._fields} <= stored.keys():
        return False
    file, size, begins = (stored[field] for field in ShardIndex._fields)
    return (
        isinstance(file, str)
        and PLAIN.pattern.fullmatch(file) is not None
        and type(size) is int
        and isinstance(begins, list)
        and len(begins) > 1
        and all(type(begin) is int for begin in begins)
        and all(begin < end for begin, end in pairwise([-1, *begins, size + 1]))
    )
