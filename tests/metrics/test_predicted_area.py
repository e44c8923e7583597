from __future__ import annotations

import math

import pytest
import torch

from avslib.metrics import FalsePositiveRate, NullScore
from tests._golden import arrays

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


@pytest.mark.parametrize("name", GOLDEN)
def test_published_false_positive_rate(name: str) -> None:
    stored = arrays(f"C_bin_{name}")
    metric = FalsePositiveRate()
    metric.update(torch.from_numpy(stored["in.pred_logits"])[None, :, None])
    assert metric.compute().item() == pytest.approx(stored["out.FPR"].item(), abs=2e-6)  # codespell:ignore


@pytest.mark.parametrize(("name", "clips_per_batch"), [("batches_2_2_1", 2), ("batchsize_1", 1)])
def test_published_test_loop(name: str, clips_per_batch: int) -> None:
    stored = arrays(f"C_loop_{name}")
    metric = FalsePositiveRate(clips_per_batch=clips_per_batch)
    logits = torch.from_numpy(stored["in.pred_logits"]).unflatten(0, (-1, 5)).unsqueeze(2)
    for part in logits.split(3):
        metric.update(part)
    assert metric.compute().item() == pytest.approx(stored["out.FPR"].item(), abs=2e-6)  # codespell:ignore


@pytest.mark.parametrize("clips_per_batch", [1, 2, 3, math.inf])
def test_s_is_the_root_of_a_batch(clips_per_batch: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 3, 1, 6, 6) - torch.arange(5).view(5, 1, 1, 1, 1)
    valid = torch.ones(5, 3, dtype=torch.bool)
    valid[1, 1:] = False
    size = 5 if clips_per_batch == math.inf else int(clips_per_batch)
    roots = []
    for i in range(0, 5, size):
        frames = logits[i : i + size][valid[i : i + size]]
        roots.append(math.sqrt((frames.sigmoid() > 0.5).sum().item() / frames.numel()))
    metric = NullScore(clips_per_batch=clips_per_batch)
    for i in range(5):
        metric.update(logits[i : i + 1], None, valid[i : i + 1], index=torch.tensor([i]))
    assert metric.compute().item() == pytest.approx(sum(roots) / len(roots), abs=1e-12)


def test_masks_are_not_looked_at() -> None:
    for metric in (FalsePositiveRate(), NullScore()):
        metric.update(torch.ones(1, 2, 1, 4, 4), torch.full((1, 2, 4, 4), 255))
        assert metric.compute().item() == pytest.approx(1)
        assert not metric.higher_is_better


def test_what_is_given_in_the_place_of_masks_is_no_masks() -> None:
    for metric in (FalsePositiveRate(), NullScore()):
        with pytest.raises(ValueError, match=r"^masks: expected shape \(b, t, h, w\) .*, got \(1, 2\)"):
            metric.update(torch.zeros(1, 2, 1, 4, 4), torch.tensor([[True, False]]))


def test_errors_name_the_argument() -> None:
    for kind, word in ((FalsePositiveRate, "robust"), (NullScore, "refavs")):
        with pytest.raises(
            ValueError, match=r"^logits: expected shape \(b, t, 1, h, w\), got \(1, 2, 4, 4\)"
        ):
            kind().update(torch.zeros(1, 2, 4, 4))
        with pytest.raises(ValueError, match=rf"^protocol: expected one of '{word}', got 'avsbench'"):
            kind("avsbench")
        with pytest.raises(ValueError, match=r"^clips_per_batch: expected a number above 0, got 0"):
            kind(clips_per_batch=0)
