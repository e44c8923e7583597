"""Plots of a report: protocols side by side, precision over recall, J of frames, categories, classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avslib.metrics.report_record import Report, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _ORANGE = "tab:blue", "tab:orange"


def plot_report(report: Report, folder: str | Path) -> None:
    """Write ``protocols.png``, ``pr_curve.png``, ``iou_histogram.png`` and, if known, ``categories.png``.

    For semantic masks, write ``protocols.png`` and ``classes.png``.

    Args:
        report: report to plot.
        folder: folder to write to; created if it is missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plot_protocols(report).savefig(folder / "protocols.png", dpi=110)
    if report.classes:
        plot_classes(report).savefig(folder / "classes.png", dpi=110)
        return
    plot_pr_curve(report).savefig(folder / "pr_curve.png", dpi=110)
    plot_iou_histogram(report).savefig(folder / "iou_histogram.png", dpi=110)
    if any(report.categories):
        plot_categories(report).savefig(folder / "categories.png", dpi=110)


def plot_protocols(report: Report) -> Figure:
    """Draw J and F of the same predictions by every protocol, with their intervals; needs matplotlib."""
    rows = list(dict.fromkeys(score.measure.row for score in report.scores))
    figure, axes = _axes(1, 2, width=8.5, height=0.8 + 0.27 * len(rows), sharey=True)
    for axis, column, colour in zip(axes[0], ("J", "F"), (_BLUE, _ORANGE), strict=True):
        scores = [s for s in report.scores if s.measure.score == column and not math.isnan(s.value)]
        _points(axis, [rows.index(score.measure.row) for score in scores], scores, colour)
        axis.set(xlabel=column, ylim=(len(rows) - 0.5, -0.5))
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(rows)), rows)
    return figure


def plot_pr_curve(report: Report) -> Figure:
    """Draw precision over recall, averaged over the frames with ground truth; needs matplotlib.

    A frame in which no pixel reaches a threshold has precision 0 there, as in the published code, so the
    curve falls towards the left.
    """
    frames = max(int(report.frames[:, 1].sum()), 1)
    precision, recall, f = report.tensors["curves"] / frames
    best = int(f.argmax())
    figure, axes = _axes(1, 1, width=4.2, height=3.8)
    axis = axes[0, 0]
    axis.plot(recall, precision, color=_BLUE)
    label = f"F = {f[best]:.3f} at threshold {best / (len(f) - 1):.2f}"
    axis.plot(recall[best], precision[best], "o", color=_ORANGE, label=label)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    axis.legend(loc="lower left", frameon=False)
    return figure


def plot_iou_histogram(report: Report) -> Figure:
    """Draw a histogram of the J of frames by AVSBench's protocol; needs matplotlib."""
    iou, has_truth = report.tensors["frame_iou"], report.tensors["frame_truth"].bool()
    figure, axes = _axes(1, 1, width=4.8, height=3.4)
    edges = torch.linspace(0, 1, 26).tolist()
    axes[0, 0].hist(
        [iou[has_truth].numpy(), iou[~has_truth].numpy()],
        bins=edges,
        stacked=True,
        color=[_BLUE, _ORANGE],
        label=["with ground truth", "without: fraction left free"],
    )
    axes[0, 0].set(xlabel="J of a frame", ylabel="frames", xlim=(0, 1))
    axes[0, 0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)
    return figure


def plot_categories(report: Report) -> Figure:
    """Draw J by the report's first protocol for the clips of each category; needs matplotlib."""
    name = report.measures[0].name
    values = {
        f"{category} ({report.categories.count(category)})": scores[name]
        for category, scores in report.by_category().items()
    }
    return _bars(values, f"{name} (clips in brackets)")


def plot_classes(report: Report) -> Figure:
    """Draw J by AVSBench's protocol for each class that frames are labelled with; needs matplotlib."""
    name = report.measures[0].name
    values = {
        f"{word} ({report.labelled[word]})": scores[name]
        for word, scores in report.by_class().items()
        if report.labelled[word]
    }
    return _bars(values, f"{name} (frames in brackets)")


def _bars(values: Mapping[str, float], label: str) -> Figure:
    """Draw a bar for each value, the highest first."""
    names = sorted(values, key=values.__getitem__, reverse=True)
    figure, axes = _axes(1, 1, width=5.5, height=0.9 + 0.24 * len(names))
    axes[0, 0].barh(range(len(names)), [values[name] for name in names], color=_BLUE)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set(xlabel=label, xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    return figure


def _points(axis: Any, places: list[int], scores: list[Score], colour: str) -> None:
    values = [score.value for score in scores]
    # a percentile interval need not hold the value itself
    below = [max(0.0, score.value - score.low) for score in scores]
    above = [max(0.0, score.high - score.value) for score in scores]
    axis.errorbar(values, places, xerr=[below, above], fmt="o", color=colour, capsize=3)


def _axes(
    rows: int, columns: int, *, width: float, height: float, sharey: bool = False
) -> tuple[Figure, Any]:
    """Return a new figure and its axes, without matplotlib's global state or a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes
