"""Read a pickled tensor, such as AVSBench's log-mels, without running code from the pickle."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_BYTES = 64 * 2**20
"""Default limit on the size of a file and of its tensor; a log-mel of five seconds takes 123 kB."""

_MAX_OPCODES = 1000  # a tensor takes about 40
# No instruction here makes a dictionary: with one, BUILD could set attributes, even those of a class.
_ALLOWED = """
    PROTO FRAME STOP GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1
    MARK EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS SHORT_BINBYTES BINBYTES
    BINBYTES8 BYTEARRAY8 SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE
"""
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


def load_tensor_pickle(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Tensor:
    """Read a pickle that holds one tensor or one array of numbers, and nothing else.

    ``pickle.load`` runs any code that a file asks for. Here each name that a tensor needs stands for an inert
    record, and any other name is refused without being looked up. The tensor is built from the records once
    the file has been read.

    Args:
        path: a file written by ``pickle.dump`` with protocol 2 or later, from a tensor on any device or a
            NumPy array of float16 to float64, int8 to int64 or uint8.
        max_bytes: largest size of the file, and of the tensor, that is read.

    Returns:
        The tensor: contiguous, on the CPU, without gradient.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or too large, or holds anything else; the message says what.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such pickle")
    if path.stat().st_size > max_bytes:
        raise ValueError(
            f"{path}: expected at most {max_bytes} bytes, got {path.stat().st_size}; max_bytes= raises the "
            "limit"
        )
    data = path.read_bytes()
    try:
        _check_opcodes(data)
        return _build(_RecordUnpickler(io.BytesIO(data)).load(), max_bytes)
    except Exception as error:  # a damaged or hostile file raises errors of many types
        raise ValueError(
            f"{path}: expected one pickled tensor: {error}. Nothing in the file was run; if it should hold a "
            "log-mel, fetch it again or compute it from the WAV file"
        ) from error


def save_tensor_pickle(path: str | Path, tensor: Tensor) -> None:
    """Write a tensor in the format of AVSBench's log-mels: a plain pickle, float32, on the CPU.

    Args:
        path: the file, in a folder that exists.
        tensor: any shape.
    """
    plain = tensor.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
    with Path(path).open("wb") as file:
        pickle.dump(plain, file, protocol=4)


_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1")


class _Storage(NamedTuple):
    data: bytes


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: object = None
    hooks: object = None
    metadata: object = None


class _Parameter(NamedTuple):
    tensor: _Tensor
    requires_grad: object = None
    hooks: object = None


class _DType:
    """Record of a pickled NumPy dtype."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """Record of a pickled NumPy array, which is made empty and filled later."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.state = (data, dtype, shape, "F" if is_fortran else "C")


class _Buffer(NamedTuple):
    data: bytes
    dtype: _DType
    shape: tuple[int, ...]
    order: Literal["C", "F"]


def _empty_hooks() -> None:
    """Stand for ``OrderedDict()``, which every pickled tensor carries."""


def _encode(text: str, encoding: str) -> bytes:
    """Decode bytes, which protocol 2 writes as text."""
    if encoding != "latin1":
        raise ValueError(f"found text to be encoded as {str(encoding)[:20]!r}")
    return text.encode("latin1")


_RECORDS: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("collections", "OrderedDict"): _empty_hooks,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
}


class _RecordUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        record = _RECORDS.get((module, name))
        if record is None:
            raise ValueError(f"found the name {f'{module}.{name}'[:80]!r}, which no tensor needs")
        return record


def _check_opcodes(data: bytes) -> None:
    """Refuse instructions that could cost memory or time by themselves, such as a memo of 2**32 entries."""
    allowed = frozenset(_ALLOWED.split())
    file = io.BytesIO(data)
    for _ in range(_MAX_OPCODES):
        code = file.read(1).decode("latin1")
        if code not in _OPCODES:
            raise ValueError(f"found {code!r} in the place of a pickle instruction")
        name, argument = _OPCODES[code].name, _OPCODES[code].arg
        if name not in allowed:
            raise ValueError(f"found the pickle instruction {name}, which no tensor needs")
        if name == "STOP":
            return
        if name == "GLOBAL":  # pickletools would interpret escapes, and warn of unknown ones
            file.readline()
            file.readline()
        elif argument is not None:
            value = argument.reader(file)
            if name == "LONG_BINPUT" and int(value) > _MAX_OPCODES:
                break
    raise ValueError(f"found more than the {_MAX_OPCODES} instructions that one tensor may need")


def _build(record: object, max_bytes: int) -> Tensor:
    if isinstance(record, _Parameter):
        record = record.tensor
    if isinstance(record, _Tensor):
        return _build_tensor(record, max_bytes)
    if isinstance(record, _Array):
        record = _Buffer(*record.state)
    if isinstance(record, _Buffer):
        return _build_array(record, max_bytes)
    raise ValueError(f"found a {type(record).__name__.lstrip('_').lower()}")


def _build_tensor(record: _Tensor, max_bytes: int) -> Tensor:
    data = record.storage.data
    if not isinstance(data, bytes) or data.startswith(b"PK"):  # an archive could unpack to any size
        raise ValueError("found a storage in another format than pickle writes")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch")  # about unknown protocol numbers
            storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own message advises loading it anyway
        raise ValueError("found a storage that torch's restricted loader refuses") from error
    if not isinstance(storage, torch.storage.TypedStorage):
        raise ValueError(f"found a {type(storage).__name__} in the place of a storage")
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    _check_sizes(record.size, flat.element_size(), max_bytes)
    _check_whole_numbers("stride", record.stride)
    _check_whole_numbers("offset", (record.offset,))
    if len(record.stride) != len(record.size):
        raise ValueError(f"found {len(record.size)} sizes and {len(record.stride)} strides")
    last = record.offset + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True))
    if 0 not in record.size and last >= len(flat):
        raise ValueError(f"found a tensor that ends beyond its storage of {len(flat)} numbers")
    return flat.as_strided(record.size, record.stride, record.offset).clone(
        memory_format=torch.contiguous_format
    )


def _build_array(record: _Buffer, max_bytes: int) -> Tensor:
    if not isinstance(record.dtype, _DType) or record.dtype.code not in _NUMBERS:
        raise ValueError("found an array of something else than numbers")
    dtype = np.dtype(record.dtype.code).newbyteorder(record.dtype.order)
    _check_sizes(record.shape, dtype.itemsize, max_bytes)
    array = np.frombuffer(record.data, dtype).reshape(record.shape, order=record.order)
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))


def _check_sizes(sizes: object, item_bytes: int, max_bytes: int) -> None:
    numbers = _check_whole_numbers("size", sizes)
    if math.prod(numbers) * item_bytes > max_bytes:
        raise ValueError(f"found a tensor of more than {max_bytes} bytes; max_bytes= raises the limit")


def _check_whole_numbers(name: str, numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"found a {name} that is not made of whole numbers")
    return numbers
