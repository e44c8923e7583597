"""The controls, as sections of the page: is the sound used, is the latent, what does the condition know?"""

from __future__ import annotations

import math
from functools import cache
from statistics import fmean, stdev

from _paper_results import (
    DRAWN,
    MEASURES,
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
from _paper_rows import ROWS
from _paper_statistics import compare
from _paper_writing import difference, many, named, spread, table

from avslib.data import SyntheticConfig, audio_blind_ceiling, clip_indices

COLLAPSED = 0.3
"""A standard deviation of z0 below this is called a collapse."""
DIVERGED = 2
"""Samples this many times wider than z0 are said to have diverged."""

TRAINED = (
    ("hearing, over a decoder that sees one frame and hears nothing", "full", "audio_blind"),
    ("hearing, over a decoder that sees all frames and hears nothing", "full", "audio_blind_temporal"),
    ("training with a clip's own sound, over training with that of others", "ldm", "shuffled"),
    ("diffusion, over the same networks without it", "ldm", "regressor"),
)
"""Controls that are rows of their own: what is asked, and the two rows."""


def sounds(study: Study) -> str:
    """Write what is left of every row when its sound is taken away, beside the best that is deaf."""
    best = ceiling(study)
    lines = [
        [
            named(study, row),
            *(spread(study.means(row, MIOU, given), MIOU) for given in (TRUE, SILENCE, OTHER)),
            MIOU.write_signed(fmean(study.means(row, MIOU)) - best),
            *(difference(m, compare(study, row, row, m, theirs_given=OTHER)) for m in MEASURES),
        ]
        for row in study.runs
    ]
    header = (
        "row",
        TRUE,
        SILENCE,
        OTHER,
        "true sound over the ceiling",
        "over another's: mIoU",
        "over another's: F",
    )
    return f"Audio-blind ceiling: mIoU {MIOU.write(best)}.\n\n{table(header, lines)}"


def ceiling(study: Study) -> float:
    """Return the mIoU that no predictor can expect to exceed on a study's test clips without hearing."""
    budget = study.settings
    return _ceiling(study.setting, budget["size"], budget["clips"][study.setting]["test"])


@cache
def _ceiling(setting: str, size: int, clips: int) -> float:
    return audio_blind_ceiling(SyntheticConfig(setting=setting, size=size), clip_indices("test", clips))


def trained(study: Study) -> str:
    """Write the controls that are rows of their own; nothing if none was run."""
    lines = [
        [text, f"`{ours}` over `{theirs}`"]
        + [difference(measure, compare(study, ours, theirs, measure)) for measure in MEASURES]
        for text, ours, theirs in TRAINED
    ]
    return table(("what it is worth", "rows", "mIoU", "F"), lines)


def latents(study: Study) -> str:
    """Write what a head makes of latents that are sampled, true or noise."""
    lines = []
    for row in study.runs:
        one, noise, truth = (study.means(row, MIOU, given) for given in (ONE, NOISE, TRUTH))
        if one:
            worth = [a - b for a, b in zip(one, noise, strict=True)]
            gap = [a - b for a, b in zip(truth, one, strict=True)]
            lines.append(
                [
                    named(study, row),
                    *(spread(scores, MIOU) for scores in (study.means(row, MIOU), one, noise, truth)),
                    *(spread(values, MIOU, signed=True) for values in (worth, gap)),
                ]
            )
    samples = f"mean of {many(study.settings['num_samples'], 'sample')}"
    header = ("row", samples, "one sample", "noise", "true z0", "sample over noise", "true z0 over sample")
    return table(header, lines) if lines else ""


def samplers(study: Study) -> str:
    """Write whether samples are like the codes of masks, and whether those collapsed."""
    lines = []
    for row, seeds in study.runs.items():
        tests = [report["test"] for report in seeds.values() if STD in report["test"]]
        if tests:
            stds = [test[STD] for test in tests]
            wide = max((test[DRAWN] / test[STD] for test in tests if test.get(DRAWN)), default=0)
            drawn, told, among = ([t[key] for t in tests if key in t] for key in (DRAWN, TOLD, SPREAD))
            lines.append(
                [
                    named(study, row),
                    _plain(stds) + (", **collapsed**" if min(stds) < COLLAPSED else ""),
                    _plain(drawn) + (", **diverged**" if wide > DIVERGED else ""),
                    _plain(told),
                    _plain(among),
                ]
            )
    return table(("row", STD, DRAWN, TOLD, SPREAD), lines) if lines else ""


def information(study: Study) -> str:
    """Write the bound on the mutual information of condition and latent, first and last."""
    lines = []
    for row in study.runs:
        bounds = list(bounds_by_seed(study, row).values())
        if bounds:
            first, last = ([bound[place] for bound in bounds] for place in (0, -1))
            most = f"{math.log(candidates(study, row)):.2f}"
            lines.append([named(study, row), most, _plain(first), _plain(last), str(len(bounds))])
    return table(("row", "log n", "first epoch", "last epoch", "seeds"), lines) if lines else ""


def bounds_by_seed(study: Study, row: str) -> dict[int, list[float]]:
    """Return log n minus the contrastive loss, epoch by epoch, of every seed that was trained with it."""
    most = math.log(candidates(study, row))
    return {
        seed: [most - record["contrastive"] for record in report["history"]]
        for seed, report in study.runs.get(row, {}).items()
        if all("contrastive" in record for record in report["history"])
    }


def candidates(study: Study, row: str) -> int:
    """Return with how many codes a condition is compared: those of a batch's labelled frames."""
    frames = 1 if study.setting == "s4" else SyntheticConfig(setting=study.setting).seconds
    loss = getattr(ROWS[row].objective(), "contrastive", None) if row in ROWS else None
    left_out = 0 if loss is None or loss.same_clip_negatives else frames - 1
    return int(study.settings["batch_size"]) * frames - left_out


def _plain(values: list[float]) -> str:
    """Write the mean over seeds of something that has no unit to be scaled by, or is in nats."""
    if not values:
        return ""
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{fmean(values):.2f}"
