"""The command that examines data."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from avslib.cli._parser import SETTINGS, Commands
from avslib.cli._progress import clip_bar
from avslib.cli._targets import check_files


def add_doctor(commands: Commands) -> None:
    """Add ``avslib doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="say what is wrong with a data folder, and what to do",
        description="Examine a data folder: its tables, every file that they mention, what else lies there. "
        "The exit status is 0 if there is neither an error nor a warning, and 1 otherwise.",
        allow_abbrev=False,
    )
    parser.add_argument("root", type=Path, help="the folder into which the dataset was unpacked")
    parser.add_argument(
        "--setting",
        action="append",
        choices=SETTINGS,
        help="examine this one, may be repeated (default: all that are there)",
    )
    parser.add_argument("--sample", type=int, metavar="N", help="open files of N clips of each split only")
    parser.add_argument("--deep", action="store_true", help="hold every log-mel against its WAV file")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="make what is missing or damaged and can be derived: log-mels from WAV files, frames and WAV "
        "files from videos; remove what killed runs left; masks and tables are never touched",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all findings to a table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings as JSON")
    parser.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    from avslib.curation.doctor import examine
    from avslib.curation.doctor_fix import fix

    check_files(csv=parsed.csv, json=parsed.json)
    progress = partial(clip_bar, leave=False)
    look = partial(
        examine,
        parsed.root,
        settings=parsed.setting,
        sample=parsed.sample,
        deep=parsed.deep,
        workers=parsed.workers,
    )
    with progress(desc="examining") as bar:
        diagnosis = look(progress=bar.update)
    if parsed.fix:
        with progress(desc="making") as bar:
            report = fix(diagnosis, workers=parsed.workers, progress=bar.update)
        print(f"--fix, clips:\n{report.summary()}\n")
        with progress(desc="examining again") as bar:
            diagnosis = look(progress=bar.update)
    print(diagnosis.summary())
    if parsed.csv is not None:
        diagnosis.write_csv(parsed.csv)
    if parsed.json is not None:
        diagnosis.write_json(parsed.json)
    return 0 if diagnosis.is_healthy else 1
