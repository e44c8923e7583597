"""Report which clips a run made, left as they were, or failed to make, and why."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from avslib._jobs import write_whole


class Report(NamedTuple):
    """Outcome of a run over many clips."""

    made: int
    """Clips for which something was written."""
    kept: int
    """Clips that were already complete."""
    failures: Mapping[str, str]
    """Reason of each failure, by clip."""
    staying: Mapping[str, int] = MappingProxyType({})
    """Number of clips that stay in another split than the one asked for, by split."""

    def summary(self, *, reasons: int = 10) -> str:
        """Return the counts and the most frequent reasons of failure, with an example of each.

        Args:
            reasons: largest number of reasons.

        Example:
            >>> failures = {"a": "a.mp4: ends after 3.2 s", "b": "b.mp4: ends after 4.1 s", "c": "disk full"}
            >>> print(Report(made=7, kept=0, failures=failures).summary(reasons=1))
                 7 made
                 0 were whole already
                 3 failed
            2 such as 'a': a.mp4: ends after 3.2 s
            and 1 for other reasons
        """
        counts = ((self.made, "made"), (self.kept, "were whole already"), (len(self.failures), "failed"))
        lines = [f"{count:6d} {what}" for count, what in counts]
        lines += [f"{count:6d} stay in split {split!r}" for split, count in self.staying.items()]
        groups = _alike(self.failures)
        for names in groups[:reasons]:
            example = f"{names[0]!r}: {printable(self.failures[names[0]], most=400)}"
            lines.append(example if len(names) == 1 else f"{len(names)} such as {example}")
        if rest := sum(len(names) for names in groups[reasons:]):
            lines.append(f"and {rest} for other reasons")
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """Write every failure to a CSV file with the columns ``id`` and ``reason``."""
        write_table(path, [("id", "reason"), *self.failures.items()])


def write_table(path: str | Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file, completely or not at all; characters that are not valid Unicode are escaped."""
    with (
        write_whole(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)


def printable(text: str, *, most: int = 160) -> str:
    """Replace characters that could control a terminal, and cut the middle out of a long text."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _alike(failures: Mapping[str, str]) -> list[list[str]]:
    """Group clips whose reasons differ only in names and numbers; the largest group comes first."""
    groups: dict[str, list[str]] = {}
    for name, reason in failures.items():
        kind = re.sub(r"^(?:\w:)?[^:]*[/\\.][^:]*: |\S*[/\\.]\S*|\d+", "", reason)  # a path may have spaces
        groups.setdefault(kind, []).append(name)
    return sorted(groups.values(), key=len, reverse=True)


def report_of(outcomes: Iterable[tuple[str, bool, str]]) -> Report:
    """Make a report from the name of each clip, whether something was written, and why it failed, if so."""
    made = kept = 0
    failures: dict[str, str] = {}
    for name, was_made, reason in outcomes:
        if reason:
            failures[name] = reason
        else:
            made, kept = made + was_made, kept + (not was_made)
    return Report(made, kept, dict(sorted(failures.items())))
