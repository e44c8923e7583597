"""Recipes of training runs, and the command-line arguments that change them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avslib._checks import check_not_negative, check_positive

SETTINGS = ("s4", "ms3")


@dataclass(frozen=True)
class Recipe:
    """The settings of a preset, which arguments may change. The defaults are those of the published recipes.

    Args:
        variant: the model's size, ``"small"`` or the backbone of a paper, as in the names of presets.
        epochs: passes over the training clips, for ``"s4"`` and ``"ms3"``.
        size: side of a frame, px.
        learning_rate: learning rate of Adam; its peak if ``anneal`` is True.
        batch_size: clips per batch in each process.
        anneal: whether the learning rate rises in the first twentieth of the steps and then falls to 0.
        pretrain_clips: number of synthetic clips on which the encoders are first trained as classifiers, see
            :func:`~avslib.training.pretrain_encoders`; 0 for none.
        from_scratch: whether the recipe works with random weights and synthetic clips. Other recipes need
            the real set, and warn if an encoder starts from random weights.

    Raises:
        ValueError: if ``size``, ``learning_rate``, ``batch_size`` or a number of epochs is not above 0, or
            ``pretrain_clips`` is below 0.
    """

    variant: str
    epochs: Mapping[str, int]
    size: int = 224
    learning_rate: float = 1e-4
    batch_size: int = 4
    anneal: bool = False
    pretrain_clips: int = 0
    from_scratch: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "learning_rate", "batch_size"):
            check_positive(name, getattr(self, name))
        for setting, epochs in self.epochs.items():
            check_positive(f"epochs[{setting!r}]", epochs)
        check_not_negative("pretrain_clips", self.pretrain_clips)


SMALL = Recipe("small", {"s4": 2, "ms3": 2}, size=112, learning_rate=1e-3, anneal=True, from_scratch=True)
"""A small model trained from scratch on synthetic clips; takes minutes on two CPU cores."""

SMALL_PRETRAINED = dataclasses.replace(SMALL, epochs={"s4": 1, "ms3": 1}, size=64, pretrain_clips=1000)
"""Smaller frames, one epoch, and encoders pretrained as classifiers, as published ones are on larger sets.

Without pretraining, a deterministic small model predicts nothing anywhere for hundreds of steps: it cannot
segment what sounds before it can tell classes apart.
"""


PAPER_RECIPES = {
    "paper-pvt": Recipe("pvt_v2_b5", {"s4": 15, "ms3": 30}),
    "paper-r50": Recipe("resnet50", {"s4": 15, "ms3": 30}),
}
"""The published schedule of AVSBench, which most papers share, with each of the two usual backbones."""


def add_arguments(parser: argparse.ArgumentParser, recipes: Mapping[str, Recipe]) -> None:
    """Add the arguments that every experiment has.

    Args:
        parser: the parser to add them to.
        recipes: presets by name; the first is the default.
    """
    default = next(iter(recipes))
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--preset", choices=recipes, default=default, help=f"sizes and schedule (default: {default})"
    )
    recipe.add_argument(
        "--setting",
        choices=SETTINGS,
        default="ms3",
        help="s4: one sounding object per clip; ms3: one to three (default: ms3)",
    )
    recipe.add_argument("--epochs", type=int, help="passes over the training clips (default: the preset's)")
    recipe.add_argument("--batch-size", type=int, help="clips per batch (default: the preset's)")
    recipe.add_argument(
        "--learning-rate", type=float, help="peak learning rate of Adam (default: the preset's)"
    )
    recipe.add_argument(
        "--seed", type=int, default=0, help="seed of weights, data order and noise (default: 0)"
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-root",
        type=Path,
        help="folder with AVSBench's Single-source and Multi-sources (default: make synthetic clips)",
    )
    data.add_argument(
        "--clips", type=int, default=2300, help="number of synthetic training clips (default: 2300)"
    )
    data.add_argument("--size", type=int, help="side of a frame, px (default: the preset's)")
    data.add_argument(
        "--sound",
        choices=("log_mel", "wav"),
        default="log_mel",
        help="read stored log-mels, or compute them from WAV files (default: log_mel)",
    )
    data.add_argument("--workers", type=int, default=0, help="number of loader processes (default: 0)")

    weights = parser.add_argument_group("weights to start from")
    weights.add_argument(
        "--pretrain-clips",
        type=int,
        help="number of synthetic clips from which the encoders first learn classes (default: the preset's)",
    )
    weights.add_argument(
        "--visual-weights", type=Path, help="weights of the backbone, in timm's naming (.safetensors, .pth)"
    )
    weights.add_argument("--vggish-weights", type=Path, help="weights of VGGish, in torchvggish's naming")
    weights.add_argument(
        "--init-from", type=Path, help="best.safetensors of another run, such as S4's for MS3"
    )

    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, help="run folder (default: runs/...-SETTING-seedN)")
    run.add_argument("--resume", action="store_true", help="continue from the checkpoint in the run folder")


def parse_arguments(
    parser: argparse.ArgumentParser, recipes: Mapping[str, Recipe], argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, Recipe]:
    """Parse the command line; return its arguments and the preset's recipe with their changes.

    Exits the program, as argparse does, if the arguments do not fit the recipe.

    Args:
        parser: a parser with the arguments of :func:`add_arguments` and the model's own.
        recipes: presets by name.
        argv: the arguments to parse; None for those of the command line.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_arguments(parser, {"demo": SMALL})
        >>> arguments, recipe = parse_arguments(parser, {"demo": SMALL}, ["--batch-size", "8"])
        >>> arguments.setting, recipe.batch_size, recipe.size
        ('ms3', 8, 112)
    """
    arguments = parser.parse_args(argv)
    recipe = recipes[arguments.preset]
    if arguments.data_root is None and not recipe.from_scratch:
        parser.error(f"--preset {arguments.preset} trains on the real set: say where it is with --data-root")
    changes = {
        name: getattr(arguments, name) for name in ("size", "learning_rate", "batch_size", "pretrain_clips")
    }
    if arguments.epochs is not None:
        changes["epochs"] = {**recipe.epochs, arguments.setting: arguments.epochs}
    try:
        recipe = dataclasses.replace(
            recipe, **{name: value for name, value in changes.items() if value is not None}
        )
    except ValueError as error:
        parser.error(str(error))
    return arguments, recipe
