from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.losses.matching import (
    DISTANCES,
    FOREGROUNDS,
    POOLINGS,
    AudioVisualMatching,
    VisualVisualMatching,
    audio_visual_matching,
    visual_visual_matching,
)
from avslib.losses.segmentation import binary_cross_entropy, cross_entropy
from tests import _golden

HEIGHTS = (4, 2, 1)  # of maps that are twice as wide
FIRST_FRAMES = torch.tensor([[True, True, False], [True, False, False]])
both = pytest.mark.parametrize("matching", [audio_visual_matching, visual_visual_matching])
options = {
    "foreground": st.sampled_from(FOREGROUNDS),
    "pooling": st.sampled_from(POOLINGS),
    "threshold": st.booleans(),
    "normalize": st.booleans(),
    "distance": st.sampled_from(DISTANCES),
    "reduction": st.sampled_from(["sum", "mean"]),
}

Batch = tuple[Tensor, list[Tensor], list[Tensor]]


def make(b: int = 2, t: int = 3, k: int = 1, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(b, t, k, 8, 16, generator=rng, dtype=dtype)
    features = [torch.randn(b, t, 6, h, 2 * h, generator=rng, dtype=dtype) for h in HEIGHTS]
    audio = [torch.randn(b, t, 6, generator=rng, dtype=dtype) for _ in HEIGHTS]
    return logits, features, audio


def classes(foreground: str) -> int:
    return 4 if foreground == "argmax" else 1


# A literal version, frame by frame and cell by cell


def cell_weight(cell: Tensor, *, foreground: str, pooling: str, threshold: bool) -> float:
    """The weight of a cell from the logits ``(K, h, w)`` under it."""
    pixels = cell.flatten(1).T.tolist()
    match foreground:
        case "argmax":
            values = [float(max(range(len(pixel)), key=pixel.__getitem__) != 0) for pixel in pixels]
        case "probabilities":
            values = [1 / (1 + math.exp(-pixel[0])) for pixel in pixels]
        case _:
            values = [pixel[0] for pixel in pixels]
    weight = sum(values) / len(values) if pooling == "avg" else max(values)
    if foreground == "logits":
        weight = 1 / (1 + math.exp(-weight))
    return float(weight > 0.5) if threshold else weight


def frame_vector(logits: Tensor, features: Tensor, *, threshold: bool, **pool: Any) -> Tensor:
    (h, w), step = features.shape[1:], 8 // features.shape[1]
    total, weights = torch.zeros(features.shape[0], dtype=features.dtype), 0.0
    for y in range(h):
        for x in range(w):
            cell = logits[:, y * step : (y + 1) * step, x * step : (x + 1) * step]
            weight = cell_weight(cell, threshold=threshold, **pool)
            total, weights = total + weight * features[:, y, x], weights + weight
    return total / (weights + 1e-6 if threshold else h * w)


def vector_distance(target: Tensor, seen: Tensor, distance: str) -> float:
    match distance:
        case "kl":
            p, q = target.softmax(0).tolist(), seen.softmax(0).tolist()
            return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        case "euclidean":
            return math.sqrt(
                sum((a - b + 1e-6) ** 2 for a, b in zip(target.tolist(), seen.tolist(), strict=True))
            )
        case _:
            return -math.log(max(float(target @ seen), 0) + 1e-6)


def literal(
    matching: Callable[..., Tensor],
    logits: Tensor,
    features: list[Tensor],
    audio: list[Tensor],
    labelled: Tensor,
    *,
    normalize: bool,
    distance: str,
    reduction: str,
    **pool: Any,
) -> float:
    levels = []
    frames = [(b, t) for b in range(logits.shape[0]) for t in range(logits.shape[1])]
    for level, sound in zip(features, audio, strict=True):
        seen = {f: frame_vector(logits[f], level[f], **pool) for f in frames}
        heard = {f: sound[f] for f in frames}
        if normalize or distance == "cosine":
            seen, heard = ({f: x / max(x.norm(), 1e-12) for f, x in v.items()} for v in (seen, heard))
        target = heard
        if matching is visual_visual_matching:
            target = {}
            for f in frames:
                others = {o: (heard[f] - heard[o]).norm().item() for o in frames if o != f}
                target[f] = seen[min(others, key=others.__getitem__)] if others else seen[f]
        distances = [vector_distance(target[f], seen[f], distance) for f in frames if labelled[f]]
        levels.append(sum(distances) / (1 if reduction == "sum" else len(distances)))
    return sum(levels) / len(levels)


@both
@given(b=st.integers(1, 2), t=st.integers(1, 3), seed=st.integers(0, 99), data=st.data(), **options)
def test_it_is_the_literal_version(
    matching: Callable[..., Tensor], b: int, t: int, seed: int, data: st.DataObject, **chosen: Any
) -> None:
    batch = make(b, t, classes(chosen["foreground"]), seed=seed)
    flags = data.draw(st.lists(st.booleans(), min_size=b * t, max_size=b * t).filter(any))
    labelled = torch.tensor(flags).view(b, t)
    expected = literal(matching, *batch, labelled, **chosen)
    found = matching(*batch, labelled, **chosen)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


# Numbers of the published code

S4 = {"foreground": "probabilities", "threshold": True, "distance": "cosine", "reduction": "mean"}
AVSS = {"foreground": "argmax", "reduction": "mean"}
EUCLIDEAN = {"distance": "euclidean", "reduction": "mean"}
NORMALIZED, HARD, MAX = {"normalize": True}, {"threshold": True}, {"pooling": "max"}
AUDIO, VISUAL = audio_visual_matching, visual_visual_matching
GOLDEN: dict[str, tuple[Callable[..., Tensor], dict[str, Any], tuple[int, ...]]] = {
    "D_s4_avm_avg": (AUDIO, S4, (0, 1, 2, 3)),
    "D_s4_avm_max": (AUDIO, S4 | MAX, (0, 1, 2, 3)),
    "D_ms3_avm_avg_kl": (AUDIO, NORMALIZED, (0, 1, 2, 3)),
    "D_ms3_avm_avg_euc": (AUDIO, NORMALIZED | EUCLIDEAN, (0, 1, 2, 3)),
    "D_ms3_avm_max_kl": (AUDIO, NORMALIZED | MAX, (0, 1, 2, 3)),
    "D_ms3_avm_max_euc": (AUDIO, NORMALIZED | MAX | EUCLIDEAN, (0, 1, 2, 3)),
    "D_ms3_avm_nonorm_kl": (AUDIO, {}, (0, 1, 2, 3)),
    "D_ms3_avm_thr_kl": (AUDIO, NORMALIZED | HARD, (0, 2)),
    "D_ms3_avm_thr_euc_nonorm": (AUDIO, HARD | MAX | EUCLIDEAN, (0, 2)),
    "D_ms3_closer_kl": (VISUAL, NORMALIZED, (0, 1, 2, 3)),
    "D_ms3_closer_euc": (VISUAL, NORMALIZED | EUCLIDEAN, (0, 1, 2, 3)),
    "D_avss_avm_kl": (AUDIO, AVSS, (0, 1)),
    "D_avss_avm_euc": (AUDIO, AVSS | EUCLIDEAN, (0, 1)),
    "D_avss_avm_thr_max": (AUDIO, AVSS | NORMALIZED | HARD | MAX, (0, 1)),
    "D_avss_closer_kl": (
        AUDIO,
        AVSS | NORMALIZED,
        (0, 1),
    ),  # published as closest, and compares with the sound
    "D_avss_closer_euc": (VISUAL, AVSS | NORMALIZED | EUCLIDEAN, (0, 1)),
    "D_ecmvae_avm_kl": (AUDIO, NORMALIZED, (0, 1, 2, 3)),
}
TOTALS: dict[str, tuple[Callable[..., Tensor], dict[str, Any], tuple[int, ...], float]] = {
    "D_s4_total": (AUDIO, S4, (0, 1, 2, 3), 0.7),
    "D_ms3_total_av": (AUDIO, {}, (0, 1, 2, 3), 0.5),
    "D_ms3_total_vv": (VISUAL, {}, (0, 1, 2, 3), 0.3),
    "D_avss_total": (AUDIO, AVSS, (0, 1), 0.5),
}
wide_and_narrow = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def stored(name: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor | None]:
    """The inputs of a case, in two clips of five frames; which of them are annotated, if it says."""
    x = {}
    for key, value in _golden.inputs(name).items():
        tensor = torch.from_numpy(value)
        if tensor.is_floating_point() and key[0] in "pav":  # prediction, audio, visual
            tensor = tensor.to(dtype).requires_grad_()
        x[key] = tensor
    return x, x["gt_flag"].bool().view(2, 5) if "gt_flag" in x else None


def clips(x: dict[str, Tensor], levels: tuple[int, ...]) -> Batch:
    return (
        x["pred"].unflatten(0, (2, 5)),
        [x[f"v{i}"].unflatten(0, (2, 5)) for i in levels],
        [x[f"a{i}"] for i in levels],
    )


@wide_and_narrow
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, dtype: torch.dtype) -> None:
    matching, chosen, levels = GOLDEN[name]
    x, labelled = stored(name, dtype)
    loss = matching(*clips(x, levels), labelled, **chosen)
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    gradients = [o["name"] for o in _golden.case(name)["outputs"] if o["name"].startswith("grad_")]
    for gradient in gradients:
        _golden.assert_matches(name, gradient, x[gradient.removeprefix("grad_")].grad)
    for key, value in x.items():
        if value.requires_grad and f"grad_{key}" not in gradients:
            assert value.grad is None or not value.grad.any()


