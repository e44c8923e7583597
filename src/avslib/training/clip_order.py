"""The random order of a loader's clips, in a form that a checkpoint can hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator
from torch.utils.data import DataLoader


def own_order(loader: DataLoader[Any], *, processes: int) -> Generator | None:
    """Give a loader generators of its own, and return the one that orders its clips.

    A checkpoint restores the global generators, which are enough for one process without workers. But several
    processes share a generator that Accelerate does not save, and workers that persist take a number from the
    global generator in the first epoch of a process only, so that a resumed run would draw others than an
    uninterrupted one.

    Args:
        loader: a loader, prepared by Accelerate if it is not one of shards.
        processes: number of processes of the run.

    Returns:
        The generator whose state a checkpoint must hold; None if there is none.
    """
    from accelerate.data_loader import get_sampler

    if processes == 1 and not loader.num_workers:
        return None
    inner = getattr(loader, "base_dataloader", loader)  # which Accelerate puts a shell around
    inner.generator = _derived_from(inner.generator)  # from it the workers are seeded
    shared = getattr(loader, "synchronized_generator", None)
    if isinstance(shared, Generator):
        return shared
    sampler = get_sampler(loader)
    if not hasattr(sampler, "generator"):
        return None
    if sampler.generator is None:
        sampler.generator = _derived_from(None)
    return sampler.generator


def _derived_from(source: Generator | None) -> Generator:
    seed = torch.empty((), dtype=torch.int64).random_(generator=source)
    return Generator().manual_seed(int(seed))
