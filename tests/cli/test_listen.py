import json
import math
from pathlib import Path

import pytest

from avslib.cli import main
from avslib.data import AVSBenchS4, write_avsbench
from avslib.models import create_model
from avslib.training import listen


def test_the_table_is_what_listen_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avsbench(tmp_path / "set", setting="s4", clips={"test": 3}, size=32, videos=False)
    model = create_model("audio_blind.small").eval()
    model.frame_size = (32, 32)
    model.save_pretrained(tmp_path / "model")
    capsys.readouterr()  # the hub's mixin prints
    command = ["listen", "s4", str(tmp_path / "set"), "--model", str(tmp_path / "model")]
    assert main([*command, "--sound", "wav", "--json", str(tmp_path / "numbers.json")]) == 0
    printed = capsys.readouterr().out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    table = listen(model, AVSBenchS4(tmp_path / "set", "test", size=(32, 32), sound="wav"))
    assert numbers["rows"] == {
        row: {name: pytest.approx(value, abs=1e-5) for name, value in scores.items()}
        for row, scores in table.items()
    }
    assert "off-screen sound added" in numbers["rows"]
    assert all(row in printed for row in table)
    assert f"g_miou {numbers['g_miou']:.3f}" in printed


def test_one_clip_has_a_table_without_g(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 1}, size=32, videos=False)
    create_model("audio_blind.small").save_pretrained(tmp_path / "model")
    command = ["listen", "ms3", str(tmp_path / "set"), "--model", str(tmp_path / "model"), "--size", "32"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "white noise" in printed
    assert "g_miou" not in printed


def test_a_number_that_there_is_not_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"true sound": {"miou": 1.0, "sounding_miou": math.nan}}
    monkeypatch.setattr("avslib.training.listening.listen", lambda *_, **__: table)
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 1}, size=32, videos=False)
    create_model("audio_blind.small").save_pretrained(tmp_path / "model")
    command = ["listen", "ms3", str(tmp_path / "set"), "--model", str(tmp_path / "model"), "--size", "32"]
    assert main([*command, "--json", str(tmp_path / "numbers.json")]) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text(), parse_constant=pytest.fail)
    assert numbers == {"rows": {"true sound": {"miou": 1.0, "sounding_miou": None}}}


def test_an_interrupt_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avslib.models.saved.load_model", interrupted)
    assert main(["listen", "ms3", "set", "--model", "model"]) == 130
    assert capsys.readouterr().err == "avslib listen: interrupted\n"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "ms3", "set", "--model", "model", "--device", device]) == 1
    assert "listen: --device: expected one that is there, such as " in (error := capsys.readouterr().err)
    assert error.endswith(f", got {device!r}\n")


def test_a_place_for_the_numbers_is_made_before_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avslib.training.listening.listen", lambda *_, **__: pytest.fail("listened"))
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 1}, size=32, videos=False)
    create_model("audio_blind.small").save_pretrained(tmp_path / "model")
    (tmp_path / "file").touch()
    command = ["listen", "ms3", str(tmp_path / "set"), "--model", str(tmp_path / "model"), "--size", "32"]
    assert main([*command, "--json", str(tmp_path / "file" / "numbers.json")]) == 1
    assert "File exists" in capsys.readouterr().err
    assert main([*command, "--json", str(tmp_path)]) == 1
    assert "--json: expected a file to write, got the folder" in capsys.readouterr().err


def test_a_model_of_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 2}, size=32, videos=False)
    create_model("avsbench_semantic.small").save_pretrained(tmp_path / "model")
    assert main(["listen", "ms3", str(tmp_path / "set"), "--model", str(tmp_path / "model")]) == 1
    assert "--model: expected a model of binary masks, got one of 71 classes" in capsys.readouterr().err
