"""The command that makes the files that readers need from raw videos."""

from __future__ import annotations

import argparse
from pathlib import Path

from avslib.cli._parser import FRAME_RULES, SETTINGS, Commands
from avslib.cli._progress import clip_bar
from avslib.cli._targets import check_files


def add_prepare(commands: Commands) -> None:
    """Add ``avslib prepare``."""
    parser = commands.add_parser(
        "prepare",
        help="turn raw videos into the frames, WAV files and log-mels that the readers need",
        description="`avslib prepare s4 ROOT` adds the files that an unpacked AVSBench lacks; `avslib "
        "prepare folder VIDEOS OUT` turns any videos into clips for ClipFolder. Complete files are kept, so "
        "an interrupted command can simply be run again.",
        allow_abbrev=False,
    )
    parser.add_argument("setting", choices=SETTINGS, help="what the source is")
    parser.add_argument("source", type=Path, help="folder of the unpacked dataset or of the videos")
    parser.add_argument("out", type=Path, nargs="?", help="output folder; only with `folder`")
    parser.add_argument(
        "--frame-rule",
        choices=FRAME_RULES,
        help="which frame represents a second: AVSBench's own rule (default for its settings), or the frame "
        "shown at 15/16 s (end; default for a folder), 1/2 s (middle) or 0 s (start) of it",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="frame size (default: 224 224)")
    size.add_argument("--own-size", action="store_true", help="keep the size of the video")
    parser.add_argument("--split", help="split of the clips; only with `folder` (default: test)")
    parser.add_argument(
        "--max-seconds", type=int, help="longest clip; only with `folder` (default: the whole video)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write files again that already exist")
    parser.add_argument(
        "--from-pickles", action="store_true", help="only convert pickled log-mels to safetensors"
    )
    parser.add_argument(
        "--delete-pickles", action="store_true", help="with --from-pickles: delete them afterwards"
    )
    parser.add_argument(
        "--follow-links", action="store_true", help="follow symbolic links that lead out of the folder"
    )
    parser.add_argument("--workers", type=int, default=1, help="number of processes (default: 1)")
    parser.add_argument(
        "--report", type=Path, metavar="CSV", help="write a table of all failures and their reasons"
    )
    parser.set_defaults(run=_prepare)


def _prepare(parsed: argparse.Namespace) -> int:
    from avslib.curation.prepare import convert_pickles, prepare
    from avslib.curation.prepare_folder import prepare_folder
    from avslib.curation.video_files import find_videos
    from avslib.data.layout import LISTERS

    is_folder = parsed.setting == "folder"
    if is_folder != (parsed.out is not None):
        raise ValueError("out: expected a folder to write after `folder VIDEOS`, and only there")
    if is_folder and parsed.from_pickles:
        raise ValueError("--from-pickles: expected s4, ms3 or avss, got folder")
    for options, words, fit in (
        (("split", "max_seconds"), "after `folder`", is_folder),
        (("delete_pickles",), "with --from-pickles", parsed.from_pickles),
        (("frame_rule", "size", "own_size", "overwrite"), "without --from-pickles", not parsed.from_pickles),
    ):
        for option in options:
            if getattr(parsed, option) and not fit:
                raise ValueError(f"--{option.replace('_', '-')}: expected only {words}")
    check_files(report=parsed.report)
    total = len(find_videos(parsed.source) if is_folder else LISTERS[parsed.setting](parsed.source))
    height, width = parsed.size or (224, 224)
    size = None if parsed.own_size else (height, width)
    with clip_bar(total, desc="preparing") as bar:
        if parsed.from_pickles:
            report = convert_pickles(
                parsed.setting,
                parsed.source,
                delete=parsed.delete_pickles,
                follow_links=parsed.follow_links,
                workers=parsed.workers,
                progress=bar.update,
            )
        elif is_folder:
            report = prepare_folder(
                parsed.source,
                parsed.out,
                split=parsed.split or "test",
                frame_rule=parsed.frame_rule or "end",
                size=size,
                max_seconds=parsed.max_seconds,
                overwrite=parsed.overwrite,
                follow_links=parsed.follow_links,
                workers=parsed.workers,
                progress=bar.update,
            )
        else:
            report = prepare(
                parsed.setting,
                parsed.source,
                frame_rule=parsed.frame_rule or "avsbench",
                size=size,
                overwrite=parsed.overwrite,
                follow_links=parsed.follow_links,
                workers=parsed.workers,
                progress=bar.update,
            )
    print(report.summary())
    if parsed.report is not None:
        report.write(parsed.report)
    return 1 if report.failures else 0
