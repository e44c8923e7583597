"""The command that finds what sounds in a video."""

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
        help="find what sounds in a video: masks, and the video with its masks",
        description="Find what sounds in a video of any length. Writes masks/, with a picture for each "
        "moment, moments.csv and overlay.mp4.",
        allow_abbrev=False,
    )
    parser.add_argument("video", type=Path, help="a file that FFmpeg plays")
    parser.add_argument("out", type=Path, help="folder to write, made where there is none")
    parser.add_argument(
        "--size", type=int, metavar="PX", help="side of the frames that it sees (default: as in training)"
    )
    parser.add_argument("--rate", type=int, default=1, metavar="HZ", help="masks a second (default: 1)")
    parser.add_argument(
        "--window", type=int, default=5, metavar="S", help="seconds that it sees at once (default: 5)"
    )
    parser.add_argument(
        "--overlap", type=int, default=0, metavar="S", help="seconds that windows share (default: 0)"
    )
    parser.add_argument("--no-overlay", action="store_true", help="write no video")
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
