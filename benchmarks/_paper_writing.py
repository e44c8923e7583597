"""How the page on the paper's tables writes scores, differences, times and counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev

from _paper_results import MIOU, Measure, Study
from _paper_statistics import Comparison


def for_each(studies: Sequence[Study], write: Callable[[Study], str], *, none: str = "Not run yet.") -> str:
    """Write a section for every study, under its name if there are several; ``none`` if all are empty."""
    if len(studies) == 1:
        return write(studies[0]) or none
    parts = [(study, write(study)) for study in studies]
    return "\n\n".join(f"**{study.title}**\n\n{part}" for study, part in parts if part) or none


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table, with columns of numbers aligned to the right."""
    columns = zip(*lines, strict=True)
    rule = [
        "---:" if all(not cell or cell[0] in "+-0123456789" for cell in cells) else "---" for cells in columns
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def named(study: Study, row: str) -> str:
    """Write a row's title and its name on the command line."""
    return f"{study.titled(row)} (`{row}`)"


def difference(measure: Measure, compared: Comparison | None) -> str:
    """Write a difference with its interval, and with the p-value of the seeds if there are several."""
    if compared is None:
        return ""
    mean, low, high = (measure.write_signed(x) for x in (compared.mean, compared.low, compared.high))
    p = compared.p()
    return f"{mean} ({low} to {high})" + ("" if math.isnan(p) else f"; p {_p(p)}")


def spread(values: Sequence[float], measure: Measure, *, signed: bool = False) -> str:
    """Write the mean over seeds, and their standard deviation if there are several."""
    if not values:
        return ""
    mean = measure.write_signed(fmean(values)) if signed else measure.write(fmean(values))
    return f"{mean} ± {measure.write(stdev(values))}" if len(values) > 1 else mean


def printed(value: float | None, measure: Measure, *, signed: bool = False) -> str:
    """Write a number from the paper with as many digits as the paper gives."""
    digits = 2 if measure is MIOU else 3
    return "" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def minutes(seconds: float) -> str:
    """Write a time in minutes."""
    return f"{seconds / 60:.1f} min"


def hours(seconds: float) -> str:
    """Write a time in hours."""
    return f"{seconds / 3600:.1f} hours"


def many(count: int, thing: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def span(values: Iterable[int]) -> str:
    """Write the smallest and the largest value, or one number if they are equal."""
    ordered = sorted(values)
    return f"{ordered[0]}" if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}" if value < 0.1 else f"= {value:.2f}"
