"""The command that segments what sounds in a video."""

from __future__ import annotations

import argparse
from pathlib import Path

from avslib.cli._parser import Commands
from avslib.cli._progress import clip_bar
from avslib.cli._sources import add_model, open_model


def add_segment(commands: Commands) -> None:
    """Add ``avslib segment``."""
    parser = commands.add_parser(
        "segment",
        help="segment what makes sound in a video: masks and an overlay video",
        description="Segment what makes sound in a video of any length. Writes masks/ with one picture per "
        "mask, moments.csv with their times, and overlay.mp4.",
        allow_abbrev=False,
    )
    parser.add_argument("video", type=Path, help="video file, in any format that FFmpeg reads")
    parser.add_argument("out", type=Path, help="output folder, created if it does not exist")
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="side of the frames given to the model (default: as in training)",
    )
    parser.add_argument(
        "--rate", type=int, default=1, metavar="HZ", help="masks per second, a divisor of 100 (default: 1)"
    )
    parser.add_argument(
        "--window", type=int, default=5, metavar="S", help="seconds the model sees at a time (default: 5)"
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=0,
        metavar="S",
        help="seconds shared by neighbouring windows (default: 0)",
    )
    parser.add_argument("--no-overlay", action="store_true", help="do not write overlay.mp4")
    add_model(parser)
    parser.set_defaults(run=_segment)


def _segment(parsed: argparse.Namespace) -> int:
    from avslib.pipeline import VideoSegmenter, segment_video

    segmenter = VideoSegmenter(
        open_model(parsed),
        size=None if parsed.size is None else (parsed.size, parsed.size),
        rate=parsed.rate,
        window=parsed.window,
        overlap=parsed.overlap,
        num_samples=parsed.num_samples,
        seed=parsed.seed,
    )
    with clip_bar(unit="mask") as bar:
        count = segment_video(
            segmenter, parsed.video, parsed.out, overlay=not parsed.no_overlay, progress=bar.update
        )
    print(f"{parsed.out}: {count} masks")
    return 0
