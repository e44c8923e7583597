"""What ``paper_tables.py`` left behind: runs by row and seed, and the score of every clip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _paper_rows import ROWS
from numpy.typing import NDArray

Report = Mapping[str, Any]
TRUE, SILENCE, OTHER = "true sound", "silence", "another clip's sound"
ONE, NOISE, TRUTH = "latent: one sample", "latent: noise", "latent: true z0"
SWEEPS, AGAIN = "sweeps", "again"
"""Folders beside the runs of a study: what ``paper_sweeps.py`` found, and runs that were repeated."""
STD, DRAWN, TOLD, SPREAD = "std of z0", "std of samples", "told of z0", "spread of samples"


class Measure(NamedTuple):
    """A score and how it is written."""

    key: str
    name: str
    scale: float
    digits: int

    def write(self, value: float) -> str:
        """Write a score."""
        return f"{self.scale * value + 0.0:.{self.digits}f}"

    def write_signed(self, value: float) -> str:
        """Write a difference."""
        return f"{round(self.scale * value, self.digits) + 0.0:+.{self.digits}f}"


MIOU = Measure("miou", "mIoU", 100, 1)
F = Measure("f_score", "F", 1, 3)
MEASURES = (MIOU, F)


class Study(NamedTuple):
    """The runs of one budget and one setting: they may be compared."""

    budget: str
    setting: str
    runs: Mapping[str, Mapping[int, Report]]
    """By row and seed."""
    sweeps: Mapping[str, Mapping[int, Report]]
    """What ``paper_sweeps.py`` found, by row and seed."""
    again: Mapping[str, Mapping[int, Report]]
    """The runs that were repeated, by row and seed."""

    @property
    def title(self) -> str:
        """Name it."""
        return f"{self.setting.upper()}, budget `{self.budget}`"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the budget, which all runs share."""
        return next(self.reports())["budget"]

    def reports(self) -> Iterator[Report]:
        """Yield every run, those that were repeated once more."""
        every = (*self.runs.values(), *self.again.values())
        return (report for seeds in every for report in seeds.values())

    def seeds(self, *rows: str) -> list[int]:
        """Return the seeds that all of these rows were run with."""
        return sorted(set.intersection(*(set(self.runs.get(row, {})) for row in rows)))

    def clips(
        self, row: str, seeds: Iterable[int], measure: Measure, given: str = TRUE
    ) -> NDArray[np.float64]:
        """Return the score of every clip, ``(seeds, clips)``; NaN where a clip has none."""
        return np.array(
            [self.runs[row][seed]["test"][given][measure.key] for seed in seeds], dtype=np.float64
        )

    def means(self, row: str, measure: Measure, given: str = TRUE) -> list[float]:
        """Return the score of every seed; none where it was not measured."""
        tests = (self.runs[row][seed]["test"] for seed in self.seeds(row))
        return [float(np.nanmean(test[given][measure.key])) for test in tests if given in test]

    def titled(self, row: str) -> str:
        """Return what a row is called: today, or when it was run."""
        return ROWS[row].title if row in ROWS else str(next(iter(self.runs[row].values()))["title"])


def read(folder: Path) -> list[Study]:
    """Read ``<budget>/<setting>/<row>-seed<n>.json``.

    Raises:
        ValueError: if two runs of a budget and a setting differ in the budget or in the number of test clips.
    """
    studies = []
    for place in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        runs, sweeps, again = (_by_row(place / part) for part in ("", SWEEPS, AGAIN))
        if runs:
            study = Study(place.parent.name, place.name, runs, sweeps, again)
            _check_alike(study)
            studies.append(study)
    return studies


def _by_row(folder: Path) -> dict[str, dict[int, Report]]:
    """Read the reports of a folder, by row, in the order of ``ROWS``, and seed."""
    found: dict[str, dict[int, Report]] = {}
    for path in sorted(folder.glob("*-seed*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(report["row"], {})[report["seed"]] = report
    return {row: found[row] for row in (*ROWS, *found) if row in found}


def _check_alike(study: Study) -> None:
    first = next(study.reports())
    for report in study.reports():
        if _given(report) != _given(first):
            raise ValueError(
                f"{report['row']}-seed{report['seed']}.json: expected the budget and the test clips of "
                f"{first['row']}-seed{first['seed']}.json ({study.title}), got others"
            )


def _given(report: Report) -> tuple[Any, int]:
    """Return the budget of a run, and how many clips it was tested on."""
    return report["budget"], len(report["test"][TRUE][MIOU.key])
