"""Intervals and tests against the loops that they stand for."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from avslib.metrics.measures import Batch, Measure, binary_measures
from avslib.metrics.resampling import bootstrap, permutation_p_value
from tests.metrics._literal import Clips, clips_of, literal_f, literal_j

MEASURES = [m for m in binary_measures()[0] if m.score in ("J", "F")]
WORDS = {  # what the literal versions call the rows
    "avsbench, 4 clips a batch": {"clips_per_batch": 4},
    "avsbench, one batch": {"clips_per_batch": math.inf},
    "avsbench, no silent frames": {"empty": "skip"},
    "combo, 8 GPUs": {"ranks": 8},
    "dataset, with background": {"background": "keep"},
}


def make(count: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, 2, 4, 4), generator=generator)
    masks[::4] = 0
    scores = torch.randint(-3, 4, (count, 2, 1, 4, 4), generator=generator) / 2 + masks.unsqueeze(2)
    return scores, masks, torch.ones(count, 2, dtype=torch.bool)


def literal(measure: Measure, clips: Clips) -> float:
    score = literal_j if measure.score == "J" else literal_f
    return score(clips, measure.protocol, **WORDS.get(measure.row, {}))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_replicates_are_scores_of_clips_drawn_again(measure: Measure) -> None:
    given = make(5)
    clips = clips_of(*given)
    found = bootstrap(measure, measure.clip_sums(Batch(*given)), replicates=4, seed=3)
    drawn = torch.randint(5, (4, 5), generator=torch.Generator().manual_seed(3))
    expected = [literal(measure, [clips[i] for i in row]) for row in drawn.tolist()]
    assert found.tolist() == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_p_values_count_all_exchanges(measure: Measure) -> None:
    _, masks, valid = make(3)
    ours, theirs = make(3, seed=1)[0] + masks.unsqueeze(2), make(3, seed=2)[0]
    sums = [measure.clip_sums(Batch(scores, masks, valid)) for scores in (ours, theirs)]
    differences = []
    for exchanged in product([False, True], repeat=3):
        which = torch.tensor(exchanged).view(3, 1, 1, 1, 1)
        first, second = torch.where(which, theirs, ours), torch.where(which, ours, theirs)
        scores = [literal(measure, clips_of(logits, masks, valid)) for logits in (first, second)]
        differences.append(abs(scores[0] - scores[1]))
    expected = sum(difference >= differences[0] - 1e-9 for difference in differences) / 8
    assert permutation_p_value(measure, *sums) == expected


def test_drawn_exchanges_come_near_all_of_them() -> None:
    measure = MEASURES[0]
    _, masks, valid = make(10)
    sums = [
        measure.clip_sums(Batch(make(10, seed=seed)[0] + shift, masks, valid))
        for seed, shift in ((1, 0), (2, 1))
    ]
    exact = permutation_p_value(measure, *sums, permutations=1024)
    assert 0.01 < exact < 0.9
    assert permutation_p_value(measure, *sums, permutations=1023) == pytest.approx(exact, abs=0.05)


def test_the_same_predictions_do_not_differ() -> None:
    measure = MEASURES[0]
    sums = measure.clip_sums(Batch(*make(30)))
    assert permutation_p_value(measure, sums, sums, permutations=50) == 1


def test_blocks_of_draws_are_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, sums = MEASURES[-1], MEASURES[-1].clip_sums(Batch(*make(5)))
    at_once = bootstrap(measure, sums, replicates=7)
    p_value = permutation_p_value(measure, sums, sums.flip(0), permutations=20)
    monkeypatch.setattr("avslib.metrics.resampling._BLOCK", 10)
    assert torch.equal(bootstrap(measure, sums, replicates=7), at_once)
    assert permutation_p_value(measure, sums, sums.flip(0), permutations=20) == p_value


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    measure = MEASURES[0]
    generator = torch.Generator().manual_seed(0)
    held = 0
    for seed in range(200):
        scores = torch.rand(40, generator=generator, dtype=torch.float64)
        replicates = bootstrap(
            measure, torch.stack([scores, torch.ones(40)], dim=-1), replicates=200, seed=seed
        )
        low, high = replicates.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        held += low <= 0.5 <= high
    assert 180 <= held <= 198


def test_an_exchange_without_a_score_does_not_count() -> None:
    ours = torch.tensor([[0.5, 1], [0, 0]], dtype=torch.float64)  # sum of J, clips
    theirs = torch.tensor([[0, 0], [0.2, 1]], dtype=torch.float64)
    assert permutation_p_value(MEASURES[0], ours, theirs) == 1  # of 4 exchanges, 2 leave one side empty


def test_wrong_arguments_are_named() -> None:
    measure, sums = MEASURES[0], torch.ones(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="replicates: expected a number above 0, got 0"):
        bootstrap(measure, sums, replicates=0)
    with pytest.raises(ValueError, match="permutations: expected a number above 0, got 0"):
        permutation_p_value(measure, sums, sums, permutations=0)
    with pytest.raises(ValueError, match=r"theirs: expected shape \(n, s\) with n=3, s=2, got \(2, 2\)"):
        permutation_p_value(measure, sums, sums[:2])
    with pytest.raises(ValueError, match="logits: expected 1 or 2 a pixel for binary masks, got 3"):
        binary_measures(logits=3)
    nothing = torch.zeros(3, 2, dtype=torch.float64)
    assert math.isnan(permutation_p_value(measure, sums, nothing))
