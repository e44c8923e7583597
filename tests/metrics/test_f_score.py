from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.metrics import FScore, f_curves, f_score, frame_statistics
from tests._golden import arrays, case

# C_bin_gt_1_over_255 is left out: its ground truth is 1/255, which we refuse (see the errors below).
GOLDEN = (
    "all_empty",
    "all_empty_perfect",
    "extreme_1e4",
    "gt_full",
    "inverted",
    "n1",
    "n10_some_empty",
    "perfect",
    "random_n5",
    "ties_at_half",
)


def clips(count: int, *, t: int = 3, size: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clips of which about a third of the frames have no ground truth, and the third clip has none at all."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, t, size, size), generator=generator)
    masks *= torch.rand(count, t, 1, 1, generator=generator) > 0.3
    masks[2:3] = 0
    logits = 2 * torch.randn(count, t, 1, size, size, generator=generator) + masks[:, :, None]
    return logits, masks


def literal_curve(probability: Tensor, mask: Tensor) -> list[float]:
    """One frame ``(H, W)``, one threshold after the other."""
    curve = []
    for threshold in torch.linspace(0, 1 - 1e-10, 255):
        selected = probability >= threshold
        hit = (selected & (mask == 1)).sum().item()
        precision = hit / (selected.sum().item() + 1e-20)
        recall = hit / ((mask == 1).sum().item() + 1e-20)
        curve.append(1.3 * precision * recall / (0.3 * precision + recall) if hit else 0.0)
    return curve


def literal_f(logits: Tensor, masks: Tensor) -> float:
    frames = zip(logits.float().sigmoid().flatten(0, 2), masks.flatten(0, 1), strict=True)
    curves = [literal_curve(probability, mask) for probability, mask in frames if mask.any()]
    return max(sum(values) / len(curves) for values in zip(*curves, strict=True)) if curves else 0.0


@given(
    b=st.integers(1, 2),
    t=st.integers(1, 3),
    h=st.integers(1, 4),
    w=st.integers(1, 4),
    kind=st.sampled_from(["ties", "spread", "saturated", "broken"]),
    seed=st.integers(0, 99),
)
def test_histogram_is_the_loop_over_thresholds(b: int, t: int, h: int, w: int, kind: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, t, 1, h, w, generator=generator) * {"saturated": 1e3}.get(kind, 4.0)
    if kind == "ties":
        logits = torch.randint(0, 255, logits.shape, generator=generator).div(254).logit()
    if kind == "broken":
        logits[logits > 1] = torch.nan
    masks = torch.randint(0, 2, (b, t, h, w), generator=generator)
    masks *= torch.rand(b, t, 1, 1, generator=generator) > 0.3
    # of all frames at once: the last bit of a sigmoid may depend on where in a tensor the number lies
    probabilities = logits.sigmoid().squeeze(2)
    expected = [[literal_curve(probabilities[i, j], masks[i, j]) for j in range(t)] for i in range(b)]
    assert f_curves(logits, masks).tolist() == expected
    assert f_score(logits, masks).item() == pytest.approx(literal_f(logits, masks), abs=1e-12)
    with_truth = [expected[i][j] for i in range(b) for j in range(t) if masks[i, j].any()]
    if with_truth:
        metric = FScore()
        metric.update(logits, masks)
        mean = torch.tensor(with_truth, dtype=torch.float64).mean(dim=0)
        torch.testing.assert_close(metric.curves()[2], mean, rtol=0, atol=1e-12)


def threshold_counts(scores: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """How many pixels reach each threshold, and how many of these are foreground, where the score is told."""
    statistics = frame_statistics(scores.unsqueeze(2), masks, reading="logit")
    return statistics.selected.long(), statistics.hit.long()


def test_counts_are_exact_on_and_beside_every_threshold() -> None:
    thresholds = torch.linspace(0, 1 - 1e-10, 255)
    beside = [thresholds.nextafter(torch.tensor(end)) for end in (0.0, 1.0)]
    halfway = (thresholds[1:] + thresholds[:-1]) / 2
    probabilities = torch.cat([thresholds, *beside, halfway, torch.zeros(1), torch.ones(1)])[None, None, None]
    masks = (torch.arange(probabilities.shape[-1]) % 3 == 0)[None, None, None]
    selected, hit = threshold_counts(probabilities, masks)
    reached = probabilities >= thresholds.view(255, 1, 1, 1, 1)
    assert torch.equal(selected.flatten(), reached.flatten(1).sum(dim=1))
    assert torch.equal(hit.flatten(), (reached & masks).flatten(1).sum(dim=1))


@given(order=st.permutations(range(7)), cuts=st.sets(st.integers(1, 6)), seed=st.integers(0, 9))
def test_with_one_clip_a_batch_neither_order_nor_grouping_counts(
    order: list[int], cuts: set[int], seed: int
) -> None:
    logits, masks = clips(7, seed=seed)
    metric = FScore()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 7], strict=True):
        metric.update(logits[order[start:stop]], masks[order[start:stop]])
    alone = [f_score(logits[i : i + 1], masks[i : i + 1]).item() for i in range(7)]
    assert alone[2] == 0
    assert metric.compute().item() == pytest.approx(sum(alone) / 7, abs=1e-9)


@pytest.mark.parametrize("user", [1, 2, 3, 7])
@pytest.mark.parametrize("clips_per_batch", [2, 4])
def test_the_protocols_batches_are_not_the_users(clips_per_batch: int, user: int) -> None:
    logits, masks = clips(7)
    parts = list(zip(logits.split(clips_per_batch), masks.split(clips_per_batch), strict=True))
    expected = sum(literal_f(*part) for part in parts) / len(parts)
    metric = FScore(clips_per_batch=clips_per_batch)
    for part in zip(logits.split(user), masks.split(user), strict=True):
        metric.update(*part)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-9)


def test_the_number_depends_on_the_protocols_batch() -> None:
    logits, masks = clips(7)
    scores = set()
    for clips_per_batch in (1, 2, 4, 8):
        metric = FScore(clips_per_batch=clips_per_batch)
        metric.update(logits, masks)
        scores.add(round(metric.compute().item(), 4))
    assert len(scores) == 4


@pytest.mark.parametrize("clips_per_batch", [1, 2])
def test_padding_is_no_frame_and_a_clip_of_padding_no_clip(clips_per_batch: int) -> None:
    logits, masks = clips(2, t=4)
    logits, masks = logits[[0, 0, 1]], masks[[0, 0, 1]]
    valid = torch.tensor([[True] * 4, [False] * 4, [True, True, False, False]])
    padded = logits.masked_fill(~valid[:, :, None, None, None], torch.nan)
    metric = FScore(clips_per_batch=clips_per_batch)
    metric.update(padded, masks.masked_fill(~valid[:, :, None, None], 255), valid)
    kept = [(logits[:1], masks[:1]), (logits[2:, :2], masks[2:, :2])]
    if clips_per_batch == 1:
        expected = sum(f_score(*clip).item() for clip in kept) / 2
    else:
        expected = f_score(*(torch.cat(part, dim=1) for part in zip(*kept, strict=True))).item()
    assert metric.compute().item() == pytest.approx(expected, abs=1e-9)


def test_bfloat16_logits_are_taken_to_float32_first() -> None:
    logits, masks = clips(2)
    assert torch.equal(f_curves(logits.bfloat16(), masks), f_curves(logits.bfloat16().float(), masks))


def test_curves_carry_no_gradient_and_leave_the_logits_alone() -> None:
    logits, masks = clips(2)
    before = logits.clone()
    assert not f_curves(logits.requires_grad_(), masks).requires_grad
    assert torch.equal(logits, before)


