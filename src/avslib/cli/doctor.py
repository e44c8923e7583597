"""The command that examines a data folder."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from avslib.cli._parser import FRAME_RULES, SETTINGS, Commands
from avslib.cli._progress import clip_bar
from avslib.cli._targets import check_files


def add_doctor(commands: Commands) -> None:
    """Add ``avslib doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="check a data folder and say how to fix what is wrong",
        description="Check a data folder: its tables, every file they name, and files they do not. The "
        "exit status is 0 if there are no errors and no warnings, and 1 otherwise.",
        allow_abbrev=False,
    )
    parser.add_argument("root", type=Path, help="folder of the unpacked dataset")
    parser.add_argument(
        "--setting",
        action="append",
        choices=SETTINGS,
        help="check only this setting; may be repeated (default: all that are found)",
    )
    parser.add_argument("--sample", type=int, metavar="N", help="open the files of only N clips per split")
    parser.add_argument("--deep", action="store_true", help="compare every log-mel with its WAV file")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="recreate missing or damaged files where possible: log-mels from WAV files, frames and WAV "
        "files from videos; remove leftovers of interrupted runs; masks and tables are never touched",
    )
    parser.add_argument(
        "--frame-rule",
        choices=FRAME_RULES,
        help="with --fix: the rule by which the other frames were made (default: avsbench)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes (default: 1)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all findings as a CSV table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings as JSON")
    parser.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    from avslib.curation.doctor import examine
    from avslib.curation.doctor_fix import fix

    if parsed.frame_rule and not parsed.fix:
        raise ValueError("--frame-rule: expected only with --fix")
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
            report = fix(
                diagnosis,
                frame_rule=parsed.frame_rule or "avsbench",
                workers=parsed.workers,
                progress=bar.update,
            )
        print(f"--fix, clips:\n{report.summary()}\n")
        with progress(desc="examining again") as bar:
            diagnosis = look(progress=bar.update)
    print(diagnosis.summary())
    if parsed.csv is not None:
        diagnosis.write_csv(parsed.csv)
    if parsed.json is not None:
        diagnosis.write_json(parsed.json)
    return 0 if diagnosis.is_healthy else 1
