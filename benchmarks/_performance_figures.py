"""The pictures of the page on performance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _performance_results import Device, Row, distinct, implementations, number, positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE = ("#D55E00", "o")
OURS = (
    *(("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P")),
    ("#000000", "*"),
)
YARDSTICK = ("#777777", "x")
"""Colours that colour-blind readers can tell apart (Okabe and Ito), and markers for printing in grey."""

Value = Callable[[Row], tuple[float, float, float]]
"""Maps a row to p10, p50 and p90 of a value."""


class Style(NamedTuple):
    """How one implementation is drawn."""

    color: str
    marker: str
    linestyle: str


def styles(implementations: Sequence[str]) -> dict[str, Style]:
    """Return styles by name, for names in the order of :func:`_performance_results.implementations`."""
    ours = itertools.cycle(OURS)
    return {
        name: Style(*next(ours), "-")
        if name.startswith("avslib")
        else Style(*(YARDSTICK if i else REFERENCE), "--" if i else "-")
        for i, name in enumerate(implementations)
    }


def milliseconds(row: Row) -> tuple[float, float, float]:
    """Return the time of a row, in ms."""
    return row["ms"]["p10"], row["ms"]["p50"], row["ms"]["p90"]


def megabytes(row: Row) -> tuple[float, float, float]:
    """Return the memory of a row, in MB, as the same number three times."""
    return (row["bytes"] / 1e6,) * 3


def floors(row: Row) -> tuple[float, float, float]:
    """Return the time of a row as a multiple of its lower bound."""
    floor = row["floor ms"] if "floor ms" in row else row["ms"]["p50"] / row["times the weights"]
    p10, p50, p90 = (value / floor for value in milliseconds(row))
    return p10, p50, p90


def draw_lines(
    axes: Axes, rows: Sequence[Row], x: Callable[[Row], float], y: Value, *, growth: bool = False
) -> None:
    """Draw a line for each implementation on logarithmic scales, with a band from p10 to p90.

    Args:
        axes: axes to draw on.
        rows: rows to draw.
        x: horizontal position of a row.
        y: vertical values of a row.
        growth: write into the legend by how much ``y`` grows from the second largest ``x`` to the largest, if
            that is four times as large.
    """
    axes.set(xscale="log", yscale="log")
    for name, style in styles(implementations(rows)).items():
        points = sorted((x(row), *y(row)) for row in rows if row["implementation"] == name)
        places, lower, middle, upper = zip(*points, strict=True)
        label = name
        if growth and places[-1] == 4 * places[max(0, len(places) - 2)]:
            label += f" ({number(middle[-1] / middle[-2])})"
        axes.plot(places, middle, **style._asdict(), label=label, markersize=5)
        axes.fill_between(places, lower, upper, color=style.color, alpha=0.2, linewidth=0)
    measured = sorted({x(row) for row in rows})
    axes.set_xticks(measured, [f"{place:,}" for place in measured])
    axes.set_xticks([], minor=True)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    _add_legend(axes, title="in brackets: from N to 4 N, times" if growth else None)


def draw_tpavi(device: Device) -> Figure | None:
    """Draw the time and memory of the paper's TPAVI against N."""
    every = device.rows("tpavi")
    passes = distinct(every, "pass")
    if not every:
        return None
    figure, grid = _subplots(len(passes), 2)
    form = {name: every[0][name] for name in ("mode", "attends to")}
    for line, name in zip(grid, passes, strict=True):
        rows = device.rows("tpavi", **form, **{"pass": name})
        weighed = [row for row in rows if row.get("bytes")]
        for axes, which, y in ((line[0], rows, milliseconds), (line[1], weighed, megabytes)):
            draw_lines(axes, which, lambda row: positions(device, row), y, growth=True)
            axes.set_xlabel("N = T·H·W, positions of a clip")
        line[0].set(ylabel="time, ms", title=f"{name}: time")
        line[1].set(ylabel="peak memory, MB", title=f"{name}: memory")
    return figure


def draw_sampler(device: Device) -> Figure | None:
    """Draw the latency of sampling against B*T, for each number of samples."""
    every = device.rows("sampler_latency")
    if not every:
        return None
    numbers = distinct(every, "samples")
    figure, grid = _subplots(math.ceil(len(numbers) / 2), min(2, len(numbers)))
    for axes, samples in itertools.zip_longest(itertools.chain(*grid), numbers):
        if samples is None:
            axes.remove()
            continue
        draw_lines(
            axes, device.rows("sampler_latency", samples=samples), lambda row: row["frames"], milliseconds
        )
        axes.set(xlabel="B·T, frames", ylabel="latency, ms", title=f"samples a frame: {samples}")
    return figure


