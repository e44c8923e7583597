"""Bytes without computing: a call on tensors that have shapes and no values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from _measure import LiveBytes
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

Things = TypeVar("Things")


@contextmanager
def faked(things: Things) -> Iterator[Things]:
    """Give a copy of modules and tensors in which every tensor is fake, and compute on fake tensors.

    Shapes, types and lifetimes are the real ones, values there are none. Where one is asked for, the answer
    is made up, 1 or True: a mask picks every row, and a check that all is well finds it so.

    Example::

        with faked((model, frames)) as (model, frames), LiveBytes() as memory:
            model(frames)
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):  # also later: what models copy, a fake tensor would copy with its whole mode
        copies = copy.deepcopy(things)
        with mode, _MadeUp():
            yield copies


def count_bytes(run: Callable[..., object], *arguments: object) -> int:
    """Return how many bytes a call needs beside those of its arguments, at the worst moment."""
    with faked(arguments) as copies, LiveBytes() as memory:
        run(*copies)
    return memory.peak


def size_of(tensors: Iterable[Tensor]) -> int:
    """Return how many bytes tensors have."""
    return sum(tensor.nbytes for tensor in tensors)


class _MadeUp(TorchDispatchMode):
    """Answers where fake tensors cannot."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        match str(func):
            case "aten._local_scalar_dense.default":
                return 1.0 if args[0].is_floating_point() else True if args[0].dtype == torch.bool else 1
            case "aten.nonzero.default":
                return args[0].new_zeros(args[0].numel(), args[0].dim(), dtype=torch.int64)
            case "aten.index.Tensor" if _is_mask(args[1]):
                return args[0].flatten(0, args[1][0].dim() - 1).clone()
        return func(*args, **(kwargs or {}))


def _is_mask(indices: list[Tensor | None]) -> bool:
    return len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool
