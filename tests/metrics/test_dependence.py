from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from statistics import harmonic_mean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from avslib.metrics import frame_iou
from avslib.metrics.calibration import CalibrationError
from avslib.metrics.dependence import RATES, OnsetAccuracy, g_measure, iou_drop, onset_counts
from avslib.metrics.uncertainty import EnergyDistance, SampleDiversity, SampleIoU
from tests.metrics.test_protocols import clips

# Each process takes its share of the clips: every other one, and then all but none.
PROCESS = """
import sys
import torch
from torch import distributed as dist
from tests.metrics.test_dependence import METRICS, of_metrics

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
found = [of_metrics(share[rank]) for share in ([range(0, 7, 2), range(1, 7, 2)], [range(7), range(0)])]
torch.save(torch.stack(found), f"{folder}/found{rank}.pt")
dist.destroy_process_group()
"""
METRICS = (
    *((OnsetAccuracy, {"measure": word}) for word in ("seconds", "transitions")),
    *((CalibrationError, {"kind": word}) for word in ("foreground", "prediction")),
    *((SampleIoU, {"choice": word}) for word in ("mean", "each", "best", "best_frame")),
    (EnergyDistance, {}),
    (SampleDiversity, {}),
)


def of_metrics(share: range) -> Tensor:
    """What every metric here and of uncertainty says of some clips."""
    logits, masks, valid = clips(7)
    samples = torch.stack([logits, logits.flip(2), logits + 1])
    scores = []
    for kind, options in METRICS:
        metric = kind(**options)
        first = samples if kind in (SampleIoU, EnergyDistance, SampleDiversity) else logits
        for i in share:
            metric.update(first.narrow(-5, i, 1), masks[i : i + 1], valid[i : i + 1])
        scores.append(metric.compute())
    return torch.stack(scores)


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=root) for rank in (0, 1)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"found{rank}.pt")
        torch.testing.assert_close(found, of_metrics(range(7)).expand(2, -1), rtol=0, atol=1e-9)


def literal_rates(found: list[list[bool]], truth: list[list[bool]]) -> dict[str, list[bool]]:
    """What is right, second by second and pair by pair, of clips without padding."""
    right: dict[str, list[bool]] = {name: [] for name in RATES}
    for p, g in zip(found, truth, strict=True):
        if all(g) or not any(g):
            continue
        for t in range(len(g)):
            right["sounding" if g[t] else "silent"].append(p[t] == g[t])
        for t in range(1, len(g)):
            if g[t] != g[t - 1]:
                right["onsets" if g[t] else "offsets"].append(p[t - 1 : t + 1] == g[t - 1 : t + 1])
    return right


def rate(right: list[bool]) -> float:
    return sum(right) / len(right) if right else math.nan


def frames(on: Tensor, fraction: float = 1.0) -> Tensor:
    """Logits ``(B, T, 1, 4, 4)`` that predict a fraction of a frame where something is on."""
    pixels = (torch.arange(16) < 16 * fraction).view(4, 4) & on[..., None, None]
    return (pixels * 18.0 - 9.0).unsqueeze(2)


def test_worked_example() -> None:
    truth = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    found = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 0]]).bool()
    counts = onset_counts(found, truth)
    assert counts[0].tolist() == [[1, 2], [2, 3], [0, 1], [0, 1]]
    assert (counts[1:] == 0).all()  # nothing starts or stops there
    assert onset_counts(truth, truth)[0].tolist() == [[2, 2], [3, 3], [1, 1], [1, 1]]


@given(data=st.data(), count=st.integers(1, 5), seconds=st.integers(1, 5))
def test_counts_are_those_of_the_literal_version(data: st.DataObject, count: int, seconds: int) -> None:
    flags = st.lists(st.booleans(), min_size=seconds, max_size=seconds)
    found, truth = (data.draw(st.lists(flags, min_size=count, max_size=count)) for _ in range(2))
    length = data.draw(st.lists(st.integers(0, seconds), min_size=count, max_size=count))
    valid = torch.arange(seconds) < torch.tensor(length)[:, None]
    right = literal_rates(
        [row[:n] for row, n in zip(found, length, strict=True)],
        [row[:n] for row, n in zip(truth, length, strict=True)],
    )
    counts = onset_counts(torch.tensor(found), torch.tensor(truth), valid).sum(dim=0)
    assert counts.tolist() == [[sum(right[name]), len(right[name])] for name in RATES]

    metric, pairs = OnsetAccuracy(), OnsetAccuracy("transitions")
    for i in reversed(range(count)):  # one by one, in another order
        given_ = frames(torch.tensor(found[i : i + 1])), torch.tensor(truth[i : i + 1])
        masks = given_[1][..., None, None].expand(1, seconds, 4, 4).long()
        metric.update(given_[0], masks, valid[i : i + 1])
        pairs.update(given_[0], masks, valid[i : i + 1])
    seconds_right = (rate(right["sounding"]) + rate(right["silent"])) / 2
    assert metric.compute().item() == pytest.approx(seconds_right, abs=1e-12, nan_ok=True)
    changes = right["onsets"] + right["offsets"]
    assert pairs.compute().item() == pytest.approx(rate(changes), abs=1e-12, nan_ok=True)
    assert metric.rates() == pytest.approx({name: rate(right[name]) for name in RATES}, nan_ok=True)


@pytest.mark.parametrize("always", [True, False])
def test_a_prediction_that_never_changes_has_a_half_and_no_transition(always: bool) -> None:
    _, masks, valid = clips(9)
    logits = frames(torch.full(masks.shape[:2], always))[..., :1, :1].expand(-1, -1, 1, 5, 5)
    for measure, score in (("seconds", 0.5), ("transitions", 0.0)):
        metric = OnsetAccuracy(measure)
        metric.update(logits, masks, valid)
        assert metric.rates()["silent"] == float(not always)
        assert metric.compute().item() == score


def test_the_ground_truth_has_all_and_shards_add_up() -> None:
    logits, masks, valid = clips(9)
    perfect = masks.unsqueeze(2) * 18.0 - 9.0
    metrics = MetricCollection({word: OnsetAccuracy(word) for word in ("seconds", "transitions")})
    metrics.update(perfect, masks, valid)
    assert {name: value.item() for name, value in metrics.compute().items()} == {
        "seconds": 1,
        "transitions": 1,
    }

    whole, first, second = OnsetAccuracy(), OnsetAccuracy(), OnsetAccuracy()
    whole.update(logits, masks, valid)
    first.update(logits[::2], masks[::2], valid[::2])
    second.update(logits[1::2], masks[1::2], valid[1::2])
    first.merge_state(second)
    assert torch.equal(first.counts, whole.counts)


def test_a_few_pixels_are_nothing_if_so_told() -> None:
    truth = torch.tensor([[1, 0, 0]]).bool()
    masks = truth[..., None, None].expand(1, 3, 4, 4).long()
    logits = torch.maximum(frames(truth), frames(torch.ones(1, 3).bool(), 1 / 16))
    for min_area, silent in ((0.0, 0.0), (0.06, 0.0), (1 / 16, 1.0)):
        metric = OnsetAccuracy(min_area=min_area)
        metric.update(logits, masks)
        assert metric.rates() == pytest.approx(
            {"sounding": 1, "silent": silent, "onsets": math.nan, "offsets": silent}, nan_ok=True
        )


def test_without_a_change_there_is_no_score() -> None:
    metric = OnsetAccuracy()
    metric.update(torch.zeros(1, 5, 1, 4, 4), torch.ones(1, 5, 4, 4))
    assert metric.compute().isnan()


def test_a_drop_is_a_difference_of_frames_with_ground_truth() -> None:
    logits, masks, _ = clips(5)
    other = logits.flip(0)
    drop = iou_drop(logits, other, masks)
    expected = frame_iou(logits, masks) - frame_iou(other, masks)
    present = masks.flatten(2).any(-1)
    torch.testing.assert_close(drop[present], expected[present])
    assert drop[~present].isnan().all()
    assert (iou_drop(logits, logits, masks)[present] == 0).all()
    masks = torch.ones(1, 1, 4, 4)
    assert iou_drop(torch.ones(1, 1, 1, 4, 4), -torch.ones(1, 1, 1, 4, 4), masks).item() == pytest.approx(1)


@given(true=st.floats(0, 1), others=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_g_is_a_harmonic_mean(true: float, others: list[float]) -> None:
    rejected = max(0.0, 1 - sum(others) / len(others))
    assert g_measure(true, others) == pytest.approx(harmonic_mean([true, rejected]), abs=1e-12)
    assert g_measure(true, [true]) <= 0.5


def test_g_by_hand() -> None:
    assert g_measure(0.6, [0.0, 0.2, 0.4]) == pytest.approx(2 * 0.6 * 0.8 / 1.4)
    assert g_measure(1.0, [0.0]) == 1
    assert g_measure(0.0, [0.0]) == g_measure(1.0, [1.0]) == g_measure(0.0, [1.0]) == 0


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="others: expected the score under one negative sound or more"):
        g_measure(0.5, [])
    with pytest.raises(ValueError, match=r"true: expected scores in \[0, 1\], got 1.5"):
        g_measure(1.5, [0.1])
    with pytest.raises(ValueError, match=r"others: expected scores in \[0, 1\], got nan"):
        g_measure(0.5, [math.nan])
    with pytest.raises(ValueError, match="measure: expected one of 'seconds', 'transitions', got 'onsets'"):
        OnsetAccuracy("onsets")
    with pytest.raises(ValueError, match=r"min_area: expected a fraction in \[0, 1\), got 1"):
        OnsetAccuracy(min_area=1)
    with pytest.raises(ValueError, match=r"truth: expected shape \(b, t\) with b=1, t=2, got \(1, 3\)"):
        onset_counts(torch.ones(1, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"valid: expected shape \(b, t\)"):
        onset_counts(torch.ones(1, 2).bool(), torch.ones(1, 2).bool(), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"logits: expected shape \(b, t, 1, h, w\)"):
        OnsetAccuracy().update(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="masks: expected the values 0 and 1"):
        OnsetAccuracy().update(torch.zeros(1, 2, 1, 4, 4), torch.full((1, 2, 4, 4), 255))
    logits, masks = torch.zeros(1, 1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"^other_logits: expected shape .*, got \(1, 1, 1, 3, 3\)"):
        iou_drop(logits, torch.zeros(1, 1, 1, 3, 3), masks)
