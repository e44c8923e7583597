import pytest
import torch

from avslib.clip import Clip
from avslib.losses import CrossEntropy
from avslib.models import create_model
from avslib.training import (
    AVSBenchObjective,
    C3NObjective,
    CVAEObjective,
    DiffusionAVSObjective,
    ECMVAEObjective,
    SegmentationObjective,
    published_objective,
)

OF_FAMILY = {
    "audio_blind": SegmentationObjective,
    "avsbench": AVSBenchObjective,
    "c3n": C3NObjective,
    "cvae": CVAEObjective,
    "diffusion_avs": DiffusionAVSObjective,
    "ecmvae": ECMVAEObjective,
    "encoder_decoder": SegmentationObjective,
}


@pytest.mark.parametrize("family", OF_FAMILY)
def test_every_model_has_the_objective_of_its_authors(family: str) -> None:
    assert type(published_objective(create_model(f"{family}.small"))) is OF_FAMILY[family]


def test_each_setting_of_the_baseline_has_a_matching_loss_of_its_own() -> None:
    weights = {s: AVSBenchObjective.published(s).matching_weight for s in ("s4", "ms3", "avss")}
    assert weights == {"s4": 0.0, "ms3": 0.5, "avss": 0.5}
    s4, ms3, avss = (AVSBenchObjective.published(s).matching for s in ("s4", "ms3", "avss"))
    assert (s4.foreground, s4.distance, s4.reduction, s4.threshold) == (
        "probabilities",
        "cosine",
        "mean",
        True,
    )
    assert (ms3.foreground, ms3.distance, ms3.reduction, ms3.threshold) == ("logits", "kl", "sum", False)
    assert (avss.foreground, avss.distance, avss.reduction, avss.threshold) == ("argmax", "kl", "mean", False)
    assert AVSBenchObjective.published("s4", matching_weight=0.25).matching_weight == 0.25


def test_the_objective_of_classes_takes_what_its_model_gives() -> None:
    torch.manual_seed(0)
    model = create_model("avsbench_semantic.small")
    every = torch.ones(2, 5, dtype=torch.bool)
    masks = torch.randint(0, 71, (2, 5, 32, 32))
    clip = Clip(torch.randn(2, 5, 3, 32, 32), torch.randn(2, 5, 1, 96, 64), masks, every, every, ["a", "b"])
    output = model(*clip[:5])
    terms = published_objective(model)(output, clip)
    assert terms["segmentation"] == CrossEntropy()(output.logits, masks, every)
    assert terms["loss"] == terms["segmentation"] + 0.5 * terms["matching"]
    for name in ("audio_blind.small", "encoder_decoder.small"):
        alone = published_objective(create_model(name, num_classes=71), "avss")
        torch.testing.assert_close(alone(output, clip)["loss"], terms["segmentation"])


def test_models_and_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="model: expected more than one class in 'avss', got num_classes=1"):
        published_objective(create_model("avsbench.small"), "avss")
    with pytest.raises(ValueError, match="model: expected one class in 'ms3', got num_classes=71"):
        published_objective(create_model("avsbench_semantic.small"), "ms3")
    with pytest.raises(ValueError, match="model: no objective of DiffusionAVS in 'avss' was published"):
        published_objective(create_model("diffusion_avs.small", num_classes=71), "avss")
    with pytest.raises(ValueError, match="setting: expected one of 's4', 'ms3', 'avss', got 'v2'"):
        published_objective(create_model("avsbench.small"), "v2")
