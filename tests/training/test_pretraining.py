import pytest
import torch

from avslib.models import create_model
from avslib.training import (
    CLASSES,
    LabelledSeconds,
    measure_classifiers,
    pretrain_classifiers,
    pretrain_encoders,
    render_labelled,
    train_classifiers,
)


@pytest.fixture(scope="module")
def seconds() -> LabelledSeconds:
    return render_labelled("train", 6, 48)


def test_two_seconds_of_each_clip_with_what_sounds_among_what_is_seen(seconds: LabelledSeconds) -> None:
    assert seconds.frames.shape == (12, 3, 48, 48)
    assert seconds.frames.dtype == torch.uint8
    assert seconds.log_mel.shape == (12, 1, 96, 64)
    assert seconds.seen.shape == (12, len(CLASSES))
    assert set(seconds.seen.unique().tolist()) == {0.0, 1.0}
    assert (seconds.seen.gather(1, seconds.heard[:, None]) == 1).all()
    assert torch.equal(seconds.heard[::2], seconds.heard[1::2])  # both seconds are of one clip
    other = render_labelled("test", 6, 48)
    assert not torch.equal(other.frames, seconds.frames)


def test_classifiers_that_know_are_always_right(seconds: LabelledSeconds) -> None:
    def hear(log_mel: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(seconds.heard, len(CLASSES)).float()

    right = measure_classifiers(lambda frames: seconds.seen, hear, seconds)
    assert right == (1.0, 1.0)
    wrong = measure_classifiers(lambda frames: -seconds.seen, lambda log_mel: -hear(log_mel), seconds)
    assert wrong == (0.0, 0.0)


def test_training_lowers_the_loss_of_both(seconds: LabelledSeconds) -> None:
    torch.manual_seed(0)
    bias = [torch.nn.Parameter(torch.zeros(len(CLASSES))) for _ in range(2)]
    train_classifiers(
        lambda frames: bias[0].expand(len(frames), -1),
        lambda log_mel: bias[1].expand(len(log_mel), -1),
        bias,
        seconds,
        epochs=30,
    )
    often = (seconds.seen / seconds.seen.sum(1, keepdim=True)).mean(0)
    assert torch.equal(bias[0] > 0, often > 1 / len(CLASSES))
    assert (bias[1][seconds.heard.unique()] > 0).all()


def test_only_the_encoders_learn(seconds: LabelledSeconds) -> None:
    torch.manual_seed(0)
    model = create_model("avsbench.small")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pretrain_encoders(model, seconds)
    changed = {
        key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"visual_encoder", "audio_encoder"}
    frozen = create_model("avsbench.small", freeze_audio=True)
    before = {key: value.clone() for key, value in frozen.audio_encoder.state_dict().items()}
    pretrain_encoders(frozen, seconds)
    assert all(torch.equal(value, before[key]) for key, value in frozen.audio_encoder.state_dict().items())
    pretrain_encoders(create_model("audio_blind.small"), seconds)


def test_a_c3n_keeps_the_classifiers_that_it_learned(seconds: LabelledSeconds) -> None:
    torch.manual_seed(0)
    model = create_model("c3n.small", num_visual_classes=12, num_audio_classes=12, freeze_audio=True)
    model.consensus.set_similarity(torch.eye(12))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def loss_of_sound() -> float:
        model.eval()
        with torch.no_grad():
            scores = model.score_sound(model.audio_encoder(seconds.log_mel))
        return torch.nn.functional.cross_entropy(scores, seconds.heard).item()

    untrained = loss_of_sound()
    for _ in range(5):
        pretrain_classifiers(model, seconds)
    assert loss_of_sound() < untrained
    changed = {
        ".".join(key.split(".")[:2])
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert {"visual_encoder.backbone", "audio_encoder.network", "audio_classifier.classify"} <= changed
    assert {key.split(".")[0] for key in changed} == {"visual_encoder", "audio_encoder", "audio_classifier"}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable
    assert model.audio_encoder.frozen
    assert not model.train().audio_classifier.training

    with pytest.raises(ValueError, match=r"model: expected num_visual_classes .* of 12, got \(12, 527\)"):
        pretrain_classifiers(create_model("c3n.small", num_visual_classes=12), seconds)


def test_a_classifier_is_no_pyramid(seconds: LabelledSeconds) -> None:
    with pytest.raises(TypeError, match=r"model: expected a VisualEncoder .*, got VisualClassifier"):
        pretrain_encoders(create_model("c3n.small"), seconds)
