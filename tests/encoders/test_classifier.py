from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from avslib.encoders.classifier import Classified, VisualClassifier
from avslib.encoders.visual import VisualEncoder

BACKBONES = ("resnet18", "pvt_v2_b0")
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)
STEM = {"resnet18": ("conv1.", "bn1.", "layer1."), "pvt_v2_b0": ("patch_embed.", "stages.0.blocks.")}


def make(backbone: str, *, num_classes: int = 10) -> VisualClassifier:
    """A classifier whose norms are not what they start as."""
    torch.manual_seed(0)
    classifier = VisualClassifier(backbone, num_classes=num_classes).eval()
    for parameter in classifier.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.8, std=0.2)
    return classifier


def make_encoder(classifier: VisualClassifier, backbone: str) -> VisualEncoder:
    """The same weights, by timm's own way to feature maps."""
    encoder = VisualEncoder(backbone).train(classifier.training)
    weights = classifier.backbone.state_dict()
    encoder.backbone.load_state_dict(
        {key: weights[key.replace("stages_", "stages.")].clone() for key in encoder.backbone.state_dict()}
    )
    return encoder


def frames(n: int = 2, h: int = 64, w: int = 96) -> Tensor:
    return torch.randn(n, 3, h, w, generator=torch.Generator().manual_seed(1))


