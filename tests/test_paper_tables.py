"""The command that trains the rows of the paper's tables: what it plans, and a small real run."""

import importlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    costs, probe, runs, paper_tables = map(
        importlib.import_module, ("_paper_costs", "_paper_probe", "_paper_runs", "paper_tables")
    )


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


def test_what_a_row_begins_with_is_trained_first(tmp_path: Path) -> None:
    listed = run("paper_tables.py", tmp_path, "5", "--settings", "s4", "ms3", "--seeds", "1", "--list")
    assert [line.split()[2:4] for line in listed.splitlines()] == [
        ["s4", "full-seed0"],
        ["s4", "full_twice-seed0"],
        ["ms3", "full-seed0"],
        ["ms3", "full_from_s4-seed0"],
        ["ms3", "full_twice-seed0"],
    ]
    alone = run("paper_tables.py", tmp_path, "full_from_s4", "--seeds", "1", "--list")
    assert [line.split()[2:4] for line in alone.splitlines()] == [
        ["s4", "full-seed0"],
        ["ms3", "full_from_s4-seed0"],
    ]


def test_by_second_every_row_is_one_that_hears_and_begins_as_one(tmp_path: Path) -> None:
    arguments = ("--by-second", "--seeds", "1", "--list")
    listed = run("paper_tables.py", tmp_path, "audio_blind", "e_d", "full_from_s4", *arguments)
    assert [line.split()[2:4] for line in listed.splitlines()] == [
        ["ms3", "e_d_by_second-seed0"],
        ["s4", "full_by_second-seed0"],
        ["ms3", "full_from_s4_by_second-seed0"],
    ]


def test_a_row_in_silence_hears_nothing_in_training_and_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heard, silent = (runs.open_splits(runs.Run("tiny", "ms3", row, 0)) for row in ("e_d", "e_d_in_silence"))
    for split in ("train", "val", "test"):
        sound, silence = heard[split][0], silent[split][0]
        assert (sound.log_mel > -4).any()
        assert (silence.log_mel < -4.6).all()  # log 0.01
        assert torch.equal(sound.masks, silence.masks)


def test_a_c3n_starts_with_the_classifiers_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs.Run("tiny", "ms3", "c3n_by_second", 0)
    models = [paper_tables.ROWS[run.row].build(**runs.BUDGETS["tiny"].sizes()) for _ in range(2)]
    for model in models:
        paper_tables.start(model, run)
    (kept,) = runs.RUNS.rglob("*.safetensors")
    parts = {key.split(".")[0] for key in load_file(kept)}
    assert parts == {"visual_encoder", "audio_encoder", "audio_classifier"}
    first, second = (model.state_dict() for model in models)
    equal = {key.split(".")[0] for key in first if torch.equal(first[key], second[key])}
    assert parts | {"consensus"} <= equal
    assert not torch.equal(first["decoder.lateral.0.conv1.weight"], second["decoder.lateral.0.conv1.weight"])


def test_clips_are_made_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    making: list[str] = []

    def make(root: Path, *, setting: str, **_: object) -> None:
        assert not making
        making.append(setting)
        time.sleep(0.1)
        making.remove(setting)

    monkeypatch.setattr(runs, "write_avsbench", make)
    monkeypatch.setattr(runs, "READERS", dict.fromkeys(("s4", "ms3"), lambda *_, **__: []))
    several = [runs.Run("tiny", setting, "e_d", 0) for setting in ("s4", "ms3", "s4")]
    with ThreadPoolExecutor(3) as pool:
        assert len(list(pool.map(runs.open_splits, several))) == 3