@pytest.mark.parametrize("name", GOLDEN)
def test_published_implementation(name: str) -> None:
    stored = arrays(f"C_bin_{name}")
    logits, masks = (torch.from_numpy(stored[key])[None] for key in ("in.pred_logits", "in.gt"))
    assert f_score(logits[:, :, None], masks).item() == pytest.approx(stored["out.F"].item(), abs=2e-6)
    if "out.F_per_frame" in stored:
        expected = torch.from_numpy(stored["out.F_per_frame"])[None].double()
        best = f_curves(logits[:, :, None], masks).amax(dim=-1)
        torch.testing.assert_close(best, expected, rtol=0, atol=2e-6)


def test_published_implementation_where_probabilities_are_thresholds() -> None:
    stored = arrays("C_bin_ties_at_thresholds")
    assert torch.equal(torch.linspace(0, 1 - 1e-10, 255), torch.from_numpy(stored["in.thresholds"]))
    logits, masks = (torch.from_numpy(stored[key])[None] for key in ("in.pred_logits", "in.gt"))
    # a sigmoid that rounds otherwise elsewhere moves a tie to the other side; all ties below give .916
    assert f_score(logits[:, :, None], masks).item() == pytest.approx(stored["out.F"].item(), abs=3e-3)


def test_published_precision_and_recall() -> None:
    stored = arrays("C_pr_curve")
    masks = torch.from_numpy(stored["in.gt"])[None, None]
    selected, hit = threshold_counts(torch.from_numpy(stored["in.prob"])[None, None], masks)
    precision, recall = (hit / (selected + 1e-20))[0, 0], (hit / masks.sum())[0, 0]
    torch.testing.assert_close(precision, torch.from_numpy(stored["out.precision"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(recall, torch.from_numpy(stored["out.recall"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "clips_per_batch"), [("batches_2_2_1", 2), ("batchsize_1", 1)])
def test_published_test_loop(name: str, clips_per_batch: int) -> None:
    stored = arrays(f"C_loop_{name}")
    metric = FScore(clips_per_batch=clips_per_batch)
    logits, masks = (torch.from_numpy(stored[key]) for key in ("in.pred_logits", "in.gt"))
    logits, masks = logits.unflatten(0, (-1, 5)).unsqueeze(2), masks.unflatten(0, (-1, 5))
    for part in zip(logits.split(3), masks.split(3), strict=True):
        metric.update(*part)
    assert metric.compute().item() == pytest.approx(stored["out.F_score"].item(), abs=2e-6)


def test_published_sensitivity_to_the_batch() -> None:
    stored, others = arrays("C_loop_batches_2_2_1"), case("C_loop_batches_2_2_1")["sensitivity"]
    logits, masks = (
        torch.from_numpy(stored[key]).unflatten(0, (-1, 5)) for key in ("in.pred_logits", "in.gt")
    )
    for clips_per_batch, name in ((1, "F_batch_size_1"), (5, "F_one_batch"), (math.inf, "F_one_batch")):
        metric = FScore(clips_per_batch=clips_per_batch)
        metric.update(logits.unsqueeze(2), masks)
        assert metric.compute().item() == pytest.approx(others[name], abs=2e-6)


def test_errors_name_the_argument() -> None:
    logits, masks = torch.zeros(2, 3, 1, 4, 4), torch.zeros(2, 3, 4, 4)
    metric = FScore()
    for refuses in (metric.update, f_curves, f_score):
        with pytest.raises(ValueError, match=r"^logits: expected shape \(b, t, 1, h, w\), got \(2, 3, 2, "):
            refuses(logits.expand(2, 3, 2, 4, 4), masks)
        with pytest.raises(ValueError, match=r"^masks: expected the values 0 and 1"):
            refuses(logits, masks + 1 / 255)
    with pytest.raises(ValueError, match=r"^protocol: expected one of 'avsbench', 'sama', .*, got 'davis'"):
        FScore("davis")
    with pytest.raises(ValueError, match=r"^clips_per_batch: expected a number above 0, got -1"):
        FScore(clips_per_batch=-1)
