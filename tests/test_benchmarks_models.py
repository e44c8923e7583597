"""The benchmarks of TPAVI and of models: the dense twin is one, counted bytes are real, the scripts run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avslib.fusion import TPAVI
from avslib.models import list_models
from avslib.training import published_objective

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODES = ("dot", "embedded", "gaussian")
WITHOUT_TPAVI = ("audio_blind.small", "encoder_decoder_film.small")
FUSED = [name for name in list_models("*.small") if name not in WITHOUT_TPAVI]


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    """Import a module of the benchmarks, which are scripts beside each other and no package."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))


def run(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a benchmark on the CPU in a process of its own and return what it wrote."""
    command = [sys.executable, *command_line(script, folder, *arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    return read(script, folder)


def run_here(
    monkeypatch: pytest.MonkeyPatch, benchmarks: Any, script: str, folder: Path, *arguments: str
) -> dict[str, Any]:
    """Run a benchmark in this process, which has everything imported already."""
    monkeypatch.setattr(sys, "argv", command_line(script, folder, *arguments))
    benchmarks(script).main()
    return read(script, folder)


def command_line(script: str, folder: Path, *arguments: str) -> list[str]:
    out = str(folder / f"{script}.json")
    settings = ["--device", "cpu", "--threads", "1", "--rounds", "2", "--out", out]
    return [str(FOLDER / f"{script}.py"), *settings, *arguments]


def read(script: str, folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / f"{script}.json").read_text())
    assert report["subject"] == script
    for row in report["rows"]:
        ms, speedup = row["ms"], row["speedup"]
        assert 0 < ms["p10"] <= ms["p50"] <= ms["p90"] <= ms["p99"]
        assert 0 < speedup["p10"] <= speedup["p50"] <= speedup["p90"]
    return report


def gradients(block: nn.Module, clip: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    fused, aligned = block(*clip)
    grads = torch.autograd.grad(fused, [*clip, *block.parameters()], cotangent)
    return [fused, *([] if aligned is None else [aligned]), *grads]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sound", [True, False], ids=["sound", "no sound"])
@given(
    b=st.integers(1, 2),
    t=st.integers(1, 3),
    h=st.integers(1, 3),
    w=st.integers(2, 3),
    train=st.booleans(),
    batch_norm=st.booleans(),
    normalize=st.booleans(),
)
def test_the_dense_twin_is_the_block(
    benchmarks: Any,
    mode: str,
    sound: bool,
    b: int,
    t: int,
    h: int,
    w: int,
    train: bool,
    batch_norm: bool,
    normalize: bool,
) -> None:
    plain = benchmarks("_plain")
    torch.manual_seed(0)
    block = TPAVI(
        6, audio_channels=4 if sound else None, mode=mode, batch_norm=batch_norm, normalize=normalize
    )
    block = block.double().train(train)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    dense = plain.densify(block)
    assert type(dense) is plain.DenseTPAVI
    assert type(block) is TPAVI
    clip = [torch.randn(b, t, 6, h, w, dtype=torch.float64, requires_grad=True)]
    if sound:
        clip.append(torch.randn(b, t, 4, dtype=torch.float64, requires_grad=True))
    cotangent = torch.randn_like(clip[0])
    ours, theirs = (gradients(module, clip, cotangent) for module in (block, dense))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(block.state_dict(), dense.state_dict(), rtol=1e-10, atol=1e-10)


def test_the_dense_twin_forms_the_matrix_of_all_pairs(benchmarks: Any) -> None:
    plain, weigh = benchmarks("_plain"), benchmarks("_weigh")
    block = TPAVI(8, audio_channels=4)
    clip = torch.randn(2, 3, 8, 16, 16), torch.randn(2, 3, 4)
    pairs = 4 * 2 * (3 * 16 * 16) ** 2
    assert weigh.count_bytes(plain.densify(block), *clip) > 2 * pairs
    assert weigh.count_bytes(block, *clip) < pairs / 10


def test_a_dense_model_is_dense_everywhere_and_a_copy(benchmarks: Any) -> None:
    plain, models = benchmarks("_plain"), benchmarks("_models")
    model = models.make_model("avsbench.small", torch.device("cpu"))
    dense = models.build(model, "dense")
    assert [type(block) for block in dense.fusion] == 4 * [plain.DenseTPAVI]
    assert [type(block) for block in model.fusion] == 4 * [TPAVI]
    assert all(block.batch_norm.weight.all() for block in dense.fusion)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in dense.parameters()}


@pytest.mark.parametrize(
    "name", ["avsbench.small", *(pytest.param(n, marks=pytest.mark.slow) for n in FUSED)]
)
def test_bytes_counted_without_computing_are_those_of_a_step(benchmarks: Any, name: str) -> None:
    measure, models, training = (benchmarks(module) for module in ("_measure", "_models", "training_step"))
    device = torch.device("cpu")
    model = models.make_model(name, device)
    clip = models.make_clip(model, batch=2, frames=1, size=32, device=device)
    objective = published_objective(model)
    for way in ("dense", "avslib checkpointed"):
        trained = training.make_trained(models.build(model, way), objective, clip)
        real = trained.held() + measure.peak_bytes(trained.step, device)
        assert training.count(models.build(model, way), objective, clip) == real


def test_counting_leaves_everything_as_it_is(benchmarks: Any) -> None:
    weigh = benchmarks("_weigh")
    layer, x = nn.BatchNorm1d(4), torch.randn(8, 4)
    with weigh.faked((layer, x)) as (copied, y):
        copied(y).sum().backward()
        assert torch.ones(3, dtype=torch.bool).any()
        assert y[torch.zeros(8, dtype=torch.bool)].shape == (8, 4)
    assert type(x) is Tensor
    assert layer.weight.grad is None
    assert layer.num_batches_tracked.item() == 0


def test_the_tpavi_benchmark_checks_times_and_weighs(
    monkeypatch: pytest.MonkeyPatch, benchmarks: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmarks("tpavi"), "keep_freed_memory", lambda: None)
    small = ("--squares", "4", "8", "--largest-dense", "4", "--compile", "--channels", "8", "--frames", "2")
    rows = run_here(monkeypatch, benchmarks, "tpavi", tmp_path, *small)["rows"]
    forms = [("dot", "audio"), ("embedded", "audio"), ("gaussian", "audio"), ("dot", "visual")]
    assert [
        (row["mode"], row["attends to"], row["square"], row["pass"], row["implementation"]) for row in rows
    ] == [
        (*form, square, name, way)
        for form in forms
        for square in (4, 8)
        for name in ("forward", "forward and backward")
        for way in ["dense"] * (square == 4) + ["avslib", "avslib channels last", "nn.LayerNorm"]
    ]
    for row in rows:
        assert row["bytes"] > 0
        assert row["floor ms"] > 0
        assert (row["growth"] is not None) == (row["square"] == 8 and row["implementation"] != "dense")


@pytest.mark.slow
def test_the_tpavi_benchmark_compiles(tmp_path: Path) -> None:
    small = ("--squares", "4", "--compile", "4", "--channels", "16", "--frames", "2")
    rows = run("tpavi", tmp_path, *small)["rows"]
    compiled = [row for row in rows if row["implementation"] == "avslib compiled"]
    assert [row["pass"] for row in compiled] == ["forward", "forward and backward"]


def test_the_inference_benchmark_checks_times_and_weighs(
    monkeypatch: pytest.MonkeyPatch, benchmarks: Any, tmp_path: Path
) -> None:
    small = ("--models", "diffusion_avs.small", "--size", "32", "--frames", "1", "--samples", "3")
    report = run_here(monkeypatch, benchmarks, "inference", tmp_path, *small)
    ways = ["dense", "avslib", "avslib bf16 channels last"]
    assert [row["implementation"] for row in report["rows"]] == ways
    for row in report["rows"]:
        assert row["model"] == "diffusion_avs.small"
        assert (row["batch"], row["frames"], row["size"]) == (1, 1, 32)
        assert row["clips/s"]["p50"] == pytest.approx(1e3 / row["ms"]["p50"])
        assert row["bytes"] > 0
    assert report["rows"][2]["difference"] > 0
    parts = {row["what"]: row["times one sample"]["p50"] for row in report["diffusion"]}
    assert list(parts) == ["one sample", "condition, sampler and injection", "3 samples"]
    assert parts["one sample"] == 1
    assert report["not_compiled_because"] == {}


def test_ways_that_differ_are_named(benchmarks: Any) -> None:
    check = benchmarks("inference").check_without_tf32
    logits = torch.randn(2, 3)
    runs = {"dense": lambda: logits, "avslib": lambda: logits + 1e-4}
    check(runs, atol=2e-4)
    with pytest.raises(AssertionError, match=r"avslib: off by .* more than"):
        check(runs, atol=1e-5)


@pytest.mark.slow
def test_the_inference_benchmark_segments_with_every_model(tmp_path: Path) -> None:
    ways = ("--ways", "dense", "avslib", "avslib channels last", "avslib bf16", "avslib bf16 channels last")
    report = run("inference", tmp_path, "--models", "*.small", "--size", "64", *ways)
    rows = [(row["model"], row["implementation"]) for row in report["rows"]]
    assert rows == [(name, way) for name in list_models("*.small") for way in ways[1 + (name not in FUSED) :]]


@pytest.mark.slow
def test_the_inference_benchmark_compiles_or_says_why_not(tmp_path: Path) -> None:
    small = ("--models", "avsbench.small", "--size", "32", "--frames", "1")
    report = run("inference", tmp_path, *small, "--ways", "dense", "avslib compiled")
    assert [row["implementation"] for row in report["rows"]] == ["dense", "avslib compiled"]


def test_the_training_benchmark_checks_times_and_weighs(
    monkeypatch: pytest.MonkeyPatch, benchmarks: Any, tmp_path: Path
) -> None:
    small = (
        "--size",
        "32",
        "--frames",
        "1",
        "--batch",
        "2",
        "--count",
        "--ways",
        "dense",
        "avslib",
        "avslib bf16",
    )
    models = ("avsbench.small", "diffusion_avs.small")
    report = run_here(monkeypatch, benchmarks, "training_step", tmp_path, "--models", *models, *small)
    assert [row["implementation"] for row in report["rows"]] == ["dense", "avslib", "avslib bf16"] * 2
    for row in report["rows"]:
        assert row["bytes"] > 4 * 4e6  # at least weights, gradients and two moments
        assert row["clips/s"]["p50"] == pytest.approx(2e3 / row["ms"]["p50"])


@pytest.mark.slow
def test_the_training_benchmark_trains_every_model_and_counts(tmp_path: Path) -> None:
    small = ("--models", "*.small", "--size", "64", "--frames", "2", "--batch", "2", "--count-batch", "2")
    ways = ("--ways", "dense", "avslib", "avslib checkpointed", "avslib bf16 channels last")
    counted = ("avsbench.small", "diffusion_avs.small")
    report = run("training_step", tmp_path, *small, "--count", *counted, *ways)
    names = list_models("*.small")
    assert [row["model"] for row in report["rows"]] == [
        name for name in names for _ in range(3 + (name in FUSED))
    ]
    assert [row["model"] for row in report["counted"]] == [name for name in counted for _ in range(3)]
    timed = {(row["model"], row["implementation"]): row["bytes"] for row in report["rows"]}
    for row in report["counted"]:
        assert row["bytes"] == timed[row["model"], row["implementation"]]
