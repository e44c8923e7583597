"""Write a dataset of clips as tar files in the layout of WebDataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from avslib._checks import check_one_of, check_positive
from avslib._jobs import Outcome, remove_unfinished, run_jobs, write_whole
from avslib.data.sound import ClipDataset
from avslib.storage.shard_format import ENCODINGS, END, encode_clip, tar_sample
from avslib.storage.shard_index import INDEX, ShardIndex, index_shard, list_shards
from avslib.storage.stored import agree, check_fixed, describe_clips, write_json

VERSION = 1
"""Version of the shards; raised when their content changes."""


def pack(
    clips: ClipDataset,
    folder: str | Path,
    *,
    clips_per_shard: int = 256,
    encoding: str = "npy",
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write a dataset as tar files, which :class:`~avslib.storage.ShardedClips` and WebDataset read.

    Each shard is written completely or not at all. When all are written, ``index.json`` lists where each clip
    lies. If a call is killed, a second call with the same arguments continues where it stopped. The resulting
    bytes do not depend on the number of workers. Clips keep the order of the dataset; the reader shuffles
    them.

    The key of a clip is a running number. Its files are ``.json`` (``id``, ``labelled``, ``valid``),
    ``.log_mel.npy``, and either ``.frames.npy`` and ``.masks.npy``, or ``.frame_0.png``, ``.mask_0.png``, ...

    Args:
        clips: a dataset with uint8 frames, such as a reader with ``normalize=False``. A transform belongs in
            the reader of the shards instead. Black clips that stand for unreadable ones are stored as such.
        folder: the folder to write into; made if missing. Only one call at a time may use it.
        clips_per_shard: number of clips in a shard; 256 clips of 5 s at 224 px, as arrays, take 290 MB.
        encoding: ``"npy"`` for arrays, which are fastest to read, or ``"png"`` for pictures, which take less
            than half the space but several times as long to read. Both are lossless.
        workers: number of processes that read clips and write shards. More than one needs a script with
            ``if __name__ == "__main__"``.
        progress: called with the number of clips after every shard, for example tqdm's ``update``.

    Raises:
        ValueError: if an argument is wrong, there is no clip, the folder holds something else, the clips have
            a transform or normalised frames, or the first or the last clip, which identify the dataset, is
            damaged. If other clips cannot be read, it is raised after all shards without such clips have been
            written.
        FileNotFoundError: if a file of the first or the last clip has gone.

    Example:
        >>> from avslib.data import AVSBenchMS3, write_avsbench
        >>> folder = getfixture("tmp_path")
        >>> write_avsbench(folder, setting="ms3", clips={"test": 3}, size=48, videos=False)
        >>> pack(AVSBenchMS3(folder, "test", normalize=False), folder / "shards", clips_per_shard=2)
        >>> sorted(path.name for path in (folder / "shards").iterdir())
        ['index.json', 'shard-000000.tar', 'shard-000001.tar']
    """
    folder = Path(folder)
    check_positive("clips_per_shard", clips_per_shard)
    check_one_of("encoding", encoding, ENCODINGS)
    check_fixed(clips)
    if not (folder / INDEX).exists() and list_shards(folder):
        raise ValueError(f"folder: expected {folder / INDEX} beside its shards, or no shards")
    settings = {
        "version": VERSION,
        "encoding": encoding,
        "clips_per_shard": clips_per_shard,
        **describe_clips(clips),
    }
    agree(folder / INDEX, settings)
    write = partial(
        _write_shard, clips=clips, folder=folder, clips_per_shard=clips_per_shard, encoding=encoding
    )
    shards: dict[int, ShardIndex] = {}
    errors: list[str] = []
    numbers = range(math.ceil(len(clips) / clips_per_shard))
    outcomes: Iterator[Outcome[int, ShardIndex]] = run_jobs(write, numbers, workers=workers)
    for number, shard, error in outcomes:
        if shard is None:
            errors.append(error)
            continue
        shards[number] = shard
        if progress is not None:
            progress(len(shard.begins) - 1)
    remove_unfinished(folder)
    if errors:
        raise ValueError(
            f"{len(errors)} of {len(numbers)} shards could not be written; the first: {errors[0]}"
        )
    write_json(
        folder / INDEX, settings | {"shards": [shard._asdict() for _, shard in sorted(shards.items())]}
    )


def _write_shard(
    number: int, *, clips: ClipDataset, folder: Path, clips_per_shard: int, encoding: str
) -> ShardIndex:
    """Write a shard unless it exists, and return where its samples lie."""
    path = folder / f"shard-{number:06}.tar"
    first = number * clips_per_shard
    indices = range(first, min(first + clips_per_shard, len(clips)))
    if not path.exists():
        with write_whole(path) as unfinished, unfinished.open("wb") as file:
            for index in indices:
                file.write(tar_sample(f"{index:09}", encode_clip(clips[index], encoding)))
            file.write(END)
    shard = index_shard(path)
    if len(shard.begins) - 1 != len(indices):
        raise ValueError(f"{path}: expected {len(indices)} clips, got {len(shard.begins) - 1}")
    return shard
