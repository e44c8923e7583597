import csv
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from avslib.cli import main
from avslib.data import VPO, AVSBenchMS3, write_avsbench
from avslib.encoders import AudioEncoder
from avslib.media import write_wav
from avslib.models import create_model
from avslib.models.saved import load_model
from avslib.storage.audio_cache import CachedAudio


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ms3")
    write_avsbench(folder, setting="ms3", clips={"test": 3}, size=32, videos=False)
    torch.manual_seed(0)
    create_model("cvae.small", freeze_audio=True).save_pretrained(folder / "model")
    create_model("cvae.small").save_pretrained(folder / "learning")
    create_model("audio_blind.small").save_pretrained(folder / "blind")
    return folder


def test_the_sound_of_a_split_is_embedded_by_a_models_encoder(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "test.safetensors"
    command = ["cache-audio", "ms3", str(root), str(target), "--split", "test", "--sound", "wav"]
    assert main([*command, "--model", str(root / "model"), "--device", "cpu", "--batch-size", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{target}: 3 clips"
    clips = AVSBenchMS3(root, "test", size=(32, 32), sound="wav")
    encoder = load_model(root / "model").audio_encoder
    assert encoder is not None
    cached = CachedAudio(clips, target, encoder)
    for index in range(3):
        expected = encoder(clips[index].log_mel)
        torch.testing.assert_close(cached[index].log_mel, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow  # writes, reads and uses VGGish's 72 million weights
def test_vggish_needs_only_its_weights(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder("vggish")
    save_file(encoder.network.state_dict(), tmp_path / "vggish.safetensors")
    target = tmp_path / "test.safetensors"
    command = ["cache-audio", "ms3", str(root), str(target), "--split", "test"]
    assert main([*command, "--weights", str(tmp_path / "vggish.safetensors")]) == 0
    clips = AVSBenchMS3(root, "test", size=(32, 32))
    cached = CachedAudio(clips, target, encoder)
    torch.testing.assert_close(cached[1].log_mel, encoder(clips[1].log_mel).cpu(), rtol=1e-4, atol=1e-5)


def test_pictures_with_a_sound_of_vpo_too(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "VPO" / "VPO-SS"
    for below, name in (("data", "000000000139.jpg"), ("mask", "000000000139_000000001001.png")):
        (folder / below / "cat").mkdir(parents=True)
        Image.new("RGB" if below == "data" else "L", (40, 32)).save(folder / below / "cat" / name)
    (tmp_path / "vggsound_bench/VGGSound/audios").mkdir(parents=True)
    write_wav(tmp_path / "vggsound_bench/VGGSound/audios/cat.wav", torch.rand(32_000) - 0.5, 16_000)
    with (folder / "vpo_ss_data_stereo.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, ["img_Id", "cateName", "vgg_file", "split", "ann_Ids"])
        rows.writeheader()
        rows.writerow(dict(zip(rows.fieldnames, (139, "cat", "cat", "train", 1001), strict=True)))
    target = tmp_path / "train.safetensors"
    command = ["cache-audio", "vpo-ss", str(tmp_path), str(target), "--split", "train"]
    assert main([*command, "--model", str(root / "model")]) == 0
    encoder = load_model(root / "model").audio_encoder
    assert encoder is not None
    assert CachedAudio(VPO(tmp_path, "train"), target, encoder)[0].log_mel.shape == (1, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "test", "--model", "learning"], "audio_encoder: expected a frozen one"),
        (
            ["--split", "test", "--model", "blind"],
            "--model: expected one with an audio encoder, got AudioBlind",
        ),
        (["--split", "test", "--model", "nowhere"], "nowhere: no such folder"),
        (["--split", "test", "--weights", "nowhere.pth"], "nowhere.pth: no such file of weights"),
        (["--model", "model"], "--split: expected one of ms3, such as 'train' or 'test', got none"),
        (
            ["--split", "test", "--model", "model", "--batch-size", "0"],
            "batch_size: expected a number above 0",
        ),
    ],
)
def test_a_mistake_is_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    options = [
        str(root / option) if last in ("--model", "--weights") else option
        for last, option in zip(["", *options], options, strict=False)
    ]
    assert main(["cache-audio", "ms3", str(root), str(tmp_path / "a.safetensors"), *options]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = [line for line in printed.err.splitlines() if line.startswith("avslib cache-audio: ")]
    assert message in line
    assert printed.err.endswith(f"{line}\n")
    assert not list(tmp_path.iterdir())


def test_the_target_is_a_file_of_tensors(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    for target in (tmp_path, tmp_path / "folder.safetensors"):
        assert main(["cache-audio", "ms3", str(root), str(target), "--model", str(root / "model")]) == 1
        assert "target: expected a .safetensors file, got" in capsys.readouterr().err


def test_a_target_that_cannot_be_written_is_found_before_the_work(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avslib.storage.audio_cache.cache_audio", lambda *_, **__: pytest.fail("worked"))
    (tmp_path / "file").touch()
    target = str(tmp_path / "file" / "a.safetensors")
    command = ["cache-audio", "ms3", str(root), target, "--split", "test", "--model", str(root / "model")]
    assert main(command) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("sources", [[], ["--weights", "a.pth", "--model", "b"]])
def test_exactly_one_encoder_is_named(sources: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cache-audio", "ms3", "root", "a.safetensors", *sources])
    assert "--weights" in capsys.readouterr().err
