"""What other samplers, other numbers of steps and more samples give, as sections of the page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from _paper_results import MEASURES, MIOU, Study
from _paper_writing import many, named, spread, table

TOLD_BY = "told of z0 by"


def by_sampler(study: Study) -> str:
    """Write mIoU and the error of one sample by scheduler and number of steps."""
    return "\n\n".join(
        f"{named(study, row)}, one sample a frame, {many(len(seeds), 'seed')}:\n\n"
        + _samplers(list(seeds.values()))
        for row, seeds in study.sweeps.items()
    )


def by_count(study: Study) -> str:
    """Write mIoU and F of the mean mask by number of samples."""
    lines = []
    for row, seeds in study.sweeps.items():
        for found in zip(*(report["samples"] for report in seeds.values()), strict=True):
            scores = (spread([one[measure.key] for one in found], measure) for measure in MEASURES)
            lines.append([named(study, row), str(found[0]["samples"]), *scores, str(len(found))])
    return table(("row", "samples", "mIoU", "F", "seeds"), lines) if lines else ""


def by_source(study: Study) -> str:
    """Write how much of z0 a linear regression tells, by what it is given."""
    lines = [
        [named(study, row), source, f"{fmean(shares):.2f}", str(len(shares))]
        for row, seeds in study.sweeps.items()
        for source in next(iter(seeds.values()))[TOLD_BY]
        for shares in [[report[TOLD_BY][source] for report in seeds.values()]]
    ]
    return table(("row", "from", "told of z0", "seeds"), lines) if lines else ""


def _samplers(reports: Sequence[Any]) -> str:
    lines = [
        [
            found[0]["scheduler"].removesuffix("Scheduler"),
            str(found[0]["steps"]),
            spread([one["miou"] for one in found], MIOU),
            f"{fmean(one['std of samples'] for one in found):.2f}",
            f"{fmean(one['error over variance'] for one in found):.2f}",
        ]
        for found in zip(*(report["samplers"] for report in reports), strict=True)
    ]
    return table(("scheduler", "steps", "mIoU", "std of samples", "squared error over z0's variance"), lines)
