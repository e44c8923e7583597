from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from avslib.losses.segmentation import (
    BinaryCrossEntropy,
    CrossEntropy,
    binary_cross_entropy,
    cross_entropy,
)
from tests import _golden


def batch(b: int = 2, t: int = 3, h: int = 4, w: int = 5, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(b, t, 1, h, w, generator=rng, dtype=torch.float64)
    return logits, torch.randint(0, 2, (b, t, h, w), generator=rng)


FIRST_FRAME = torch.tensor([[True, False, False]] * 2)


def literal(logits: Tensor, masks: Tensor, labelled: Tensor) -> float:
    losses = []
    for b, t, y, x in torch.cartesian_prod(*map(torch.arange, masks.shape)).tolist():
        if labelled[b, t]:
            p = 1 / (1 + math.exp(-logits[b, t, 0, y, x].item()))
            losses.append(-math.log(p if masks[b, t, y, x] else 1 - p))
    return sum(losses) / len(losses)


@given(b=st.integers(1, 2), t=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4), data=st.data())
def test_it_is_the_mean_over_the_pixels_of_labelled_frames(
    b: int, t: int, h: int, w: int, data: st.DataObject
) -> None:
    logits, masks = batch(b, t, h, w)
    flags = data.draw(st.lists(st.booleans(), min_size=b * t, max_size=b * t).filter(any))
    labelled = torch.tensor(flags).view(b, t)
    expected = literal(logits, masks, labelled)
    assert binary_cross_entropy(logits, masks, labelled).item() == pytest.approx(expected, rel=1e-12)


def test_without_flags_every_frame_counts() -> None:
    logits, masks = batch()
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    assert binary_cross_entropy(logits, masks) == binary_cross_entropy(logits, masks, everywhere)


@given(st.integers(0, 100))
def test_background_and_foreground_are_treated_alike(seed: int) -> None:
    logits, masks = batch(seed=seed)
    torch.testing.assert_close(binary_cross_entropy(logits, masks), binary_cross_entropy(-logits, 1 - masks))


def test_an_undecided_prediction_costs_log_two() -> None:
    _, masks = batch()
    loss = binary_cross_entropy(torch.zeros(2, 3, 1, 4, 5), masks)
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))


def test_away_from_saturation_it_is_the_published_sigmoid_and_bce_loss() -> None:
    logits, masks = batch()
    published = F.binary_cross_entropy(logits.sigmoid().squeeze(2), masks.double())
    torch.testing.assert_close(binary_cross_entropy(logits, masks), published)


@pytest.mark.parametrize(("logit", "mask"), [(17.0, 0), (40.0, 0), (-110.0, 1)])
def test_a_pixel_that_is_wrong_and_sure_keeps_its_gradient(logit: float, mask: int) -> None:
    logits = torch.full((1, 1, 1, 1, 1), logit, requires_grad=True)
    masks = torch.full((1, 1, 1, 1), mask)
    clamped = F.binary_cross_entropy(logits.sigmoid().squeeze(2), masks.float())
    assert clamped == 100
    assert torch.autograd.grad(clamped, logits)[0] == 0
    loss = binary_cross_entropy(logits, masks)
    assert loss.item() == pytest.approx(abs(logit))
    assert torch.autograd.grad(loss, logits)[0].item() == pytest.approx(math.copysign(1, logit))


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), 1e30])
def test_frames_without_label_touch_neither_loss_nor_gradient(strange: float) -> None:
    logits, masks = batch()
    spoilt, other_masks = logits.clone(), masks.clone()
    spoilt[~FIRST_FRAME] = strange
    other_masks[~FIRST_FRAME] = 255
    logits.requires_grad_()
    spoilt.requires_grad_()
    loss = binary_cross_entropy(spoilt, other_masks, FIRST_FRAME)
    assert loss == binary_cross_entropy(logits, masks, FIRST_FRAME)
    loss.backward()
    binary_cross_entropy(logits, masks, FIRST_FRAME).backward()
    assert spoilt.grad is not None
    assert (spoilt.grad[~FIRST_FRAME] == 0).all()
    assert torch.equal(spoilt.grad, logits.grad)


