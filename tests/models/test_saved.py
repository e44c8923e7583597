from pathlib import Path

import pytest

from avslib.models import create_model, load_model


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("cut", r"Error while deserializing header: .*"),
        ("diffusion_avs.small", r"Error\(s\) in loading state_dict for AudioBlind: .*"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_in_one_line(
    tmp_path: Path, weights: str, reason: str
) -> None:
    file = tmp_path / "model" / "model.safetensors"
    create_model("audio_blind.small").save_pretrained(file.parent)
    if weights == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        create_model(weights).save_pretrained(tmp_path / "other")
        (tmp_path / "other" / file.name).replace(file)
    with pytest.raises(
        ValueError, match=rf"/model: expected the weights of AudioBlind \({reason}\)$"
    ) as caught:
        load_model(file.parent)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_another_class_is_refused(tmp_path: Path) -> None:
    create_model("audio_blind.small").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected the weights of CVAESegmenter \(Error.* \.\.\.\)$"):
        load_model(tmp_path, model_class="CVAESegmenter")
