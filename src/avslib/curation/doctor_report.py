"""Findings about a data folder: their kinds, their remedies, and a report of all of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from avslib._jobs import write_whole
from avslib.curation.report import printable, write_table
from avslib.data.layout import ClipFiles

LEVELS = ("error", "warning", "note")
_LINES, _ROWS = 40, 16
"""Largest number of lines in a summary, and of rows in its table of splits."""


class Kind(NamedTuple):
    """A kind of finding."""

    level: str
    """``"error"``: a reader fails, or training or scores are wrong; ``"warning"``: they may be wrong;
    ``"note"``: for information only."""
    remedy: str


_AGAIN = "unpack the set again, or remove the clip from the table"
_FROM_VIDEO = f"`avslib doctor ROOT --fix` recreates it from the video; or {_AGAIN}"
_FROM_WAV = "`avslib doctor ROOT --fix` recreates it from the WAV file; or read with sound='wav'"
_FROM_EITHER = "`avslib doctor ROOT --fix` recreates it from the video; only sound='wav' and AVSS need it"
KINDS = {
    "missing-table": Kind("error", "unpack it to the expected place: nothing can be read without it"),
    "damaged-table": Kind(
        "error", "replace or repair it: until then the clips of the setting are not checked"
    ),
    "hostile-log-mel": Kind("error", "delete it: it is not a log-mel, and other programs may execute it"),
    "leak": Kind("error", "keep the clip in one split: otherwise a model is tested on its training data"),
    "copy-across-splits": Kind("error", "keep the clip in one split, as if both had the same name"),
    "link-out": Kind(
        "error", "if you made the link yourself, read with follow_links=True; otherwise delete it"
    ),
    "missing-frame": Kind("error", _FROM_VIDEO),
    "damaged-frame": Kind("error", _FROM_VIDEO),
    "missing-mask": Kind("error", f"{_AGAIN}: masks cannot be recreated"),
    "damaged-mask": Kind("error", f"{_AGAIN}: masks cannot be recreated"),
    "mask-size": Kind("error", "check that mask and frame show the same: each is scaled on its own"),
    "missing-log-mel": Kind("error", _FROM_WAV),
    "damaged-log-mel": Kind("error", _FROM_WAV),
    "log-mel-shape": Kind("error", _FROM_WAV),
    "log-mel-values": Kind("error", _FROM_WAV),
    "missing-wav": Kind("error", _FROM_EITHER),
    "damaged-wav": Kind("error", _FROM_EITHER),
    "odd-rate": Kind("error", _FROM_EITHER),
    "unknown-split": Kind("error", "write train, val or test into the table: readers refuse anything else"),
    "check-failed": Kind("error", "see whether the file can be opened; if it can, please report this"),
    "duplicate-clip": Kind("warning", "keep only one of its rows in the table: the clip counts twice"),
    "frame-size": Kind(
        "warning", "`avslib doctor ROOT --fix` recreates it from the video; otherwise it is stretched"
    ),
    "mask-not-binary": Kind(
        "warning", "nothing, if half brightness is the edge of the object, as readers assume"
    ),
    "foreign-colour": Kind(
        "warning", "store the mask as PNG in the colours of the set: other colours are read as background"
    ),
    "other-sound": Kind(
        "warning",
        "listen to find out which is right; if it is the WAV file, delete the log-mel and run --fix",
    ),
    "short-sound": Kind(
        "warning",
        "if the video is longer, delete the WAV file and run --fix; otherwise it is padded, which outside "
        "AVSS needs at least 0.975 s",
    ),
    "class-names": Kind("warning", "fetch it again: without it, classes have numbers but no names"),
    "unfinished": Kind("warning", "`avslib doctor ROOT --fix` removes it, once no other run is active"),
    "counts": Kind(
        "note", "nothing, if you use a part on purpose; scores are then not comparable with published ones"
    ),
    "extra-file": Kind("note", "nothing: readers ignore it"),
    "black-frame": Kind("note", "look at the video: there may be nothing to see in that second"),
    "empty-mask": Kind("note", "look at the clip: in this setting something in the picture always sounds"),
    "silent-sound": Kind("note", "listen to the clip: there is nothing to hear"),
}
"""Kinds by name, the worst first. An error becomes a warning if readers do not use the file by default."""
_PREPARED = "`avslib prepare folder` recreates it from the video"
_OWN = {
    "missing-table": "`avslib prepare folder` writes it",
    **dict.fromkeys(
        ("missing-frame", "damaged-frame", "missing-wav", "damaged-wav"),
        f"{_PREPARED}; or remove the clip from the table",
    ),
    **dict.fromkeys(
        ("missing-mask", "damaged-mask"),
        "draw it again, or remove the clip from the table: masks cannot be recreated",
    ),
    "odd-rate": f"delete it: {_PREPARED}",
    "frame-size": f"delete it: {_PREPARED}; otherwise it is stretched",
    "short-sound": f"delete it: {_PREPARED}, as long as the pictures; otherwise it is padded, which needs at "
    "least 0.975 s",
}
"""Remedies for a folder of one's own, whose videos lie elsewhere, instead of those in ``KINDS``."""