def test_a_batch_without_labels_costs_nothing_and_training_goes_on() -> None:
    logits = torch.full((2, 3, 1, 4, 5), torch.nan, requires_grad=True)
    loss = binary_cross_entropy(logits, torch.full((2, 3, 4, 5), 255), torch.zeros(2, 3, dtype=torch.bool))
    assert loss == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_logits_are_taken_to_float32(autocast: bool) -> None:
    logits, masks = batch(h=40, w=50)
    logits = logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = binary_cross_entropy(logits, masks)
    assert loss.dtype == torch.float32
    assert loss == binary_cross_entropy(logits.float(), masks)
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16


def test_gradients_are_those_of_finite_differences() -> None:
    logits, masks = batch()
    torch.autograd.gradcheck(lambda x: binary_cross_entropy(x, masks, FIRST_FRAME), logits.requires_grad_())


def test_the_module_is_the_function_and_has_no_weights() -> None:
    logits, masks = batch()
    module = BinaryCrossEntropy()
    assert module(logits, masks, FIRST_FRAME) == binary_cross_entropy(logits, masks, FIRST_FRAME)
    assert not module.state_dict()


def test_masks_may_be_of_any_type() -> None:
    logits, masks = batch()
    for dtype in (torch.bool, torch.uint8, torch.float32):
        assert binary_cross_entropy(logits, masks.to(dtype)) == binary_cross_entropy(logits, masks)


def test_several_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits: expected shape \(b, t, 1, h, w\), got \(2, 3, 7, 4, 5\)"):
        binary_cross_entropy(torch.zeros(2, 3, 7, 4, 5), torch.zeros(2, 3, 4, 5))


