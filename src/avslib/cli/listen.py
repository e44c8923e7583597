"""The command that tests whether a model listens."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from avslib.cli._parser import Commands
from avslib.cli._sources import add_clips, add_model, open_clips, open_model
from avslib.cli._targets import check_files


def add_listen(commands: Commands) -> None:
    """Add ``avslib listen``."""
    parser = commands.add_parser(
        "listen",
        help="test whether a model listens: score it with silence, noise and other clips' sounds",
        description="Score a model with the true sound and with every replacement that the clips allow, "
        "always against the ground truth of the true sound. Off-screen sound needs --sound wav.",
        allow_abbrev=False,
    )
    add_clips(parser, settings=("s4", "ms3", "folder"))
    add_model(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores as JSON")
    parser.set_defaults(run=_listen)


def _listen(parsed: argparse.Namespace) -> int:
    from avslib.metrics.report_tables import finite
    from avslib.training.listening import ANOTHER, format_listening, g_measures, listen

    model = open_model(parsed)
    clips = open_clips(parsed, model)
    check_files(json=parsed.json)
    table = listen(
        model,
        clips,
        num_samples=parsed.num_samples,
        batch_size=parsed.batch_size,
        num_workers=parsed.workers,
        seed=parsed.seed,
    )
    combined = g_measures(table) if ANOTHER in table else {}  # a single clip has no other sound
    print(format_listening(table, combined))
    if parsed.json is not None:
        rows = {row: {name: finite(value) for name, value in scores.items()} for row, scores in table.items()}
        numbers = {"rows": rows} | {name: finite(value) for name, value in combined.items()}
        parsed.json.write_text(json.dumps(numbers, indent=2, allow_nan=False), encoding="utf-8")
    return 0
