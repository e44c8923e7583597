from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from avslib.losses import BinaryCrossEntropy, binary_cross_entropy


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


@pytest.mark.parametrize("value", [255, 2, -1])
def test_grey_levels_and_class_numbers_are_refused(value: int) -> None:
    logits, masks = batch()
    masks[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match="masks: expected the values 0 and 1 where labelled, got others"):
        binary_cross_entropy(logits, masks, FIRST_FRAME)
