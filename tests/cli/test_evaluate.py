"""``avslib evaluate`` from the command line to the files that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from avslib.cli import main
from avslib.data import write_avsbench
from avslib.models import create_model
from avslib.training.prediction import ModelPredictions


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    write_avsbench(folder, setting="s4", clips={"test": 3}, size=48, videos=False)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    create_model("audio_blind.small").save_pretrained(folder)
    return folder


def test_a_model_then_its_pictures_then_both_compared(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    common = ["evaluate", "s4", str(root), "--size", "48", "--worst", "2"]
    of_model = ["--model", str(model), "--save-predictions", str(tmp_path / "pictures")]
    assert main([*common, *of_model, "--out", str(tmp_path / "first")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 clips, 15 frames of 48 x 48, ")
    assert "\ndataset, with background " in printed
    names = {path.name for path in (tmp_path / "first").iterdir()}
    tables = {"report.json", "report.md", "report.tex", "clips.csv", "clips.safetensors"}
    pictures = {"protocols.png", "pr_curve.png", "iou_histogram.png", "categories.png", "worst.png"}
    assert names == tables | pictures
    record = json.loads((tmp_path / "first" / "report.json").read_text())
    assert record["provenance"]["model"]["class"] == "AudioBlind"
    assert record["provenance"]["data"]["folder"] == root.name
    assert str(root) not in json.dumps({**record, "provenance": record["provenance"] | {"command": ""}})

    of_folder = ["--predictions", str(tmp_path / "pictures"), "--compare", str(tmp_path / "first")]
    assert main([*common, *of_folder, "--out", str(tmp_path / "second")]) == 0
    assert "J, avsbench                      " in capsys.readouterr().out
    lines = (tmp_path / "second" / "comparison.md").read_text().splitlines()
    assert lines[2].split("|")[4:7] == [" +0.000 ", " +0.000 to +0.000 ", " 1.000 "]


@pytest.fixture(scope="module")
def avss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avss")
    write_avsbench(folder, setting="avss", clips={"test": 3}, size=32, videos=False)
    torch.manual_seed(0)
    create_model("audio_blind.small", num_classes=71).save_pretrained(folder / "model")
    return folder


def test_classes_too(avss: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    common = ["evaluate", "avss", str(avss), "--size", "32", "--worst", "2"]
    of_model = ["--model", str(avss / "model"), "--save-predictions", str(tmp_path / "pictures")]
    assert main([*common, *of_model, "--out", str(tmp_path / "first")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 clips, 20 frames of 32 x 32, ")
    assert "\navsbench_semantic, no padding " in printed
    names = {path.name for path in (tmp_path / "first").iterdir()}
    tables = {"report.json", "report.md", "report.tex", "clips.csv", "clips.safetensors"}
    assert names == tables | {"protocols.png", "classes.png", "worst.png"}
    record = json.loads((tmp_path / "first" / "report.json").read_text())
    assert record["classes"] == list(json.loads((avss / "label2idx.json").read_text()))
    assert record["provenance"]["data"]["reader"] == "AVSBenchSemantic"

    of_folder = ["--predictions", str(tmp_path / "pictures"), "--compare", str(tmp_path / "first")]
    assert main([*common, *of_folder]) == 0
    compared = capsys.readouterr().out.splitlines()
    line = next(line for line in compared if line.startswith("J, dataset, no background"))
    assert line.split()[-5:] == ["+0.000", "+0.000", "to", "+0.000", "1.000"]


def test_models_of_other_masks_are_refused(
    root: Path, avss: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "s4", str(root), "--model", str(avss / "model")]) == 1
    assert "--model: expected a model of binary masks, got one of 71 classes" in capsys.readouterr().err
    assert main(["evaluate", "avss", str(avss), "--model", str(model)]) == 1
    assert "--model: expected a model of 71 classes, got one of binary masks" in capsys.readouterr().err


def test_a_report_is_written_before_it_is_compared(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", "s4", "--size", "48", "--worst", "0", "--model", str(model)]
    write_avsbench(tmp_path / "set", setting="s4", clips={"test": 2}, size=48, videos=False)
    assert main([*common, str(root), "--out", str(tmp_path / "a")]) == 0
    assert (
        main([*common, str(tmp_path / "set"), "--out", str(tmp_path / "b"), "--compare", str(tmp_path / "a")])
        == 1
    )
    assert "other: expected a report on the same 2 clips" in capsys.readouterr().err
    assert (tmp_path / "b" / "report.json").is_file()


def test_a_place_for_the_report_is_made_before_it_is(
    root: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ModelPredictions, "_predict", lambda *_: pytest.fail("predicted"))
    (tmp_path / "file").touch()
    command = ["evaluate", "s4", str(root), "--size", "48", "--model", str(model)]
    for option in ("--out", "--save-predictions"):
        assert main([*command, option, str(tmp_path / "file")]) == 1
        assert "File exists" in capsys.readouterr().err


def test_under_silence_false_positives_count(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", "s4", str(root), "--size", "48", "--model", str(model)]
    assert main([*common, "--heard", "silence"]) == 0
    assert "false-positive rate, robust" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s4", "nowhere", "--predictions", "."], "nowhere/Single-source/s4_meta_data.csv: no such table"),
        (["s4", "ROOT", "--predictions", "nothing"], "nothing: no such folder of predictions"),
        (["s4", "ROOT", "--model", "nothing"], "nothing: no such folder, and not the name of a repository"),
        (["s4", "ROOT", "--model", "x", "--compare", "gone.json"], "gone.json: not there"),
        (
            ["s4", "ROOT", "--predictions", ".", "--device", "cpu", "--num-samples", "2"],
            "--num-samples, --device: only with --model, got --predictions",
        ),
        (
            ["s4", "ROOT", "--predictions", ".", "--heard", "other"],
            "--heard: only with --model, got --predictions",
        ),
        (
            ["s4", "ROOT", "--model", "x", "--missing", "empty", "--white", "1", "--resize"],
            "--missing, --resize, --white: only with --predictions, got --model",
        ),
        (
            ["s4", "ROOT", "--predictions", ".", "--worst", "-1"],
            "--worst: expected a number of clips, got -1",
        ),
        (["s4", "ROOT", "--split", "val", "--predictions", "."], "split: no clip of "),
    ],
)
def test_mistakes_end_with_a_line_and_status_1(
    arguments: list[str],
    message: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(root) if word == "ROOT" else word for word in arguments]
    assert main(["evaluate", *given]) == 1
    assert f"avslib evaluate: {message}" in capsys.readouterr().err