def draw_roofline(device: Device) -> Figure | None:
    """Draw time over its lower bound, for TPAVI and for the sampler with the fewest samples."""
    panels: list[tuple[str, list[Row], Callable[[Row], float], str]] = []
    every = device.rows("tpavi")
    for name in distinct(every, "pass"):
        form = {name: every[0][name] for name in ("mode", "attends to")}
        rows = device.rows("tpavi", **form, **{"pass": name})
        panels.append(
            (f"TPAVI, {name}", rows, lambda row: positions(device, row), "N = T·H·W, positions of a clip")
        )
    samples = min(distinct(device.rows("sampler_latency"), "samples"), default=None)
    if samples is not None:
        rows = [
            row for row in device.rows("sampler_latency", samples=samples) if row["times the weights"] != 1
        ]
        panels.append(
            (f"sampler, samples a frame: {samples}", rows, lambda row: row["frames"], "B·T, frames")
        )
    if not panels:
        return None
    figure, grid = _subplots(1, len(panels), width=3.4)
    for axes, (title, rows, x, label) in zip(grid[0], panels, strict=True):
        draw_lines(axes, rows, x, floors)
        axes.axhline(1, color="black", linewidth=1)
        axes.set(title=title, xlabel=label, ylabel="time / lower bound")
    return figure


def draw_models(device: Device) -> Figure | None:
    """Draw clips per second of whole models as bars: one panel for inference and one for training steps."""
    subjects = {"inference": "inference", "training_step": "a training step"}
    panels = {title: device.rows(subject) for subject, title in subjects.items() if device.rows(subject)}
    if not panels:
        return None
    bars = max(map(len, panels.values()))
    figure, grid = _subplots(1, len(panels), height=1.6 + 0.2 * bars)
    for axes, (title, rows) in zip(grid[0], panels.items(), strict=True):
        models, ways = distinct(rows, "model"), implementations(rows)
        for i, (way, style) in enumerate(styles(ways).items()):
            mine = [row for row in rows if row["implementation"] == way]
            places = [models.index(row["model"]) + 0.8 * (i + 0.5) / len(ways) - 0.4 for row in mine]
            values = [row["clips/s"]["p50"] for row in mine]
            axes.barh(places, values, height=0.7 / len(ways), color=style.color, label=way)
            for place, value in zip(places, values, strict=True):
                axes.annotate(
                    number(value), (value, place), (3, 0), textcoords="offset points", va="center", size=7
                )
        axes.set_yticks(range(len(models)), models)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(xlabel="clips/s", title=title)
        _add_legend(axes)
    return figure


PICTURES: dict[str, tuple[Callable[[Device], Figure | None], str]] = {
    "tpavi": (draw_tpavi, "Time and memory of TPAVI against the number of positions"),
    "sampler": (draw_sampler, "Latency of sampling against the number of frames"),
    "roofline": (draw_roofline, "Time over its lower bound, of TPAVI and of the sampler"),
    "models": (draw_models, "Clips a second of whole models, in inference and in training"),
}


def draw(device: Device, folder: Path) -> dict[str, tuple[Path, str]]:
    """Draw all figures that a device has results for; return files and captions by kind."""
    import matplotlib as mpl

    drawn = {}
    same_every_time = {"Date": None}
    with mpl.rc_context(
        {"font.size": 9, "axes.titlesize": 9, "svg.fonttype": "none", "svg.hashsalt": "avslib"}
    ):
        for kind, (paint, caption) in PICTURES.items():
            figure = paint(device)
            if figure is not None:
                path = folder / f"{device.folder}-{kind}.svg"
                figure.savefig(path, metadata=same_every_time)
                drawn[kind] = path, caption
    return drawn


def _add_legend(axes: Axes, *, title: str | None = None) -> None:
    """Add a legend below the axes, where it hides nothing."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=5,
        ncols=2,
        fontsize=7,
        title=title,
        title_fontsize=7,
        frameon=False,
    )


def _subplots(
    rows: int, columns: int, *, width: float = 4.6, height: float = 3.8
) -> tuple[Figure, list[list[Axes]]]:
    """Make axes on a new figure, without touching matplotlib's global state or needing a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()
