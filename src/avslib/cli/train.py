"""The command that trains a model on a dataset."""

from __future__ import annotations

import argparse
import ast
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avslib.cli._parser import Commands
from avslib.cli._sources import (
    OWN,
    add_dataset,
    add_device,
    add_model_class,
    check_lengths,
    choose_device,
    load_saved,
    open_clips,
)

if TYPE_CHECKING:
    from avslib.models import AVSModel
    from avslib.training import Splits

EPOCHS = {"s4": 15, "ms3": 30, "avss": 60, "folder": 30}
"""Default epochs, as published for AVSBench; a folder of your own clips has as many as MS3."""


def add_train(commands: Commands) -> None:
    """Add ``avslib train``."""
    parser = commands.add_parser(
        "train",
        help="train a model on a dataset, test it, and plot its predictions",
        description="Train a model with the objective that its authors published and AVSBench's schedule. "
        "The epoch with the best validation score is kept and tested once, with the true sound, with silence "
        "and with another clip's sound. Writes OUT/model, which evaluate, listen, segment and export take, "
        "and scores, curves and pictures.",
        allow_abbrev=False,
    )
    add_dataset(parser, settings=tuple(EPOCHS))
    parser.add_argument("out", type=Path, help="run folder, created if it does not exist")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in the run folder"
    )
    add_device(parser)

    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", required=True, help="name from `avslib models`, or a saved model to train further"
    )
    model.add_argument(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of the model's constructor, such as latent_dim=16 or window=1; may be repeated",
    )
    add_model_class(model)
    model.add_argument(
        "--visual-weights", type=Path, metavar="FILE", help="weights of the backbone, in timm's naming"
    )
    model.add_argument(
        "--vggish-weights", type=Path, metavar="FILE", help="weights of VGGish, in torchvggish's naming"
    )

    schedule = parser.add_argument_group("schedule")
    schedule.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help=f"default: {', '.join(f'{n} ({s})' for s, n in EPOCHS.items())}",
    )
    schedule.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="accumulate the gradients of N batches in each step, to save memory (default: 1)",
    )
    schedule.add_argument(
        "--learning-rate",
        type=float,
        default=1e-4,
        metavar="LR",
        help="learning rate of Adam (default: 0.0001)",
    )
    schedule.add_argument(
        "--anneal",
        action="store_true",
        help="warm the learning rate up over the first 5%% of the steps, then decay it",
    )
    schedule.add_argument(
        "--seed", type=int, default=0, help="seed of weights, data order and noise (default: 0)"
    )
    schedule.add_argument(
        "--num-samples",
        type=int,
        default=8,
        metavar="S",
        help="samples per frame in the test, for a stochastic model (default: 8)",
    )
    parser.set_defaults(run=_train)


def _train(parsed: argparse.Namespace) -> int:
    from avslib.training.run_folder import check_packages, will_resume

    check_packages()
    from accelerate.utils import set_seed

    from avslib.training import format_result, published_objective, train_and_test
    from avslib.training.checkpoint import load_initial_weights
    from avslib.training.trainer import new_accelerator

    started = time.monotonic()
    device = choose_device(parsed)
    if device.index:
        raise ValueError(
            f"--device: expected cpu or {device.type} without a number, since each process uses its own, got "
            f"{parsed.device!r}"
        )
    accelerator = new_accelerator(accumulate=parsed.accumulate, cpu=device.type == "cpu")
    resumes = will_resume(parsed.out, resume=parsed.resume)  # before anything slow
    set_seed(parsed.seed)
    model, is_new = _build_model(parsed)
    data = _open_data(parsed, model)
    objective = published_objective(model, None if parsed.setting == "folder" else parsed.setting)
    load_initial_weights(
        model,
        visual=parsed.visual_weights,
        vggish=parsed.vggish_weights,
        expected=is_new and not resumes,
    )
    result = train_and_test(
        model,
        objective,
        data,
        parsed.out,
        epochs=EPOCHS[parsed.setting] if parsed.epochs is None else parsed.epochs,
        data_name=f"{parsed.setting.upper()}, {parsed.root.resolve().name}",
        batch_size=parsed.batch_size,
        learning_rate=parsed.learning_rate,
        anneal=parsed.anneal,
        num_workers=parsed.workers,
        num_samples=parsed.num_samples,
        seed=parsed.seed,
        resume=parsed.resume,
        config={
            "arguments": {
                key: str(x)
                for key, x in vars(parsed).items()
                if x is not None and key not in ("run", "words")
            }
        },
        accelerator=accelerator,
        started=started,
    )
    accelerator.end_training()
    if result is not None:
        print("\n" + format_result(result))
    return 0


def _open_data(parsed: argparse.Namespace, model: AVSModel) -> Splits:
    """Open all splits.

    Raises:
        ValueError: if the clips of a split cannot share a batch, a validation or test clip has no masks, or
            no training clip has any.
    """
    from avslib.training import Splits

    if parsed.size == OWN:
        raise ValueError("--size: expected one size for all frames, got 'own'")
    opened = {split: open_clips(parsed, model, split) for split in Splits._fields}
    for split, clips in opened.items():
        check_lengths(clips)  # test batches hold several clips, whatever the training batch size
        without = [files.id for files in clips.clips if not any(files.masks)]
        if without and (split != "train" or len(without) == len(clips)):
            raise ValueError(
                f"split {split!r}: expected masks, {len(without)} of {len(clips)} clips have none, such as "
                f"{without[0]!r}"
            )
    return Splits(**opened)


def _build_model(parsed: argparse.Namespace) -> tuple[AVSModel, bool]:
    """Return the model, and whether it is new and has random weights."""
    from avslib.models import C3N, create_model

    if "/" in parsed.model or Path(parsed.model).is_dir():
        if parsed.set:
            raise ValueError("--set: only for a new model, got a saved one")
        return load_saved(parsed).train(), False
    try:
        model = create_model(parsed.model, **dict(parsed.set))
    except TypeError as error:
        given = ", ".join(f"{name}={value!r}" for name, value in parsed.set)
        raise ValueError(f"--set {given}: {error}") from error
    if isinstance(model, C3N):
        raise ValueError(
            "--model: a new C3N has no classifiers; examples/c3n.py builds them, and a model that it saved "
            "can be trained further"
        )
    return model, True


def _assignment(word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {word!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
