import json
import subprocess
import sys
from pathlib import Path

import pytest

from avslib import DiffusionAVS

EXAMPLE = Path(__file__).parents[1] / "examples" / "diffusion_avs.py"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.parametrize("setting", ["ms3", pytest.param("s4", marks=pytest.mark.slow)])
def test_the_example_trains_evaluates_and_draws(setting: str, tmp_path: Path) -> None:
    small = ("--setting", setting, "--clips", "8", "--size", "48", "--num-samples", "2", "--epochs", "1")
    result = run(tmp_path, *small)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "runs" / f"demo-{setting}-seed0"
    for name in ("config.json", "metrics.json", "curves.png", "predictions.png", "model/model.safetensors"):
        assert (folder / name).stat().st_size > 0
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = [
        "true sound",
        "silence",
        "another clip's sound",
        "latent: one sample",
        "latent: noise",
        "latent: true z0",
    ]
    assert list(metrics["test"]) == [*rows, "audio-blind ceiling"]
    for row in (*rows, "audio-blind ceiling"):
        assert 0 <= metrics["test"][row]["miou"] <= 1
        assert row in result.stdout
    DiffusionAVS.from_pretrained(folder / "model")

    # a second call finds the clips made; with --resume it goes on after the epoch that is done
    again = run(tmp_path, *small[:-1], "2", "--resume")
    assert again.returncode == 0, again.stderr
    history = json.loads((folder / "metrics.json").read_text())["history"]
    assert [record["epoch"] for record in history] == [1, 2]
    assert history[0] == metrics["history"][0]


def test_the_papers_recipe_asks_for_the_real_set(tmp_path: Path) -> None:
    result = run(tmp_path, "--preset", "paper-pvt")
    assert result.returncode == 2
    assert "--preset paper-pvt trains on the real set: say where it is with --data-root" in result.stderr


def test_a_wrong_root_ends_with_what_to_do(tmp_path: Path) -> None:
    result = run(tmp_path, "--preset", "paper-r50", "--data-root", "nowhere")
    assert result.returncode != 0
    assert "no such table; root must be the folder that holds 'Multi-sources'" in result.stderr


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    """Both take part in training and evaluation; the first alone writes."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(EXAMPLE),
    ]
    small = ["--clips", "8", "--size", "48", "--num-samples", "2", "--epochs", "1", "--batch-size", "2"]
    result = subprocess.run(
        [*launcher, *small], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "runs/demo-ms3-seed0/metrics.json").read_text())
    assert 0 <= metrics["test"]["true sound"]["miou"] <= 1
    assert result.stdout.count("audio-blind ceiling") == 1
