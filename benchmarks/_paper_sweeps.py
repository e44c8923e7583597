"""Results of other samplers, other numbers of steps and more samples, as sections of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from _paper_results import MEASURES, MIOU, Measure, Report, Study
from _paper_writing import named, spread, table

TOLD_BY = "told of z0 by"
ONSETS, CALIBRATION = "onset accuracy", "calibration error"
BEST, ENERGY = "best sample", "energy distance"
OF_SAMPLES = (
    *MEASURES,
    Measure(ONSETS, ONSETS, 1, 2),
    Measure(CALIBRATION, CALIBRATION, 1, 4),
    Measure(BEST, "mIoU, best sample", 100, 1),
    Measure(ENERGY, ENERGY, 1, 3),
)
"""The scores of a frame's samples."""


STEPS = (1, 2, 5, 10, 20)
"""Divisors of the 20 noise levels: with other numbers of steps, diffusers' DDIM leaves noise in a latent."""
SHOWN = (1, 8, 32)
"""Numbers of samples that the page shows."""


def by_sampler(study: Study) -> str:
    """Write mIoU and the error of one sample, by row, scheduler and number of steps."""
    lines = []
    for row, seeds in _that_tell(study, "samplers"):
        # older reports may have other numbers of steps too
        shown = ([one for one in report["samplers"] if one["steps"] in STEPS] for report in seeds.values())
        found = list(zip(*shown, strict=True))
        for scheduler in dict.fromkeys(one[0]["scheduler"] for one in found):
            these = (one for one in found if one[0]["scheduler"] == scheduler)
            name = scheduler.removesuffix("Scheduler")
            lines.append([f"`{row}`", name, *(_score_and_error(one) for one in these), str(len(seeds))])
    header = ("row", "scheduler", *(f"{step} steps" if step > 1 else "1 step" for step in STEPS), "seeds")
    return table(header, lines) if lines else ""


def _score_and_error(found: Sequence[Report]) -> str:
    score = MIOU.write(fmean(one["miou"] for one in found))
    return f"{score}, {fmean(one['error over variance'] for one in found):.2f}"


def by_count(study: Study) -> str:
    """Write the scores of averaged and of single samples, by their number."""
    lines = []
    for row, seeds in _that_tell(study, "samples"):
        for found in zip(*(report["samples"] for report in seeds.values()), strict=True):
            if found[0]["samples"] not in SHOWN:
                continue
            values = {
                measure: spread([one[measure.key] for one in found], measure)
                for measure in OF_SAMPLES
                if all(measure.key in one for one in found)
            }
            lines.append(
                [
                    named(study, row),
                    str(found[0]["samples"]),
                    *(values.get(measure, "") for measure in OF_SAMPLES),
                    str(len(found)),
                ]
            )
    header = ("row", "samples", *(measure.name for measure in OF_SAMPLES), "seeds")
    return table(header, lines) if lines else ""


def by_source(study: Study) -> str:
    """Write the share of z0's variance that a linear regression explains, by its input."""
    lines, sources = [], []
    for row, seeds in _that_tell(study, TOLD_BY):
        sources = list(next(iter(seeds.values()))[TOLD_BY])
        shares = (fmean(report[TOLD_BY][source] for report in seeds.values()) for source in sources)
        lines.append([named(study, row), *(f"{share:.2f}" for share in shares), str(len(seeds))])
    return table(("row", *sources, "seeds"), lines) if lines else ""


def _that_tell(study: Study, part: str) -> Iterator[tuple[str, dict[int, Report]]]:
    """Yield the rows whose sweeps have this part, and those sweeps by seed."""
    for row, seeds in study.sweeps.items():
        there = {seed: report for seed, report in seeds.items() if part in report}
        if there:
            yield row, there
