from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import struct
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.media import tensor_pickle
from avslib.media.tensor_pickle import load_tensor_pickle, save_tensor_pickle

LOG_MEL = torch.randn(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))
HARMLESS: dict[str, Tensor] = {
    "plain": LOG_MEL,
    "with gradient": LOG_MEL.clone().requires_grad_(),
    "parameter": torch.nn.Parameter(LOG_MEL.clone()),
    "transposed": LOG_MEL.mT,
    "part of a larger storage": LOG_MEL[1:4, :, 5:, ::2],
    "expanded": LOG_MEL[:1].expand(5, -1, -1, -1),
    "double": LOG_MEL.double(),
    "half": LOG_MEL.half(),
    "bfloat16": LOG_MEL.bfloat16(),
    "integer": torch.arange(12).view(3, 4),
    "bool": LOG_MEL > 0,
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 1, 96, 64),
}


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", HARMLESS)
def test_a_tensor_is_what_a_plain_pickle_would_give(tmp_path: Path, name: str, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(HARMLESS[name], protocol))
    loaded = load_tensor_pickle(tmp_path / "a.pkl")
    expected = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert loaded.dtype == expected.dtype
    assert torch.equal(loaded, expected)
    assert type(loaded) is Tensor
    assert loaded.is_contiguous()
    assert not loaded.requires_grad
    loaded.add_(loaded)  # its storage is its own


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f8", "f2", "u1", "i8", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_becomes_a_tensor(tmp_path: Path, protocol: int, dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(array, protocol))
    loaded = load_tensor_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(loaded, array)
    assert loaded.is_contiguous()


def test_a_tensor_saved_on_a_gpu_comes_to_the_cpu(tmp_path: Path) -> None:
    on_cpu = pickle.dumps(LOG_MEL, protocol=2)
    pickled = on_cpu.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    inner = on_cpu.index(b"X", on_cpu.index(b"_codecs\nencode\n"))
    length = int.from_bytes(pickled[inner + 1 : inner + 5], "little") + 3
    (tmp_path / "a.pkl").write_bytes(
        pickled[: inner + 1] + length.to_bytes(4, "little") + pickled[inner + 5 :]
    )
    assert b"cuda:0" in pickled
    assert torch.equal(load_tensor_pickle(tmp_path / "a.pkl"), LOG_MEL)


@given(shape=st.lists(st.integers(0, 4), max_size=4), seed=st.integers(0, 99))
def test_what_we_save_any_reader_of_pickles_reads(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.pkl"
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    save_tensor_pickle(path, tensor.double())
    plain = pickle.loads(path.read_bytes())
    assert plain.dtype == torch.float32
    assert torch.equal(plain, tensor)
    assert torch.equal(load_tensor_pickle(path), tensor)


def test_a_part_is_saved_without_the_rest(tmp_path: Path) -> None:
    save_tensor_pickle(tmp_path / "part.pkl", LOG_MEL[:1])
    assert (tmp_path / "part.pkl").stat().st_size < 25_000


def write_hostile(canary: Path) -> dict[str, bytes]:
    shell = Call(os.system, f"touch {canary}")
    python = Call(builtins.eval, f"__import__('pathlib').Path({str(canary)!r}).touch()")
    inner = io.BytesIO()
    torch.save({"storage": shell}, inner, _use_new_zipfile_serialization=False)
    archive = io.BytesIO()
    torch.save({"storage": shell}, archive)
    rebuild = torch._utils._rebuild_tensor_v2
    in_array = np.empty(2, object)
    in_array[:] = [shell, python]
    return {
        "reduce": pickle.dumps(shell),
        "protocol 2": pickle.dumps(shell, 2),
        "protocol 0": pickle.dumps(shell, 0),
        "eval": pickle.dumps(python),
        "nested": pickle.dumps([LOG_MEL, [[shell]]]),
        "in a dictionary": pickle.dumps({"a": shell}),
        "object array": pickle.dumps(in_array),
        "instead of a storage": pickle.dumps(Call(rebuild, shell, 0, (1,), (1,), False, {})),
        "in the hooks": pickle.dumps(
            Call(rebuild, LOG_MEL.untyped_storage(), 0, (1,), (1,), False, shell),
        ),
        "inside the storage": pickle.dumps(Call(torch.storage._load_from_bytes, inner.getvalue())),
        "inside a tensor's storage": pickle.dumps(
            Call(rebuild, Call(torch.storage._load_from_bytes, inner.getvalue()), 0, (1,), (1,), False, None)
        ),
        "inside an archive": pickle.dumps(
            Call(
                rebuild, Call(torch.storage._load_from_bytes, archive.getvalue()), 0, (1,), (1,), False, None
            )
        ),
        "dotted": b"\x80\x04\x8c\x0btorch.utils\x8c\x10_rebuild.__class__\x93.",
        "instance": b"(S'touch'\nios\nsystem\n.",
        "attributes of a class": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02K\x01Q.",
    }


HOSTILE = list(write_hostile(Path("unused")))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "bad.pkl").write_bytes(write_hostile(canary)[name])
    with pytest.raises(
        ValueError, match=r"bad\.pkl: expected one pickled tensor: .* Nothing in the file was run"
    ):
        load_tensor_pickle(tmp_path / "bad.pkl")
    assert not canary.exists()


