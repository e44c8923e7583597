"""A model of a class that the package does not have, in the commands."""

import json
import sys
from pathlib import Path

import pytest

from avslib.cli import main
from avslib.data import write_avsbench
from avslib.models import create_model, load_model

MODULE = """
from pathlib import Path
from avslib.models import AudioBlind

Path("imported").touch()

class {name}(AudioBlind):
    pass

number = 3
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with clips and with the weights of an audio-blind model."""
    write_avsbench(tmp_path / "set", setting="s4", clips={"test": 2}, size=32, videos=False)
    model = create_model("audio_blind.small")
    model.frame_size = (32, 32)
    model.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return tmp_path


def write_class(place: Path, module: str, name: str) -> str:
    """Write a module and call the saved model one of its class; return ``MODULE:CLASS``."""
    (place / f"{module}.py").write_text(MODULE.format(name=name))
    config = place / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": [name]}))
    return f"{module}:{name}"


def test_a_class_in_the_working_directory_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = write_class(place, "module_of_evaluate", "ClassOfEvaluate")
    command = ["evaluate", "s4", "set", "--model", "model"]
    assert main(command) == 1
    assert capsys.readouterr().err.endswith("or 'module:class' for one of your own, got 'ClassOfEvaluate'\n")
    assert not (place / "imported").exists()
    assert main([*command, "--model-class", named]) == 0
    assert "avsbench" in capsys.readouterr().out
    assert type(load_model("model")).__name__ == "ClassOfEvaluate"  # known from now on


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("listen", ["s4", "set", "--model", "model"], ""),
        ("export", ["model", "model.onnx", "--size", "32", "--seconds", "1"], ""),
        (
            "cache-audio",
            ["s4", "set", "sounds.safetensors", "--split", "test", "--model", "model"],
            "--model: expected one with an audio encoder, got ClassOfSounds",
        ),
        (
            "train",
            ["s4", "set", "run", "--model", "./model"],
            "split: no clip of set is in 'train'",
        ),
    ],
)
def test_every_command_that_loads_a_model_finds_it(
    command: str, arguments: list[str], expected: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = write_class(place, f"module_of_{command.replace('-', '_')}", "ClassOfSounds")
    assert main([command, *arguments, "--model-class", named]) == bool(expected)
    assert expected in capsys.readouterr().err
    assert (place / "imported").exists()


def test_what_a_folder_says_is_never_imported(place: Path) -> None:
    named = write_class(place, "module_of_stranger", "ClassOfStranger")
    sys.path.append(str(place))
    config = place / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": [named]}))
    with pytest.raises(ValueError, match=f"got {named!r}"):
        load_model("model")
    assert not (place / "imported").exists()
    assert type(load_model("model", model_class=named)).__name__ == "ClassOfStranger"
    assert (place / "imported").exists()


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        (
            "module_that_is_nowhere:Model",
            ImportError,
            "'module_that_is_nowhere:Model' cannot be imported \\(No",
        ),
        ("pathlib:Model", ValueError, "expected module:class, got 'pathlib:Model'"),
        ("pathlib:Path", ValueError, "expected a subclass of AVSModel, 'pathlib:Path' is not one"),
        ("pathlib:", ValueError, "expected a subclass of AVSModel, 'pathlib:' is not one"),
        (":Model", ValueError, "expected module:class, got ':Model'"),
    ],
)
def test_what_is_no_class_of_a_model_is_refused(
    named: str, error: type[Exception], message: str, place: Path
) -> None:
    with pytest.raises(error, match=message):
        load_model("model", model_class=named)
