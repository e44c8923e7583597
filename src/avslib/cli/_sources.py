"""The arguments that select clips and a model, and opening both."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avslib.cli._parser import SETTINGS

if TYPE_CHECKING:
    import torch

    from avslib.data import ClipReader
    from avslib.models import AVSModel

OWN = "own"
"""Given instead of a size, it keeps the size of the files."""

ALL_SETTINGS = (*SETTINGS, "vpo-ss", "vpo-ms", "vpo-msmi")
"""The names of all readers, written out so that a help text does not have to import them."""


def add_clips(parser: argparse.ArgumentParser, *, settings: tuple[str, ...]) -> None:
    """Add the arguments that select the clips of a dataset that a model gets."""
    add_dataset(parser, settings=settings)
    parser.add_argument("--split", default="test", help="default: test")


def add_dataset(parser: argparse.ArgumentParser, *, settings: tuple[str, ...]) -> None:
    """Add the arguments that say where a dataset is and how it is read for a model."""
    add_source(parser, settings=settings)
    parser.add_argument(
        "--size",
        type=side,
        help="frame side in px, or 'own' for the files' size (default: as in training, else 224)",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        metavar="T",
        help="clip length: longer clips are cut, shorter ones padded (default: the reader's)",
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="number of loader processes (default: 0)"
    )
    parser.add_argument("--batch-size", type=int, default=4, metavar="B", help="clips per batch (default: 4)")


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select the clips to convert: a split of a dataset, or all clips of a folder."""
    add_source(parser, settings=ALL_SETTINGS)
    parser.add_argument(
        "--split", help="train, val or test; of a folder any split in its table (default: all of them)"
    )
    parser.set_defaults(size=None, seconds=None)


def add_source(parser: argparse.ArgumentParser, *, settings: tuple[str, ...]) -> None:
    """Add the arguments that say where a dataset is and which sound is read."""
    parser.add_argument("setting", choices=settings, help="format of the dataset")
    parser.add_argument("root", type=Path, help="folder of the unpacked dataset")
    parser.add_argument(
        "--sound",
        choices=("log_mel", "wav"),
        help="read stored log-mels, or compute them from WAV files (default: log_mel; avss and vpo: wav)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that requires a model."""
    parser.add_argument(
        "--model", required=True, help="folder written by save_pretrained, or repository on the hub"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the model's noise (default: 0)")
    add_model_options(parser.add_argument_group("model options"))


def add_model_options(group: argparse._ArgumentGroup) -> None:
    """Add the arguments that say how a model is loaded and called."""
    add_model_class(group)
    group.add_argument(
        "--num-samples",
        type=int,
        default=8,
        metavar="S",
        help="samples per frame, for a stochastic model (default: 8)",
    )
    add_device(group)


def add_model_class(group: argparse._ActionsContainer) -> None:
    """Add the argument that :func:`load_saved` reads."""
    group.add_argument(
        "--model-class",
        metavar="CLASS",
        help="class of the model, if its folder does not say; MODULE:CLASS for your own, from the working "
        "directory or installed",
    )


def add_device(group: argparse._ActionsContainer) -> None:
    """Add the argument that :func:`choose_device` reads."""
    group.add_argument(
        "--device", help="device, such as cuda or cpu (default: an accelerator if there is one)"
    )


def open_clips(
    parsed: argparse.Namespace, model: AVSModel | None = None, split: str | None = None, **options: Any
) -> ClipReader:
    """Open the clips, in the frame size of the model if there is one.

    ``split`` replaces the split that was given on the command line.

    Raises:
        FileNotFoundError: if the clips do not exist.
        ValueError: if no split is given, if the model has another number of classes than the clips, or if the
            clips differ in length and cannot share a batch.
    """
    from avslib.data import READERS

    split = split or parsed.split
    if split is None and parsed.setting != "folder":
        raise ValueError(f"--split: expected one of {parsed.setting}, such as 'train' or 'test', got none")
    if parsed.sound is not None:
        options["sound"] = parsed.sound
    if parsed.size is not None:
        options["size"] = None if parsed.size == OWN else (parsed.size, parsed.size)
    elif model is not None:
        options["size"] = model.frame_size
    if parsed.seconds is not None:
        options["seconds"] = parsed.seconds
    clips = READERS[parsed.setting](parsed.root, split, **options)
    if model is not None and parsed.batch_size > 1:
        check_lengths(clips)
    if model is not None and model.num_classes != clips.num_classes:
        expected, got = (
            "binary masks" if count == 1 else f"{count} classes"
            for count in (clips.num_classes, model.num_classes)
        )
        raise ValueError(f"--model: expected a model of {expected}, got one of {got}")
    return clips


def check_lengths(clips: ClipReader) -> None:
    """Raise ``ValueError`` if the clips differ in length and so cannot share a batch."""
    seconds = {len(files.frames) for files in clips.clips}
    if clips.seconds is None and len(seconds) > 1:
        raise ValueError(
            f"--seconds: expected a length for all clips, those of {clips.split!r} have {min(seconds)} to "
            f"{max(seconds)} s and cannot share a batch"
        )


def open_model(parsed: argparse.Namespace) -> AVSModel:
    """Load the model onto its device.

    Raises:
        FileNotFoundError: if the model does not exist.
        ImportError: if the module of its class cannot be imported.
        ValueError: if the device does not exist, or the model's class is unknown.
    """
    device = choose_device(parsed)
    return load_saved(parsed).to(device)


def load_saved(parsed: argparse.Namespace) -> AVSModel:
    """Load the model; the module of a user's own class may be in the working directory.

    Raises:
        FileNotFoundError: if the model does not exist.
        ImportError: if the module of its class cannot be imported.
        ValueError: if its class is unknown.
    """
    from avslib.models.saved import load_model

    if ":" in (parsed.model_class or ""):
        sys.path.append(str(Path.cwd()))  # as with `python -m`; an installed script has its own folder
    return load_model(parsed.model, model_class=parsed.model_class)


def choose_device(parsed: argparse.Namespace) -> torch.device:
    """Return the device that was given, or else an accelerator if there is one, or else the CPU.

    Raises:
        ValueError: if the device does not exist.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = accelerator or torch.device("cpu")
    if parsed.device is None:
        return there
    try:
        number = torch.zeros((), device=parsed.device)
        number.item()  # fails on "meta"
        return number.device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA raises AssertionError
        raise ValueError(
            f"--device: expected one that is there, such as {there.type}, got {parsed.device!r}"
        ) from error


def side(word: str) -> int | str:
    """Parse a side in px, or ``OWN``."""
    if word != OWN and not word.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of px or {OWN!r}, got {word!r}")
    return word if word == OWN else int(word)
