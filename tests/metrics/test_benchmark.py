import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_metrics_benchmark_checks_and_times(tmp_path: Path) -> None:
    out = tmp_path / "results" / "metrics.json"
    small = ("--device", "cpu", "--clips", "1", "--size", "16", "--runs", "2", "--out", str(out))
    command = [sys.executable, str(FOLDER / "metrics.py"), *small]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["metric"] for row in rows] == ["F", "F", "J", "semantic IoU", "semantic IoU"]
    assert all(0 < row["p10"] <= row["p50"] <= row["p90"] for row in rows)