def leaves(scores: Tensor) -> set[int]:
    """The ids of the tensors at which the graph of the scores ends."""
    found, todo, seen = set(), [scores.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo += [following for following, _ in node.next_functions]
    return found


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.mark.parametrize("backbone", [*BACKBONES, "convnext_atto", "efficientnet_b0", "regnetx_002"])
@torch.no_grad()
def test_levels_and_scores_are_timms(backbone: str) -> None:
    classifier = make(backbone)
    levels, _, scores = classifier(frames())
    expected = make_encoder(classifier, backbone)(frames()) if backbone in BACKBONES else None
    expected = expected or classifier.backbone.forward_intermediates(frames(), intermediates_only=True)[-4:]
    assert tuple(level.shape[1] for level in levels) == classifier.channels
    for level, same in zip(levels, expected, strict=True):
        assert torch.equal(level, same)
    assert torch.equal(scores, classifier.backbone(frames()))


def test_a_tap_of_pvt_v2_lies_before_the_norm_of_its_stage() -> None:
    classifier = make("pvt_v2_b0")
    for level, tap, stage in zip(*classifier(frames())[:2], classifier.backbone.stages, strict=True):
        assert tap.shape[:2] == level.shape[:2]
        assert torch.equal(stage.norm(tap.mT).mT, level.flatten(2))


def test_any_other_tap_is_the_level_itself() -> None:
    for level, tap in zip(*make("resnet18")(frames())[:2], strict=True):
        assert level is tap


@each_backbone
def test_the_graph_begins_at_the_first_tap_where_no_gradients_are_recorded(backbone: str) -> None:
    classifier = make(backbone)
    expected = classifier(frames())
    with torch.no_grad():
        levels, taps, scores = classifier(frames())
        assert not torch.is_grad_enabled()
    assert not any(level.requires_grad for level in levels)
    assert taps[0].is_leaf
    torch.testing.assert_close((levels, taps, scores), tuple(expected))
    gradients, wanted = (
        torch.autograd.grad(given.scores[:, 3].sum(), given.taps)
        for given in (Classified(levels, taps, scores), expected)
    )
    torch.testing.assert_close(gradients, wanted)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(parameter.grad is None for parameter in classifier.parameters())

    reached = leaves(classifier.eval()(frames()).scores)
    kept = leaves(scores)
    stem = {id(p) for name, p in classifier.backbone.named_parameters() if name.startswith(STEM[backbone])}
    assert stem <= reached
    assert not stem & kept
    assert id(taps[0]) in kept


@each_backbone
def test_works_under_inference_mode(backbone: str) -> None:
    classifier = make(backbone)
    expected = classifier(frames())
    with torch.inference_mode():
        levels, taps, scores = classifier(frames())
        assert torch.is_inference_mode_enabled()
    torch.testing.assert_close((levels, taps, scores), tuple(expected))
    assert torch.autograd.grad(scores[0, 0], taps)[0].abs().sum() > 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
@each_backbone
def test_nothing_is_left_behind(backbone: str, context: Callable[[], torch.no_grad]) -> None:
    classifier = make(backbone)
    gc.disable()  # what remains in a cycle would count as left behind
    try:
        with context():
            levels, taps, scores = classifier(frames())
        watched = [weakref.ref(tensor) for tensor in (*levels, *taps, scores)]
        del levels, taps, scores
        assert [reference() for reference in watched] == [None] * 9
    finally:
        gc.enable()
    assert hooks(classifier) == 0


def test_hooks_go_also_when_the_pass_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make("resnet18")

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(classifier.backbone.layer3, "forward", fail)
    with torch.no_grad(), pytest.raises(RuntimeError, match="out of memory"):
        classifier(frames())
    assert hooks(classifier) == 0
    assert torch.is_grad_enabled()


def test_threads_share_a_classifier() -> None:
    classifier = make("resnet18")
    expected = classifier(frames())
    together = threading.Barrier(4)

    def classify(_: int) -> list[Classified]:
        together.wait(timeout=60)
        return [classifier(frames()) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        found = [one for several in pool.map(classify, range(4)) for one in several]
    for one in found:
        assert torch.equal(one.scores, expected.scores)
        assert len(one.taps) == len(one.levels) == 4


@each_backbone
def test_one_pass_in_training_serves_the_loss_and_the_class_gradient(backbone: str) -> None:
    classifier = make(backbone).train()
    encoder = make_encoder(classifier, backbone)
    levels, taps, scores = classifier(frames())
    weights = torch.autograd.grad(scores[:, 1].sum(), taps, retain_graph=True)
    sum(level.square().mean() for level in levels).backward()
    sum(level.square().mean() for level in encoder(frames())).backward()

    assert all(weight.abs().sum() > 0 for weight in weights)
    ours = {name.replace("stages.", "stages_"): p.grad for name, p in classifier.backbone.named_parameters()}
    for name, parameter in encoder.backbone.named_parameters():
        torch.testing.assert_close(ours.pop(name), parameter.grad, msg=name)
    assert set(ours) <= {"fc.weight", "fc.bias", "head.weight", "head.bias"}
    assert all(gradient is None for gradient in ours.values())
    statistics = classifier.backbone.state_dict()
    for name, buffer in encoder.backbone.named_buffers():  # a batch norm saw the batch once
        torch.testing.assert_close(statistics[name], buffer)


@each_backbone
def test_a_frozen_backbone_gives_levels_without_graph_and_scores_with(backbone: str) -> None:
    classifier = make(backbone).requires_grad_(False)
    levels, taps, scores = classifier(frames())
    assert not any(level.requires_grad for level in levels)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(scores[0, 0], taps))

    images = frames().requires_grad_()
    levels, taps, scores = classifier(images)
    torch.autograd.grad(scores[0, 0], taps, retain_graph=True)
    levels[0].sum().backward()  # whoever wants the gradient of the frames gets it
    assert images.grad.abs().sum() > 0


@each_backbone
def test_a_partly_frozen_backbone_trains_the_rest(backbone: str) -> None:
    classifier, whole = make(backbone), make(backbone)
    for name, parameter in classifier.backbone.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(STEM[backbone]))
    for part in (classifier, whole):
        levels, taps, scores = part(frames())
        torch.autograd.grad(scores[0, 0], taps, retain_graph=True)
        levels[3].square().mean().backward()
    trained = [p for p in classifier.backbone.named_parameters() if p[1].requires_grad]
    assert trained
    for name, parameter in trained:
        if parameter.grad is None:
            assert whole.backbone.get_parameter(name).grad is None  # the norms of other levels
        else:
            torch.testing.assert_close(parameter.grad, whole.backbone.get_parameter(name).grad)


