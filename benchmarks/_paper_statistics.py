"""Decide whether one row is better than another: a bootstrap and a t-test on the seeds must both agree."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from _paper_results import TRUE, Measure, Study
from numpy.typing import NDArray
from scipy.stats import t as student

REPLICATES = 4000
LEVEL = 0.95
SURE = 0.05
"""A difference is found only if the p-value of the seeds is below this."""
FINDINGS = ("agrees", "disagrees", "undecided", "one seed")


class Comparison(NamedTuple):
    """How much better one row is than another."""

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    """The mean difference for every seed."""

    @property
    def finding(self) -> str:
        """The verdict on the claim that it is better, one of ``FINDINGS``."""
        return "one seed" if len(self.by_seed) == 1 else ("undecided", "agrees", "disagrees")[self.side()]

    def side(self, of: float = 0) -> int:
        """Return 1 if the difference is above a number, -1 if it is below, 0 if neither is certain.

        The bootstrap does not know seeds that were not run, and with few seeds its interval is too narrow. A
        t-test on the seeds alone ignores the choice of clips. Both must agree.
        """
        if self.low <= of <= self.high or not self.p(of) < SURE:
            return 0
        return 1 if self.low > of else -1

    @property
    def resolution(self) -> float:
        """Smallest difference that the seeds can detect: half the width of their interval by Student's t."""
        error = np.std(self.by_seed, ddof=1) / math.sqrt(len(self.by_seed))
        return float(student.ppf((1 + LEVEL) / 2, len(self.by_seed) - 1) * error)

    def p(self, of: float = 0) -> float:
        """Return the p-value of the difference from a number; see :func:`p_of_seeds`."""
        return p_of_seeds(np.array(self.by_seed) - of)


def compare(
    study: Study,
    ours: str,
    theirs: str,
    measure: Measure,
    *,
    given: str = TRUE,
    theirs_given: str = TRUE,
    among: NDArray[np.bool_] | None = None,
) -> Comparison | None:
    """Compare two rows, or a row under two conditions, on the seeds that both have.

    Args:
        study: the study that has the rows.
        ours: the row that may be better.
        theirs: the row that may be worse.
        measure: the score to compare.
        given: sound or latent that ``ours`` was tested with.
        theirs_given: sound or latent that ``theirs`` was tested with.
        among: which test clips count, ``(clips,)``; None for all.

    Returns:
        The comparison; None without a common seed or without a clip that has a score in every run.
    """
    seeds = study.seeds(ours, theirs)
    if not seeds:
        return None
    differences = study.clips(ours, seeds, measure, given) - study.clips(theirs, seeds, measure, theirs_given)
    if among is not None:
        differences = differences[:, among]
    differences = differences[:, ~np.isnan(differences).any(axis=0)]  # F of a clip without ground truth
    if not differences.size:
        return None
    low, high = interval(differences)
    return Comparison(differences.mean().item(), low, high, tuple(differences.mean(axis=1).tolist()))


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval that contains a share ``LEVEL`` of the bootstrap's means."""
    means = bootstrap(differences)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap(
    differences: NDArray[np.float64], *, replicates: int = REPLICATES, seed: int = 0
) -> NDArray[np.float64]:
    """Draw both seeds and clips with replacement, and return the mean difference of every draw.

    A draw takes the same clips from every seed, because all seeds share one test set.

    Args:
        differences: differences between two rows, ``(seeds, clips)``.
        replicates: number of draws.
        seed: seed of the draws; the same seed gives the same draws for every pair of rows.

    Returns:
        Means, ``(replicates,)``.
    """
    seeds, clips = differences.shape
    generator = np.random.default_rng(seed)
    trainings = generator.integers(seeds, size=(replicates, seeds))
    tests = generator.integers(clips, size=(replicates, clips))
    share = (trainings[..., None] == np.arange(seeds)).mean(axis=1)
    return np.take_along_axis(share @ differences, tests, axis=1).mean(axis=1)


def p_of_seeds(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of Student's t for a mean difference of 0, paired by seed.

    Args:
        differences: one mean difference per seed, ``(seeds,)``.

    Returns:
        The p-value in [0, 1]; NaN with one seed.
    """
    seeds, mean = len(differences), differences.mean().item()
    if seeds < 2:
        return math.nan
    error = differences.std(ddof=1).item() / math.sqrt(seeds)
    if error == 0:
        return float(mean == 0)
    return float(2 * student.sf(abs(mean) / error, seeds - 1))
