from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from avslib.metrics import MaskIoU, frame_iou, frame_statistics, iou_drop, mask_iou
from avslib.metrics.uncertainty import (
    EnergyDistance,
    SampleDiversity,
    SampleIoU,
    energy_distance,
    sample_diversity,
    sample_iou,
)
from tests.metrics.test_protocols import clips

CHOICES = ("mean", "each", "best", "best_frame")


def several(n: int, count: int = 5, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Samples that are more or less like the first one, some of them empty."""
    logits, masks, valid = clips(count, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(n, *logits.shape, generator=generator)
    empty = 9.0 * (torch.rand(n, *logits.shape[:2], 1, 1, 1, generator=generator) < 0.2)
    return logits + noise - empty, masks, valid


def literal_distance(a: Tensor, b: Tensor) -> float:
    either = int((a | b).sum())
    return 1 - int((a & b).sum()) / either if either else 0.0


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def literal(kind: str, samples: Tensor, masks: Tensor, valid: Tensor) -> float:
    scores = []
    for b in range(len(masks)):
        seconds = [t for t in range(masks.shape[1]) if valid[b, t]]
        if not seconds:
            continue
        found = {
            (s, t): torch.sigmoid(samples[s, b, t, 0]) > 0.5 for s in range(len(samples)) for t in seconds
        }
        truth = {t: masks[b, t] == 1 for t in seconds}
        j = {
            (s, t): frame_iou(samples[s, b : b + 1, t : t + 1], masks[b : b + 1, t : t + 1]).item()
            for s in range(len(samples))
            for t in seconds
        }
        numbers = range(len(samples))
        if kind == "mean":
            average = torch.stack([torch.sigmoid(sample[b]) for sample in samples]).mean(dim=0)
            values = frame_iou(average.logit()[None], masks[b : b + 1])[0]
            scores.append(mean([values[t].item() for t in seconds]))
        elif kind == "each":
            scores.append(mean(list(j.values())))
        elif kind == "best":
            scores.append(max(mean([j[s, t] for t in seconds]) for s in numbers))
        elif kind == "best_frame":
            scores.append(mean([max(j[s, t] for s in numbers) for t in seconds]))
        else:
            apart = {
                t: mean([literal_distance(found[s, t], found[r, t]) for s, r in product(numbers, numbers)])
                for t in seconds
            }
            wrong = {t: mean([literal_distance(found[s, t], truth[t]) for s in numbers]) for t in seconds}
            if kind == "diversity":
                scores.append(mean(list(apart.values())))
            else:
                scores.append(mean([2 * wrong[t] - apart[t] for t in seconds]))
    return mean(scores)


def metric_of(kind: str) -> SampleIoU | EnergyDistance | SampleDiversity:
    if kind in CHOICES:
        return SampleIoU(kind)
    return SampleDiversity() if kind == "diversity" else EnergyDistance()


@pytest.mark.parametrize("kind", [*CHOICES, "distance", "diversity"])
@given(n=st.integers(1, 4), seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 4)), data=st.data())
def test_literal_version_in_any_batching_order_and_sharding(
    kind: str, n: int, seed: int, cuts: set[int], data: st.DataObject
) -> None:
    samples, masks, valid = several(n, seed=seed)
    order = data.draw(st.permutations(range(5)))
    bounds = [0, *sorted(cuts), 5]
    shards = [metric_of(kind), metric_of(kind)]
    for i, (start, stop) in enumerate(pairwise(bounds)):
        part = order[start:stop]
        shards[i % 2].update(samples[:, part], masks[part], valid[part])
    shards[0].merge_state(shards[1])
    expected = literal(kind, samples, masks, valid)
    assert shards[0].compute().item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("choice", CHOICES)
def test_of_one_sample_every_choice_is_the_mask_iou(choice: str) -> None:
    logits, masks, valid = clips(7)
    metric, expected = SampleIoU(choice, threshold=0.4), MaskIoU(threshold=0.4)
    metric.update(logits[None], masks, valid)
    expected.update(logits, masks, valid)
    assert metric.compute().item() == pytest.approx(expected.compute().item(), abs=1e-12)


@given(n=st.integers(1, 5), seed=st.integers(0, 99))
def test_best_is_no_less_than_each_and_a_best_of_every_frame_no_less_than_that(n: int, seed: int) -> None:
    samples, masks, valid = several(n, seed=seed)
    metrics = MetricCollection({choice: SampleIoU(choice) for choice in CHOICES})
    metrics.update(samples, masks, valid)
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found["each"] <= found["best"] + 1e-12 <= found["best_frame"] + 2e-12


@given(n=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_distance_is_not_negative_and_does_not_know_the_order_of_samples(n: int, seed: int) -> None:
    samples, masks, _ = several(n, seed=seed)
    distance = energy_distance(samples, masks)
    assert (distance >= -1e-12).all()
    assert (distance <= 2).all()
    torch.testing.assert_close(energy_distance(samples.flip(0), masks), distance)
    diversity = sample_diversity(samples)
    assert (diversity >= 0).all()
    assert (diversity <= 1 - 1 / n + 1e-12).all()


def test_worked_example() -> None:
    """One sample is right, one has half of it; in a silent second one is right, one finds a pixel."""
    on, half, none, stray = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    samples = (
        torch.stack([torch.stack([on, none]), torch.stack([half, stray])]).view(2, 1, 2, 1, 2, 2) * 18.0 - 9
    )
    masks = torch.stack([on, none]).view(1, 2, 2, 2)
    torch.testing.assert_close(
        sample_iou(samples, masks),
        torch.tensor([[[1, 1.0]], [[0.5, 0.75]]], dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )
    assert sample_diversity(samples).tolist() == [[0.25, 0.5]]
    # 2 (0 + 1/2) / 2 - (1/2 + 1/2) / 4; 2 (0 + 1) / 2 - (1 + 1) / 4: both empty are no distance apart
    assert energy_distance(samples, masks).tolist() == [[0.25, 0.5]]


def test_samples_about_the_truth_are_nearer_than_equal_ones_that_are_as_wrong() -> None:
    truth = torch.tensor([0, 1, 1, 0]).view(1, 1, 2, 2)
    left, right = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0]]).view(2, 1, 1, 1, 2, 2) * 18.0 - 9
    varied, equal = torch.stack([left, right]), torch.stack([left, left])
    assert (energy_distance(varied, truth) < energy_distance(equal, truth)).all()
    assert energy_distance(equal, truth).item() == 2 * 0.5
    assert energy_distance(left[None], truth).item() == 2 * 0.5


def test_autocast_changes_nothing() -> None:
    torch.manual_seed(0)
    samples = torch.randn(3, 1, 2, 1, 33, 31)  # more than 256 pixels, which bfloat16 cannot count
    masks = torch.randint(0, 2, (1, 2, 33, 31))
    expected = energy_distance(samples, masks)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(energy_distance(samples, masks), expected)


def test_padding_may_hold_anything_and_collections_keep_their_sums_apart() -> None:
    samples, masks, valid = several(2)
    metrics = MetricCollection({"best": SampleIoU(), "far": EnergyDistance(), "apart": SampleDiversity()})
    padded = torch.where(valid[..., None, None], masks, 255)
    metrics.update(torch.where(valid[..., None, None, None], samples, math.nan), padded, valid)
    expected = {
        name: literal(kind, samples, masks, valid)
        for name, kind in (("best", "best"), ("far", "distance"), ("apart", "diversity"))
    }
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(expected)
    assert EnergyDistance().higher_is_better is False
    empty = SampleIoU()
    empty.update(samples, masks, torch.zeros_like(valid))
    assert empty.compute().isnan()


def test_errors_name_the_argument() -> None:
    samples, masks, valid = several(2)
    with pytest.raises(
        ValueError, match=r"samples: expected shape \(s, b, t, 1, h, w\), got \(5, 3, 1, 5, 5\)"
    ):
        SampleIoU().update(samples[0], masks)
    with pytest.raises(ValueError, match="samples: expected at least one, got none"):
        SampleIoU().update(samples[:0], masks)
    with pytest.raises(ValueError, match=r"valid: expected shape \(b, t\) with b=5, t=3, got \(4, 3\)"):
        SampleIoU().update(samples, masks, valid[:4])
    with pytest.raises(ValueError, match="masks: expected the values 0 and 1"):
        EnergyDistance().update(samples, masks + 1)
    with pytest.raises(ValueError, match="masks: expected the values 0 and 1"):
        energy_distance(samples, masks + 1)
    with pytest.raises(ValueError, match="choice: expected one of 'mean', 'each', 'best', 'best_frame'"):
        SampleIoU("worst")
    with pytest.raises(ValueError, match=r"threshold: expected a probability in \[0, 1\), got 1"):
        EnergyDistance(threshold=1)


def test_no_clip_has_no_score_and_no_sample_is_refused() -> None:
    nothing, masks = torch.zeros(2, 0, 3, 1, 4, 4), torch.zeros(0, 3, 4, 4)
    assert energy_distance(nothing, masks).shape == sample_diversity(nothing).shape == (0, 3)
    for kind in (*CHOICES, "distance", "diversity"):
        metric = metric_of(kind)
        metric.update(nothing, masks)
        assert metric.compute().isnan()
    with pytest.raises(ValueError, match="samples: expected at least one, got none"):
        sample_diversity(nothing.transpose(0, 1))


@pytest.mark.parametrize("kind", ["best", "distance"])
def test_what_padding_holds_is_of_no_matter(kind: str) -> None:
    samples, masks, valid = several(2)
    metric, expected = metric_of(kind), metric_of(kind)
    metric.update(samples, masks.float().where(valid[..., None, None], math.nan), valid)
    expected.update(samples, masks, valid)
    assert metric.compute() == expected.compute()


@pytest.mark.parametrize("threshold", [-0.1, 1, 127])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    samples, masks, _ = several(2)
    for refused in (
        lambda: sample_iou(samples, masks, threshold=threshold),
        lambda: energy_distance(samples, masks, threshold=threshold),
        lambda: sample_diversity(samples, threshold=threshold),
        lambda: frame_iou(samples[0], masks, threshold=threshold),
        lambda: mask_iou(samples[0], masks, threshold=threshold),
        lambda: iou_drop(samples[0], samples[1], masks, threshold=threshold),
        lambda: frame_statistics(samples[0], masks, threshold=threshold),
    ):
        with pytest.raises(
            ValueError, match=rf"threshold: expected a probability in \[0, 1\), got {threshold}"
        ):
            refused()
