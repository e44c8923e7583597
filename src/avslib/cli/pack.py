"""The command that stores clips as tar files."""

from __future__ import annotations

import argparse
from pathlib import Path

from avslib.cli._parser import Commands
from avslib.cli._progress import clip_bar
from avslib.cli._sources import add_split, open_clips, side


def add_pack(commands: Commands) -> None:
    """Add ``avslib pack``."""
    parser = commands.add_parser(
        "pack",
        help="pack a dataset into tar shards in WebDataset's layout",
        description="Decode the clips of a split once and write them to tar files, which ShardedClips and "
        "WebDataset read sequentially. Run an interrupted command again to continue it.",
        allow_abbrev=False,
    )
    add_split(parser)
    parser.add_argument("target", type=Path, help="output folder of the shards; use one per split")
    parser.add_argument("--size", type=side, help="side of frames and masks in px, or 'own' (default: 224)")
    parser.add_argument(
        "--encoding",
        choices=("npy", "png"),
        default="npy",
        help="arrays (fastest) or pictures (less than half the size); both are lossless (default: npy)",
    )
    parser.add_argument("--clips-per-shard", type=int, default=256, metavar="N", help="default: 256")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes (default: 1)"
    )
    parser.set_defaults(run=_pack)


def _pack(parsed: argparse.Namespace) -> int:
    from avslib.storage import pack

    clips = open_clips(parsed, normalize=False)
    with clip_bar(len(clips)) as bar:
        pack(
            clips,
            parsed.target,
            clips_per_shard=parsed.clips_per_shard,
            encoding=parsed.encoding,
            workers=parsed.workers,
            progress=bar.update,
        )
    print(f"{parsed.target}: {len(clips)} clips")
    return 0
