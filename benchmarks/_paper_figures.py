"""The pictures of the page on the paper's tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING

from _paper_claims import NAMES, TABLES_BEYOND, TABLES_OF_PAPER, WINDOWS
from _paper_controls import bounds_by_seed, candidates, ceiling
from _paper_costs import still_learning
from _paper_results import MEASURES, MIOU, Study
from _paper_rows import TABLES
from _paper_sections import Judged, claims_of, finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
FINDING_COLORS = {"agrees": "#0072B2", "disagrees": "#D55E00", "neither": "#777777"}
"""Colours that colour-blind readers can tell apart (Okabe and Ito)."""

Curves = Callable[[str], Mapping[int, Sequence[float]]]
"""Maps a row to its curves over epochs, by seed."""


def draw_claims(study: Study, judged: Judged) -> Figure | None:
    """Draw the difference and its interval for every claim and window, next to the paper's difference."""
    claims = claims_of(judged)
    if not claims:
        return None
    figure, grid = _axes(1, 2, width=5.2, height=1 + 0.5 * len(claims))
    early = still_learning(study)
    for axes, measure in zip(grid[0], MEASURES, strict=True):
        axes.axvline(0, color="black", linewidth=0.8)
        for place, claim in zip(range(len(claims), 0, -1), claims, strict=True):
            for window, marker, shift in zip(WINDOWS, "os", (0.15, -0.15), strict=True):
                found = judged[window][claim][measure] if window in judged else None
                if found is not None:
                    low, mean, high = (measure.scale * x for x in (found.low, found.mean, found.high))
                    color = FINDING_COLORS.get(finding(claim, window, found, early), "#777777")
                    line = [place + shift] * 2
                    axes.plot([low, high], line, color=color, linewidth=2, solid_capstyle="butt")
                    axes.plot(mean, place + shift, marker, color=color, markersize=5)
            paper = claim.published(study.setting, measure.key)
            if paper is not None:
                axes.plot(paper, place, "D", color="black", markerfacecolor="none", markersize=5)
        axes.set(xlabel=f"difference in {measure.name}", ylim=(0.4, len(claims) + 0.6))
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    ticks = [f"{claim.text} ({NAMES[claim.table]})" for claim in claims]
    grid[0][0].set_yticks(range(len(claims), 0, -1), ticks)
    legend = grid[0][1]
    for (window, name), marker in zip(WINDOWS.items(), "os", strict=True):
        if window in judged:
            legend.plot([], [], marker, color="#777777", label=name)
    legend.plot([], [], "D", color="black", markerfacecolor="none", label="the paper")
    for name, color in FINDING_COLORS.items():
        legend.plot([], [], color=color, linewidth=2, label=name)
    figure.legend(loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    return figure


def draw_rows(study: Study) -> Figure:
    """Draw the mIoU of every seed of every row."""
    rows = list(study.runs)
    figure, grid = _axes(1, 1, width=7.5, height=0.9 + 0.26 * len(rows))
    axes = grid[0][0]
    axes.axvline(MIOU.scale * ceiling(study), color="#777777", linestyle="--", label="audio-blind ceiling")
    for place, row in enumerate(reversed(rows)):
        scores = [MIOU.scale * score for score in study.means(row, MIOU)]
        axes.plot(scores, [place] * len(scores), "o", color=COLORS[0], markerfacecolor="none", markersize=6)
        axes.plot(sum(scores) / len(scores), place, "|", color="black", markersize=13, markeredgewidth=2)
    axes.plot([], [], "o", color=COLORS[0], markerfacecolor="none", label="a seed")
    axes.plot([], [], "|", color="black", markersize=10, markeredgewidth=2, label="their mean")
    axes.set(xlabel="mIoU, test clips", ylim=(-0.7, len(rows) - 0.3))
    axes.set_yticks(range(len(rows)), [study.titled(row) for row in reversed(rows)], fontsize=8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def draw_validation(study: Study) -> Figure | None:
    """Draw the score on the validation clips over epochs."""

    def curves(row: str) -> dict[int, list[float]]:
        runs = study.runs.get(row, {})
        return {s: [MIOU.scale * epoch["validation"] for epoch in run["history"]] for s, run in runs.items()}

    figure, _ = _draw_curves(study, curves, "mIoU, validation clips")
    return figure


def draw_information(study: Study) -> Figure | None:
    """Draw the bound on the mutual information of condition and latent over epochs."""
    figure, panels = _draw_curves(study, lambda row: bounds_by_seed(study, row), "lower bound, nats")
    for axes, rows in panels:
        for n in sorted({candidates(study, row) for row in rows}):
            axes.axhline(math.log(n), color="#777777", linestyle="--", linewidth=0.8)
            axes.annotate(
                f"log {n}",
                (0.01, math.log(n)),
                (0, -9),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=7,
                color="#777777",
            )
    return figure


def _draw_curves(
    study: Study, curves: Curves, label: str
) -> tuple[Figure | None, list[tuple[Axes, list[str]]]]:
    """Draw a panel for each table and window with at least two rows: thick means over seeds, thin seeds."""
    shown = {
        (key, window): [row + window for row in rows if curves(row + window)]
        for (key, rows), window in product(TABLES.items(), WINDOWS)
    }
    shown = {place: rows for place, rows in shown.items() if len(rows) > 1}
    if not shown:
        return None, []
    columns = min(3, len(shown))
    figure, grid = _axes(-(-len(shown) // columns), columns, width=4, height=3.2)
    every = [axes for line in grid for axes in line]
    panels = list(zip(every, shown.values(), strict=False))
    for axes, ((key, window), rows) in zip(every, shown.items(), strict=False):
        for row, color, marker in zip(rows, cycle(COLORS), cycle(MARKERS), strict=False):
            seeds = list(curves(row).values())
            mean = [sum(epoch) / len(epoch) for epoch in zip(*seeds, strict=True)]
            epochs = range(1, len(mean) + 1)
            for curve in seeds:
                axes.plot(epochs, curve, color=color, linewidth=0.6, alpha=0.5)
            axes.plot(epochs, mean, color=color, marker=marker, markersize=4, linewidth=1.6, label=row)
        axes.set(xlabel="epoch", ylabel=label, xticks=_ticks(len(mean)))
        asked = {**TABLES_OF_PAPER, **TABLES_BEYOND}.get(key)
        title = asked.title.replace("`", "") if asked else key
        axes.set_title(f"{title}\n{WINDOWS[window]}" if window else title)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.legend(fontsize=7, framealpha=0.9)
    for axes in every[len(shown) :]:
        axes.set_axis_off()
    return figure, panels


def _ticks(epochs: int) -> range:
    return range(1, epochs + 1, max(1, epochs // 6))


def _axes(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """Make axes on a new figure, without touching matplotlib's global state or needing a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=True).tolist()
