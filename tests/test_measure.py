"""The harness of the benchmarks, `benchmarks/_measure.py`: it must let no wrong or stale answer be timed."""

import argparse
import importlib.util
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

CPU = torch.device("cpu")
FLOAT, NUMBERS = 4, 1000


def _load() -> Any:
    path = Path(__file__).parents[1] / "benchmarks" / "_measure.py"
    spec = importlib.util.spec_from_file_location("_measure", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measure = _load()


def answer() -> Tensor:
    return torch.arange(3.0)


def test_every_way_is_timed_in_every_round() -> None:
    calls: list[str] = []

    def way(name: str) -> Any:
        return lambda: calls.append(name) or answer()

    timings = measure.time_in_turn({"a": way("a"), "b": way("b")}, device=CPU, rounds=4)
    assert calls == ["a", "a", "b", *4 * ["a", "b"]]  # what is expected, the check, and the rounds
    assert list(timings) == ["a", "b"]


def test_quantiles_are_in_order_and_the_speedup_is_that_over_the_reference() -> None:
    def slow() -> Tensor:
        time.sleep(0.02)
        return answer()

    timings = measure.time_in_turn({"fast": answer, "slow": slow}, device=CPU, rounds=5, reference="slow")
    for ms, speedup in timings.values():
        assert list(ms) == ["p10", "p50", "p90", "p99"]
        assert sorted(ms.values()) == list(ms.values())
        assert list(speedup) == ["p10", "p50", "p90"]
        assert sorted(speedup.values()) == list(speedup.values())
    assert timings["slow"].ms["p10"] >= 20
    assert timings["slow"].speedup == {"p10": 1, "p50": 1, "p90": 1}
    assert timings["fast"].speedup["p50"] > 1


def test_speedups_are_quantiles_of_the_ratios_of_rounds() -> None:
    ours, theirs = [1.0, 2.0, 4.0], [10.0, 10.0, 10.0]  # not the ratio of the medians' neighbours
    assert measure._timing(ours, theirs).speedup == pytest.approx({"p10": 3.0, "p50": 5.0, "p90": 9.0})


def test_no_round_begins_late_but_the_first_three() -> None:
    calls: list[int] = []
    measure.time_in_turn({"a": lambda: calls.append(0)}, device=CPU, rounds=50, seconds=0)
    assert len(calls) == 2 + 3


def test_a_wrong_answer_raises_and_is_named() -> None:
    ways = {"right": answer, "wrong": lambda: answer() + 1e-3}
    with pytest.raises(AssertionError, match="wrong: "):
        measure.time_in_turn(ways, device=CPU, rounds=1)
    measure.time_in_turn(ways, device=CPU, rounds=1, atol=1e-2)


def test_an_answer_that_is_missing_raises() -> None:
    with pytest.raises(ValueError, match="longer"):
        measure.time_in_turn({"both": lambda: (answer(), answer()), "one": answer}, device=CPU, rounds=1)


def test_an_answer_that_is_wrong_from_the_second_round_on_raises() -> None:
    calls: list[int] = []

    def tired() -> Tensor:
        calls.append(0)
        return answer() if len(calls) == 1 else answer() + 1

    with pytest.raises(AssertionError, match="tired: "):
        measure.time_in_turn({"right": answer, "tired": tired}, device=CPU, rounds=1)


def test_an_answer_left_in_a_buffer_raises() -> None:
    buffer = torch.empty(3)
    calls: list[int] = []

    def stale() -> Tensor:
        if not calls:
            calls.append(0)
            buffer.copy_(answer())
        return buffer

    with pytest.raises(AssertionError, match=r"(?s)stale: .*nan"):
        measure.time_in_turn({"right": answer, "stale": stale}, device=CPU, rounds=1)


def test_a_buffer_that_is_written_anew_is_an_answer() -> None:
    buffer = torch.empty(3)
    measure.time_in_turn({"right": answer, "own": lambda: buffer.copy_(answer())}, device=CPU, rounds=2)


def test_what_is_unchecked_is_timed_and_may_give_anything() -> None:
    timings = measure.time_in_turn(
        {"right": answer}, unchecked={"bound": lambda: torch.ones(())}, device=CPU, rounds=2
    )
    assert list(timings) == ["right", "bound"]
    assert timings["bound"].speedup["p50"] > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_poison_leaves_nothing(dtype: torch.dtype) -> None:
    tensor = torch.ones(4, dtype=dtype)
    measure.poison(tensor)
    assert tensor.isnan().all() if dtype.is_floating_point else not tensor.any()


def test_poison_takes_what_has_a_gradient() -> None:
    weight = torch.ones(4, requires_grad=True)
    output = weight * 2
    measure.poison(output)
    assert output.isnan().all()
    assert not weight.isnan().any()


def test_quantiles_of_one_value_are_that_value() -> None:
    assert measure.quantiles([7.0], (10, 50, 90, 99)) == {"p10": 7, "p50": 7, "p90": 7, "p99": 7}


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_quantiles_are_torchs(values: list[float]) -> None:
    ours = measure.quantiles(values, (10, 50, 90, 99))
    theirs = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.1, 0.5, 0.9, 0.99], dtype=torch.float64)
    )
    assert list(ours.values()) == pytest.approx(theirs.tolist(), rel=1e-9, abs=1e-9)
    assert ours["p50"] == pytest.approx(statistics.median(values))


