"""The command that trains the rows of the paper's tables: what it plans, and a small real run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, folder: Path, *arguments: str) -> str:
    """Run a script with ``folder`` as its working directory; return what it printed."""
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_list_trains_nothing_and_says_what_is_there(tmp_path: Path) -> None:
    there = tmp_path / "out" / "cpu" / "ms3" / "full-seed1.json"
    there.parent.mkdir(parents=True)
    there.write_text("{}")
    printed = run(
        "paper_tables.py",
        tmp_path,
        "4",
        "d8",
        "--budget",
        "cpu",
        "--seeds",
        "2",
        "--out",
        "out",
        "--list",
    )
    lines = [line.split(maxsplit=3)[:3] for line in printed.replace("to do", "to-do").splitlines()]
    assert lines == [
        ["to-do", "ms3", "ldm-seed0"],
        ["to-do", "ms3", "full-seed0"],
        ["to-do", "ms3", "d8-seed0"],
        ["to-do", "ms3", "ldm-seed1"],
        ["there", "ms3", "full-seed1"],
        ["to-do", "ms3", "d8-seed1"],
    ]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_table_is_run_once_and_makes_the_page(tmp_path: Path) -> None:
    arguments = ("4", "--budget", "tiny", "--seeds", "1", "--threads", "1", "--out", "out")
    run("paper_tables.py", tmp_path, *arguments)
    files = sorted((tmp_path / "out").rglob("*.json"))
    assert [path.name for path in files] == ["full-seed0.json", "ldm-seed0.json"]
    for path in files:
        report = json.loads(path.read_text())
        assert (report["row"], report["seed"]) == (path.stem.split("-")[0], 0)
        assert len(report["test"]["true sound"]["miou"]) == report["budget"]["clips"]["ms3"]["test"]
        assert len(report["history"]) == report["budget"]["epochs"]["ms3"]
        assert ("contrastive" in report["history"][0]) == (report["row"] == "full")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    run("paper_tables.py", tmp_path, *arguments)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before
    assert "there" in run("paper_tables.py", tmp_path, *arguments, "--list")

    (tmp_path / "docs").mkdir()
    run("paper_report.py", tmp_path, "--results", "out", "--docs", "docs")
    page = (tmp_path / "docs" / "paper_tables.md").read_text()
    assert "contrastive learning helps (IV)" in page
    assert "with 1 seed each" in page
    assert "- undecided, 1 of" in page  # one seed decides nothing
