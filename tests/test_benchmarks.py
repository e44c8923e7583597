import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_the_sampler_benchmark_checks_and_times(tmp_path: Path) -> None:
    out = tmp_path / "results" / "sampler.json"
    small = ("--device", "cpu", "--frames", "2", "--samples", "1", "3", "--runs", "2", "--out", str(out))
    command = [sys.executable, str(FOLDER / "sampler_latency.py"), *small]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [(row["frames"], row["samples"], row["sampler"]) for row in rows] == [
        (2, samples, sampler) for samples in (1, 3) for sampler in ("avslib", "plain loop")
    ]
    assert all(0 < row["p50"] <= row["p90"] <= row["p99"] for row in rows)


@pytest.mark.slow
def test_the_loading_benchmark_checks_and_times(tmp_path: Path) -> None:
    out = tmp_path / "results" / "loading.json"
    small = ("--clips", "4", "--size", "32", "--batch-size", "2", "--runs", "2", "--out", str(out))
    command = [sys.executable, str(FOLDER / "loading.py"), *small]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    report = json.loads(out.read_text())
    assert [row["way"] for row in report["rows"]] == [row["way"] for row in report["a million clips"]]
    assert report["rows"][0]["one process"]["ratio to plain"] == 1
    for row in report["rows"]:
        for place in ("one process", "one worker"):
            assert 0 < row[place]["p10"] <= row[place]["p50"] <= row[place]["p90"]
