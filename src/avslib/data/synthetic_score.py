"""Draw which objects of a synthetic clip sound, and when.

The draw depends on nothing in the picture but the number of objects, so nothing that is seen tells which of
them is heard.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SOUNDING = {
    "s4": {2: {1: 1.0}, 3: {1: 1.0}, 4: {1: 1.0}},
    "ms3": {2: {1: 0.85, 2: 0.15}, 3: {1: 0.5, 2: 0.43, 3: 0.07}, 4: {1: 0.5, 2: 0.4, 3: 0.1}},
}
"""By setting and number of objects: probability of each number of them that sound in the clip."""

WHOLE_CLIP = 0.55
"""Probability that a source of MS3 sounds for the whole clip; if not, it sounds for 2 s to all but one."""


def _intervals(seconds: int) -> tuple[list[tuple[int, int]], list[float]]:
    """List the intervals of a source that does not sound all the time, and their probabilities.

    Every length from 2 s to all but one second is equally likely, and so is every onset for that length.
    """
    lengths = range(2, seconds)
    intervals = [(onset, onset + length) for length in lengths for onset in range(seconds - length + 1)]
    return intervals, [1 / (len(lengths) * (seconds - stop + onset + 1)) for onset, stop in intervals]


def draw_score(rng: Generator, count: int, *, setting: str, seconds: int) -> NDArray[np.bool_]:
    """Draw which object sounds in which second.

    Args:
        rng: random number generator.
        count: how many objects are seen, 2 to 4.
        setting: ``"s4"`` or ``"ms3"``.
        seconds: length of the clip, s.

    Returns:
        ``(T, count)``; at least one object sounds in some second.
    """
    chance = SOUNDING[setting][count]
    sources = rng.permutation(count)[: rng.choice(list(chance), p=list(chance.values()))]
    on = np.zeros((seconds, count), dtype=np.bool_)
    intervals, often = _intervals(seconds)
    for source in sources:
        start, stop = 0, seconds
        if setting == "ms3" and intervals and rng.random() >= WHOLE_CLIP:
            start, stop = intervals[rng.choice(len(intervals), p=often)]
        on[start:stop, source] = True
    return on


def sounding_prior(count: int, *, setting: str, seconds: int) -> NDArray[np.float64]:
    """Compute the probability that exactly a given set of objects sounds in a second.

    Args:
        count: how many objects are seen, 2 to 4.
        setting: ``"s4"`` or ``"ms3"``.
        seconds: length of the clip, s.

    Returns:
        ``(T, 2 ** count)``; bit i of the column's index says whether object i sounds. Rows sum to 1.

    Example:
        >>> sounding_prior(2, setting="s4", seconds=1)
        array([[0. , 0.5, 0.5, 0. ]])
    """
    on = np.ones(seconds)  # probability that a source of the clip is on in each second
    intervals, often = _intervals(seconds)
    if setting == "ms3" and intervals:
        partly = np.zeros(seconds)
        for (start, stop), share in zip(intervals, often, strict=True):
            partly[start:stop] += share
        on = WHOLE_CLIP + (1 - WHOLE_CLIP) * partly
    prior = np.zeros((seconds, 2**count))
    for sources, chance in SOUNDING[setting][count].items():
        each = chance / math.comb(count, sources)
        for chosen in combinations(range(count), sources):
            for heard in range(sources + 1):
                for subset in combinations(chosen, heard):
                    column = sum(1 << i for i in subset)
                    prior[:, column] += each * on**heard * (1 - on) ** (sources - heard)
    return prior