@wide_and_narrow
@pytest.mark.parametrize("name", TOTALS)
def test_golden_total(name: str, dtype: torch.dtype) -> None:
    matching, chosen, levels, weight = TOTALS[name]
    x, labelled = stored(name, dtype)
    logits, features, audio = clips(x, levels)
    if "label" in x:
        segmentation = cross_entropy(logits, x["label"].unflatten(0, (2, 5)), labelled)
    elif "first_gt" in x:
        masks = x["first_gt"].view(2, 1, 32, 32)
        segmentation = binary_cross_entropy(logits[:, :1], masks)
    else:
        segmentation = binary_cross_entropy(logits, x["gt"].squeeze(1).unflatten(0, (2, 5)))
    distance = matching(logits, features, audio, labelled, **chosen)
    loss = segmentation + weight * distance
    loss.backward()
    _golden.assert_matches(name, "iou_loss", segmentation)
    _golden.assert_matches(name, "sa_loss", distance)
    _golden.assert_matches(name, "loss", loss)
    _golden.assert_matches(name, "grad_pred", x["pred"].grad)


def test_no_published_case_is_left_out() -> None:
    published = {name for prefix in ("s4", "ms3", "avss", "ecmvae") for name in _golden.names(f"D_{prefix}_")}
    assert {name for name in published if "avm" in name or "closer" in name} - {"D_ms3_total_noavm"} == set(
        GOLDEN
    )