def test_these_pickles_would_run_code_if_they_were_let(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("reduce", "eval", "nested", "object array", "inside the storage"):
        pickle.loads(write_hostile(canary)[name])
        canary.unlink()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(os.system, "true"), r"found the name '(posix|nt)\.system', which no tensor needs"),
        ([Call(builtins.eval, "1")], r"found the name 'builtins\.eval'"),
        ({"a": 1}, "found the pickle instruction EMPTY_DICT"),
        ([LOG_MEL], "found a list"),
        (3, "found a int"),
        (None, "found a nonetype"),
        (np.array(["a"]), "found an array of something else than numbers"),
        (np.array([None]), "found an array of something else than numbers"),
        (torch.zeros(2, 2).to_sparse(), r"found the name 'torch\._utils\._rebuild_sparse_tensor'"),
    ],
)
def test_the_error_says_what_was_found(tmp_path: Path, value: object, message: str) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=message):
        load_tensor_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_truncated_file_is_named(tmp_path: Path, protocol: int) -> None:
    for value in (LOG_MEL[0, 0, :4, :4].clone(), np.zeros((4, 4))):
        whole = pickle.dumps(value, protocol)
        for length in range(0, len(whole), 7):
            (tmp_path / "cut.pkl").write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"cut\.pkl: expected one pickled tensor"):
                load_tensor_pickle(tmp_path / "cut.pkl")


@given(position=st.integers(0, 10**6), value=st.integers(0, 255), protocol=st.sampled_from([2, 4, 5]))
def test_any_changed_byte_gives_a_tensor_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, protocol: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.pkl"
    pickled = bytearray(pickle.dumps(torch.arange(6.0).view(2, 3), protocol))
    pickled[position % len(pickled)] = value
    path.write_bytes(pickled)
    try:
        assert load_tensor_pickle(path).is_contiguous()
    except ValueError as error:
        assert "changed.pkl" in str(error)  # noqa: PT017


def as_tensor(size: Any, stride: Any, offset: Any = 0) -> bytes:
    storage = pickle.loads(pickle.dumps(torch.zeros(4))).storage()
    return pickle.dumps(Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, None))


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (lambda: as_tensor((10**12,), (0,)), "of more than 67108864 bytes"),
        (lambda: as_tensor((5,), (1,)), "ends beyond its storage of 4 numbers"),
        (lambda: as_tensor((4,), (1,), 1), "ends beyond its storage"),
        (lambda: as_tensor((2, 2), (10**15, 1)), "ends beyond its storage"),
        (lambda: as_tensor((2,), (-1,), 2), "found a stride that is not made of whole numbers"),
        (lambda: as_tensor((2,), (1,), -1), "found a offset that is not"),
        (lambda: as_tensor((2, 2), (1,)), "found 2 sizes and 1 strides"),
        (lambda: as_tensor("ab", (1,)), "found a size that is not"),
        (lambda: b"\x80\x02Nr\xff\xff\xff\xff.", "more than the 1000 instructions"),
        (lambda: b"\x80\x04" + b"N0" * 2000 + b".", "found the pickle instruction POP"),
        (lambda: b"\x80\x04" + b")" * 2000 + b".", "more than the 1000 instructions"),
        (lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".", "expected"),
        (lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "expected one pickled tensor"),
    ],
)
def test_a_small_file_cannot_ask_for_much(tmp_path: Path, pickled: Any, message: str) -> None:
    (tmp_path / "bomb.pkl").write_bytes(pickled())
    before = time.perf_counter()
    with pytest.raises(ValueError, match=message):
        load_tensor_pickle(tmp_path / "bomb.pkl")
    assert time.perf_counter() - before < 2


def test_a_large_file_is_read_only_if_that_is_allowed(tmp_path: Path) -> None:
    save_tensor_pickle(tmp_path / "large.pkl", LOG_MEL)
    size = (tmp_path / "large.pkl").stat().st_size
    with pytest.raises(
        ValueError, match=rf"large\.pkl: expected at most 1000 bytes, got {size}; max_bytes= raises"
    ):
        load_tensor_pickle(tmp_path / "large.pkl", max_bytes=1000)
    assert torch.equal(load_tensor_pickle(tmp_path / "large.pkl", max_bytes=size), LOG_MEL)
    (tmp_path / "expanded.pkl").write_bytes(
        pickle.dumps(torch.zeros(1).expand(tensor_pickle.MAX_BYTES // 4 + 1))
    )
    with pytest.raises(ValueError, match="of more than 67108864 bytes; max_bytes= raises"):
        load_tensor_pickle(tmp_path / "expanded.pkl")
    assert load_tensor_pickle(tmp_path / "expanded.pkl", max_bytes=2**27).count_nonzero() == 0


@pytest.mark.parametrize(
    "pickled",
    [
        b"I\\H\n.",  # text that pickletools interprets before it says which instruction it is
        b"V\\u\n.",
        b"c\\H\n\\H\n.",
        pickle.dumps(torch.zeros(2), 2).replace(b"M\xe9\x03", b"M\x00\x00"),
        pickle.dumps(torch.zeros(2), 2).replace(b"\x80\x02M", b"\x80\x05M"),
    ],
)
def test_a_damaged_file_is_no_reason_to_warn(tmp_path: Path, pickled: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(pickled)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with contextlib.suppress(ValueError):
            load_tensor_pickle(tmp_path / "a.pkl")
    assert not heard


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pkl: no such pickle"):
        load_tensor_pickle(tmp_path / "none.pkl")
