import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from avslib.cli import main
from avslib.data import AVSBenchMS3, AVSBenchSemantic, write_avsbench
from avslib.media import write_wav
from avslib.models import DiffusionAVS, create_model
from avslib.models.saved import load_model
from avslib.training import evaluate

pytestmark = pytest.mark.filterwarnings(
    "always:without --visual-weights:UserWarning", "always:run. nothing to resume:UserWarning"
)

BRIEF = ("--size", "48", "--epochs", "1", "--batch-size", "2")
CLIPS = {"train": 4, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for setting in ("ms3", "avss"):
        write_avsbench(folder, setting=setting, clips=CLIPS, size=48, videos=False)
    return folder


@pytest.fixture(autouse=True)
def _leave_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_flush_denormal(False)


def write_folder(folder: Path, clips: dict[str, tuple[str, int]]) -> None:
    """Write a folder of one's own: by name, the split and the seconds of a clip, each with masks."""
    rng = np.random.default_rng(0)
    for name, (_, seconds) in clips.items():
        for kind, channels in (("frames", (3,)), ("masks", ())):
            (folder / "clips" / name / kind).mkdir(parents=True)
            for second in range(seconds):
                pixels = rng.integers(0, 2, (48, 48, *channels), np.uint8) * 255
                Image.fromarray(pixels).save(folder / "clips" / name / kind / f"{second}.png")
        write_wav(folder / "clips" / name / "audio.wav", torch.randn(16_000 * (seconds + 1)) * 0.1, 16_000)
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = [(name, split, seconds) for name, (split, seconds) in clips.items()]
        csv.writer(file).writerows([("id", "split", "seconds"), *rows])


def test_a_trained_model_gives_its_numbers_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "diffusion_avs.small", "--set", "window=1", "--set", "condition=audio"]
    assert main(["train", "ms3", str(root), "run", *words, "--num-samples", "2", *BRIEF]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "avslib train: warning: without --visual-weights the visual encoder starts from random weights\n"
    )
    model = load_model("run/model")
    assert isinstance(model, DiffusionAVS)
    assert (model._hub_mixin_config or {})["window"] == 1
    table = json.loads(Path("run/metrics.json").read_text())["test"]
    assert list(table) == ["true sound", "silence", "another clip's sound"]
    assert all(row in captured.out for row in table)
    clips = AVSBenchMS3(root, "test", size=(48, 48))
    assert model.frame_size == (48, 48)
    assert evaluate(model, clips, num_samples=2) == pytest.approx(table["true sound"])
    config = json.loads(Path("run/config.json").read_text())
    assert config["arguments"]["model"] == "diffusion_avs.small"
    assert config["data"]["train"]["clips"] == 4


def test_a_run_is_not_overwritten_but_gone_on_with(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "ms3", str(root), "run", "--model", "audio_blind.small", "--size", "48"]
    assert main([*words, "--epochs", "1"]) == 0
    assert main([*words, "--epochs", "2"]) == 1
    assert "run: already holds a run; --resume continues it" in capsys.readouterr().err
    assert main([*words, "--epochs", "2", "--resume", "--set", "channels=16"]) == 1
    assert "run: expected to resume its run with set '[]', channels" in capsys.readouterr().err
    assert main([*words, "--epochs", "2", "--resume"]) == 0
    history = json.loads(Path("run/metrics.json").read_text())["history"]
    assert [record["epoch"] for record in history] == [1, 2]


def test_a_start_that_failed_leaves_the_folder_free(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "ms3", str(root), "run", "--model", "audio_blind.small", "--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avslib.training.run_folder.fit", lambda *_, **__: Path("no").read_text())
        assert main([*words, "--size", "40"]) == 1
    assert Path("run/config.json").is_file()
    capsys.readouterr()
    assert main([*words, "--size", "48", "--resume"]) == 0
    warned = capsys.readouterr().err
    assert "without --visual-weights the visual encoder starts from random weights" in warned
    assert "run: nothing to resume, starting" in warned
    assert "resumed" not in json.loads(Path("run/config.json").read_text())