# Properties


@given(seed=st.integers(0, 99), **options)
def test_the_sum_is_that_of_the_frames(seed: int, **chosen: Any) -> None:
    logits, features, audio = make(k=classes(chosen["foreground"]), seed=seed)
    apart = [
        audio_visual_matching(
            logits[b : b + 1, t : t + 1],
            [level[b : b + 1, t : t + 1] for level in features],
            [sound[b : b + 1, t : t + 1] for sound in audio],
            **chosen,
        )
        for b in range(2)
        for t in range(3)
    ]
    together = audio_visual_matching(logits, features, audio, **chosen)
    count = 1 if chosen["reduction"] == "sum" else len(apart)
    torch.testing.assert_close(together, torch.stack(apart).sum() / count)


@given(seed=st.integers(0, 99))
def test_equal_vectors_are_at_no_distance(seed: int) -> None:
    logits, features, _ = make(seed=seed)
    logits = torch.full_like(logits, 100.0)  # everything is foreground, so the vector is the mean
    audio = [level.mean(dim=(-2, -1)) for level in features]
    for distance, tolerance in (("kl", 1e-12), ("euclidean", 2e-5), ("cosine", 1e-5)):
        loss = audio_visual_matching(logits, features, audio, distance=distance)
        assert loss.item() == pytest.approx(0, abs=tolerance)


def test_the_frame_that_sounds_most_alike_may_be_in_another_clip() -> None:
    logits, features, audio = make(b=2, t=2)
    logits = torch.full_like(logits, 100.0)
    audio = [torch.tensor([[[0.0], [50.0]], [[2.0], [53.0]]]).expand(2, 2, 6).double()] * len(HEIGHTS)
    features = [level.clone() for level in features]
    for level in features:
        level[1] = level[0]  # each frame looks like the one that sounds like it, 50 away from its own clip
    assert visual_visual_matching(logits, features, audio).item() == pytest.approx(0, abs=1e-12)


def test_a_single_frame_matches_itself() -> None:
    assert visual_visual_matching(*make(1, 1)) == 0