def test_a_regression_tells_what_is_linear_and_nothing_of_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, 3, generator=generator)

    def known(frames: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        signal, other = torch.randn(2, frames, 6, generator=generator)
        error = torch.randn(frames, 3, generator=generator) * weights.norm(dim=0)  # half of the variance
        return signal @ weights + error + 5, {"signal": 3 * signal + 1, "other": other}

    told = probe.told(known(2000), known(300), known(2000))
    assert told["signal"] == pytest.approx(0.5, abs=0.05)
    assert told["other"] == pytest.approx(0, abs=0.02)


@pytest.mark.slow
def test_a_row_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    arguments = ("full_from_s4", "--budget", "tiny", "--seeds", "1", "--threads", "1", "--out", "out")
    run("paper_tables.py", tmp_path, *arguments)
    files = sorted(path.relative_to(tmp_path / "out" / "tiny") for path in (tmp_path / "out").rglob("*.json"))
    assert [path.as_posix() for path in files] == ["ms3/full_from_s4-seed0.json", "s4/full-seed0.json"]
    (tmp_path / "out" / "tiny" / "ms3" / "full_from_s4-seed0.json").unlink()
    (tmp_path / "runs" / "paper" / "tiny" / "s4" / "full-seed0" / "best.safetensors").unlink()
    with pytest.raises(AssertionError, match="full_from_s4 begins with it; to train it again, delete"):
        run("paper_tables.py", tmp_path, *arguments)


@pytest.mark.slow
def test_a_table_is_run_once_and_makes_the_page(tmp_path: Path) -> None:
    arguments = ("4", "e_d", "--budget", "tiny", "--seeds", "1", "--threads", "1", "--out", "out")
    run("paper_tables.py", tmp_path, *arguments)
    files = sorted((tmp_path / "out").rglob("*.json"))
    assert [path.name for path in files] == ["e_d-seed0.json", "full-seed0.json", "ldm-seed0.json"]
    for path in files:
        report = json.loads(path.read_text())
        assert (report["row"], report["seed"]) == (path.stem.split("-")[0], 0)
        assert len(report["test"]["true sound"]["miou"]) == report["budget"]["clips"]["ms3"]["test"]
        assert len(report["history"]) == report["budget"]["epochs"]["ms3"]
        assert ("contrastive" in report["history"][0]) == (report["row"] == "full")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    run("paper_tables.py", tmp_path, *arguments)
    run("paper_tables.py", tmp_path, "e_d", *arguments[2:], "--again")
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before
    again = json.loads((tmp_path / "out" / "tiny" / "ms3" / "again" / "e_d-seed0.json").read_text())
    # One thread, one processor: the same bits.
    assert again["test"] == json.loads(files[0].read_text())["test"]
    assert "there" in run("paper_tables.py", tmp_path, *arguments, "--list")

    sweep = ("ldm", "e_d", "--budget", "tiny", "--seeds", "2", "--out", "out")
    assert "ldm-seed1: no weights in runs" in run("paper_sweeps.py", tmp_path, *sweep)
    sweeps = tmp_path / "out" / "tiny" / "ms3" / "sweeps"
    (mask,) = json.loads((sweeps / "e_d-seed0.json").read_text())["samples"]  # the one that it has
    tested = json.loads(files[0].read_text())["test"]["true sound"]
    assert mask["miou"] == pytest.approx(sum(tested["miou"]) / len(tested["miou"]), abs=1e-4)
    assert mask["best sample"] == pytest.approx(mask["miou"])
    swept = json.loads((sweeps / "ldm-seed0.json").read_text())
    best = [found["best sample"] for found in swept["samples"]]
    assert best == sorted(best)
    assert [found["samples"] for found in swept["samples"]] == [1, 2, 4, 8, 16, 32]
    ways = {(found["scheduler"], found["steps"]): found for found in swept["samplers"]}
    assert len(ways) == 15
    assert set(swept["told of z0 by"]) == set(probe.SOURCES)
    one = ways["DDIMScheduler", 10]  # how it was tested, but for the noise
    assert one["std of samples"] == pytest.approx(
        json.loads(files[2].read_text())["test"]["std of samples"], rel=0.3
    )
    assert run("paper_sweeps.py", tmp_path, *sweep).startswith("ldm-seed0: there")

    (tmp_path / "docs").mkdir()
    run("paper_report.py", tmp_path, "--results", "out", "--docs", "docs")
    page = (tmp_path / "docs" / "paper_tables.md").read_text()
    assert "contrastive learning helps<br>`full` over `ldm`" in page
    assert "with 1 seed each" in page
    gains = [costs.late_gain(json.loads(path.read_text())) for path in files]
    e_d, full, ldm = (gain > costs.STILL_LEARNING for gain in gains)
    early = (ldm or e_d) + (full or ldm)  # of the claims that the LDM beats E-D, and that full beats the LDM
    told = [
        f"{count} {words}" for count, words in ((early, "too early"), (2 - early, "with one seed")) if count
    ]
    found = f"0 agree, 0 disagree, 0 undecided, {', '.join(told)}."  # one seed decides nothing
    assert f"2 of 14 claims were run: {found}" in page
    assert "| `ldm` | DPMSolverMultistep |" in page
    assert "(`ldm`) | 32 |" in page
    assert "| fused pyramid |" in page
