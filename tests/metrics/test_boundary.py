from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.metrics import BoundaryF, JAndF, MaskIoU, boundary_f
from avslib.metrics.boundary import _by_disk, _by_distance


def contour_pixels(mask: Tensor) -> set[tuple[int, int]]:
    """A pixel whose right, lower or lower right neighbour is another, as far as there is one.

    In the last row and column the published code compares with the one neighbour inside the image.
    """
    h, w = mask.shape
    found = set()
    for y in range(h):
        for x in range(w):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            inside = [(j, i) for j, i in neighbours if j < h and i < w]
            if any(mask[j, i] != mask[y, x] for j, i in inside):
                found.add((y, x))
    return found


def literal(predicted: Tensor, truth: Tensor, radius: int) -> float:
    ours, theirs = contour_pixels(predicted), contour_pixels(truth)
    if not ours and not theirs:
        return 1.0
    if not ours or not theirs:
        return 0.0

    def share(some: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
        near = [any((y - j) ** 2 + (x - i) ** 2 <= radius**2 for j, i in others) for y, x in some]
        return sum(near) / len(near)

    precision, recall = share(ours, theirs), share(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(
    h=st.integers(1, 7),
    w=st.integers(1, 7),
    tolerance=st.sampled_from([0.008, 0.1, 0.15, 0.3]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_it_is_the_definition(h: int, w: int, tolerance: float, density: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(2, 2, h, w, generator=generator) < density).long()
    logits = torch.randn(2, 2, 1, h, w, generator=generator) + 2 * density - 1
    radius = math.ceil(tolerance * math.hypot(h, w))
    found = boundary_f(logits, masks, tolerance=tolerance)
    for b in range(2):
        for t in range(2):
            expected = literal(logits[b, t, 0] > 0, masks[b, t] == 1, radius)
            assert found[b, t].item() == pytest.approx(expected, abs=1e-12)


@given(
    h=st.integers(1, 20),
    w=st.integers(1, 20),
    radius=st.integers(1, 8),
    density=st.sampled_from([0.0, 0.02, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_by_distance_the_same_is_near_as_by_a_disk(
    h: int, w: int, radius: int, density: float, seed: int
) -> None:
    contours = torch.rand(3, h, w, generator=torch.Generator().manual_seed(seed)) < density
    assert torch.equal(_by_distance(contours, radius), _by_disk(contours, radius))


def disks(shift: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    return ((y - 112) ** 2 + (x - 100 - shift) ** 2 <= 40**2).long()[None, None]


def test_at_224_pixels_contours_may_be_three_pixels_apart() -> None:
    near, far = (boundary_f(disks(shift)[:, :, None] * 9 - 4.5, disks(0)).item() for shift in (3, 9))
    assert near == 1
    assert far < 0.6


def test_clips_are_means_of_frames_and_j_and_f_their_mean() -> None:
    masks = torch.cat([disks(0), disks(5), torch.zeros_like(disks(0)), disks(0)]).view(2, 2, 224, 224)
    logits = torch.cat([disks(2), disks(0), disks(0), disks(30)]).view(2, 2, 1, 224, 224) * 9 - 4.5
    valid = torch.tensor([[True, True], [True, False]])
    metrics = {"j": MaskIoU("davis"), "f": BoundaryF(), "mean": JAndF()}
    for metric in metrics.values():
        metric.update(logits, masks, valid)
    found = {name: metric.compute().item() for name, metric in metrics.items()}
    frames = boundary_f(logits, masks)
    assert frames[1, 0] == 0  # something is predicted where nothing is
    assert found["f"] == pytest.approx((frames[0].mean() + frames[1, 0]).item() / 2)
    assert found["mean"] == pytest.approx((found["j"] + found["f"]) / 2)


def test_many_frames_are_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 10, 1, 6, 6, generator=generator)
    masks = torch.randint(0, 2, (7, 10, 6, 6), generator=generator)
    alone = torch.cat([boundary_f(logits[i : i + 1], masks[i : i + 1]) for i in range(7)])
    assert torch.equal(boundary_f(logits, masks), alone)


def test_a_part_of_a_larger_tensor_is_as_good_as_a_copy() -> None:
    logits, masks = torch.randn(2, 10, 1, 6, 6)[:, :5], torch.randint(0, 2, (5, 2, 6, 6)).transpose(0, 1)
    expected = boundary_f(logits.contiguous(), masks.contiguous())
    assert torch.equal(boundary_f(logits, masks), expected)
    metric = BoundaryF()
    metric.update(logits, masks)
    assert metric.compute().item() == pytest.approx(expected.mean().item())


def test_nothing_is_something_to_agree_on() -> None:
    nothing, masks = torch.full((1, 1, 1, 5, 5), -3.0), torch.zeros(1, 1, 5, 5)
    assert boundary_f(nothing, masks) == 1
    metric = JAndF()
    metric.update(nothing, masks)
    assert metric.compute() == 1
    assert boundary_f(-nothing, masks) == 1  # a full image has no contour either
    metric.update(-nothing, masks)
    assert metric.compute() == 0.75  # but J is 0


def test_a_bfloat16_autocast_changes_nothing() -> None:
    logits, masks = torch.randn(1, 2, 1, 40, 40), torch.randint(0, 2, (1, 2, 40, 40))
    with torch.autocast("cpu", torch.bfloat16):
        found = boundary_f(logits, masks, tolerance=0.2)
    assert torch.equal(found, boundary_f(logits, masks, tolerance=0.2))


def test_errors_name_the_argument() -> None:
    logits, masks = torch.zeros(1, 1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"^masks: expected the values 0 and 1"):
        boundary_f(logits, masks + 0.5)
    with pytest.raises(ValueError, match=r"^logits: expected shape \(b, t, 1, h, w\)"):
        boundary_f(masks, masks)
    for tolerance in (0, 1, -0.5):
        with pytest.raises(ValueError, match=r"^tolerance: expected a number in \(0, 1\), got"):
            boundary_f(logits, masks, tolerance=tolerance)
        with pytest.raises(ValueError, match=r"^tolerance: expected a number in \(0, 1\), got"):
            JAndF(tolerance=tolerance)
    with pytest.raises(ValueError, match=r"^protocol: expected one of 'davis', got 'avsbench'"):
        BoundaryF("avsbench")