def test_peak_counts_what_lives_at_the_same_time() -> None:
    x = torch.ones(NUMBERS)

    def run() -> Tensor:
        a = x + 1  # 1
        b = a * 2  # 2
        del a  # 1
        c = b.view(10, -1).T  # 1, for a view is no memory
        c += 1  # 1, in place
        return torch.cat([b, c.flatten()])  # 1 + 1 for flatten, which copies here, + 2

    assert measure.peak_bytes(run, CPU) == 4 * NUMBERS * FLOAT


def test_peak_does_not_count_the_arguments() -> None:
    x = torch.ones(NUMBERS)
    assert measure.peak_bytes(lambda: x.mul_(2), CPU) == 0
    assert measure.peak_bytes(lambda: x.view(10, -1).T, CPU) == 0


def test_peak_counts_backward() -> None:
    x = torch.ones(NUMBERS, requires_grad=True)

    def run() -> None:
        y = x.exp().exp()  # both are kept for backward: 2
        y.sum().backward()  # the sum and its gradient, one number each, and never more than 2 gradients: 2

    assert measure.peak_bytes(run, CPU) == 4 * NUMBERS * FLOAT + 2 * FLOAT


def test_peak_is_the_same_without_memory() -> None:
    def run() -> None:
        x = torch.ones(NUMBERS, requires_grad=True)
        x.exp().exp().sum().backward()

    with FakeTensorMode():
        fake = measure.peak_bytes(run, CPU)
    assert fake == measure.peak_bytes(run, CPU)


def test_memory_is_given_back() -> None:
    x = torch.ones(NUMBERS)
    with measure.LiveBytes() as memory:
        y = x + 1
        assert memory.alive == NUMBERS * FLOAT
        del y
        assert memory.alive == 0
        for _ in range(10):
            x + 1
    assert memory.peak == NUMBERS * FLOAT


def test_what_is_written_says_where_it_was_measured(tmp_path: Path) -> None:
    parser = measure.make_parser("about", rounds=3)
    parser.add_argument("--clips", type=int, nargs="+")
    out = tmp_path / "new" / "report.json"
    arguments = parser.parse_args(["--device", "cpu", "--clips", "1", "2", "--out", str(out)])
    measure.write(arguments, "subject", [{"ms": {"p50": 0.1}}], more=1)
    report = json.loads(out.read_text())
    assert list(report) == ["subject", "machine", "settings", "rows", "more"]
    assert report["settings"] == {"device": "cpu", "threads": None, "rounds": 3, "clips": [1, 2]}
    assert report["rows"] == [{"ms": {"p50": 0.1}}]
    assert report["machine"]["torch"] == torch.__version__
    assert {"device", "processor", "cores", "threads", "python", "avslib", "commit"} <= set(report["machine"])


def test_nothing_is_written_where_none_asked(tmp_path: Path) -> None:
    measure.write(argparse.Namespace(device="cpu", out=None), "subject", [])
    assert list(tmp_path.iterdir()) == []


def test_setting_up_sets_threads_and_seed() -> None:
    threads = torch.get_num_threads()
    parser = measure.make_parser(None, rounds=1)
    drawn = []
    for _ in range(2):
        assert measure.set_up(parser.parse_args(["--device", "cpu", "--threads", "1"])) == CPU
        drawn.append(torch.rand(()).item())
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert drawn[0] == drawn[1]
    assert not math.isnan(drawn[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_timed_and_weighed() -> None:
    device = torch.device("cuda")
    x = torch.ones(2**20, device=device)
    timings = measure.time_in_turn({"a": lambda: x + 1, "b": lambda: 1 + x}, device=device, rounds=3)
    assert all(ms["p50"] > 0 for ms, _ in timings.values())
    assert measure.peak_bytes(lambda: x + 1, device) == 2**22
