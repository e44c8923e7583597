import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import hub_mixin
from safetensors.torch import load_file, save_file
from torch import nn

from avslib.models import AudioBlind, AVSBenchBaseline, AVSModel, create_model, load_model


@pytest.fixture(scope="module")
def model() -> AVSModel:
    torch.manual_seed(0)
    return create_model("audio_blind.small").eval()


def test_pushing_uploads_weights_configuration_and_card(
    model: AVSModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: dict[str, Any] = {}

    class Repository:
        repo_id = "somebody/something"

    class Hub:
        def __init__(self, **arguments: Any) -> None:
            pass

        def create_repo(self, **arguments: Any) -> Repository:
            return Repository()

        def upload_folder(self, *, folder_path: str, **arguments: Any) -> str:
            uploaded["files"] = {path.name for path in Path(folder_path).iterdir()}
            uploaded["card"] = (Path(folder_path) / "README.md").read_text()
            return "commit"

    monkeypatch.setattr(hub_mixin, "HfApi", Hub)
    card = {"data": "MS3", "protocol": "`avsbench`, one clip a batch", "numbers": {"mIoU": 0.5}}
    assert model.push_to_hub("somebody/something", model_card_kwargs=card) == "commit"
    assert uploaded["files"] == {"README.md", "config.json", "model.safetensors"}
    assert "| mIoU | 0.5 |" in uploaded["card"]
    assert "`avsbench`, one clip a batch" in uploaded["card"]


def test_a_card_without_numbers_says_so(model: AVSModel) -> None:
    card = str(model.generate_model_card())
    assert "Not stated: numbers without a protocol cannot be compared." in card
    assert "None stated." in card
    assert "library_name: avslib" in card
    assert "- audio-visual-segmentation" in card


def test_a_card_says_where_the_class_is_imported_from(model: AVSModel) -> None:
    class Mine(AudioBlind):
        pass

    assert "from avslib.models import AudioBlind\n\nmodel = AudioBlind.from_pre" in str(
        model.generate_model_card()
    )
    mine = Mine("regnetx_002")
    assert f"from {__name__} import Mine" in str(mine.generate_model_card())
    Mine.__module__ = "loaded_by_hand"  # and not in sys.modules
    assert "from loaded_by_hand import Mine" in str(mine.generate_model_card())


def test_missing_weights_are_an_error(model: AVSModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored.pop("decoder.reduce.bias")
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"decoder\.reduce\.bias"):
        type(model).from_pretrained(tmp_path)


def test_a_folder_without_a_frame_size_is_one_of_the_published_size(model: AVSModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for told, expected in ((None, (224, 224)), ([64, 96], (64, 96))):
        changed = (
            {**config, "frame_size": told} if told else {k: config[k] for k in config if k != "frame_size"}
        )
        (tmp_path / "config.json").write_text(json.dumps(changed))
        assert type(model).from_pretrained(tmp_path).frame_size == expected
    for told in (64, [64], [64, "96"], "ab"):
        (tmp_path / "config.json").write_text(json.dumps({**config, "frame_size": told}))
        with pytest.raises(
            ValueError, match=r"frame_size: expected height and width in config\.json, px, got"
        ):
            type(model).from_pretrained(tmp_path)


def test_arguments_are_written_or_said_to_be_lost(tmp_path: Path) -> None:
    sizes = {"fused_levels": range(2, 4), "window": np.int64(1)}
    model = create_model("avsbench.small", **sizes).eval()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.fusion.window == 1
    assert loaded.state_dict().keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match="fused_levels: expected what JSON can say"):
        create_model("avsbench.small", fused_levels={2, 3}).save_pretrained(tmp_path)


def test_a_subclass_of_a_model_is_loaded_as_what_it_is(tmp_path: Path) -> None:
    class Blinder(AudioBlind):
        pass

    Blinder("regnetx_002", channels=16).save_pretrained(tmp_path)
    assert type(load_model(tmp_path)) is Blinder


def test_a_model_without_a_segment_is_no_model() -> None:
    class Unfinished(AVSModel):
        audio_encoder = None

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

    with pytest.raises(NotImplementedError):
        Unfinished()(torch.zeros(1, 1, 3, 32, 32))


@pytest.mark.parametrize("deaf", [{"attention": ("visual",)}, {"fused_levels": ()}])
def test_an_encoder_that_nothing_hears_is_not_trained(deaf: dict[str, Any]) -> None:
    model = AVSBenchBaseline("test_resnet.r160_in1k", audio_encoder="mel_cnn", channels=32, **deaf).train()
    model(torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 1, 96, 64)).logits.sum().backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
