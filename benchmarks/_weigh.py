"""Count bytes without computing, by calling on tensors that have shapes but no values."""

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
    """Yield a copy of modules and tensors in which every tensor is fake, and compute on fake tensors.

    Shapes, dtypes and lifetimes are real, but there are no values. Code that asks for a value gets 1 or True:
    a mask selects every row, and checks pass.

    Example::

        with faked((model, frames)) as (model, frames), LiveBytes() as memory:
            model(frames)
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):  # stays active: without it, a copy of a fake tensor would copy its whole mode
        copies = copy.deepcopy(things)
        with mode, _MadeUp():
            yield copies


def count_bytes(run: Callable[..., object], *arguments: object) -> int:
    """Return the peak number of bytes that a call needs in addition to its arguments."""
    with faked(arguments) as copies, LiveBytes() as memory:
        run(*copies)
    return memory.peak


def size_of(tensors: Iterable[Tensor]) -> int:
    """Return the total size of tensors in bytes."""
    return sum(tensor.nbytes for tensor in tensors)


class _MadeUp(TorchDispatchMode):
    """Returns made-up results for operations that fake tensors cannot compute."""

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
