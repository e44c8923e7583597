from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import avslib
from avslib.data import AVSBenchMS3, AVSBenchS4, write_avsbench
from avslib.fusion import PyramidFiLM, label_similarity
from avslib.training import evaluate
from tests import _golden

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ("--clips", "8", "--size", "48", "--epochs", "1", "--pretrain-clips", "16")
SOUNDS = ["true sound", "silence", "another clip's sound"]
slow = pytest.mark.slow


def run(folder: Path, example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{example}.py"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few clips of both settings, made once."""
    root = tmp_path_factory.mktemp("data")
    for setting in ("s4", "ms3"):
        write_avsbench(root, setting=setting, clips={"train": 8, "val": 2, "test": 2}, size=48, videos=False)
    return root


CASES = [  # setting, example, its class, further arguments, further rows
    ("s4", "avsbench", "AVSBenchBaseline", (), []),
    ("ms3", "c3n", "C3N", (), []),
    *(
        pytest.param(*case, marks=slow)
        for case in (
            ("ms3", "avsbench", "AVSBenchBaseline", (), []),
            ("s4", "avsbench", "AVSBenchBaseline", ("--matching-weight", "0.5"), []),
            ("s4", "c3n", "C3N", (), []),
            ("ms3", "cvae", "CVAESegmenter", ("--num-samples", "2"), ["one sample"]),
            ("s4", "cvae", "CVAESegmenter", ("--latent-dim", "8", "--kl-weight", "1"), ["one sample"]),
            ("ms3", "ecmvae", "ECMVAE", ("--num-samples", "2"), ["one sample"]),
            ("s4", "ecmvae", "ECMVAE", ("--num-samples", "2", "--neck", "dilated"), ["one sample"]),
            ("ms3", "audio_blind", "AudioBlind", (), []),
            ("s4", "audio_blind", "AudioBlind", ("--temporal", "--decoder", "fpn"), []),
            ("ms3", "own_model", "GatedSegmenter", (), []),
        )
    ),
]


@pytest.mark.parametrize(("setting", "example", "kind", "arguments", "rows"), CASES)
def test_an_example_leaves_a_model_that_gives_its_numbers_again(
    setting: str,
    example: str,
    kind: str,
    arguments: tuple[str, ...],
    rows: list[str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = run(tmp_path, example, "--setting", setting, "--data-root", str(data), *SMALL, *arguments)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "runs" / f"{example}-demo-{setting}-seed0"
    for name in ("config.json", "curves.png", "predictions.png"):
        assert (folder / name).stat().st_size > 0
    table = json.loads((folder / "metrics.json").read_text())["test"]
    assert list(table) == [*SOUNDS, *rows]
    assert all(row in result.stdout for row in table)
    if example == "audio_blind":
        assert table["true sound"] == table["silence"] == table["another clip's sound"]

    monkeypatch.syspath_prepend(str(EXAMPLES))
    home = avslib if hasattr(avslib, kind) else importlib.import_module(example)
    model = getattr(home, kind).from_pretrained(folder / "model")
    test = {"s4": AVSBenchS4, "ms3": AVSBenchMS3}[setting](data, "test", size=(48, 48))
    num_samples = 2 if "--num-samples" in arguments else 8
    assert evaluate(model, test, num_samples=num_samples) == pytest.approx(table["true sound"], abs=1e-6)

    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"# {kind}" in card
    assert f"from {'avslib.models' if home is avslib else example} import {kind}" in card
    assert f"{setting.upper()}, AVSBench: 8 to train, 2 to test, 48 x 48." in card
    assert "`avsbench`, one clip a batch." in card
    for row, scores in table.items():
        for name, score in scores.items():
            assert f"| {name}, {row} | {score:.3f} |" in card


@pytest.mark.parametrize(
    ("setting", "arguments"), [("ms3", ()), pytest.param("s4", ("--fusion", "film"), marks=slow)]
)
def test_the_demo_makes_its_data_and_can_be_resumed(
    setting: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    small = (*SMALL, "--setting", setting, "--num-samples", "2", *arguments)
    result = run(tmp_path, "diffusion_avs", *small)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "runs" / f"diffusion_avs-demo-{setting}-seed0"
    for name in ("config.json", "metrics.json", "curves.png", "predictions.png", "model/model.safetensors"):
        assert (folder / name).stat().st_size > 0
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = [*SOUNDS, "latent: one sample", "latent: noise", "latent: true z0", "audio-blind ceiling"]
    assert list(metrics["test"]) == rows
    for row in rows:
        assert 0 <= metrics["test"][row]["miou"] <= 1
        assert row in result.stdout
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"{setting.upper()}, synthetic clips: 8 to train, 2 to test, 48 x 48." in card
    model = avslib.DiffusionAVS.from_pretrained(folder / "model")
    assert isinstance(model.fusion, PyramidFiLM) == ("film" in arguments)

    # a second call finds the clips made; with --resume it goes on after the epoch that is done
    again = run(tmp_path, "diffusion_avs", *small, "--epochs", "2", "--resume")
    assert again.returncode == 0, again.stderr
    history = json.loads((folder / "metrics.json").read_text())["history"]
    assert [record["epoch"] for record in history] == [1, 2]
    assert history[0] == metrics["history"][0]


def test_the_papers_recipe_asks_for_the_real_set(tmp_path: Path) -> None:
    result = run(tmp_path, "diffusion_avs", "--preset", "paper-pvt")
    assert result.returncode == 2
    assert "--preset paper-pvt trains on the real set: say where it is with --data-root" in result.stderr


def test_weights_of_latents_are_numbers(tmp_path: Path) -> None:
    result = run(tmp_path, "diffusion_avs", "--decode-from", "a=b")
    assert result.returncode == 2
    assert "argument --decode-from: expected NAME=WEIGHT,NAME=WEIGHT, got 'a=b'" in result.stderr


@slow
def test_a_wrong_root_ends_with_what_to_do(tmp_path: Path) -> None:
    result = run(tmp_path, "diffusion_avs", "--preset", "paper-r50", "--data-root", "nowhere")
    assert result.returncode != 0
    assert "no such table; root must be the folder into which the dataset was unpacked" in result.stderr


@slow
@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_help_says_what_the_model_is_and_what_the_demo_does(example: str, tmp_path: Path) -> None:
    result = run(tmp_path, example, "--help")
    assert result.returncode == 0
    assert "Without arguments, the demo:" in result.stdout
    assert f"python examples/{example}.py --preset paper-pvt" in result.stdout
    assert f"runs/{example}-PRESET-SETTING-seedN" in result.stdout


@slow
def test_the_published_c3n_says_what_it_needs(tmp_path: Path) -> None:
    paper = ("--preset", "paper-pvt", "--data-root", ".")
    result = run(tmp_path, "c3n", *paper, "--similarity", "none", "--vggish-pca", "pca.pth")
    assert result.returncode == 2
    assert "needs also --visual-labels, --audio-labels, --audioset-weights" in result.stderr
    files = [f"--{name}=x" for name in ("visual-labels", "audio-labels", "audioset-weights", "vggish-pca")]
    result = run(tmp_path, "c3n", *paper, "--similarity", "none", *files)
    assert result.returncode == 2
    assert "--similarity: no none; make it with --text-encoder" in result.stderr


@slow
def test_the_published_c3n_puts_its_classifiers_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("c3n")
    visual, audio = [f"object {i}" for i in range(10)], [f"noise {i}" for i in range(6)]
    (tmp_path / "visual.txt").write_text("\n".join(visual) + "\n")
    (tmp_path / "audio.txt").write_text("\n".join(audio) + "\n")
    head = {key: torch.randn(shape) for key, shape in _golden.table("B_c3n_audio_class_head").items()}
    head |= {"fc_final.weight": torch.randn(6, 1024), "fc_final.bias": torch.randn(6)}
    save_file(head, tmp_path / "head.safetensors")
    pca = {"pca_eigen_vectors": torch.randn(128, 128), "pca_means": torch.randn(128, 1)}
    torch.save(pca, tmp_path / "pca.pth")
    cache = tmp_path / "similarity.safetensors"
    similarity = label_similarity(visual, audio, lambda texts: torch.randn(len(texts), 4), cache=cache)
    arguments = argparse.Namespace(
        visual_labels=tmp_path / "visual.txt",
        audio_labels=tmp_path / "audio.txt",
        similarity=cache,
        audioset_weights=tmp_path / "head.safetensors",
        vggish_pca=tmp_path / "pca.pth",
        text_encoder=None,
    )
    model = example.build_published(arguments, example.RECIPES["paper-pvt"])
    assert model.consensus.similarity.equal(similarity)
    assert model.quantizer.means.equal(pca["pca_means"][:, 0])
    assert model.quantizer.eigen_vectors.equal(pca["pca_eigen_vectors"])
    assert model.audio_classifier.classify.weight.equal(head["fc_final.weight"])
    assert model.audio_classifier.input_norm.running_mean.equal(head["emb.bn0.running_mean"])


@slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    """Both take part in training and evaluation; the first alone writes; then they are a group no more."""
    script = tmp_path / "script.py"
    script.write_text(
        "import runpy, torch\n"
        "if __name__ == '__main__':\n"
        f"    runpy.run_path({str(EXAMPLES / 'diffusion_avs.py')!r}, run_name='__main__')\n"
        "    assert not torch.distributed.is_initialized()\n"
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(script), *SMALL]
    result = subprocess.run(
        [*command, "--num-samples", "2", "--batch-size", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "runs/diffusion_avs-demo-ms3-seed0/metrics.json").read_text())
    assert 0 <= metrics["test"]["true sound"]["miou"] <= 1
    assert result.stdout.count("audio-blind ceiling") == 1


@pytest.mark.parametrize(
    "page", sorted(EXAMPLES.parent.glob("docs/examples/*.md")), ids=lambda page: page.stem
)
def test_the_commands_of_a_page_can_be_run_one_after_the_other(page: Path) -> None:
    """Each has a run folder of its own."""
    folders = []
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for command in re.findall(r"^python (examples/\w+\.py.*)$", text, flags=re.MULTILINE):
        told = {"--preset": "demo", "--setting": "ms3", "--seed": "0"}
        told |= re.findall(r"(--\w+) ([^-]\S*)", command)
        folders.append(told.get("--out") or (command.split()[0], *told.values()))
    assert len(set(folders)) == len(folders)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_goes_on_whatever_its_arguments(tmp_path: Path) -> None:
    makefile = str(EXAMPLES.parent / "Makefile")
    command = ["make", "--dry-run", "--no-print-directory", "-f", makefile, "demo", "ARGS=--seed 1"]

    def last_line() -> str:
        shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        return " ".join(shown.splitlines()[-1].split())

    (tmp_path / "pyproject.toml").touch()  # which the environment is made from
    assert last_line().endswith("examples/diffusion_avs.py --seed 1")
    (tmp_path / "runs" / "diffusion_avs-demo-ms3-seed1").mkdir(parents=True)
    assert last_line().endswith("examples/diffusion_avs.py --resume --seed 1")
