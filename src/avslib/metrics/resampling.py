"""Uncertainty of scores: a bootstrap over clips, and a permutation test of two systems."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from avslib._checks import check_positive, check_shape
from avslib.metrics.measures import Measure

_BLOCK = 2**18
"""Number of clips that are drawn at a time."""


def bootstrap(measure: Measure, sums: Tensor, *, replicates: int = 1000, seed: int = 0) -> Tensor:
    """Score sets of clips that are drawn with replacement (Efron, 1979).

    Clips are drawn whole, since the frames of a clip are alike. If the protocol has several clips per batch,
    the drawn clips are put into batches in the order in which they were drawn. The same seed draws the same
    clips for every measure and every system, so the difference of two systems' replicates is a replicate of
    their difference.

    Args:
        measure: measure to compute.
        sums: sums of each clip, ``(n, s)``.
        replicates: number of sets to draw.
        seed: seed of the draws.

    Returns:
        The score of each set, ``(replicates,)``, float64; NaN for a set without a score.

    Raises:
        ValueError: if ``replicates`` is not above 0.
    """
    check_positive("replicates", replicates)
    generator = torch.Generator().manual_seed(seed)
    n = len(sums)
    blocks = (torch.randint(n, (rows, n), generator=generator) for rows in _blocks(replicates, n))
    return torch.cat([_resampled(measure, sums, index) for index in blocks])


def permutation_p_value(
    measure: Measure, ours: Tensor, theirs: Tensor, *, permutations: int = 1000, seed: int = 0
) -> float:
    """Test whether two systems differ on the same clips (Fisher, 1935).

    If they did not, the two predictions for a clip could be exchanged without effect. The p-value is the
    fraction of all choices of clips to exchange for which the scores differ at least as much as observed. All
    choices are tried if there are at most ``permutations``. Otherwise that many are drawn at random, and the
    observed one is added. A choice that leaves a system without a score does not count.

    Args:
        measure: measure to compute.
        ours: sums of each clip for one system, ``(n, s)``.
        theirs: the same for the other system.
        permutations: maximum number of choices to try.
        seed: seed of the draws.

    Returns:
        The two-sided p-value, in ``(0, 1]``; NaN if a score is NaN.

    Raises:
        ValueError: if the shapes differ, or ``permutations`` is not above 0.
    """
    check_positive("permutations", permutations)
    n = len(ours)
    check_shape("theirs", theirs, "n s", n=n, s=ours.shape[1])
    observed = (measure.value(ours) - measure.value(theirs)).abs()
    if observed.isnan():
        return math.nan
    both, place = torch.cat([ours, theirs]), torch.arange(n)
    exact = n < 63 and 2**n <= permutations
    rows = 2**n if exact else permutations
    generator = torch.Generator().manual_seed(seed)
    as_much, defined, done = 0, 0, 0
    for block in _blocks(rows, n):
        if exact:
            exchanged = torch.arange(done, done + block)[:, None] >> place & 1
        else:
            exchanged = torch.randint(2, (block, n), generator=generator)
        differences = _resampled(measure, both, place + n * exchanged)
        differences -= _resampled(measure, both, place + n * (1 - exchanged))
        as_much += int((differences.abs() >= observed - 1e-12).sum())
        defined += int((~differences.isnan()).sum())
        done += block
    return as_much / defined if exact else (as_much + 1) / (defined + 1)


def _resampled(measure: Measure, sums: Tensor, index: Tensor) -> Tensor:
    """Return the score of each row of clips, ``(rows, m)`` -> ``(rows,)``."""
    if measure.clips_per_batch == math.inf:  # sums are added, whatever the order
        times = sums.new_zeros(len(index), len(sums))
        times.scatter_add_(1, index, times.new_ones(1).expand(index.shape))
        return measure.of(times @ sums)
    if measure.clips_per_batch == 1 and measure.ranks == 1:
        return measure.of(sums)[index].nanmean(dim=1)
    return torch.stack([measure.value(sums[row]) for row in index])


def _blocks(rows: int, n: int) -> Iterator[int]:
    """Yield the numbers of rows of ``n`` clips that are drawn at a time."""
    block = max(1, _BLOCK // max(1, n))
    for start in range(0, rows, block):
        yield min(block, rows - start)