@each_backbone
def test_runs_under_autocast(backbone: str) -> None:
    classifier = make(backbone)
    expected = classifier(frames())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = classifier(frames())
        gradient = torch.autograd.grad(found.scores, found.taps[3], torch.ones_like(found.scores))[0]
    for level, same in zip(found.levels, expected.levels, strict=True):
        assert (level - same).abs().mean() < 0.05 * same.abs().mean()  # bfloat16 keeps 8 bits
    assert gradient.isfinite().all()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@each_backbone
def test_weights_have_timms_names(backbone: str, suffix: str, tmp_path: Path) -> None:
    model = timm.create_model(backbone, num_classes=10).eval()
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else save_file)(model.state_dict(), path)
    classifier = VisualClassifier(backbone, num_classes=10, weights=path).eval()
    assert set(classifier.state_dict()) == {f"backbone.{key}" for key in model.state_dict()}
    with torch.no_grad():
        assert torch.equal(classifier(frames()).scores, model(frames()))

    other = make(backbone)
    other.load_state_dict(classifier.state_dict())
    assert torch.equal(other(frames()).scores, classifier(frames()).scores)


def test_weights_without_the_head_are_refused(tmp_path: Path) -> None:
    weights = timm.create_model("resnet18").state_dict()
    path = tmp_path / "resnet18.safetensors"
    save_file({key: value for key, value in weights.items() if not key.startswith("fc.")}, path)
    with pytest.raises(ValueError, match=r"expected the weights of ResNet .* such as fc\.weight, fc\.bias"):
        VisualClassifier("resnet18", weights=path)


def test_what_comes_after_the_last_level_is_frozen() -> None:
    after = {
        "resnet18": ["fc.weight", "fc.bias"],
        "pvt_v2_b0": ["head.weight", "head.bias"],
        "mobilenetv3_small_050": [
            "conv_head.weight",
            "conv_head.bias",
            "classifier.weight",
            "classifier.bias",
        ],
    }
    for backbone, expected in after.items():
        frozen = [name for name, p in make(backbone).backbone.named_parameters() if not p.requires_grad]
        assert frozen == expected


@pytest.fixture
def on_meta() -> Iterator[None]:
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize(
    "backbone", ["swin_tiny_patch4_window7_224", "twins_pcpvt_small", "efficientformer_l1"]
)
def test_a_backbone_without_maps_is_refused_when_built(backbone: str) -> None:
    with pytest.raises(ValueError, match=f"backbone: expected a classifier with .*{backbone!r} differs"):
        VisualClassifier(backbone)


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize(
    "backbone",
    [
        "hiera_tiny_224",
        "selecsls42",
        pytest.param(
            "coat_lite_tiny",
            marks=pytest.mark.skipif(
                tuple(map(int, timm.__version__.split(".")[:3])) < (1, 0, 31),
                reason="timm states no strides of CoaT before 1.0.31: it is refused when built",
            ),
        ),
    ],
)
def test_a_backbone_without_maps_is_refused_when_called(backbone: str) -> None:
    with pytest.raises(ValueError, match=f"backbone: expected a classifier with .*{backbone!r} differs"):
        VisualClassifier(backbone)(torch.zeros(1, 3, 224, 224))


def test_unknown_backbones_and_wrong_frames_are_named() -> None:
    with pytest.raises(ValueError, match=r"got 'resnet5'; the nearest are .*resnet50"):
        VisualClassifier("resnet5")
    with pytest.raises(ValueError, match=r"expected strides \(4, 8, 16, 32\), 'vit_tiny_patch16_224' has"):
        VisualClassifier("vit_tiny_patch16_224")
    classifier = make("resnet18")
    with pytest.raises(ValueError, match="frames: expected H and W of at least 32 px, got 31 x 64"):
        classifier(torch.zeros(1, 3, 31, 64))
    with pytest.raises(ValueError, match=r"frames: expected shape \(n, 3, h, w\), got \(1, 1, 64, 64\)"):
        classifier(torch.zeros(1, 1, 64, 64))
