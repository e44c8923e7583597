"""Plots that torchmetrics does not have; all need matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def new_axes(ax: Any) -> tuple[Any, Any]:
    """Return the figure and the axes to draw on."""
    if ax is not None:
        return ax.get_figure(), ax
    from matplotlib import pyplot

    return pyplot.subplots()


def plot_bars(heights: Sequence[float], left: Sequence[float], ax: Any, xlabel: str, ylabel: str) -> Any:
    """Draw a bar from each left edge to the next and return the figure and its axes."""
    figure, ax = new_axes(ax)
    ax.bar(left, heights, width=left[1] - left[0] if len(left) > 1 else 1.0, align="edge")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return figure, ax


def plot_named_bars(names: Sequence[str], heights: Sequence[float], ax: Any, ylabel: str) -> Any:
    """Draw a bar for each name, on a scale from 0 to 1, and return the figure and its axes."""
    figure, ax = new_axes(ax)
    ax.bar(range(len(names)), heights)
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set(ylabel=ylabel, ylim=(0, 1))
    return figure, ax
