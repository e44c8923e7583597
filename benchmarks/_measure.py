"""Tools of the benchmarks: time calls in turn, check their results, measure memory, record the machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import avslib

Run = Callable[[], object]


class Timing(NamedTuple):
    """How long calls took, and how many times faster they were than the reference."""

    ms: dict[str, float]
    """Quantiles p10, p50, p90, p99."""
    speedup: dict[str, float]
    """Quantiles p10, p50, p90 over rounds: the reference's time divided by this one's."""


def make_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: all)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed calls of each (default: {rounds})")
    parser.add_argument("--out", type=Path, help="JSON to write")
    return parser


def set_up(arguments: argparse.Namespace) -> torch.device:
    """Set the seed and the number of threads, and return the device."""
    torch.manual_seed(0)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return torch.device(arguments.device)


def describe(device: torch.device | str = "cpu") -> dict[str, object]:
    """Describe the machine, the versions of the packages and the commit."""
    device = torch.device(device)
    written = (":(top,exclude)benchmarks/results", ":(top,exclude)docs")  # benchmarks write there themselves
    changed = "+" if _git("status", "--porcelain", "--", ":(top)", *written) else ""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": importlib.metadata.version("timm"),
        "diffusers": importlib.metadata.version("diffusers"),
        "avslib": avslib.__version__,
        "commit": _git("rev-parse", "--short=12", "HEAD") + changed,
    }


def time_in_turn(
    runs: Mapping[str, Run],
    *,
    device: torch.device,
    rounds: int,
    reference: str | None = None,
    unchecked: Mapping[str, Run] | None = None,
    seconds: float = float("inf"),
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> dict[str, Timing]:
    """Time several ways to compute the same result, each once a round, so that disturbances affect all alike.

    Every way must give the reference's result before the timing and again in the last round. The output of a
    call is overwritten (see :func:`poison`) before the next call of the same way, so that a result left in a
    buffer does not pass.

    Args:
        runs: the ways by name; each returns tensors, in any nesting, or nothing.
        device: device on which they compute.
        rounds: number of timed calls of each.
        reference: the way that the others are compared with; None for the first.
        unchecked: calls that are timed in turn with them but compute something else, such as a lower bound.
        seconds: no new round starts after this time, once three are done.
        atol: absolute tolerance between the outputs.
        rtol: relative tolerance.

    Raises:
        AssertionError: if two ways give different results.
    """
    reference = next(iter(runs)) if reference is None else reference
    expected = [leaf.clone() for leaf in _tensors(runs[reference]())]
    outputs = {name: _checked(run(), expected, name, atol, rtol) for name, run in runs.items()}
    timed = {**runs, **(unchecked or {})}
    outputs |= {name: _tensors(run()) for name, run in (unchecked or {}).items()}
    measured: dict[str, list[float]] = {name: [] for name in timed}
    begun = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - begun > seconds:
            break
        for name, run in timed.items():
            for leaf in outputs.pop(name):
                poison(leaf)
            milliseconds, output = timed_ms(run, device)
            measured[name].append(milliseconds)
            outputs[name] = _tensors(output)
            del output
    for name in runs:
        _checked(outputs[name], expected, name, atol, rtol)
    return {name: _timing(times, measured[reference]) for name, times in measured.items()}


def timed_ms(run: Run, device: torch.device) -> tuple[float, object]:
    """Time one call in ms, with events on a GPU and the clock elsewhere; return the time and the output."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        output = run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end), output
    begun = time.perf_counter()
    output = run()
    return 1e3 * (time.perf_counter() - begun), output


def poison(tensor: Tensor) -> None:
    """Overwrite an output with NaN, or with 0 if it is not floating point, so that it cannot be reused."""
    with torch.no_grad():
        tensor.detach().fill_(float("nan") if tensor.is_floating_point() else 0)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations create and that are alive at the same time.

    It works on any device and on fake tensors, gives the same number every time, and does not see memory that
    an operation allocates only for its own use.

    Example::

        with LiveBytes() as memory:
            model(x).sum().backward()
        print(memory.peak)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = 0
        self.peak = 0
        self._storages = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in [*_tensors(args), *_tensors(kwargs)]:  # tensors that existed before do not count
            if leaf.untyped_storage() not in self._storages:
                self._storages[leaf.untyped_storage()] = None
        for leaf in _tensors(output):
            storage = leaf.untyped_storage()
            if storage not in self._storages:
                self._storages[storage] = _Held(self, storage.nbytes())
        return output


class _Held:
    """Counts bytes as alive while the dictionary keeps it, which is as long as the storage lives."""

    def __init__(self, mode: LiveBytes, size: int) -> None:
        self.mode, self.size = mode, size
        mode.alive += size
        mode.peak = max(mode.peak, mode.alive)

    def __del__(self) -> None:
        self.mode.alive -= self.size


def peak_bytes(run: Run, device: torch.device) -> int:
    """Return the peak number of bytes that a call needs in addition to its arguments.

    On a GPU the allocator reports it; elsewhere :class:`LiveBytes` counts it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes() as memory:
        run()
    return memory.peak


def write(
    arguments: argparse.Namespace, subject: str, rows: Sequence[Mapping[str, object]], **more: object
) -> None:
    """Write the measurements as JSON, if ``--out`` was given: subject, machine, settings, rows."""
    if arguments.out is None:
        return
    settings = {key: value for key, value in vars(arguments).items() if key != "out"}
    report = {
        "subject": subject,
        "machine": describe(arguments.device),
        "settings": settings,
        "rows": rows,
        **more,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _timing(times: Sequence[float], reference: Sequence[float]) -> Timing:
    ratios = [theirs / ours for theirs, ours in zip(reference, times, strict=True)]
    return Timing(quantiles(times, (10, 50, 90, 99)), quantiles(ratios, (10, 50, 90)))


def quantiles(values: Sequence[float], percent: Sequence[int]) -> dict[str, float]:
    """Return quantiles under the names p10, p50, ..."""
    if len(values) == 1:
        return {f"p{p}": values[0] for p in percent}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{p}": cuts[p - 1] for p in percent}


def _tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _checked(output: object, expected: Sequence[Tensor], name: str, atol: float, rtol: float) -> list[Tensor]:
    leaves = _tensors(output)
    for ours, theirs in zip(leaves, expected, strict=True):
        torch.testing.assert_close(
            ours, theirs, atol=atol, rtol=rtol, check_dtype=False, msg=lambda message: f"{name}: {message}"
        )
    return leaves


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    command = ["git", *arguments]
    folder = Path(__file__).parent
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
