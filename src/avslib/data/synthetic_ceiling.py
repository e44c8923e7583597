"""The best score that can be expected on synthetic clips without hearing them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from avslib._checks import check_one_of
from avslib.data.synthetic_scene import SyntheticConfig, frame_times, make_scene
from avslib.data.synthetic_score import SOUNDING, sounding_prior
from avslib.data.synthetic_vision import visible_masks


def expected_scores(areas: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the expected score of predicting each set of objects.

    Args:
        areas: ``(n,)``, share of the frame that each object covers; objects do not overlap.
        prior: ``(2 ** n,)``, probability that exactly these objects sound; bit i stands for object i.

    Returns:
        ``(2 ** n,)``, the expected J of each set: its IoU with the set that sounds or, if none sounds, the
        share of the frame left as background.

    Example:
        >>> expected_scores(np.array([0.1, 0.3]), np.array([0, 0.5, 0.5, 0]))
        array([0. , 0.5, 0.5, 0.5])
    """
    sets = (np.arange(len(prior))[:, None] >> np.arange(len(areas))) & 1  # (2 ** n, n)
    common = (sets * areas) @ sets.T
    size = sets @ areas
    union = size[:, None] + size - common
    iou = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    iou[:, 0] = 1 - size
    return iou @ prior


def audio_blind_ceiling(config: SyntheticConfig, indices: Iterable[int]) -> float:
    """Compute the mIoU that no predictor without hearing can expect to exceed.

    The best deaf predictor knows every object's pixels and how the generator draws which objects sound and
    when, but not the result of that draw. The draw depends on nothing in the picture but the number of
    objects, so the predictor can only choose, frame by frame, the set of objects with the best expected
    score; every set is tried. Parts of objects need not be tried: the expected score is convex in the share
    of an object that is predicted, and every pixel of the background lowers it.

    Args:
        config: the kind of clips, S4 or MS3, and not negative: there it is best to predict nothing.
        indices: indices of the clips; the mean is over all their frames.

    Returns:
        Expected J of the protocol ``avsbench``, in [0, 1].

    Raises:
        ValueError: if there is no clip, or the configuration is that of AVSS or of negatives.
    """
    check_one_of("setting", config.setting, SOUNDING)
    if config.negative is not None:
        raise ValueError(f"negative: expected None, got {config.negative!r}; there the ceiling is 1")
    times = frame_times(config)
    best: list[float] = []
    for index in indices:
        sprites = make_scene(index, config).sprites
        objects, _ = visible_masks(sprites, config.size, times)
        areas = objects.mean(axis=(2, 3))
        prior = sounding_prior(len(sprites), setting=config.setting, seconds=config.seconds)
        best += [expected_scores(areas[t], prior[t]).max() for t in range(config.seconds)]
    if not best:
        raise ValueError("indices: expected at least one clip, got none")
    return float(np.mean(best))
