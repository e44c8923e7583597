from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.losses.matching import audio_visual_matching
from avslib.losses.overlap import CrossEntropyDice, DiceLoss, StructureLoss, dice_loss, structure_loss
from avslib.losses.segmentation import binary_cross_entropy
from tests import _golden

FIRST_FRAMES = torch.tensor([[True, True, False], [True, False, False]])
each = pytest.mark.parametrize("loss_function", [dice_loss, structure_loss])
wide_and_narrow = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def batch(b: int = 2, t: int = 3, h: int = 9, w: int = 7, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(b, t, 1, h, w, generator=rng, dtype=torch.float64)
    return logits, torch.randint(0, 2, (b, t, h, w), generator=rng)


# Literal versions


def literal_dice(logits: Tensor, mask: Tensor, *, published_smoothing: bool) -> float:
    pairs = [
        (1 / (1 + math.exp(-x)), y)
        for x, y in zip(logits.flatten().tolist(), mask.flatten().tolist(), strict=True)
    ]
    intersection, total = sum(p * y for p, y in pairs), sum(p + y for p, y in pairs)
    doubled = 2 * (intersection + 1) if published_smoothing else 2 * intersection + 1
    return 1 - doubled / (total + 1)


def literal_structure(logits: Tensor, mask: Tensor, *, weight_cross_entropy: bool) -> float:
    h, w = mask.shape
    rows = []
    for y in range(h):
        for x in range(w):
            near = mask[max(y - 15, 0) : y + 16, max(x - 15, 0) : x + 16].sum().item() / 31**2
            truth, p = mask[y, x].item(), 1 / (1 + math.exp(-logits[0, y, x].item()))
            smooth = 0.9995 if truth else 0.0005
            entropy = -smooth * math.log(p) - (1 - smooth) * math.log(1 - p)
            rows.append((1 + 5 * abs(near - truth), truth, p, entropy))
    intersection = sum(weight * p * truth for weight, truth, p, _ in rows)
    union = sum(weight * (p + truth - p * truth) for weight, truth, p, _ in rows)
    entropies = [(weight if weight_cross_entropy else 1, entropy) for weight, _, _, entropy in rows]
    mean = sum(weight * entropy for weight, entropy in entropies) / sum(weight for weight, _ in entropies)
    return mean + 1 - (intersection + 1) / (union + 1)


def over_labelled_frames(
    literal: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, labelled: Tensor
) -> float:
    losses = [literal(frame, mask) for frame, mask in zip(x[labelled], y[labelled], strict=True)]
    return sum(losses) / len(losses)


shapes = {"b": st.integers(1, 2), "t": st.integers(1, 3), "seed": st.integers(0, 99), "data": st.data()}


@given(published=st.booleans(), **shapes)
def test_dice_is_the_mean_over_labelled_frames(
    b: int, t: int, seed: int, data: st.DataObject, published: bool
) -> None:
    logits, masks = batch(b, t, seed=seed)
    flags = data.draw(st.lists(st.booleans(), min_size=b * t, max_size=b * t).filter(any))
    labelled = torch.tensor(flags).view(b, t)
    expected = over_labelled_frames(
        lambda x, y: literal_dice(x, y, published_smoothing=published), logits, masks, labelled
    )
    found = dice_loss(logits, masks, labelled, published_smoothing=published)
    assert found.item() == pytest.approx(expected, rel=1e-10)


@given(h=st.integers(1, 35), w=st.integers(1, 20), weighted=st.booleans(), **shapes)
def test_structure_is_the_mean_over_labelled_frames(
    b: int, t: int, h: int, w: int, seed: int, data: st.DataObject, weighted: bool
) -> None:
    logits, masks = batch(b, t, h, w, seed=seed)
    flags = data.draw(st.lists(st.booleans(), min_size=b * t, max_size=b * t).filter(any))
    labelled = torch.tensor(flags).view(b, t)
    expected = over_labelled_frames(
        lambda x, y: literal_structure(x, y, weight_cross_entropy=weighted), logits, masks, labelled
    )
    found = structure_loss(logits, masks, labelled, weight_cross_entropy=weighted)
    assert found.item() == pytest.approx(expected, rel=1e-10)


# Numbers of the published code


def stored(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prediction, logits, masks and labelled frames of a case, in clips of five frames, or in one of all."""
    x = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    prediction = x["pred"].to(dtype).requires_grad_()
    truth = next(x[key] for key in ("gt", "first_gt", "mask") if key in x)
    truth = truth.reshape(-1, *truth.shape[-2:])
    logits = prediction.unflatten(0, (-1, 5) if len(prediction) % 5 == 0 else (1, -1))
    if len(truth) == len(prediction):
        labelled = torch.ones(logits.shape[:2], dtype=torch.bool)
        return prediction, logits, truth.reshape(*logits.shape[:2], *truth.shape[1:]), labelled
    masks = truth.new_full((*logits.shape[:2], *truth.shape[1:]), 255)
    labelled = torch.zeros(logits.shape[:2], dtype=torch.bool)
    masks[:, 0], labelled[:, 0] = truth, True
    return prediction, logits, masks, labelled


@wide_and_narrow
@pytest.mark.parametrize("name", _golden.names("D_c3n_dice_"))
def test_golden_dice(name: str, dtype: torch.dtype) -> None:
    prediction, logits, masks, labelled = stored(name, dtype)
    loss = dice_loss(logits, masks, labelled)
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    _golden.assert_matches(name, "grad_pred", prediction.grad)


@wide_and_narrow
@pytest.mark.parametrize("name", _golden.names("D_ecmvae_structure_"))
def test_golden_structure(name: str, dtype: torch.dtype) -> None:
    prediction, logits, masks, labelled = stored(name, dtype)
    loss = structure_loss(logits, masks, labelled)
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    _golden.assert_matches(name, "grad_pred", prediction.grad)


@wide_and_narrow
@pytest.mark.parametrize("name", _golden.names("D_c3n_total_"))
def test_golden_c3n(name: str, dtype: torch.dtype) -> None:
    prediction, logits, masks, labelled = stored(name, dtype)
    entropy = binary_cross_entropy(logits, masks, labelled)
    dice = dice_loss(logits, masks, labelled)
    (entropy + dice).backward()
    _golden.assert_matches(name, "iou_loss", entropy)
    _golden.assert_matches(name, "dice_loss", dice)
    _golden.assert_matches(name, "loss", entropy + dice)
    _golden.assert_matches(name, "grad_pred", prediction.grad)


@wide_and_narrow
def test_golden_ecmvae(dtype: torch.dtype) -> None:
    name = "D_ecmvae_total"
    prediction, logits, masks, labelled = stored(name, dtype)
    x = {key: torch.from_numpy(value).to(dtype) for key, value in _golden.inputs(name).items()}
    features, audio = [x[f"v{i}"].unflatten(0, (2, 5)) for i in range(4)], [x[f"a{i}"] for i in range(4)]
    structure = structure_loss(logits, masks, labelled)
    matching = audio_visual_matching(logits, features, audio, normalize=True)
    loss = structure + 0.5 * matching
    loss.backward()
    _golden.assert_matches(name, "iou_loss", structure)
    _golden.assert_matches(name, "sa_loss", matching)
    _golden.assert_matches(name, "loss", loss)
    _golden.assert_matches(name, "grad_pred", prediction.grad)


# Properties


@given(seed=st.integers(0, 99))
def test_the_sound_dice_lies_between_nothing_and_one(seed: int) -> None:
    logits, masks = batch(seed=seed)
    assert 0 <= dice_loss(100 * logits, masks, published_smoothing=False) <= 1
    perfect = 1000.0 * (2 * masks - 1)[:, :, None]
    assert dice_loss(perfect, masks, published_smoothing=False).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(perfect, masks) < 0  # the published score exceeds 1


@given(logit=st.floats(-3, 3), truth=st.integers(0, 1))
def test_in_a_picture_of_one_pixel_its_weight_cancels(logit: float, truth: int) -> None:
    logits, masks = torch.full((1, 1, 1, 1, 1), logit), torch.full((1, 1, 1, 1), truth)
    weighted = structure_loss(logits, masks, weight_cross_entropy=True)
    torch.testing.assert_close(weighted, structure_loss(logits, masks))


def test_a_mistake_at_the_boundary_costs_more_only_where_it_is_weighted() -> None:
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1
    perfect = 10 * (2 * masks - 1)[:, :, None]
    inside, edge = perfect.clone(), perfect.clone()
    inside[..., 32, 32] *= -1
    edge[..., 16, 16] *= -1
    losses = [structure_loss(x, masks, weight_cross_entropy=True) for x in (inside, edge)]
    assert losses[0] < losses[1]
    entropies = [binary_cross_entropy(x, masks) for x in (inside, edge)]
    torch.testing.assert_close(*entropies)


@each
def test_frames_without_label_touch_neither_loss_nor_gradient(loss_function: Callable[..., Tensor]) -> None:
    logits, masks = batch()
    expected = loss_function(logits, masks, FIRST_FRAMES)
    logits[~FIRST_FRAMES], masks[~FIRST_FRAMES] = torch.nan, 255
    loss = loss_function(logits.requires_grad_(), masks, FIRST_FRAMES)
    assert loss == expected
    loss.backward()
    assert not logits.grad[~FIRST_FRAMES].any()
    assert logits.grad[FIRST_FRAMES].isfinite().all()


@each
def test_a_batch_without_labels_costs_nothing_and_training_goes_on(
    loss_function: Callable[..., Tensor],
) -> None:
    logits = torch.full((2, 3, 1, 9, 7), torch.nan, requires_grad=True)
    loss = loss_function(logits, torch.full((2, 3, 9, 7), 255), torch.zeros(2, 3, dtype=torch.bool))
    assert loss == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize(
    "loss_function",
    [
        dice_loss,
        structure_loss,
        lambda *x: dice_loss(*x, published_smoothing=False),
        lambda *x: structure_loss(*x, weight_cross_entropy=True),
    ],
)
def test_gradients_are_those_of_finite_differences(loss_function: Callable[..., Tensor]) -> None:
    logits, masks = batch(h=4, w=3)
    torch.autograd.gradcheck(lambda x: loss_function(x, masks, FIRST_FRAMES), logits.requires_grad_())


@each
@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_logits_are_taken_to_float32(loss_function: Callable[..., Tensor], autocast: bool) -> None:
    logits, masks = batch(h=40, w=50)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = loss_function(logits.bfloat16(), masks)
    assert loss.dtype == torch.float32
    assert loss == loss_function(logits.bfloat16().float(), masks)


def test_the_modules_are_the_functions_and_have_no_weights() -> None:
    x = (*batch(), FIRST_FRAMES)
    for module, expected in (
        (DiceLoss(), dice_loss(*x)),
        (DiceLoss(published_smoothing=False), dice_loss(*x, published_smoothing=False)),
        (StructureLoss(), structure_loss(*x)),
        (StructureLoss(weight_cross_entropy=True), structure_loss(*x, weight_cross_entropy=True)),
    ):
        assert module(*x) == expected
        assert not module.state_dict()


@each
def test_what_does_not_fit_is_named(loss_function: Callable[..., Tensor]) -> None:
    logits, masks = batch()
    with pytest.raises(ValueError, match=r"logits: expected shape \(b, t, 1, h, w\), got \(2, 3, 2, 9, 7\)"):
        loss_function(logits.expand(2, 3, 2, 9, 7), masks)
    with pytest.raises(ValueError, match=r"masks: expected shape \(b, t, h, w\).* got \(2, 3, 8, 7\)"):
        loss_function(logits, masks[:, :, :8])
    with pytest.raises(ValueError, match=r"labelled: expected shape \(b, t\).* got \(2, 2\)"):
        loss_function(logits, masks, FIRST_FRAMES[:, :2])
    with pytest.raises(ValueError, match="masks: expected the values 0 and 1 where labelled, got others"):
        loss_function(logits, 2 * masks)


@pytest.mark.parametrize("name", ["D_c3n_total_ms3"])
def test_cross_entropy_and_dice_are_the_total_of_c3n(name: str) -> None:
    inputs = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    pred = inputs["pred"].unflatten(0, (2, 5)).requires_grad_()
    loss = CrossEntropyDice()(pred, inputs["gt"].unflatten(0, (2, 5)).squeeze(2).long())
    loss.backward()
    _golden.assert_matches(name, "out.loss", loss)
    assert pred.grad is not None
    _golden.assert_matches(name, "out.grad_pred", pred.grad.flatten(0, 1))