@pytest.mark.parametrize("foreground", FOREGROUNDS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_frames_without_label_touch_neither_loss_nor_gradient(foreground: str, distance: str) -> None:
    logits, features, audio = make(k=classes(foreground), seed=2)  # cosines above 0: others have no gradient
    spoilt = [x.clone() for x in (logits, *features, *audio)]
    for x in spoilt:
        x[~FIRST_FRAMES] = torch.nan
        x.requires_grad_()
    arguments = spoilt[0], spoilt[1:4], spoilt[4:]
    loss = audio_visual_matching(*arguments, FIRST_FRAMES, foreground=foreground, distance=distance)
    clean = audio_visual_matching(
        logits, features, audio, FIRST_FRAMES, foreground=foreground, distance=distance
    )
    assert loss == clean
    loss.backward()
    for x in spoilt[1:]:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert not x.grad[~FIRST_FRAMES].any()
        assert x.grad[FIRST_FRAMES].any()


@both
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_without_labels_it_costs_nothing_and_training_goes_on(
    matching: Callable[..., Tensor], reduction: str
) -> None:
    logits, features, audio = make()
    logits.requires_grad_()
    loss = matching(logits, features, audio, torch.zeros(2, 3, dtype=torch.bool), reduction=reduction)
    assert loss == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_frame_without_foreground_has_finite_gradients(distance: str) -> None:
    logits, features, audio = make(dtype=torch.float32)
    numbers = [x.requires_grad_() for x in (*features, *audio)]
    loss = audio_visual_matching(
        logits - 100, features, audio, threshold=True, normalize=True, distance=distance
    )
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, numbers))


@both
@pytest.mark.parametrize("chosen", [{}, NORMALIZED | EUCLIDEAN, {"pooling": "max"}, {"distance": "cosine"}])
def test_gradients_are_those_of_finite_differences(
    matching: Callable[..., Tensor], chosen: dict[str, Any]
) -> None:
    logits, features, audio = make(1, 3)
    if chosen.get("distance") == "cosine":  # negative cosines have no gradient
        features, audio = [x.abs() for x in features], [x.abs() for x in audio]
    numbers = [x.requires_grad_() for x in (logits, *features)]
    torch.autograd.gradcheck(lambda x, *levels: matching(x, levels, audio, **chosen), numbers)


@both
@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_features_are_taken_to_float32(matching: Callable[..., Tensor], autocast: bool) -> None:
    logits, features, audio = make()
    narrow = logits.bfloat16(), [x.bfloat16() for x in features], [x.bfloat16() for x in audio]
    wide = narrow[0].float(), [x.float() for x in narrow[1]], [x.float() for x in narrow[2]]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = matching(*narrow, normalize=True)
    assert loss.dtype == torch.float32
    assert loss == matching(*wide, normalize=True)


def test_the_modules_are_the_functions_and_have_no_weights() -> None:
    logits, features, audio = make(k=4)
    chosen = AVSS | NORMALIZED | HARD | MAX | EUCLIDEAN
    for module, matching in (
        (AudioVisualMatching(**chosen), audio_visual_matching),
        (VisualVisualMatching(**chosen), visual_visual_matching),
    ):
        found = module(logits, features, audio, FIRST_FRAMES)
        assert found == matching(logits, features, audio, FIRST_FRAMES, **chosen)
        assert not module.state_dict()
    logits, features, audio = make()
    assert AudioVisualMatching()(logits, features, audio) == audio_visual_matching(logits, features, audio)


# Errors


@both
def test_what_does_not_fit_is_named(matching: Callable[..., Tensor]) -> None:
    logits, features, audio = make()
    with pytest.raises(ValueError, match="features: expected one level or more, got none"):
        matching(logits, [], [])
    with pytest.raises(ValueError, match="audio: expected 3 levels, as many as features, got 2"):
        matching(logits, features, audio[:2])
    with pytest.raises(ValueError, match=r"audio\[1\]: expected shape .* c=6, got \(2, 3, 5\)"):
        matching(logits, features, [audio[0], audio[1][..., :5], audio[2]])
    with pytest.raises(ValueError, match=r"features\[0\]: expected shape .* t=3, got \(2, 2, 6, 4, 8\)"):
        matching(logits, [level[:, :2] for level in features], audio)
    with pytest.raises(ValueError, match=r"logits: expected shape \(b, t, 1, h, w\), got \(2, 3, 4, 8, 16\)"):
        matching(*make(k=4))
    with pytest.raises(ValueError, match=r"labelled: expected shape \(b, t\).* got \(2, 2\)"):
        matching(logits, features, audio, FIRST_FRAMES[:, :2])


@pytest.mark.parametrize("module", [AudioVisualMatching, VisualVisualMatching])
@pytest.mark.parametrize("word", ["foreground", "pooling", "distance", "reduction"])
def test_unknown_words_are_named_when_the_module_is_built(module: Callable[..., Any], word: str) -> None:
    with pytest.raises(ValueError, match=f"{word}: expected one of .*, got 'other'"):
        module(**{word: "other"})
