"""The scores of all protocols on some predictions, how sure they are, and what was measured."""

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
"""Probability that an interval is to hold."""


class Score(NamedTuple):
    """A measure's value and its bootstrap interval over clips."""

    measure: Measure
    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A measure on two systems that predicted the same clips."""

    measure: Measure
    value: float
    other: float
    low: float
    """Bounds of the bootstrap interval of the difference, ``value - other``."""
    high: float
    p_value: float
    """Of the permutation test, two-sided; not corrected for how many measures one looks at."""


@dataclass(frozen=True, eq=False)
class Report:
    """What :func:`report` found; ``print`` it, or :meth:`save` it and :meth:`load` it again."""

    ids: tuple[str, ...]
    """The clips, in the order in which they came."""
    categories: tuple[str, ...]
    unread: tuple[str, ...]
    """Clips of which no frame counted; they are in no score."""
    classes: tuple[str, ...]
    """Names of the classes, the background first; empty if the masks are binary."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """What the clips add to the scores; of binary masks also J of every frame, and the curves' sums; of
    classes, how many frames are labelled with each."""
    measured: Mapping[str, Any]
    """The arguments of ``binary_measures`` or ``semantic_measures``."""
    size: str
    truth: str
    """SHA-256 of the ground truth, with names, sizes and which frames count: equal where two reports measured
    against the same."""
    provenance: Mapping[str, Any]
    num_replicates: int = 1000
    seed: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields; what is computed from them holds functions, which no pickle does."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @cached_property
    def measures(self) -> list[Measure]:
        """What was measured, in the order of the table."""
        return measures_of(self.measured)[0]

    @property
    def left_out(self) -> dict[str, str]:
        """Why the other protocols were not."""
        return measures_of(self.measured)[1]

    @property
    def clip_measure(self) -> Measure:
        """The J that single clips are ranked by: ``avsbench`` of binary masks, ``present`` of classes."""
        return next(measure for measure in self.measures if measure.of_clips)

    @property
    def frames(self) -> Tensor:
        """How many frames each clip has, and how many of them have ground truth, ``(n, 2)``, int64."""
        return self.tensors["frames"].long()

    @cached_property
    def replicates(self) -> dict[str, Tensor]:
        """The bootstrap replicates of every measure by name, ``(num_replicates,)``."""
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
        """Return the values of every measure on the clips of each category alone, by name."""
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
        """Return the score of each class by every measure that has one, by name; empty for binary masks."""
        found: dict[str, dict[str, float]] = {name: {} for name in self.classes}
        for measure in self.measures:
            if measure.per_class is not None:
                scores = measure.per_class(self._sums(measure).sum(dim=0)).tolist()
                for name, score in zip(self.classes, scores, strict=True):
                    found[name][measure.name] = score
        return found

    def by_clip(self) -> dict[str, list[float]]:
        """Return the values on each clip alone of the measures that say something of one, by name."""
        found: dict[str, list[float]] = {}
        for measure in self.measures:
            if measure.of_clips:
                found[measure.name] = measure.of(self._sums(measure)).tolist()
        return found

    def worst(self, count: int = 8) -> list[int]:
        """Return which clips have the lowest J, places in ``ids``, the worst first; see ``clip_measure``."""
        measure = self.clip_measure
        return measure.of(self._sums(measure)).argsort(stable=True)[:count].tolist()

    def compare(self, other: Report, *, permutations: int = 1000) -> list[Difference]:
        """Compare with a report on another system's predictions for the same clips.

        Args:
            other: the other report.
            permutations: of :func:`~avslib.metrics.permutation_p_value`.

        Returns:
            A difference for each measure that both have: positive where this report's value is higher.

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
        """Say in what the ground truth of the same clips differs."""
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
        """Return all protocols' scores as text of a fixed width."""
        return tables.text(self)

    def markdown(self) -> str:
        """Return scores, categories and provenance as Markdown."""
        return tables.markdown(self)

    def latex(self) -> str:
        """Return the scores as a LaTeX table, for the package ``booktabs``."""
        return tables.latex(self)

    def csv(self) -> str:
        """Return a line of scores for each clip."""
        return tables.csv(self)

    def to_dict(self) -> dict[str, Any]:
        """Return scores, categories and provenance as JSON can hold them."""
        return tables.to_dict(self)

    def save(self, folder: str | Path) -> None:
        """Write ``report.json``, ``report.md``, ``report.tex``, ``clips.csv`` and ``clips.safetensors``.

        Args:
            folder: made if it is missing. The last file holds what :meth:`load` and :meth:`compare` need.
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
        # not save_file, whose files are for their owner alone
        tensors = save({key: value.contiguous() for key, value in self.tensors.items()})
        (folder / "clips.safetensors").write_bytes(tensors)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what :meth:`save` wrote.

        Args:
            path: the folder, or the ``report.json`` in it.

        Raises:
            FileNotFoundError: if a file is not there.
            ValueError: if one is damaged.
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
