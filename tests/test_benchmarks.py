"""The benchmarks at tiny settings: they check, they time, and what they write is whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(script: str, folder: Path, *arguments: str, **environment: str) -> tuple[dict[str, Any], str]:
    """Run a benchmark on the CPU; return what it wrote and what it printed."""
    out = folder / "results" / f"{script}.json"
    command = [sys.executable, str(FOLDER / f"{script}.py"), *arguments, "--device", "cpu", "--out", str(out)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(out.read_text())
    assert report["subject"] == script
    assert report["machine"]["device"]
    assert report["settings"]["device"] == "cpu"
    return report, result.stdout


def check_timing(row: dict[str, Any], *, reference: str) -> None:
    """Check that the quantiles are there and in order."""
    ms = row["ms"]
    assert list(ms) == ["p10", "p50", "p90", "p99"]
    assert 0 < ms["p10"] <= ms["p50"] <= ms["p90"] <= ms["p99"]
    check_speedup(row, reference=reference)


def check_speedup(row: dict[str, Any], *, reference: str) -> None:
    """Check that the ratios are there and in order, and that the reference is as fast as itself."""
    speedup = row["speedup"]
    assert list(speedup) == ["p10", "p50", "p90"]
    assert 0 < speedup["p10"] <= speedup["p50"] <= speedup["p90"]
    if row["implementation"] == reference:
        assert set(speedup.values()) == {1}


def test_the_sampler_benchmark_checks_and_times(tmp_path: Path) -> None:
    small = ("--frames", "2", "--samples", "1", "3", "--compile", "--steps", "2", "--rounds", "2")
    report, printed = run("sampler_latency", tmp_path, *small)
    assert [(row["frames"], row["samples"], row["implementation"]) for row in report["rows"]] == [
        (2, samples, way) for samples in (1, 3) for way in ("diffusers loop", "avslib", "read the weights")
    ]
    for row in report["rows"]:
        check_timing(row, reference="diffusers loop")
        assert (row["times the weights"] == 1) == (row["implementation"] == "read the weights")
        assert row["implementation"] in printed
    assert report["parameters"] > 1e6


@pytest.mark.slow
def test_the_sampler_benchmark_compiles(tmp_path: Path) -> None:
    small = ("--frames", "1", "2", "--samples", "1", "--compile", "2", "--steps", "2", "--rounds", "2")
    report, _ = run("sampler_latency", tmp_path, *small)
    assert report["not_compiled_because"] is None
    compiled = [row for row in report["rows"] if row["implementation"] == "avslib compiled"]
    assert [row["frames"] for row in compiled] == [2]
    check_timing(compiled[0], reference="diffusers loop")


@pytest.mark.slow
def test_the_sampler_benchmark_does_without_a_compiler(tmp_path: Path) -> None:
    small = ("--frames", "2", "--samples", "1", "--compile", "2", "--steps", "2", "--rounds", "1")
    nothing = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    report, printed = run("sampler_latency", tmp_path, *small, **nothing)
    assert "nothing is compiled: " in printed
    assert report["not_compiled_because"]
    assert "avslib compiled" not in {row["implementation"] for row in report["rows"]}


def test_the_metrics_benchmark_checks_and_times(tmp_path: Path) -> None:
    report, _ = run("metrics", tmp_path, "--clips", "1", "2", "--size", "16", "--rounds", "1")
    assert [(row["score"], row["clips"], row["implementation"]) for row in report["rows"]] == [
        (score, clips, way)
        for score in ("J", "F", "semantic IoU")
        for clips in (1, 2)
        for way in ("loop", "avslib")
    ]
    for row in report["rows"]:
        check_timing(row, reference="loop")
        assert row["bytes"] > 0


@pytest.mark.slow
def test_the_loading_benchmark_checks_and_times(tmp_path: Path) -> None:
    small = ("--clips", "4", "--size", "32", "--batch-size", "2", "--rounds", "2")
    report, _ = run("loading", tmp_path, *small)
    ways = [row["implementation"] for row in report["a million clips"]]
    assert [(row["workers"], row["implementation"]) for row in report["rows"]] == [
        (workers, way) for workers in (0, 1) for way in ways
    ]
    for row in report["rows"]:
        rates = row["clips/s"]
        assert 0 < rates["p10"] <= rates["p50"] <= rates["p90"]
        check_speedup(row, reference="Pillow, plain")
        assert row["bytes a clip"] > 0


def test_the_import_benchmark_times_processes_of_their_own(tmp_path: Path) -> None:
    report, _ = run("import_time", tmp_path, "--statements", "import json", "import PIL", "--rounds", "1")
    plain, pillow = report["rows"]
    assert [plain["implementation"], pillow["implementation"]] == ["import json", "import PIL"]
    assert (plain["loads"], pillow["loads"]) == ([], ["PIL"])
    assert plain["ms beyond the first"] == 0
    for row in report["rows"]:
        check_timing(row, reference="import json")


@pytest.mark.slow
def test_avslib_loads_nothing_large_beside_torch(tmp_path: Path) -> None:
    small = ("--statements", "import torch", "import torch, avslib", "--rounds", "1")
    report, _ = run("import_time", tmp_path, *small)
    assert report["rows"][0]["loads"] == report["rows"][1]["loads"]
