"""Predictions of models, and what is told about where they come from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avslib.data import (
    AVSBenchMS3,
    NoiseSound,
    SilentSound,
    SyntheticAVS,
    SyntheticConfig,
)
from avslib.encoders.state_dict import weights_sha256
from avslib.models import AVSModel, create_model
from avslib.models.saved import load_model
from avslib.training.evaluation import evaluate
from avslib.training.prediction import ModelPredictions
from avslib.training.provenance import describe_data, describe_model, describe_run

SIZE = (48, 48)


@pytest.fixture(scope="module")
def model() -> AVSModel:
    torch.manual_seed(0)
    return create_model("audio_blind.small").eval()


def ms3(root: Path) -> AVSBenchMS3:
    return AVSBenchMS3(root, "test", size=SIZE)


def test_clips_of_several_lengths_are_told_that_they_share_no_batch(root: Path, model: AVSModel) -> None:
    clips = [ms3(root)[0], ms3(root)[1]]
    short = clips[0]._replace(**{name: getattr(clips[0], name)[:2] for name in clips[0]._fields[:5]})
    message = r"clips: expected frames of one shape in a batch, got \(2, 3, 48, 48\) and \(5, 3, 48, 48\)"
    with pytest.raises(ValueError, match=message):
        evaluate(model, [short, clips[1]])
    assert 0 <= evaluate(model, [short, clips[1]], batch_size=1)["miou"] <= 1


def test_a_model_predicts_alike_in_any_batches(root: Path, model: AVSModel) -> None:
    clips = ms3(root)
    model.train()
    together = list(ModelPredictions(model, clips, batch_size=2))
    assert model.training
    assert [prediction.id for prediction in together] == [
        [clips.clips[0].id, clips.clips[1].id],
        [clips.clips[2].id],
    ]
    logits = torch.cat([prediction.logits for prediction in together])
    predictions = ModelPredictions(model, clips)
    for i in range(3):
        torch.testing.assert_close(predictions[i].logits, logits[i : i + 1], rtol=1e-4, atol=1e-4)


def test_noise_depends_on_seed_and_clip_alone() -> None:
    torch.manual_seed(0)
    model = create_model("cvae.small")
    clips = SyntheticAVS(SyntheticConfig(size=48), 2, split="test")
    predictions = ModelPredictions(model, clips, num_samples=2, batch_size=2, seed=3)
    through = list(predictions)
    assert len(through) == 2
    assert torch.equal(predictions[1].logits, through[1].logits)
    other = ModelPredictions(model, clips, num_samples=2, seed=4)
    assert not torch.equal(other[1].logits, through[1].logits)
    assert predictions[0].category == [""]


def test_the_hash_is_of_the_weights(tmp_path: Path, model: AVSModel) -> None:
    state = model.state_dict()
    digest = weights_sha256(model)
    reordered = create_model("audio_blind.small")
    save_file(
        {key: state[key].contiguous() for key in sorted(state, reverse=True)}, tmp_path / "w.safetensors"
    )
    reordered.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert weights_sha256(reordered) == digest
    with torch.no_grad():
        next(reordered.parameters()).view(-1)[0] += 1e-3
    assert weights_sha256(reordered) != digest
    told = describe_model(model)
    assert (told["class"], told["weights_sha256"]) == ("AudioBlind", digest)
    assert told["configuration"]["backbone"] == "regnetx_002"


def test_data_and_run_are_told(root: Path) -> None:
    told = describe_data(SilentSound(ms3(root)))
    assert told == {
        "reader": "AVSBenchMS3",
        "clips": 3,
        "sound": "silence",
        "folder": root.name,
        "split": "test",
        "size": SIZE,
        "fit": "stretch",
        "ids_sha256": hashlib.sha256(json.dumps([clip.id for clip in ms3(root).clips]).encode()).hexdigest(),
    }
    assert describe_data(NoiseSound(ms3(root))) == {**told, "sound": "NoiseSound"}
    assert describe_run(["avslib", "evaluate", "a b"])["command"] == "avslib evaluate 'a b'"
    assert "command" not in describe_run()


def test_a_saved_model_is_loaded_whatever_its_class(
    tmp_path: Path, model: AVSModel, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert weights_sha256(loaded) == weights_sha256(model)
    assert capsys.readouterr().out == ""
    (tmp_path / "README.md").unlink()
    if "architectures" not in (tmp_path / "config.json").read_text():
        with pytest.raises(ValueError, match=r"model_class: neither config.json nor README.md in"):
            load_model(tmp_path)
    assert type(load_model(tmp_path, model_class="AudioBlind")) is type(model)
    (tmp_path / "config.json").write_text('{"architectures": ["Unknown"]}')
    known = r"model_class: expected one of 'AudioBlind', .*, or 'module:class' for one of your own"
    with pytest.raises(ValueError, match=f"{known}, got 'Unknown'"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config.json: expected a JSON object"):
        load_model(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json: not there; save_pretrained writes it"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder, and not the name of a repository"):
        load_model(tmp_path / "nowhere")
