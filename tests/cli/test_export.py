import argparse
from pathlib import Path

import onnxruntime
import pytest
import torch

from avslib.cli.export import add_export
from avslib.models import AudioBlind


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_export(parser.add_subparsers())
    parsed = parser.parse_args(["export", *arguments])
    return parsed.run(parsed)


@pytest.mark.slow
def test_a_folder_becomes_a_file_whose_inputs_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AudioBlind("test_resnet", channels=16).eval()
    model.save_pretrained(tmp_path / "model")
    capsys.readouterr()  # the hub's mixin prints
    target = tmp_path / "model.onnx"
    assert run([str(tmp_path / "model"), str(target), "--seconds", "2", "--size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=3) == ["input", "frames", "tensor(uint8)", "(batch, 2, 3, 64, 64)"]
    assert lines[1].split(maxsplit=3) == ["output", "logits", "tensor(float)", "(batch, 2, 1, 64, 64)"]
    assert lines[2].startswith("onnxruntime's logits differ from PyTorch's by up to ")
    assert lines[3] == f"{target}: {target.stat().st_size / 1e6:.1f} MB"

    frames = torch.randint(0, 256, (1, 2, 3, 64, 64), dtype=torch.uint8)
    (logits,) = onnxruntime.InferenceSession(target).run(None, {"frames": frames.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(frames).logits, rtol=0, atol=1e-5)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json: not there"):
        run([str(tmp_path), str(tmp_path / "model.onnx")])
