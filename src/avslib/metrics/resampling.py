"""How sure a score is: clips drawn anew, and the clips of two systems exchanged."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from avslib._checks import check_positive, check_shape
from avslib.metrics.measures import Measure

_BLOCK = 2**18
"""Clips that are drawn at a time."""


def bootstrap(measure: Measure, sums: Tensor, *, replicates: int = 1000, seed: int = 0) -> Tensor:
    """Score sets of clips drawn from a set of clips with replacement (Efron, 1979).

    A clip is drawn whole, since its frames are alike. Where batches of several clips make the score, clips
    are drawn first and put into batches then, in the order in which they were drawn. The same seed draws the
    same clips for every measure and every system, so the difference of two systems' replicates is the
    replicate of their difference.

    Args:
        measure: the score.
        sums: what every clip adds, ``(n, s)``.
        replicates: how many sets.
        seed: of the draws.

    Returns:
        Their scores, ``(replicates,)``, float64; NaN where a set has none.

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

    If they did not, it would not matter which system's prediction of a clip is called whose. So the p-value
    is how often the scores differ at least as much as they do, when every clip's predictions are exchanged or
    not. All ways are tried where there are no more than ``permutations``, else as many drawn at random, and
    the one that was observed.

    Args:
        measure: the score.
        ours: what every clip adds by one system, ``(n, s)``.
        theirs: the same of the other.
        permutations: how many ways at most.
        seed: of the draws.

    Returns:
        The two-sided p-value, in ``(0, 1]``; NaN if a score is.

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
    as_much, done = 0, 0
    for block in _blocks(rows, n):
        if exact:
            exchanged = torch.arange(done, done + block)[:, None] >> place & 1
        else:
            exchanged = torch.randint(2, (block, n), generator=generator)
        differences = _resampled(measure, both, place + n * exchanged)
        differences -= _resampled(measure, both, place + n * (1 - exchanged))
        as_much += int((differences.abs() >= observed - 1e-12).sum())
        done += block
    return as_much / rows if exact else (as_much + 1) / (rows + 1)


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
    """Yield how many rows of ``n`` clips are drawn at a time."""
    block = max(1, _BLOCK // max(1, n))
    for start in range(0, rows, block):
        yield min(block, rows - start)
