"""Read clips from tar files, in an order that does not depend on the number of ranks and workers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from avslib._checks import check_not_negative, check_one_of, check_positive
from avslib.clip import Clip
from avslib.data.reader import finish_clip
from avslib.storage.shard_format import decode_clip, list_members
from avslib.storage.shard_index import read_index

_UNEVEN = ("keep", "drop", "repeat")
Numbers = npt.NDArray[np.int64]


class ShardedClips(IterableDataset[Clip]):
    """A dataset of the clips that :func:`~avslib.storage.pack` wrote, divided among ranks and workers.

    The order of an epoch depends only on ``seed`` and the epoch: the shards are shuffled, then the clips
    within windows. Clips are dealt out to the ranks one by one, and the batches of a rank to its workers. So
    each clip is read exactly once per epoch, and the batches of a rank do not depend on its number of
    workers.

    The dataset makes the batches itself, so the loader gets ``batch_size=None``. The order is known in
    advance, so an epoch can be resumed at any batch without reading the earlier ones::

        clips = ShardedClips(folder, batch_size=8, shuffle=1024)
        loader = DataLoader(clips, batch_size=None, num_workers=4, persistent_workers=True)
        for epoch in range(20):
            clips.set_epoch(epoch)
            for clip in loader: ...

    With several processes, every rank must call backward equally often, or DistributedDataParallel hangs:
    train with ``uneven="drop"`` or ``"repeat"``. To score, keep the default: no clip is lost and none counts
    twice. In both cases, do not pass the loader to Accelerate's ``prepare``, which would divide the clips
    again.

    A random ``transform`` draws in the worker that makes the batch, as in any loader, so its draws do depend
    on the number of workers.

    Args:
        folder: the folder with the tar files and ``index.json``. Without the index, the headers in ``*.tar``
            are read.
        batch_size: clips per batch; None to yield single clips.
        shuffle: number of clips that are shuffled together, after the shards are shuffled. A larger number is
            more random, a smaller one reads fewer shards at a time. 0 keeps the order of packing.
        seed: seed of the order.
        rank: index of this process's share of the clips; None takes it from ``torch.distributed``.
        world: number of shares, given together with ``rank``; None takes it from ``torch.distributed``, or 1
            without it.
        uneven: how to treat clips that cannot be divided evenly. ``"keep"`` yields them all: ranks differ by
            at most one clip, so by at most one batch. ``"drop"`` drops the last clips of the order, so that
            all ranks get the same number of full batches, and there must be one for each rank; ``"repeat"``
            repeats the first ones instead.
        transform: changes a clip, with frames as uint8 RGB, before its frames are normalised.
        normalize: False leaves ``frames`` as uint8 RGB.
        on_error: ``"raise"``, or ``"skip"`` to replace a clip that cannot be read with a black one, in which
            no frame is ``valid`` or ``labelled``, and to warn.

    Raises:
        FileNotFoundError: if there are no shards, or a shard in the index is missing.
        ValueError: if an argument is wrong, or a shard or the index is damaged; the message names it. With
            ``uneven="drop"``, ``len`` and iteration raise it if there is not a batch for each rank.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        batch_size: int | None = None,
        shuffle: int = 0,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        uneven: str = "keep",
        transform: Callable[[Clip], Clip] | None = None,
        normalize: bool = True,
        on_error: str = "raise",
    ) -> None:
        check_one_of("uneven", uneven, _UNEVEN)
        check_one_of("on_error", on_error, ("raise", "skip"))
        if batch_size is not None:
            check_positive("batch_size", batch_size)
        check_not_negative("shuffle", shuffle)
        check_not_negative("seed", seed)
        if (rank is None) != (world is None):
            raise ValueError(f"rank: expected both or neither of rank and world, got {rank} and {world}")
        if rank is not None and world is not None and not 0 <= rank < world:
            raise ValueError(f"rank: expected 0 to {world - 1}, got {rank}")
        self.folder = Path(folder)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.uneven = uneven
        self.transform = transform
        self.normalize = normalize
        self.on_error = on_error
        self._share = None if rank is None or world is None else (rank, world)
        # Epoch, and batches to skip; shared, so that persistent workers see changes.
        self._position = torch.zeros(2, dtype=torch.int64).share_memory_()
        shards = read_index(self.folder)
        self._files = [shard.file for shard in shards]
        self._lengths = [len(shard.begins) - 1 for shard in shards]
        self._shard_of = np.repeat(np.arange(len(shards)), self._lengths)
        self._begin = np.concatenate([shard.begins[:-1] for shard in shards])
        self._end = np.concatenate([shard.begins[1:] for shard in shards])
        for shard in shards:
            self._check_file(self.folder / shard.file, shard.bytes)
        self._blank: Clip | None = None
        if on_error == "skip":
            self._blank = self._make_blank()

    def __getstate__(self) -> dict[str, object]:
        """Fix the rank if it is known: a worker in another process cannot query it."""
        return {**self.__dict__, "_share": self._known_share()}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Share the epoch again, so that the workers of a copy see it change too."""
        self.__dict__.update(state)
        self._position.share_memory_()

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Set the epoch of the next iteration, and where in it to begin.

        Without a call every epoch has the same order. Persistent workers see the change too.

        Args:
            epoch: number of the epoch, from 0.
            skip_batches: number of its batches (clips, if ``batch_size`` is None) that this rank skips.
        """
        if epoch < 0 or skip_batches < 0:
            raise ValueError(f"epoch, skip_batches: expected 0 or more, got {epoch} and {skip_batches}")
        self._position[0], self._position[1] = epoch, skip_batches

    def __len__(self) -> int:
        """Return the number of batches (clips, if ``batch_size`` is None) of this rank in a whole epoch."""
        return -(-len(self._deal(np.arange(len(self._begin)))) // (self.batch_size or 1))

    def __iter__(self) -> Iterator[Clip]:
        """Yield the batches or clips of the current epoch for this rank and, in a loader, this worker."""
        epoch, skipped = self._position.tolist()
        numbers = self._deal(epoch_order(self._lengths, window=self.shuffle, seed=self.seed, epoch=epoch))
        size = self.batch_size or 1
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        starts = range((skipped + first) * size, len(numbers), step * size)
        return (self._batch(numbers[start : start + size].tolist()) for start in starts)

    def _known_share(self) -> tuple[int, int] | None:
        """Return rank and world; None if neither was given and ``torch.distributed`` is not initialised."""
        if self._share is None and torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._share

    def _deal(self, order: Numbers) -> Numbers:
        rank, world = self._known_share() or (0, 1)
        return deal_out(order, rank=rank, world=world, batch_size=self.batch_size or 1, uneven=self.uneven)

    def _batch(self, numbers: list[int]) -> Clip:
        clips = [
            finish_clip(self._read(number), transform=self.transform, normalize=self.normalize)
            for number in numbers
        ]
        return clips[0] if self.batch_size is None else default_collate(clips)

    def _read(self, number: int) -> Clip:
        shard = self._shard_of[number]
        path, begin, end = self.folder / self._files[shard], self._begin[number], self._end[number]
        try:
            data = np.fromfile(path, np.uint8, end - begin, offset=begin).data
            if len(data) < end - begin:
                raise ValueError(f"expected {end - begin} bytes, got {len(data)}")
            members = list_members(data, whole=False)
            return decode_clip(
                {file.extension: data[file.start : file.start + file.size] for file in members}
            )
        except (OSError, ValueError) as error:
            sample = number - sum(self._lengths[:shard])
            message = f"{path}, sample {sample} from byte {begin}: {error}"
            if self._blank is None:
                raise ValueError(message) from error
        warnings.warn(f"a clip is left out: {message}", stacklevel=2)
        return self._blank._replace(id=f"{path.name}:{sample}")

    def _check_file(self, path: Path, size: int) -> None:
        found = path.stat().st_size if path.is_file() else None
        if found == size:
            return
        message = f"{path}: expected {size} bytes, got {'no file' if found is None else found}"
        if self.on_error == "raise":
            raise (FileNotFoundError if found is None else ValueError)(f"{message}; copy it again")
        warnings.warn(f"{message}; what is lost is read as black clips without ground truth", stacklevel=3)

    def _make_blank(self) -> Clip:
        """Make a black clip with the shape of the first clip that can be read."""
        for number in range(len(self._begin)):
            with contextlib.suppress(ValueError):
                clip = self._read(number)
                return clip._replace(
                    frames=torch.zeros_like(clip.frames),
                    log_mel=torch.zeros_like(clip.log_mel),
                    masks=torch.zeros_like(clip.masks),
                    labelled=torch.zeros_like(clip.labelled),
                    valid=torch.zeros_like(clip.valid),
                )
        raise ValueError(f"{self.folder}: expected a clip that can be read, found none")


def epoch_order(lengths: Sequence[int], *, window: int, seed: int, epoch: int) -> Numbers:
    """Return the order of the clips of all shards in an epoch.

    Args:
        lengths: number of clips in each shard; clips are numbered across shards.
        window: the shards are shuffled, then each window of this many consecutive clips; 0 shuffles neither.
        seed: seed of the order.
        epoch: number of the epoch; each epoch has its own order.

    Example:
        >>> epoch_order([3, 3, 3], window=3, seed=0, epoch=0)
        array([7, 6, 8, 1, 2, 0, 3, 5, 4])
    """
    total = sum(lengths)
    if not window:
        return np.arange(total)
    generator = np.random.default_rng((seed, epoch))
    shards = np.split(np.arange(total), np.cumsum(lengths)[:-1])
    order = np.concatenate([shards[number] for number in generator.permutation(len(shards))])
    return order[np.lexsort((generator.random(total), np.arange(total) // window))]


def deal_out(order: Numbers, *, rank: int, world: int, batch_size: int, uneven: str) -> Numbers:
    """Return the share of one rank in an order: every ``world``-th clip, starting at ``rank``.

    Args:
        order: the numbers of all clips.
        rank: 0 to ``world - 1``.
        world: number of ranks.
        batch_size: clips per batch, the same on all ranks.
        uneven: ``"drop"`` and ``"repeat"`` give every rank the same number of full batches, by dropping the
            last clips or repeating the first ones; ``"keep"`` does neither.

    Raises:
        ValueError: if ``uneven`` is ``"drop"`` and there are too few clips for a full batch on every rank.

    Example:
        >>> order = np.arange(7)
        >>> for uneven in ("keep", "drop", "repeat"):
        ...     shares = [deal_out(order, rank=i, world=2, batch_size=2, uneven=uneven) for i in (0, 1)]
        ...     print(uneven, *shares)
        keep [0 2 4 6] [1 3 5]
        drop [0 2] [1 3]
        repeat [0 2 4 6] [1 3 5 0]
    """
    whole = world * batch_size
    if uneven == "drop":
        if len(order) < whole:
            raise ValueError(
                f"uneven: 'drop' needs {whole} clips, for {world} ranks with batches of {batch_size}, "
                f"got {len(order)}"
            )
        order = order[: len(order) // whole * whole]
    elif uneven == "repeat":
        order = np.resize(order, -(-len(order) // whole) * whole)
    return order[rank::world]
