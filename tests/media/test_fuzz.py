"""The fuzzer of `benchmarks/fuzz_readers.py`: a short run of it, and that it finds what is planted."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_readers.py"


@pytest.fixture(scope="module")
def fuzzer() -> types.ModuleType:
    spec = spec_from_file_location("fuzz_readers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["fuzz_readers"] = module  # pickle looks for its class there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def watch(fuzzer: types.ModuleType) -> Any:
    return fuzzer.Watch()  # one for all: an audit hook stays


def test_readers_read_or_refuse_two_thousand_files(tmp_path: Path) -> None:
    out = tmp_path / "results" / "fuzz.json"
    command = [sys.executable, str(SCRIPT), "--cases", "2000", "--keep", str(tmp_path), "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    record = json.loads(out.read_text())
    assert record["cases"] == 2000
    assert record["failures"] == []
    for name, row in record["kinds"].items():
        assert row["cases"] == row["read"] + row["refused"] == 250, name
        assert min(row["read"], row["refused"]) > 5, name  # the damage is neither too light nor too heavy


def test_the_same_seed_gives_the_same_cases(fuzzer: types.ModuleType) -> None:
    for kind in fuzzer.kinds().values():
        cases = [[fuzzer.damage(kind, random.Random(f"0/{i}")) for i in range(30)] for _ in range(2)]
        assert cases[0] == cases[1]
        assert len(set(cases[0])) > 15


def test_pickles_would_run_code_if_they_were_let(fuzzer: types.ModuleType) -> None:
    assert pickle.loads(pickle.dumps(fuzzer.HOSTILE[0])) != 0  # the exit status of `false`


def unpickle(path: Path) -> None:
    try:
        pickle.loads(path.read_bytes())
    except Exception as error:
        raise ValueError(f"{path}: damaged") from error


def read_elsewhere(path: Path) -> None:
    Path(__file__).read_bytes()


def write(path: Path) -> None:
    path.write_bytes(b"")


def write_beside(path: Path) -> None:
    path.with_name("other.bin").write_bytes(b"")


def call_a_program(path: Path) -> None:
    try:
        subprocess.run(["false"], check=False)
    except BaseException:
        raise ValueError(f"{path}: damaged") from None


def compute(path: Path) -> None:
    eval("1 + 1")


def compute_for_long(path: Path) -> None:
    while True:
        sum(range(1000))


def wait_for_long(path: Path) -> None:
    threading.Event().wait(9)  # Python 3.13 would audit time.sleep


def warn(path: Path) -> None:
    warnings.warn("careful", stacklevel=2)


def raise_another_error(path: Path) -> None:
    raise KeyError(str(path))


def name_no_file(path: Path) -> None:
    raise ValueError("damaged")


def ask_for_too_much(path: Path) -> None:
    try:
        bytearray(2**62)
    except MemoryError as error:
        raise ValueError(f"{path}: damaged") from error


def give_something_else(path: Path) -> str:
    return "something else"


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (unpickle, r"did pickle\.find_class\('"),
        (read_elsewhere, r"did open\("),
        (write, r"did open\("),
        (write_beside, r"did open\("),
        (call_a_program, r"did subprocess\.Popen\("),
        (compute, r"did compile\("),
        (compute_for_long, "took too long"),
        (wait_for_long, "took too long"),
        (warn, "warned: careful"),
        (raise_another_error, "KeyError"),
        (name_no_file, "does not name the file: damaged"),
        (ask_for_too_much, "ran out of memory"),
        (give_something_else, "gave something else"),
    ],
)
def test_a_planted_fault_is_found(
    fuzzer: types.ModuleType, watch: Any, tmp_path: Path, read: Callable[[Path], object], problem: str
) -> None:
    def only_when_watched(path: Path) -> object:
        return read(path) if watch.path else None

    kind = fuzzer.Kind(only_when_watched, lambda result: result is None, [pickle.dumps(os.system)])
    _, (failure, *_) = fuzzer.fuzz(
        "planted", kind, cases=2, seed=0, folder=tmp_path, watch=watch, seconds=0.05
    )
    assert re.search(problem, failure.problem)
    again = fuzzer.damage(kind, random.Random(f"0/planted/{failure.number}"))
    assert Path(failure.file).read_bytes() == again
    assert not (tmp_path / "other.bin").exists()