class Finding(NamedTuple):
    """One problem in a data folder."""

    level: str
    kind: str
    setting: str
    split: str
    """Empty if the finding concerns no split."""
    clip: str
    """The clip's id; empty if the finding concerns no clip."""
    path: Path
    problem: str

    @property
    def remedy(self) -> str:
        """What to do about the problem."""
        own = _OWN.get(self.kind) if self.setting == "folder" else None
        return own or KINDS[self.kind].remedy


def find(
    kind: str,
    setting: str,
    path: Path,
    problem: str,
    *,
    clip: ClipFiles | None = None,
    is_unused: bool = False,
) -> Finding:
    """Make a finding with the level of its kind; an unused file gives a warning instead of an error."""
    level = KINDS[kind].level
    return Finding(
        level="warning" if is_unused and level == "error" else level,
        kind=kind,
        setting=setting,
        split="" if clip is None else clip.split,
        clip="" if clip is None else clip.id,
        path=path,
        problem=problem,
    )


class SplitCount(NamedTuple):
    """Number of clips in a split of a setting."""

    setting: str
    split: str
    clips: int
    examined: int
    usable: int
    """Clips that were examined and have no errors."""
    videos: int
    """Clips that were examined and have a video; readers do not need it."""


class Diagnosis(NamedTuple):
    """Result of examining a data folder."""

    root: Path
    splits: tuple[SplitCount, ...]
    findings: tuple[Finding, ...]
    """All findings, the worst first."""

    @property
    def is_healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(finding.level == "note" for finding in self.findings)

    def summary(self) -> str:
        """Return a table of splits, and a remedy and examples for each kind of finding; 40 lines at most."""
        by_kind: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in self.findings:
            by_kind.setdefault((finding.level, finding.kind, finding.remedy), []).append(finding)
        groups, table = list(by_kind.values()), self._table()
        room = _LINES - len(table) - len(LEVELS) - 2
        shown = groups[: max(1, room // 2)]
        examples = max(1, min(3, room // max(1, len(shown)) - 1))
        width = max((len(str(len(found))) for found in shown), default=0)
        level, lines = "", [*table, ""]
        for found in shown:
            first = found[0]
            if first.level != level:
                level = first.level
                lines.append(f"{level}s")
            lines.append(f"  {len(found):{width}} {first.kind}: {first.remedy}")
            lines += [f"{'':{width}}     {self._example(finding)}" for finding in found[:examples]]
        if left := groups[len(shown) :]:
            words = ", ".join(f"{len(found)} {found[0].kind}" for found in left)
            lines.append(f"and {words}; --csv FILE lists all")
        return "\n".join([*lines, self._verdict()])

    def write_csv(self, path: str | Path) -> None:
        """Write all findings to a CSV file."""
        rows = [(*finding, finding.remedy) for finding in self.findings]
        write_table(path, [(*Finding._fields, "remedy"), *rows])

    def write_json(self, path: str | Path) -> None:
        """Write all findings and the table of splits to a JSON file."""
        record = {
            "root": str(self.root),
            "splits": [split._asdict() for split in self.splits],
            "findings": [
                finding._asdict() | {"path": str(finding.path), "remedy": finding.remedy}
                for finding in self.findings
            ],
        }
        with write_whole(path) as unfinished:
            unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _table(self) -> list[str]:
        counts = Counter((finding.setting, finding.split, finding.level) for finding in self.findings)
        numbers = {split[:2]: tuple(map(str, split[2:])) for split in self.splits}
        for setting, split, _ in counts:
            numbers.setdefault((setting, split), ("",) * 4)
        order = [*dict.fromkeys(setting for setting, _ in numbers if setting), ""]
        keys = sorted(numbers, key=lambda key: (order.index(key[0]), not key[1]))
        rows = [SplitCount._fields + tuple(f"{level}s" for level in LEVELS)]
        rows += [
            (key[0] or "-", key[1] or "-", *numbers[key], *(str(counts[*key, level]) for level in LEVELS))
            for key in keys[:_ROWS]
        ]
        if all(split.examined == split.clips for split in self.splits):
            rows = [row[:3] + row[4:] for row in rows]
        left = len(keys) - _ROWS
        return _align(rows, left=2) + ([f"and {left} more splits"] if left > 0 else [])

    def _example(self, finding: Finding) -> str:
        path = finding.path
        place = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        return f"{printable(str(place))}: {printable(finding.problem)}"

    def _verdict(self) -> str:
        counts = Counter(finding.level for finding in self.findings)
        words = [f"{counts[level]} {level}{'s' * (counts[level] != 1)}" for level in LEVELS]
        return ", ".join(words) if self.findings else "nothing wrong"


def _align(rows: Iterable[tuple[str, ...]], *, left: int) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
