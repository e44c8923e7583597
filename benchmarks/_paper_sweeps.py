"""What other samplers, other numbers of steps and more samples give, as sections of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from _paper_results import MEASURES, MIOU, Measure, Report, Study
from _paper_writing import many, named, spread, table

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
"""What is said of the samples of a frame."""


def by_sampler(study: Study) -> str:
    """Write mIoU and the error of one sample by scheduler and number of steps."""
    return "\n\n".join(
        f"{named(study, row)}, one sample a frame, {many(len(seeds), 'seed')}:\n\n"
        + _samplers(list(seeds.values()))
        for row, seeds in _that_tell(study, "samplers")
    )


def by_count(study: Study) -> str:
    """Write what samples are worth, averaged and apart, by their number."""
    lines = []
    for row, seeds in _that_tell(study, "samples"):
        for found in zip(*(report["samples"] for report in seeds.values()), strict=True):
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
    """Write how much of z0 a linear regression tells, by what it is given."""
    lines = [
        [named(study, row), source, f"{fmean(shares):.2f}", str(len(shares))]
        for row, seeds in _that_tell(study, TOLD_BY)
        for source in next(iter(seeds.values()))[TOLD_BY]
        for shares in [[report[TOLD_BY][source] for report in seeds.values()]]
    ]
    return table(("row", "from", "told of z0", "seeds"), lines) if lines else ""


def _that_tell(study: Study, part: str) -> Iterator[tuple[str, dict[int, Report]]]:
    """Yield the rows, and their sweeps by seed, that have this part."""
    for row, seeds in study.sweeps.items():
        there = {seed: report for seed, report in seeds.items() if part in report}
        if there:
            yield row, there


def _samplers(reports: Sequence[Report]) -> str:
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
