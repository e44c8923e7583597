"""The command that embeds the sound of a dataset once and stores the embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from avslib.cli._parser import Commands
from avslib.cli._progress import clip_bar
from avslib.cli._sources import (
    add_device,
    add_model_class,
    add_split,
    choose_device,
    load_saved,
    open_clips,
)
from avslib.cli._targets import check_folder

if TYPE_CHECKING:
    from avslib.encoders import AudioEncoder


def add_cache_audio(commands: Commands) -> None:
    """Add ``avslib cache-audio``."""
    parser = commands.add_parser(
        "cache-audio",
        help="store the sound of a dataset as embeddings of a frozen audio encoder",
        description="Embed the sound of a split with a frozen audio encoder and write the embeddings to one "
        "file, which CachedAudio reads, so that no epoch computes them again.",
        allow_abbrev=False,
    )
    add_split(parser)
    parser.add_argument("target", type=Path, help="output .safetensors file; use one per split")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, metavar="FILE", help="weights of VGGish (.pth, .safetensors)")
    source.add_argument(
        "--model",
        help="folder written by save_pretrained, or repository on the hub; its audio encoder is used",
    )
    add_model_class(parser)
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="B", help="seconds of sound per batch (default: 64)"
    )
    add_device(parser)
    parser.set_defaults(run=_cache_audio)


def _cache_audio(parsed: argparse.Namespace) -> int:
    from avslib.storage.audio_cache import cache_audio

    if parsed.target.suffix != ".safetensors" or parsed.target.is_dir():
        raise ValueError(f"target: expected a .safetensors file, got {parsed.target}")
    check_folder(parsed.target.parent)
    device = choose_device(parsed)
    clips = open_clips(parsed, normalize=False)
    audio_encoder = _open_audio_encoder(parsed).to(device)
    with clip_bar(len(clips)) as bar:
        cache_audio(clips, audio_encoder, parsed.target, batch_size=parsed.batch_size, progress=bar.update)
    print(f"{parsed.target}: {len(clips)} clips")
    return 0


def _open_audio_encoder(parsed: argparse.Namespace) -> AudioEncoder:
    if parsed.model is None:
        from avslib.encoders import AudioEncoder

        audio_encoder = AudioEncoder("vggish")
        audio_encoder.load_weights(parsed.weights)
        return audio_encoder

    model = load_saved(parsed)
    if model.audio_encoder is None:
        raise ValueError(f"--model: expected one with an audio encoder, got {type(model).__name__}")
    return model.audio_encoder
