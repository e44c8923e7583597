"""The controls, as sections of the page: which seconds are heard, and are sound and latent used?"""

from __future__ import annotations

import math
from functools import cache
from statistics import fmean, stdev

import numpy as np
from _paper_results import (
    DRAWN,
    MIOU,
    NOISE,
    ONE,
    OTHER,
    SILENCE,
    SPREAD,
    STD,
    TOLD,
    TRUE,
    TRUTH,
    Study,
)
from _paper_rows import BY_SECOND, ROWS
from _paper_statistics import Comparison, compare
from _paper_writing import difference, many, named, spread, table
from numpy.typing import NDArray

from avslib.data import SyntheticConfig, audio_blind_ceiling, clip_indices
from avslib.data.synthetic_scene import make_scene

COLLAPSED = 0.3
"""A standard deviation of z0 below this counts as a collapse."""
DIVERGED = 2
"""Samples whose standard deviation is more than this many times that of z0 count as diverged."""


def windows(study: Study) -> str:
    """Write what rows gain if a pixel hears only its own second, where sounds change and elsewhere."""
    lines = []
    for row in study.runs:
        if study.seeds(row, row + BY_SECOND):
            found = (window_gain(study, row, among) for among in ("all", "changing", "steady"))
            lines.append([named(study, row), *(difference(MIOU, gain) for gain in found)])
    counts = [int(_among(study, among).sum()) for among in ("all", "changing", "steady")]
    header = ("row", f"all {counts[0]} clips", f"the {counts[1]} where a sound starts or stops")
    return table((*header, f"the {counts[2]} where none does"), lines) if lines else ""


def window_gain(study: Study, row: str, among: str = "all") -> Comparison | None:
    """Compare a row whose pixels hear only their own second with the same row hearing the whole clip.

    Args:
        study: the study that has the rows.
        row: the row that hears the whole clip.
        among: which test clips count: ``"all"``, ``"changing"`` (a sound starts or stops) or ``"steady"``
            (the others).
    """
    return compare(study, row + BY_SECOND, row, MIOU, among=_among(study, among))


def _among(study: Study, among: str) -> NDArray[np.bool_]:
    budget = study.settings
    clips = _changing(study.setting, budget["size"], budget["clips"][study.setting]["test"])
    return {"all": np.ones_like(clips), "changing": clips, "steady": ~clips}[among]


@cache
def _changing(setting: str, size: int, clips: int) -> NDArray[np.bool_]:
    """Return a mask of the test clips in which a sound starts or stops."""
    config = SyntheticConfig(setting=setting, size=size)
    on = [make_scene(index, config).on for index in clip_indices("test", clips)]
    return np.array([(sounds != sounds[0]).any() for sounds in on])


def sounds(study: Study) -> str:
    """Write the score of every row with its sound, in silence and with another clip's sound."""
    lines = [
        [
            named(study, row),
            *(spread(study.means(row, MIOU, given), MIOU) for given in (TRUE, SILENCE, OTHER)),
            difference(MIOU, compare(study, row, row, MIOU, theirs_given=OTHER)),
        ]
        for row in study.runs
    ]
    header = ("row", TRUE, SILENCE, OTHER, "true sound over another clip's")
    return f"Audio-blind ceiling: {MIOU.write(ceiling(study))}.\n\n{table(header, lines)}"


def ceiling(study: Study) -> float:
    """Return the mIoU that no predictor can expect to exceed on the test clips without hearing."""
    budget = study.settings
    return _ceiling(study.setting, budget["size"], budget["clips"][study.setting]["test"])


@cache
def _ceiling(setting: str, size: int, clips: int) -> float:
    return audio_blind_ceiling(SyntheticConfig(setting=setting, size=size), clip_indices("test", clips))


def latents(study: Study) -> str:
    """Write scores and statistics of latents of each kind; collapse and divergence are in bold."""
    lines = []
    for row, seeds in study.runs.items():
        tests = [report["test"] for report in seeds.values() if STD in report["test"]]
        if not tests:
            continue
        stds = [test[STD] for test in tests]
        wide = max((test[DRAWN] / test[STD] for test in tests if test.get(DRAWN)), default=0)
        drawn, told, among = ([t[key] for t in tests if key in t] for key in (DRAWN, TOLD, SPREAD))
        lines.append(
            [
                named(study, row),
                *(spread(study.means(row, MIOU, given), MIOU) for given in (TRUE, ONE, NOISE, TRUTH)),
                _plain(stds) + (", **collapsed**" if min(stds) < COLLAPSED else ""),
                _plain(drawn) + (", **diverged**" if wide > DIVERGED else ""),
                _plain(told),
                _plain(among),
            ]
        )
    samples = f"mean of {many(study.settings['num_samples'], 'sample')}"
    header = ("row", samples, "one sample", "noise", "true z0", STD, DRAWN, TOLD, SPREAD)
    return table(header, lines) if lines else ""


def information(study: Study) -> str:
    """Write the bound on the mutual information of condition and latent in the first and the last epoch."""
    lines = []
    for row in study.runs:
        bounds = list(bounds_by_seed(study, row).values())
        if bounds:
            first, last = ([bound[place] for bound in bounds] for place in (0, -1))
            most = f"{math.log(candidates(study, row)):.2f}"
            lines.append([named(study, row), most, _plain(first), _plain(last), str(len(bounds))])
    return table(("row", "log n", "first epoch", "last epoch", "seeds"), lines) if lines else ""


def bounds_by_seed(study: Study, row: str) -> dict[int, list[float]]:
    """Return log n minus the contrastive loss in each epoch, for every seed that was trained with it."""
    most = math.log(candidates(study, row))
    return {
        seed: [most - record["contrastive"] for record in report["history"]]
        for seed, report in study.runs.get(row, {}).items()
        if all("contrastive" in record for record in report["history"])
    }


def candidates(study: Study, row: str) -> int:
    """Return the number of codes that a condition is compared with: those of a batch's labelled frames.

    Without negatives of the same clip, the other frames of that clip do not count.
    """
    frames = 1 if study.setting == "s4" else SyntheticConfig(setting=study.setting).seconds
    loss = getattr(ROWS[row].objective(), "contrastive", None) if row in ROWS else None
    left_out = 0 if loss is None or loss.same_clip_negatives else frames - 1
    return int(study.settings["batch_size"]) * frames - left_out


def _plain(values: list[float]) -> str:
    """Write the mean over seeds, and their standard deviation, of a number that is written unscaled."""
    if not values:
        return ""
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{fmean(values):.2f}"
