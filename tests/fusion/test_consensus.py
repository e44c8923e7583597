from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from avslib.encoders.classifier import VisualClassifier
from avslib.fusion.consensus import (
    ConsensusAttention,
    channel_spatial_attention,
    class_gradient_weights,
    consensus,
)
from tests import _golden

each_backbone = pytest.mark.parametrize("backbone", ["resnet18", "pvt_v2_b0"])


def scores_and_similarity(n: int, i: int, j: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    visual, audio = (3 * torch.randn(n, k, generator=rng, dtype=torch.float64) for k in (i, j))
    return visual, audio, torch.randn(i, j, generator=rng, dtype=torch.float64)


def literal_consensus(visual: Tensor, audio: Tensor, similarity: Tensor, alpha: float) -> int:
    """Every pair of classes of one frame, one after the other."""
    best, found = -math.inf, -1
    p, q = visual.softmax(0).tolist(), audio.softmax(0).tolist()
    for i, row in enumerate(similarity.tolist()):
        for j, alike in enumerate(row):
            agreement = p[i] ** alpha * alike * q[j] ** alpha
            if agreement > best:
                best, found = agreement, i
    return found


@given(
    n=st.integers(1, 3),
    i=st.integers(1, 8),
    j=st.integers(1, 8),
    alpha=st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    shift=st.sampled_from([-10.0, -1.0, 0.0, 1.0]),
    seed=st.integers(0, 999),
)
def test_it_is_the_best_of_all_pairs(n: int, i: int, j: int, alpha: float, shift: float, seed: int) -> None:
    visual, audio, similarity = scores_and_similarity(n, i, j, seed=seed)
    similarity = similarity + shift  # -10: every pair disagrees, and the least unlike one is wanted
    expected = [literal_consensus(*frame, similarity, alpha) for frame in zip(visual, audio, strict=True)]
    assert consensus(visual, audio, similarity, alpha=alpha).tolist() == expected


@given(seed=st.integers(0, 999), values=st.integers(1, 3))
def test_of_equally_good_pairs_the_smallest_row_is_taken(seed: int, values: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    similarity = torch.randint(-values, values + 1, (6, 5), generator=rng).double()
    visual, audio = torch.zeros(1, 6).double(), torch.zeros(1, 5).double()
    expected = literal_consensus(visual[0], audio[0], similarity, 0.1)
    assert consensus(visual, audio, similarity).tolist() == [expected]


def test_frames_are_independent_and_may_lie_on_any_axes() -> None:
    visual, audio, similarity = scores_and_similarity(40, 7, 5)
    together = consensus(visual, audio, similarity)
    assert together.dtype == torch.int64
    one_by_one = [consensus(v, a, similarity) for v, a in zip(visual, audio, strict=True)]
    assert torch.equal(together, torch.stack(one_by_one))
    clips = consensus(visual.view(8, 5, 7), audio.view(8, 5, 5), similarity)
    assert torch.equal(clips, together.view(8, 5))
    assert consensus(visual[:0], audio[:0], similarity).shape == (0,)


def test_sure_classifiers_overrule_the_similarity() -> None:
    visual, audio, similarity = scores_and_similarity(9, 7, 5)
    similarity = similarity.abs() + 0.1
    wanted = torch.arange(9) % 7
    visual[torch.arange(9), wanted] = 100
    assert torch.equal(consensus(visual, audio, similarity), wanted)


def test_narrow_scores_are_compared_in_float32() -> None:
    visual, audio, similarity = (x.bfloat16() for x in scores_and_similarity(1000, 30, 20))
    expected = consensus(visual.float(), audio.float(), similarity.float())
    assert torch.equal(consensus(visual, audio, similarity), expected)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the size of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_memory_does_not_grow_with_the_pairs_of_all_frames() -> None:
    visual, audio, similarity = scores_and_similarity(200, 30, 20)
    with LargestTensor() as largest:
        consensus(visual, audio, similarity)
    assert largest.numel <= 16 * 30 * 20


def test_the_consensus_keeps_nothing_for_a_backward_pass() -> None:
    def refuse(_: Tensor) -> None:
        raise AssertionError

    visual, audio, similarity = (x.requires_grad_() for x in scores_and_similarity(4, 7, 5))
    with torch.autograd.graph.saved_tensors_hooks(refuse, refuse):
        consensus(visual, audio, similarity)


def test_the_consensus_is_the_published_one() -> None:
    inputs = {key: torch.from_numpy(x) for key, x in _golden.inputs("E_c3n_semantic_sim").items()}
    found = consensus(inputs["v_cls"], inputs["audio_cls"], inputs["similarity_matrix"])
    _golden.assert_matches("E_c3n_semantic_sim", "target", found)

    tied = torch.zeros(1000, 527)
    tied[7, 3] = tied[500, 1] = 0.5
    found = consensus(torch.zeros(3, 1000), torch.zeros(3, 527), tied)
    _golden.assert_matches("E_c3n_semantic_sim", "target_tie", found)


def test_wrong_arguments_of_the_consensus_are_named() -> None:
    visual, audio, similarity = scores_and_similarity(4, 7, 5)
    with pytest.raises(
        ValueError, match=r"visual_scores: expected shape \(\.\.\., i\) with i=7, got \(4, 5\)"
    ):
        consensus(audio, audio, similarity)
    with pytest.raises(
        ValueError, match=r"audio_scores: expected shape \(\.\.\., j\) with j=5, got \(4, 7\)"
    ):
        consensus(visual, visual, similarity)
    with pytest.raises(ValueError, match=r"audio_scores: expected shape \(4, 5\) with .* got \(3, 5\)"):
        consensus(visual, audio[:3], similarity)
    with pytest.raises(ValueError, match="alpha: expected a number above 0, got 0"):
        consensus(visual, audio, similarity, alpha=0)


def make_classifier(backbone: str) -> VisualClassifier:
    torch.manual_seed(0)
    classifier = VisualClassifier(backbone, num_classes=10).eval()
    for parameter in classifier.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.8, std=0.2)
    return classifier


def frames(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 64, 96, generator=torch.Generator().manual_seed(1))


CLASSES = torch.tensor([4, 0, 4])


def one_by_one(classifier: VisualClassifier, images: Tensor, classes: Tensor) -> list[list[Tensor]]:
    """A backward pass a frame through timm's own classifier, whose stages keep their gradients by hooks."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, output: Tensor) -> None:
        tensor = inputs[0] if isinstance(_, nn.LayerNorm) else output
        tensor.retain_grad()
        seen.append(tensor)

    backbone = copy.deepcopy(classifier.backbone)
    is_pvt = hasattr(backbone, "stages")
    watched = [stage.norm for stage in backbone.stages] if is_pvt else [backbone.layer1, backbone.layer2]
    watched += [] if is_pvt else [backbone.layer3, backbone.layer4]
    for module in watched:
        module.register_forward_hook(keep)
    weights = []
    for image, wanted in zip(images, classes.tolist(), strict=True):
        seen.clear()
        backbone.zero_grad()
        backbone(image[None])[0, wanted].backward()
        space = 1 if is_pvt else (2, 3)
        weights.append([tensor.grad.mean(dim=space)[0] for tensor in seen])
    return [list(level) for level in zip(*weights, strict=True)]


@each_backbone
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_class_gradients_are_those_of_one_frame_after_the_other(backbone: str, context: Any) -> None:
    classifier = make_classifier(backbone)
    expected = one_by_one(classifier, frames(), CLASSES)
    with context():
        _, taps, scores = classifier(frames())
        found = class_gradient_weights(scores, CLASSES.clone(), taps)
    for weights, same, channels in zip(found, expected, classifier.channels, strict=True):
        assert weights.shape == (3, channels)
        assert not weights.requires_grad
        expected_weights = torch.stack(same)
        assert expected_weights.abs().max() > 0
        torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-5 * same[0].abs().max())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(tap.grad is None for tap in taps if tap.is_leaf)


def test_the_graph_is_kept_for_the_loss_and_only_for_it() -> None:
    x = torch.rand(2, 3, 4, requires_grad=True)
    scores = x.exp().mean(dim=2)
    classes = torch.tensor([0, 2])
    first = class_gradient_weights(scores, classes, [x])
    with torch.no_grad():
        second = class_gradient_weights(scores, classes, [x])
        torch.testing.assert_close(first, second)
        with pytest.raises(RuntimeError, match="second time"):
            class_gradient_weights(scores, classes, [x])


def test_class_gradients_of_narrow_taps_are_averaged_in_float32() -> None:
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        x = torch.rand(2, 3, 40, 40, dtype=dtype, requires_grad=True)
        scores = (x * torch.rand_like(x)).sum(dim=(2, 3))
        weights = class_gradient_weights(scores, torch.tensor([0, 2]), [x])[0]
        assert weights.dtype == wide
        assert weights[0, 0] == pytest.approx(0.5, abs=0.05)


def test_wrong_arguments_of_the_class_gradient_are_named() -> None:
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    scores = x.mean(dim=(2, 3))
    with pytest.raises(ValueError, match=r"classes: expected shape \(n\) with n=2, got \(3,\)"):
        class_gradient_weights(scores, CLASSES, [x])
    with pytest.raises(ValueError, match="scores: expected scores with their graph back to the taps"):
        class_gradient_weights(scores.detach(), CLASSES[:2], [x])
    with pytest.raises(ValueError, match=r"taps\[0\]: expected shape \(n, c, s\) with n=2, got \(1, 3, 16\)"):
        class_gradient_weights(scores, CLASSES[:2], [x[:1]])


def test_the_attention_is_a_gate_of_channels_and_a_gate_of_pixels() -> None:
    x, weights = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    expected = torch.empty_like(x)
    for n, i, j in np.ndindex(2, 4, 5):
        length = math.sqrt(sum(w**2 for w in weights[n].tolist()))
        gated = [x[n, c, i, j].item() / (1 + math.exp(-weights[n, c].item() / length)) for c in range(3)]
        expected[n, :, i, j] = torch.tensor(gated).double() / (1 + math.exp(-sum(gated) / 3))
    found = channel_spatial_attention(x, weights)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(channel_spatial_attention(x, 1e-6 * weights), found)
    torch.autograd.gradcheck(lambda x: channel_spatial_attention(x, weights), x.requires_grad_())


def test_the_attention_is_the_published_one() -> None:
    name = "E_c3n_cs_attention"
    inputs = {key: torch.from_numpy(x) for key, x in _golden.inputs(name).items()}
    _golden.assert_matches(name, "y", channel_spatial_attention(inputs["x"], inputs["weights"][..., 0, 0]))


def test_the_attention_keeps_the_type_of_the_features() -> None:
    x = torch.randn(2, 3, 4, 5).bfloat16()
    assert channel_spatial_attention(x, torch.randn(2, 3)).dtype == torch.bfloat16
    with pytest.raises(
        ValueError, match=r"weights: expected shape \(n, c\) with n=2, c=3, got \(2, 3, 1, 1\)"
    ):
        channel_spatial_attention(x, torch.randn(2, 3, 1, 1))


def make_attention() -> ConsensusAttention:
    attend = ConsensusAttention(10, 4)
    attend.set_similarity(torch.randn(10, 4, generator=torch.Generator().manual_seed(2)))
    return attend


def sound(n: int = 3) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(3))


@each_backbone
def test_the_module_joins_the_functions(backbone: str) -> None:
    classifier, attend = make_classifier(backbone), make_attention()
    classified = classifier(frames())
    levels, classes = attend(*classified, sound())
    assert torch.equal(classes, consensus(classified.scores, sound(), attend.similarity))
    weights = class_gradient_weights(classified.scores, classes, classified.taps)
    for level, x, w in zip(levels, classified.levels, weights, strict=True):
        assert torch.equal(level, channel_spatial_attention(x, w))

    for context in (torch.no_grad, torch.inference_mode):
        with context():
            found, same = attend(*classifier(frames()), sound())
        assert not any(level.requires_grad for level in found)
        assert torch.equal(same, classes)
        for level, expected in zip(found, levels, strict=True):
            torch.testing.assert_close(level, expected)
    assert all(parameter.grad is None for parameter in classifier.parameters())


@each_backbone
def test_the_loss_takes_the_weights_as_constants(backbone: str) -> None:
    """One pass gives the gradients of two: one for the weights, and one for the loss."""
    classifier, attend = make_classifier(backbone), make_attention()
    with torch.no_grad():
        _, taps, scores = classifier(frames())
        classes = consensus(scores, sound(), attend.similarity)
        weights = class_gradient_weights(scores, classes, taps)
    pairs = zip(classifier(frames()).levels, weights, strict=True)
    sum(channel_spatial_attention(*pair).square().mean() for pair in pairs).backward()
    expected = [p.grad for p in classifier.parameters()]
    classifier.zero_grad()

    attended, _ = attend(*classifier(frames()), sound())
    sum(level.square().mean() for level in attended).backward()
    for parameter, gradient in zip(classifier.parameters(), expected, strict=True):
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
        else:
            assert parameter.grad is None


def test_without_a_similarity_the_module_refuses() -> None:
    level = torch.rand(3, 10, 2, 2, requires_grad=True)
    arguments = ([level], [level], level.mean(dim=(2, 3)), sound())
    attend = ConsensusAttention(10, 4)
    for module in (attend, copy.deepcopy(attend)):
        with pytest.raises(ValueError, match=r"similarity: expected set_similarity with a \(10, 4\) matrix"):
            module(*arguments)
    other = ConsensusAttention(10, 4)
    other.load_state_dict(attend.state_dict())  # saved without: still without
    with pytest.raises(ValueError, match="similarity"):
        other(*arguments)
    with torch.device("meta"):
        shapes = ConsensusAttention(10, 4)
    with pytest.warns(UserWarning, match="no-op"):
        shapes.load_state_dict(make_attention().state_dict())  # without assign=True nothing arrives
    with pytest.raises(ValueError, match="similarity"):
        shapes(*arguments)
    attend.load_state_dict({}, strict=False)
    with pytest.raises(ValueError, match="similarity"):
        attend(*arguments)
    with pytest.raises(RuntimeError, match="size mismatch"):
        attend.load_state_dict({"similarity": torch.zeros(9, 4)})
    with pytest.raises(ValueError, match="similarity: expected"):
        attend(*arguments)


def test_the_similarity_is_stored_with_the_weights(tmp_path: Path) -> None:
    level = torch.rand(3, 10, 2, 2, requires_grad=True)
    arguments = ([level], [level], level.mean(dim=(2, 3)), sound())
    attend = make_attention()
    expected = attend(*arguments)[0][0]
    save_model(nn.Sequential(attend), str(tmp_path / "model.safetensors"))

    loaded = nn.Sequential(ConsensusAttention(10, 4))
    load_model(loaded, str(tmp_path / "model.safetensors"))
    with torch.device("meta"):
        assigned = ConsensusAttention(10, 4)
    assigned.load_state_dict(attend.state_dict(), assign=True)
    given = ConsensusAttention(10, 4)
    given.set_similarity(nn.Parameter(attend.similarity))
    assert not given.similarity.requires_grad
    for module in (loaded[0], assigned, given, copy.deepcopy(attend)):
        assert torch.equal(module.similarity, attend.similarity)
        assert torch.equal(module(*arguments)[0][0], expected)


def test_a_wrong_similarity_is_named() -> None:
    attend = make_attention()
    with pytest.raises(
        ValueError, match=r"similarity: expected shape \(i, j\) with i=10, j=4, got \(4, 10\)"
    ):
        attend.set_similarity(torch.zeros(4, 10))
    with pytest.raises(ValueError, match="similarity: expected finite numbers, got NaN or infinity"):
        attend.set_similarity(torch.full((10, 4), torch.nan))
    with pytest.raises(ValueError, match="num_audio_classes: expected a number above 0, got 0"):
        ConsensusAttention(10, 0)
    level = torch.rand(3, 10, 2, 2, requires_grad=True)
    with pytest.raises(ValueError, match="taps: expected one per level, 1, got 2"):
        attend([level], [level, level], level.mean(dim=(2, 3)), sound())


def published_classifier(name: str) -> VisualClassifier:
    table = _golden.json.loads((_golden.ROOT / "F_name_maps.json").read_text())["pvt_v2_b5"]["table"]
    shapes, seed = _golden.table(name), _golden.case(name)["weight_seed"]
    weights = {}
    for theirs, ours in [*table, ["head.weight", "head.weight"], ["head.bias", "head.bias"]]:
        key = f"encoder_backbone.{theirs}"
        weights[f"backbone.{ours}"] = torch.from_numpy(_golden.fill(key, shapes[key], seed))
    with torch.device("meta"):  # 82 million random numbers that nobody needs
        classifier = VisualClassifier("pvt_v2_b5")
    classifier.load_state_dict(weights, assign=True)
    return classifier.eval()


@pytest.mark.parametrize("name", ["E_c3n_pvt_64", pytest.param("E_c3n_pvt_224", marks=pytest.mark.slow)])
def test_the_whole_is_the_published_one(name: str) -> None:
    classifier, attend = published_classifier(name), ConsensusAttention()
    inputs = {key: torch.from_numpy(x) for key, x in _golden.inputs(name).items()}
    attend.set_similarity(inputs["similarity_matrix"])
    with torch.no_grad():
        levels, taps, scores = classifier(inputs["frames"])
        classes = consensus(scores, inputs["audio_cls"], attend.similarity)
        weights = class_gradient_weights(scores, classes, taps)
        attended, same = attend(*classifier(inputs["frames"]), inputs["audio_cls"])
    _golden.assert_matches(name, "v_cls", scores)
    _golden.assert_matches(name, "target_category", classes)
    assert torch.equal(same, classes)
    for i, weight in enumerate(weights, start=1):
        _golden.assert_matches(name, f"cam_weight{i}", weight[:, :, None, None])

    # The attended level goes into the neck; the next stage sees the level as it was.
    rows = _golden.case(name)["stage_names"]
    stages = {f"encoder.stage{i}": x for i, x in enumerate(levels, start=1)}
    stages |= {f"cs_attention{i}": x for i, x in enumerate(attended, start=1)}
    for output in ("stage_stats", "stage_probe"):
        entry = next(o for o in _golden.case(name)["outputs"] if o["name"] == output)
        expected = _golden.arrays(name)[entry["key"]]
        for row, x in stages.items():
            flat = x.flatten()
            found = {
                "stage_stats": torch.stack([flat.mean(), flat.std(correction=0), flat.min(), flat.max()]),
                "stage_probe": flat[torch.from_numpy(np.linspace(0, len(flat) - 1, 64).astype(np.int64))],
            }[output]
            np.testing.assert_allclose(
                found, expected[rows.index(row)], rtol=entry["rtol"], atol=entry["atol"]
            )