def test_wrong_shapes_are_named() -> None:
    logits, masks = batch()
    with pytest.raises(ValueError, match=r"masks: expected shape \(b, t, h, w\).* got \(2, 3, 8, 5\)"):
        binary_cross_entropy(logits, torch.zeros(2, 3, 8, 5))
    with pytest.raises(ValueError, match=r"labelled: expected shape \(b, t\).* got \(2, 1\)"):
        binary_cross_entropy(logits, masks, FIRST_FRAME[:, :1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("name", ["D_F1_bce", "D_F5_bce", "D_ms3_total_noavm"])
def test_golden_binary_cross_entropy(name: str, saturate: bool, dtype: torch.dtype) -> None:
    stored = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    prediction = stored["pred"].to(dtype).requires_grad_()
    masks, labelled = torch.full((2, 5, 32, 32), 255.0), torch.zeros(2, 5, dtype=torch.bool)
    if name == "D_F1_bce":
        masks[:, 0], labelled[:, 0] = stored["first_gt"].view(2, 32, 32), True
    else:
        masks, labelled = stored["gt"].view(2, 5, 32, 32), ~labelled
    loss = binary_cross_entropy(prediction.unflatten(0, (2, 5)), masks, labelled, saturate=saturate)
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    _golden.assert_matches(name, "grad_pred", prediction.grad)


def test_golden_binary_cross_entropy_saturates_where_asked() -> None:
    name = "D_F5_bce_extreme"
    stored = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    prediction, masks = stored["pred"].requires_grad_(), stored["gt"].view(2, 5, 32, 32)
    loss = binary_cross_entropy(prediction.unflatten(0, (2, 5)), masks, saturate=True)
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    _golden.assert_matches(name, "grad_pred", prediction.grad)
    sound = binary_cross_entropy(prediction.unflatten(0, (2, 5)), masks)
    expected = _golden.case(name)["sensitivity"]["binary_cross_entropy_with_logits"]
    assert sound.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_golden_cross_entropy(dtype: torch.dtype) -> None:
    name = "D_avss_ce"
    stored = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    prediction = stored["pred"].to(dtype).requires_grad_()
    loss = cross_entropy(
        prediction.unflatten(0, (2, 5)),
        stored["label"].unflatten(0, (2, 5)),
        stored["gt_flag"].bool().view(2, 5),
    )
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    _golden.assert_matches(name, "grad_pred", prediction.grad)


@given(b=st.integers(1, 2), t=st.integers(1, 3), k=st.integers(1, 4), data=st.data())
def test_cross_entropy_is_the_mean_over_the_pixels_of_labelled_frames(
    b: int, t: int, k: int, data: st.DataObject
) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(b, t, k, 2, 3, generator=rng, dtype=torch.float64)
    masks = torch.randint(0, k, (b, t, 2, 3), generator=rng)
    flags = data.draw(st.lists(st.booleans(), min_size=b * t, max_size=b * t).filter(any))
    labelled = torch.tensor(flags).view(b, t)
    losses = []
    for i, j, y, x in torch.cartesian_prod(*map(torch.arange, masks.shape)).tolist():
        if labelled[i, j]:
            scores = logits[i, j, :, y, x].tolist()
            total = sum(math.exp(score) for score in scores)
            losses.append(math.log(total) - scores[masks[i, j, y, x]])
    found = cross_entropy(logits, masks, labelled)
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12, abs=1e-12)


def test_two_classes_are_one_logit() -> None:
    logits, masks = batch()
    two = torch.cat([torch.zeros_like(logits), logits], dim=2)
    torch.testing.assert_close(cross_entropy(two, masks), binary_cross_entropy(logits, masks))


def test_cross_entropy_leaves_frames_without_label_alone() -> None:
    logits = torch.randn(2, 3, 7, 4, 5, dtype=torch.float64)
    masks = torch.randint(0, 7, (2, 3, 4, 5))
    expected = cross_entropy(logits, masks, FIRST_FRAME)
    logits[~FIRST_FRAME], masks[~FIRST_FRAME] = torch.nan, 255
    loss = cross_entropy(logits.requires_grad_(), masks, FIRST_FRAME)
    assert loss == expected == CrossEntropy()(logits, masks, FIRST_FRAME)
    loss.backward()
    assert torch.equal(logits.grad[~FIRST_FRAME], torch.zeros(4, 7, 4, 5).double())
    nothing = cross_entropy(logits, masks, torch.zeros(2, 3, dtype=torch.bool))
    assert nothing == 0
    nothing.backward()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("saturate", [False, True])
def test_every_form_is_float32_under_autocast(autocast: bool, saturate: bool) -> None:
    logits, masks = batch()
    narrow = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = binary_cross_entropy(narrow, masks, saturate=saturate), cross_entropy(narrow, masks * 0)
    expected = (
        binary_cross_entropy(narrow.float(), masks, saturate=saturate),
        cross_entropy(narrow.float(), masks * 0),
    )
    assert losses == expected
    assert {loss.dtype for loss in losses} == {torch.float32}


def test_the_module_saturates_where_asked() -> None:
    logits, masks = torch.full((1, 1, 1, 2, 2), 200.0), torch.zeros(1, 1, 2, 2)
    assert BinaryCrossEntropy(saturate=True)(logits, masks) == 100
    assert BinaryCrossEntropy()(logits, masks) == 200


@pytest.mark.parametrize("value", [255, 7, -1])
def test_classes_outside_are_refused(value: int) -> None:
    logits, masks = torch.zeros(2, 3, 7, 4, 5), torch.zeros(2, 3, 4, 5, dtype=torch.int64)
    masks[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match="masks: expected classes from 0 to 6 where labelled, got others"):
        cross_entropy(logits, masks, FIRST_FRAME)


@pytest.mark.parametrize("value", [255, 2, -1])
def test_grey_levels_and_class_numbers_are_refused(value: int) -> None:
    logits, masks = batch()
    masks[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match="masks: expected the values 0 and 1 where labelled, got others"):
        binary_cross_entropy(logits, masks, FIRST_FRAME)
