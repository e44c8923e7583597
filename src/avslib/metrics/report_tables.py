"""A report as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv as csv_module
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from avslib.metrics.protocols import PROTOCOLS

if TYPE_CHECKING:
    from avslib.metrics.report_record import Difference, Report, Score

_COLUMNS = ("J", "F")


def text(report: Report) -> str:
    """Return the scores as fixed-width text, with a description of each protocol."""
    lines = [_what(report), ""]
    width = max(28, *(len(score.measure.row) + 2 for score in report.scores))
    lines.append(f"{'protocol':{width}}{'J':>6}  {'95 %':14}{'F':>6}  {'95 %':14}".rstrip())
    for row, scores in _rows(report):
        cells = "".join(f"{_number(score):>6}  {_range(score):14}" for score in scores)
        lines.append(f"{row:{width}}{cells}".rstrip())
    lines += [
        f"{score.measure.name:{width}}{_number(score):>6}  {_range(score)}" for score in _others(report)
    ]
    lines += ["", *spread(report), ""]
    lines += [f"{protocol:17} {PROTOCOLS[protocol]}" for protocol in _protocols(report)]
    lines += [f"left out: {', '.join(words)}: {why}" for why, words in _left_out(report).items()]
    return "\n".join(lines)


def spread(report: Report) -> list[str]:
    """Return how far apart the protocols are on these predictions: one line for J and one for F."""
    lines = []
    for column in _COLUMNS:
        scores = [s for s in report.scores if s.measure.score == column and not math.isnan(s.value)]
        values = [round(score.value, 6) for score in scores]  # equal scores may differ by an epsilon
        low, high = scores[values.index(min(values))], scores[values.index(max(values))]
        lines.append(
            f"{column} is {_number(low)} by {low.measure.row!r} and {_number(high)} by {high.measure.row!r}: "
            f"{100 * (high.value - low.value):.1f} points apart"
        )
    return lines


def markdown(report: Report) -> str:
    """Return scores, categories and provenance as Markdown."""
    table = [(f"`{row}`", *_cells(scores)) for row, scores in _rows(report)]
    table += [(f"`{s.measure.row}`, {s.measure.score}", *_cells([s])) for s in _others(report)]
    lines = ["# Report", "", _what(report) + ".", ""]
    lines += _markdown_table(("protocol", "J", "95 %", "F", "95 %"), table)
    lines += ["", ". ".join(spread(report)) + ".", ""]
    lines += [f"- `{protocol}`: {PROTOCOLS[protocol]}" for protocol in _protocols(report)]
    lines += [
        f"- left out: {', '.join(f'`{word}`' for word in words)}, {why}"
        for why, words in _left_out(report).items()
    ]
    if report.classes:
        lines += ["", "## Classes", "", *_class_table(report)]
    elif categories := report.by_category():
        row = report.measures[0].row
        lines += ["", "## Categories", ""]
        counted = [
            (name, str(report.categories.count(name)), *(f"{values[f'{c}, {row}']:.3f}" for c in _COLUMNS))
            for name, values in categories.items()
        ]
        lines += _markdown_table(("category", "clips", f"J, `{row}`", f"F, `{row}`"), counted)
    lines += ["", "## Provenance", "", "```json", json.dumps(_provenance(report), indent=2), "```", ""]
    return "\n".join(lines)


def _class_table(report: Report) -> list[str]:
    """Return a table of J and F of every class, with the number of frames labelled with it."""
    columns = [f"{score}, {row}" for row in ("avsbench_semantic", "dataset") for score in _COLUMNS]
    rows = [
        (name, str(report.labelled[name]), *(f"{scores[c]:.3f}".replace("nan", "") for c in columns))
        for name, scores in report.by_class().items()
    ]
    header = ("class", "frames", *(column.replace(", ", ", `") + "`" for column in columns))
    return _markdown_table(header, rows)


def latex(report: Report) -> str:
    """Return the scores as a LaTeX table that uses the package ``booktabs``."""
    lines = [f"% {_what(report)}", r"\begin{tabular}{lrlrl}", r"\toprule"]
    lines += [r"protocol & $J$ & 95\,\% & $F$ & 95\,\% \\", r"\midrule"]
    table = [(row, _cells(scores)) for row, scores in _rows(report)]
    table += [(f"{s.measure.row}, {s.measure.score}", _cells([s])) for s in _others(report)]
    for row, cells in table:
        lines.append(" & ".join([_escape(row), *(cell.replace("-", "--") for cell in cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def csv(report: Report) -> str:
    """Return the scores of single clips as CSV, one line per clip."""
    columns = report.by_clip()
    file = io.StringIO()
    writer = csv_module.writer(file, lineterminator="\n")
    writer.writerow(["id", "category", "frames", "frames with ground truth", *columns])
    for i, (name, category) in enumerate(zip(report.ids, report.categories, strict=True)):
        values = ("" if math.isnan(column[i]) else f"{column[i]:.6f}" for column in columns.values())
        writer.writerow([name, category, *report.frames[i].tolist(), *values])
    return file.getvalue()


def to_dict(report: Report) -> dict[str, Any]:
    """Return scores, categories and provenance in a form that JSON can hold, with None for NaN."""
    return {
        "scores": [
            {
                "score": score.measure.score,
                "row": score.measure.row,
                "protocol": score.measure.protocol,
                **{key: finite(getattr(score, key)) for key in ("value", "low", "high")},
            }
            for score in report.scores
        ],
        "left_out": report.left_out,
        "by_category": {
            name: {"clips": report.categories.count(name)} | {key: finite(x) for key, x in values.items()}
            for name, values in report.by_category().items()
        },
        "by_class": {
            name: {"frames": report.labelled[name]} | {key: finite(x) for key, x in values.items()}
            for name, values in report.by_class().items()
        },
        "classes": list(report.classes),
        **_provenance(report),
        "unread": list(report.unread),
        "replicates": report.num_replicates,
        "seed": report.seed,
        "measured": dict(report.measured),
        "ids": list(report.ids),
        "categories": list(report.categories),
    }


def difference_text(differences: Sequence[Difference]) -> str:
    """Return the result of :meth:`Report.compare` as fixed-width text."""
    width = max(32, *(len(difference.measure.name) + 1 for difference in differences))
    lines = [f"{'measure':{width}}{'this':>6}{'other':>8}{'difference':>12}  {'95 %':17}{'p':>6}"]
    for name, value, other, difference, bounds, p_value in _differences(differences):
        lines.append(f"{name:{width}}{value:>6}{other:>8}{difference:>12}  {bounds:17}{p_value:>6}")
    return "\n".join(lines)


def difference_markdown(differences: Sequence[Difference]) -> str:
    """Return the result of :meth:`Report.compare` as a Markdown table."""
    header = ("measure", "this", "other", "difference", "95 %", "p")
    return "\n".join([*_markdown_table(header, _differences(differences)), ""])


def _differences(differences: Sequence[Difference]) -> list[tuple[str, ...]]:
    return [
        (
            d.measure.name,
            f"{d.value:.3f}",
            f"{d.other:.3f}",
            f"{d.value - d.other:+.3f}",
            f"{d.low:+.3f} to {d.high:+.3f}",
            f"{d.p_value:.3f}",
        )
        for d in differences
    ]


def _what(report: Report) -> str:
    frames, with_truth = report.frames.sum(dim=0).tolist()
    said = (
        f"{len(report.ids)} clips, {frames} frames of {report.size}, {frames - with_truth} of them without "
    )
    said += "ground truth"
    if report.unread:
        said += f"; {len(report.unread)} clips have no frame that counts and are in no score: "
        said += ", ".join(report.unread[:5]) + (", ..." if len(report.unread) > 5 else "")
    return said


def _rows(report: Report) -> Iterator[tuple[str, list[Score]]]:
    """Yield the rows of the table, each with its J and, where the protocol has one, its F."""
    for row in dict.fromkeys(score.measure.row for score in report.scores):
        found = {s.measure.score: s for s in report.scores if s.measure.row == row}
        if "J" in found:
            yield row, [found[column] for column in _COLUMNS if column in found]


def _others(report: Report) -> list[Score]:
    return [score for score in report.scores if score.measure.score not in _COLUMNS]


def _protocols(report: Report) -> list[str]:
    return list(dict.fromkeys(score.measure.protocol for score in report.scores))


def _left_out(report: Report) -> dict[str, list[str]]:
    """Return which protocols were left out, by reason."""
    words: dict[str, list[str]] = {}
    for protocol, why in report.left_out.items():
        words.setdefault(why, []).append(protocol)
    return words


def _provenance(report: Report) -> dict[str, Any]:
    frames, with_truth = report.frames.sum(dim=0).tolist()
    return {
        "provenance": dict(report.provenance),
        "clips": len(report.ids),
        "frames": frames,
        "frames with ground truth": with_truth,
        "size": report.size,
        "truth": report.truth,
    }


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _cells(scores: Sequence[Score]) -> list[str]:
    """Return the value and interval of each score in a row; cells of missing scores are empty."""
    cells = [cell for score in scores for cell in (_number(score), _range(score))]
    return cells + [""] * (2 * len(_COLUMNS) - len(cells))


def _number(score: Score) -> str:
    return "" if math.isnan(score.value) else f"{score.value:.3f}"


def _range(score: Score) -> str:
    return "" if math.isnan(score.low) else f"{score.low:.3f}-{score.high:.3f}"


def finite(value: float) -> float | None:
    """Return a number in a form that JSON can hold: None for NaN."""
    return None if math.isnan(value) else value


def _escape(words: str) -> str:
    return words.replace("_", r"\_").replace("&", r"\&").replace("%", r"\%")
