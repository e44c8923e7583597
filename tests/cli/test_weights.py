import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avslib.cli import main
from avslib.models import AVSBenchBaseline
from avslib.models.layouts import LAYOUTS
from avslib.models.weights import from_reference
from tests import _golden


def weights(table: str) -> dict[str, torch.Tensor]:
    return {key: torch.full(shape, 0.5) for key, shape in _golden.table(table).items()}


def test_a_part_becomes_a_file_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = weights("vggish_with_pca.json")
    torch.save({"model": published}, tmp_path / "vggish.pth")
    assert (
        main(["convert", "vggish_pca", str(tmp_path / "vggish.pth"), str(tmp_path / "out/pca.safetensors")])
        == 0
    )
    stored = load_file(tmp_path / "out/pca.safetensors")
    assert stored.keys() == from_reference("vggish_pca", published).keys()
    printed = capsys.readouterr().out
    assert "left out 18 weights, such as features.0.weight: of the network: convert it as vggish" in printed
    assert "pca.safetensors: 2 weights" in printed


def test_a_model_becomes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights("avsbench_r50_tpavi0123.json"), tmp_path / "published.pth")
    torch.save(weights("vggish.json"), tmp_path / "vggish.pth")
    arguments = ["convert", "avsbench-resnet50", str(tmp_path / "published.pth"), str(tmp_path / "model")]
    assert main([*arguments, "--vggish", str(tmp_path / "vggish.pth")]) == 0
    printed = capsys.readouterr().out
    assert (
        "left out 174 weights, such as resnet.layer3_2.0.conv1.weight: a second copy of the stage" in printed
    )
    assert "random" not in printed
    model = AVSBenchBaseline.from_pretrained(tmp_path / "model")
    assert all((parameter == 0.5).all() for parameter in model.parameters())


def test_what_no_weights_were_given_for_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights("c3n_pvt.json"), tmp_path / "published.pth")
    command = ["convert", "c3n-pvt_v2_b5", str(tmp_path / "published.pth"), str(tmp_path / "model")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for unset in (
        "the audio encoder's weights are random: give VGGish's with --vggish\n",
        "the post-processor's constants are not set: give them with --vggish-pca\n",
        "the audio classifier's weights are random, and the similarity of the classes is not set: ",
    ):
        assert unset in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vggish", "nowhere.pth", "x.safetensors"], "nowhere.pth: no such file of weights"),
        (["vgish", "nowhere.pth", "x.safetensors"], "layout: expected one of 'tpavi', "),
        (["vggish", "text.mp4", "x.safetensors"], "it is damaged, or of another kind (KeyError: 101)"),
        (["vggish", "list.pth", "x.safetensors"], "list.pth: expected a dictionary of tensors, got list"),
        (["tpavi", "vggish.pth", "x.safetensors"], "18 of 18 weights are not of the layout 'tpavi'"),
        (
            ["vggish_pca", "vggish.pth", "x.safetensors", "--vggish", "nope.pth"],
            "--vggish: only for a whole model, got 'vggish_pca'",
        ),
        (["vggish", "vggish.pth", "x.pth"], "target: expected a .safetensors file for vggish, got x.pth"),
    ],
)
def test_mistakes_end_with_a_line_and_status_1(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save([1, 2], "list.pth")
    Path("text.mp4").write_text("hello")
    torch.save({key: torch.zeros(()) for key in weights("vggish.json")}, "vggish.pth")
    assert main(["convert", *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("avslib convert: ")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.glob("x*")) == []


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    assert main(["convert", "vggish", str(tmp_path / "evil.pth"), str(tmp_path / "out.safetensors")]) == 1
    assert "evil.pth: expected a file of weights" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "ecmvae*"]) == 0
    assert capsys.readouterr().out == "ecmvae.pvt_v2_b5\necmvae.resnet50\necmvae.small\n"


def test_a_command_knows_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(parsed: argparse.Namespace) -> int:
        assert parsed.words == words
        return 7

    monkeypatch.setattr("avslib.cli.weights._models", told)
    for words, given in ((["models", "x*"],) * 2, (["models"], None)):
        monkeypatch.setattr(sys, "argv", ["avslib", *words])
        assert main(given) == 7


def test_nobody_need_read_to_the_end() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "avslib.cli", "models"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("avslib")
    result = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("avslib ")


def test_the_help_names_every_layout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    printed = "".join(capsys.readouterr().out.split())  # lines break after hyphens
    assert all(name in printed for name in LAYOUTS)
