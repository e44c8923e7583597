"""A report: the scores of all protocols on some predictions, their intervals, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from avslib._checks import check_shape
from avslib.metrics import report_tables as tables
from avslib.metrics.class_measures import measures_of
from avslib.metrics.measures import Measure
from avslib.metrics.resampling import bootstrap, permutation_p_value

LEVEL = 0.95
"""Confidence level of the intervals."""


class Score(NamedTuple):
    """A measure's value and its bootstrap interval over clips."""

    measure: Measure
    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The values of a measure for two systems on the same clips, and their difference."""

    measure: Measure
    value: float
    other: float
    low: float
    """Lower bound of the bootstrap interval of ``value - other``; ``high`` is the upper one."""
    high: float
    p_value: float
    """Two-sided p-value of the permutation test, not corrected for the number of measures."""


@dataclass(frozen=True, eq=False)
class Report:
    """Result of :func:`report`, which can be printed, saved by :meth:`save` and loaded by :meth:`load`."""

    ids: tuple[str, ...]
    """Names of the clips, in the order in which they came."""
    categories: tuple[str, ...]
    unread: tuple[str, ...]
    """Names of clips without a frame that counts; they enter no score."""
    classes: tuple[str, ...]
    """Names of the classes, the background first; empty if the masks are binary."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """Sums of each clip from which scores are computed. For binary masks also J of every frame and the sums
    of the curves; for semantic masks the number of frames labelled with each class."""
    measured: Mapping[str, Any]
    """Arguments of ``binary_measures`` or ``semantic_measures``."""
    size: str
    truth: str
    """SHA-256 of the ground truth, with names, sizes and which frames count; equal if two reports have the
    same ground truth."""
    provenance: Mapping[str, Any]
    num_replicates: int = 1000
    seed: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return only the fields: what is computed from them holds functions, which cannot be pickled."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @cached_property
    def measures(self) -> list[Measure]:
        """The measures, in table order."""
        return measures_of(self.measured)[0]

    @property
    def left_out(self) -> dict[str, str]:
        """The reason for each protocol that was left out."""
        return measures_of(self.measured)[1]

    @property
    def clip_measure(self) -> Measure:
        """The J that ranks single clips: ``avsbench``, ``combo`` for two logits, ``present`` for classes."""
        return next(measure for measure in self.measures if measure.of_clips)

    @property
    def frames(self) -> Tensor:
        """Number of frames of each clip, and of those with ground truth, ``(n, 2)``, int64."""
        return self.tensors["frames"].long()

    @cached_property
    def replicates(self) -> dict[str, Tensor]:
        """The bootstrap replicates of every measure, by name, each ``(num_replicates,)``."""
        return {
            measure.name: bootstrap(
                measure, self._sums(measure), replicates=self.num_replicates, seed=self.seed
            )
            for measure in self.measures
        }

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """Every measure's value with its 95 % interval: percentiles of the bootstrap over clips."""
        return tuple(
            Score(
                measure,
                measure.value(self._sums(measure)).item(),
                *_interval(self.replicates[measure.name]),
            )
            for measure in self.measures
        )

    def by_category(self) -> dict[str, dict[str, float]]:
        """Return the value of every measure on the clips of each category, by category and measure name."""
        found: dict[str, dict[str, float]] = {}
        for category in sorted({category for category in self.categories if category}):
            clips = torch.tensor([kind == category for kind in self.categories])
            found[category] = {
                measure.name: measure.value(self._sums(measure)[clips]).item() for measure in self.measures
            }
        return found

    @property
    def labelled(self) -> dict[str, int]:
        """How many frames are labelled with each class, by name; empty for binary masks."""
        return {name: int(self.tensors["labelled"][i]) for i, name in enumerate(self.classes)}

    def by_class(self) -> dict[str, dict[str, float]]:
        """Return the scores of each class, by class and measure name; empty for binary masks."""
        found: dict[str, dict[str, float]] = {name: {} for name in self.classes}
        for measure in self.measures:
            if measure.per_class is not None:
                scores = measure.per_class(self._sums(measure).sum(dim=0)).tolist()
                for name, score in zip(self.classes, scores, strict=True):
                    found[name][measure.name] = score
        return found

    def by_clip(self) -> dict[str, list[float]]:
        """Return the score of each clip by every measure that is meaningful for one clip, by name."""
        found: dict[str, list[float]] = {}
        for measure in self.measures:
            if measure.of_clips:
                found[measure.name] = measure.of(self._sums(measure)).tolist()
        return found

    def worst(self, count: int = 8) -> list[int]:
        """Return the indices in ``ids`` of the clips with the lowest ``clip_measure``, the worst first."""
        measure = self.clip_measure
        return measure.of(self._sums(measure)).argsort(stable=True)[:count].tolist()

    def compare(self, other: Report, *, permutations: int = 1000) -> list[Difference]:
        """Compare with a report on another system's predictions for the same clips.

        Args:
            other: the other report.
            permutations: maximum number of permutations, see :func:`~avslib.metrics.permutation_p_value`.

        Returns:
            A difference for each measure that both have, positive where this report's value is higher.

        Raises:
            ValueError: if the clips, their order, or the ground truth that was measured against differ.
        """
        if self.ids != other.ids:
            apart = len(set(self.ids) ^ set(other.ids))
            what = f"{apart} that only one has" if apart else "them in another order"
            raise ValueError(f"other: expected a report on the same {len(self.ids)} clips, got {what}")
        if self.truth != other.truth:
            raise ValueError(
                f"other: expected a report against the same ground truth, got another: {self._apart(other)}"
            )
        theirs = {measure.name for measure in other.measures}
        differences = []
        for measure in (measure for measure in self.measures if measure.name in theirs):
            sums = self._sums(measure), other._sums(measure)
            theirs_drawn = bootstrap(measure, sums[1], replicates=self.num_replicates, seed=self.seed)
            low, high = _interval(self.replicates[measure.name] - theirs_drawn)
            differences.append(
                Difference(
                    measure,
                    value=measure.value(sums[0]).item(),
                    other=measure.value(sums[1]).item(),
                    low=low,
                    high=high,
                    p_value=permutation_p_value(measure, *sums, permutations=permutations, seed=self.seed),
                )
            )
        return differences

    def _apart(self, other: Report) -> str:
        """Describe how the ground truth of the same clips differs."""
        if self.size != other.size:
            return f"frames of {self.size} here and of {other.size} there"
        counts = zip(self.ids, self.frames[:, 0].tolist(), other.frames[:, 0].tolist(), strict=True)
        for name, here, there in counts:
            if here != there:
                return f"of {name!r}, {here} frames count here and {there} there"
        return "as many frames of the same size, but other ones, or with other masks"

    def _sums(self, measure: Measure) -> Tensor:
        return self.tensors[measure.sums]

    def __str__(self) -> str:
        """Return the scores of all protocols as fixed-width text."""
        return tables.text(self)

    def markdown(self) -> str:
        """Return scores, categories and provenance as Markdown."""
        return tables.markdown(self)

    def latex(self) -> str:
        """Return the scores as a LaTeX table that uses the package ``booktabs``."""
        return tables.latex(self)

    def csv(self) -> str:
        """Return the scores of single clips as CSV, one line per clip."""
        return tables.csv(self)

    def to_dict(self) -> dict[str, Any]:
        """Return scores, categories and provenance in a form that JSON can hold."""
        return tables.to_dict(self)

    def save(self, folder: str | Path) -> None:
        """Write ``report.json``, ``report.md``, ``report.tex``, ``clips.csv`` and ``clips.safetensors``.

        :meth:`load` reads ``report.json`` and ``clips.safetensors``.

        Args:
            folder: folder to write to; created if it is missing.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        record = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        for name, text in (
            ("report.json", record + "\n"),
            ("report.md", self.markdown()),
            ("report.tex", self.latex()),
            ("clips.csv", self.csv()),
        ):
            (folder / name).write_text(text, encoding="utf-8")
        # save_file would write a file that only its owner can read
        tensors = save({key: value.contiguous() for key, value in self.tensors.items()})
        (folder / "clips.safetensors").write_bytes(tensors)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Load a report that :meth:`save` wrote.

        Args:
            path: the folder, or the ``report.json`` in it.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged.
        """
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        beside = path.with_name("clips.safetensors")
        for needed in (path, beside):
            if not needed.is_file():
                raise FileNotFoundError(f"{needed}: not there; Report.save writes it")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            loaded = cls(
                ids=tuple(record["ids"]),
                categories=tuple(record["categories"]),
                unread=tuple(record["unread"]),
                tensors=load_file(beside),
                classes=tuple(record["classes"]),
                measured=record["measured"],
                size=record["size"],
                truth=record["truth"],
                provenance=record["provenance"],
                num_replicates=record["replicates"],
                seed=record["seed"],
            )
            for measure in loaded.measures:
                check_shape(measure.sums, loaded._sums(measure), "n s", n=len(loaded.ids))
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ValueError(f"{path}: expected a report that Report.save wrote ({error!r})") from error
        return loaded


def _interval(replicates: Tensor) -> tuple[float, float]:
    bounds = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=replicates.dtype)
    low, high = replicates.nanquantile(bounds).tolist()
    return low, high