def test_a_saved_model_is_gone_on_with(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_model("audio_blind.small", channels=16).save_pretrained("saved")
    words = ["--model", "saved", "--learning-rate", "1e-12", *BRIEF]
    assert main(["train", "ms3", str(root), "run", *words]) == 0
    assert "warning" not in capsys.readouterr().err
    before, after = (load_model(folder).state_dict() for folder in ("saved", "run/model"))
    for name, weight in before.items():
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(weight, after[name], atol=1e-6, rtol=0)


def test_classes_are_trained_and_scored(root: Path) -> None:
    assert (
        main(
            [
                "train",
                "avss",
                str(root),
                "run",
                "--model",
                "avsbench_semantic.small",
                "--device",
                "cpu",
                *BRIEF,
            ]
        )
        == 0
    )
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert {"segmentation", "matching"} <= set(metrics["history"][0])
    clips = AVSBenchSemantic(root, "test", size=(48, 48))
    assert evaluate(load_model("run/model"), clips) == pytest.approx(metrics["test"]["true sound"])
    assert "`avsbench_semantic`" in Path("run/model/README.md").read_text()


def test_clips_of_one_s_own_share_a_batch_if_they_are_made_equal(capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(
        Path("own"),
        {"a": ("train", 2), "b": ("train", 3), "c": ("val", 2), "d": ("test", 3), "e": ("test", 2)},
    )
    words = ["train", "folder", "own", "run", "--model", "audio_blind.small", "--sound", "wav", *BRIEF]
    assert main(words) == 1
    assert (
        "--seconds: expected a length for all clips, those of 'train' have 2 to 3 s"
        in capsys.readouterr().err
    )
    assert main([*words, "--seconds", "3", "--accumulate", "2"]) == 0
    assert json.loads(Path("run/config.json").read_text())["accumulate"] == 2
    for command in ("evaluate", "listen"):
        of_clips = [command, "folder", "own", "--model", "run/model", "--sound", "wav"]
        assert main(of_clips) == 1
        assert "--seconds: expected a length for all clips, those of 'test'" in capsys.readouterr().err
        assert main([*of_clips, "--seconds", "3"]) == 0
        assert main([*of_clips, "--batch-size", "1"]) == 0
    shutil.rmtree("own/clips/d/masks")
    assert main([*words, "--seconds", "3", "--resume"]) == 1
    assert "split 'test': expected masks, 1 of 2 clips have none, such as 'd'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "avsbench.tiny"), "expected a model of list_models(), got 'avsbench.tiny'; the nearest"),
        (
            ("--model", "avsbench.small", "--set", "window2=1"),
            "--set window2=1: window2: AVSBenchBaseline has",
        ),
        (("--model", "avsbench.small", "--set", "window=x"), "--set window='x': "),
        (("--model", "avsbench.small", "--device", "gpu"), "--device: expected one that is there, such as"),
        (("--model", "c3n.small"), "--model: a new C3N has no classifiers; examples/c3n.py builds"),
        (("--model", "avsbench_semantic.small"), "--model: expected a model of binary masks, got one of 71"),
        (("--model", "avsbench.small", "--size", "own"), "--size: expected one size for all frames"),
        (("--model", "avsbench.small", "--accumulate", "0"), "accumulate: expected a number above 0, got 0"),
        (("--model", "avsbench.small", "--epochs", "0"), "epochs: expected a number above 0, got 0"),
        (("--model", "avsbench.small", "--vggish-weights", "x"), "AVSBenchBaseline has no VGGish, got x"),
        (("--model", "audio_blind.small", "--vggish-weights", "x"), "AudioBlind has no audio encoder, got x"),
    ],
)
def test_a_mistake_says_what_to_do_and_leaves_no_folder(
    words: tuple[str, ...], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "ms3", str(root), "run", *words]) == 1
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_an_assignment_has_two_sides(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "ms3", str(root), "run", "--model", "avsbench.small", "--set", "window"])
    assert "argument --set: expected NAME=VALUE, got 'window'" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["accelerate", "matplotlib"])
def test_what_training_needs_is_said(
    package: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["train", "ms3", str(root), "run", "--model", "avsbench.small"]) == 1
    assert f'training needs {package}: pip install "avslib[train]"' in capsys.readouterr().err
    assert not Path("run").exists()
