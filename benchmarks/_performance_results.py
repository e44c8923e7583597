"""Read ``benchmarks/results`` by device and subject, and write numbers and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SUBJECTS = ("tpavi", "sampler_latency", "metrics", "inference", "training_step", "loading", "import_time")

Row = Mapping[str, Any]


class Device(NamedTuple):
    """The results of one device."""

    folder: str
    reports: Mapping[str, Mapping[str, Any]]
    """Machine, settings and rows, by subject."""
    reasons: Mapping[str, str]
    """Known reasons why targets are missed, by target, from ``reasons.json``."""

    @property
    def is_gpu(self) -> bool:
        """Whether anything was measured on a GPU."""
        return any(report["settings"]["device"].startswith("cuda") for report in self.reports.values())

    def rows(self, subject: str, part: str = "rows", **variables: Any) -> list[Row]:
        """Return the rows of a subject in which the variables have these values, or an empty list."""
        rows: list[Row] = self.reports.get(subject, {}).get(part) or []
        return [row for row in rows if all(row.get(name) == value for name, value in variables.items())]


def read(results: Path) -> list[Device]:
    """Read the folder of every device, skipping files that the benchmarks did not write."""
    devices = []
    for folder in sorted(path for path in results.glob("*") if path.is_dir()):
        reports = {subject: _read_json(folder / f"{subject}.json") for subject in SUBJECTS}
        reports = {subject: report for subject, report in reports.items() if "subject" in report}
        if reports:
            devices.append(Device(folder.name, reports, _read_json(folder / "reasons.json")))
    return devices


def is_ours(row: Row) -> bool:
    """Return whether a row belongs to this library, and not to the reference or a yardstick."""
    return row["implementation"].startswith("avslib")


def distinct(rows: Iterable[Row], name: str) -> list[Any]:
    """Return the distinct values of a variable, in the order of their first appearance."""
    return list(dict.fromkeys(row[name] for row in rows if name in row))


def implementations(rows: Iterable[Row]) -> list[str]:
    """Return their names: first the reference, then ours, which start with "avslib", then yardsticks."""
    names = distinct(rows, "implementation")
    return names[:1] + sorted(names[1:], key=lambda name: not name.startswith("avslib"))


def positions(device: Device, row: Row) -> int:
    """Return N, the number of positions of a clip that TPAVI compares."""
    return device.reports["tpavi"]["settings"]["frames"] * row["square"] ** 2


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table, with columns of numbers aligned to the right."""
    columns = zip(*lines, strict=True)
    rule = ["---:" if all(not text or text[0].isdigit() for text in column) else "---" for column in columns]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def pivot(
    rows: Sequence[Row],
    variables: Mapping[str, str],
    write: Callable[[Row], str],
    *,
    across: str = "implementation",
) -> str:
    """Write a table with a line per combination of variables and a column per value of ``across``.

    In a line without the first column, which is the reference, the others have no speedup.

    Args:
        rows: rows to write.
        variables: headings by the names of the variables.
        write: function that returns the text of a cell.
        across: the variable whose values are the columns.
    """
    columns = implementations(rows) if across == "implementation" else distinct(rows, across)
    groups: dict[tuple[Any, ...], dict[Any, Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in variables), {})[row[across]] = row
    lines = []
    for key, group in groups.items():
        there = (
            group if columns[0] in group else {name: {**row, "speedup": None} for name, row in group.items()}
        )
        cells = [write(there[name]) if name in there else "" for name in columns]
        lines.append([*map(str, key), *cells])
    return table([*variables.values(), *map(str, columns)], lines)


def number(value: float) -> str:
    """Write a number with about three digits, and without an exponent unless it is below 0.0001."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size < 0.0995:
        return f"{value:.3g}"
    return f"{value:.{1 if size >= 9.995 else 2}f}"


def span(quantiles: Mapping[str, float], unit: str = "", scale: float = 1) -> str:
    """Write a median with p10 and p90 in brackets."""
    p10, p50, p90 = (number(scale * quantiles[p]) for p in ("p10", "p50", "p90"))
    return f"{p50}{unit} ({p10}–{p90})"  # noqa: RUF001  # a range


def duration(ms: Mapping[str, float]) -> str:
    """Write a median time with p10 and p90, in a suitable unit."""
    if ms["p50"] < 1:
        return span(ms, " µs", 1e3)
    return span(ms, " ms") if ms["p50"] < 1e3 else span(ms, " s", 1e-3)


def memory(size: float) -> str:
    """Write a number of bytes in a suitable unit."""
    if size < 1e6:
        return f"{number(size / 1e3)} kB"
    return f"{number(size / 1e6)} MB" if size < 1e9 else f"{number(size / 1e9)} GB"


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
