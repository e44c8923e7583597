"""Read the results of ``paper_tables.py``: runs by row and seed, and the score of every clip."""

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
"""Folders next to a study's runs: results of ``paper_sweeps.py``, and repeated runs."""
STD, DRAWN, TOLD, SPREAD = "std of z0", "std of samples", "told of z0", "spread of samples"


class Measure(NamedTuple):
    """A score, and how to write it."""

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
    """The runs of one budget and one setting, which may be compared with each other."""

    budget: str
    setting: str
    runs: Mapping[str, Mapping[int, Report]]
    """By row and seed."""
    sweeps: Mapping[str, Mapping[int, Report]]
    """Results of ``paper_sweeps.py``, by row and seed."""
    again: Mapping[str, Mapping[int, Report]]
    """The repeated runs, by row and seed."""

    @property
    def title(self) -> str:
        """Name of the study on the page."""
        return f"{self.setting.upper()}, budget `{self.budget}`"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The budget, which all runs share."""
        return next(self.reports())["budget"]

    def reports(self) -> Iterator[Report]:
        """Yield every run, then the repeated runs."""
        every = (*self.runs.values(), *self.again.values())
        return (report for seeds in every for report in seeds.values())

    def seeds(self, *rows: str) -> list[int]:
        """Return the seeds with which all of these rows were run."""
        return sorted(set.intersection(*(set(self.runs.get(row, {})) for row in rows)))

    def clips(
        self, row: str, seeds: Iterable[int], measure: Measure, given: str = TRUE
    ) -> NDArray[np.float64]:
        """Return the score of every clip, ``(seeds, clips)``; NaN for a clip without a score."""
        return np.array(
            [self.runs[row][seed]["test"][given][measure.key] for seed in seeds], dtype=np.float64
        )

    def means(self, row: str, measure: Measure, given: str = TRUE) -> list[float]:
        """Return the mean score of every seed for which it was measured."""
        tests = (self.runs[row][seed]["test"] for seed in self.seeds(row))
        return [float(np.nanmean(test[given][measure.key])) for test in tests if given in test]

    def titled(self, row: str) -> str:
        """Return the title of a row: its current one, or for a removed row the one from when it was run."""
        return ROWS[row].title if row in ROWS else str(next(iter(self.runs[row].values()))["title"])


def read(folder: Path) -> list[Study]:
    """Read the studies from ``<budget>/<setting>/<row>-seed<n>.json``.

    Raises:
        ValueError: if two runs of a study differ in their budget or in their number of test clips.
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
    """Read the reports of a folder by row and seed; rows are in the order of ``ROWS``."""
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
    """Return the budget of a run and its number of test clips."""
    return report["budget"], len(report["test"][TRUE][MIOU.key])
