"""A recipe, a model and an objective -> a run folder with weights, scores and pictures."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader

from avslib._version import __version__
from avslib.data import (
    READERS,
    ClipDataset,
    ClipReader,
    SilentSound,
    SwappedSound,
    SyntheticConfig,
    audio_blind_ceiling,
    clip_indices,
    write_avsbench,
)
from avslib.models import AVSModel
from avslib.training.checkpoint import load_weights
from avslib.training.evaluation import evaluate
from avslib.training.figures import plot_history, plot_predictions
from avslib.training.optim import warmup_cosine
from avslib.training.pretraining import LabelledSeconds, pretrain_encoders, render_labelled
from avslib.training.recipe import Recipe
from avslib.training.trainer import Objective, fit

if TYPE_CHECKING:
    from accelerate import Accelerator

Scores: TypeAlias = dict[str, float]
_Model = TypeVar("_Model", bound=AVSModel)


class Splits(NamedTuple):
    """The clips of one setting."""

    train: ClipReader
    val: ClipReader
    test: ClipReader


class Result(NamedTuple):
    """What an experiment found."""

    folder: Path
    """The run folder."""
    table: dict[str, Scores]
    """Scores on the test split, by row."""
    numbers: dict[str, float]
    """What else was measured there."""
    seconds: float
    """How long it took, data included."""


def open_data(
    setting: str, root: Path | None = None, *, size: int, clips: int = 2300, sound: str = "log_mel"
) -> Splits:
    """Open the splits of AVSBench, or of a synthetic set in its layout, made where there is none yet.

    Args:
        setting: ``"s4"`` or ``"ms3"``.
        root: folder with AVSBench's ``Single-source`` or ``Multi-sources``. None for synthetic clips in
            ``runs/data``; processes render them, which takes a script with ``if __name__ == "__main__"``.
        size: side of a frame, px.
        clips: synthetic training clips; for validation a twentieth of it, for the test a tenth.
        sound: ``"log_mel"`` or ``"wav"``, see :class:`~avslib.data.ClipReader`.

    Raises:
        FileNotFoundError: if the table of clips or a file that it lists is not there.
    """
    if root is None:
        from tqdm import tqdm

        root = Path("runs", "data", f"synthetic-{setting}-{size}px-{clips}")
        counts = {"train": clips, "val": max(clips // 20, 2), "test": max(clips // 10, 2)}
        with tqdm(total=sum(counts.values()), desc="making clips", unit="clip") as bar:
            write_avsbench(
                root,
                setting=setting,
                clips=counts,
                size=size,
                videos=False,
                workers=os.cpu_count() or 1,
                progress=bar.update,
            )
    reader = READERS[setting]
    return Splits(*(reader(root, split, size=(size, size), sound=sound) for split in Splits._fields))


def run(
    arguments: argparse.Namespace,
    recipe: Recipe,
    build_model: Callable[[], _Model],
    objective: Objective,
    *,
    name: str,
    num_samples: int = 1,
    pretrain: Callable[[_Model, LabelledSeconds], None] = pretrain_encoders,
    rows: Mapping[str, Callable[[_Model, ClipDataset], Scores]] | None = None,
    numbers: Callable[[_Model, ClipDataset], Mapping[str, float]] | None = None,
) -> Result | None:
    """Train a model, evaluate it, with what it should need taken away too, and draw what it does.

    It seeds PyTorch's global generators. The run folder gets ``config.json``, ``metrics.json``,
    ``curves.png``, ``predictions.png``, what :func:`~avslib.training.fit` writes, and the folder ``model``
    for ``from_pretrained``.

    Args:
        arguments: those of :func:`parse_arguments`.
        recipe: the other thing it returns.
        build_model: makes the model; called when the seed is set.
        objective: the model's output and a clip to named loss terms.
        name: what the run folder is called, before setting and seed, unless ``--out`` says another.
        num_samples: samples a frame in the test, of a stochastic model.
        pretrain: teaches the model's encoders classes, where the recipe asks for it; not with weights to
            start from.
        rows: further rows of the table: scores of the trained model on the test split. As under several
            processes every one calls them, they may be :func:`~avslib.training.evaluate`.
        numbers: what else to measure there, by name; called alike.

    Returns:
        What was found; None in all processes but the first.

    Raises:
        FileNotFoundError: if the data or the weights to start from are not there.
        ValueError: if there are weights for an encoder that the model lacks.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    started = time.monotonic()
    torch.set_flush_denormal(True)  # on a CPU, denormal numbers in the state of Adam slow a step down
    # without a GPU several processes are one group only if Accelerate is told that the CPU is meant
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), step_scheduler_with_optimizer=False)
    with accelerator.main_process_first():
        data = open_data(
            arguments.setting,
            arguments.data_root,
            size=recipe.size,
            clips=arguments.clips,
            sound=arguments.sound,
        )
    set_seed(arguments.seed)
    model = build_model()
    if recipe.pretrain_clips and arguments.init_from is None and not arguments.resume:
        pretrain(model, render_labelled("train", recipe.pretrain_clips, recipe.size))
    _load_initial_weights(model, arguments, recipe)
    set_seed(arguments.seed, device_specific=True)  # from here on every process draws noise of its own

    folder = arguments.out or Path("runs", f"{name}-{arguments.setting}-seed{arguments.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        _write_json(
            folder / "config.json",
            {
                "avslib": __version__,
                "torch": torch.__version__,
                "model": type(model).__name__,
                "arguments": {key: str(value) for key, value in vars(arguments).items() if value is not None},
                "recipe": dataclasses.asdict(recipe),
            },
        )
    history = _train(model, objective, data, folder, arguments, recipe, accelerator)
    trained_s = time.monotonic() - started

    table = {
        "true sound": evaluate(model, data.test, num_samples=num_samples),
        "silence": evaluate(model, SilentSound(data.test), num_samples=num_samples),
        "another clip's sound": evaluate(model, SwappedSound(data.test), num_samples=num_samples),
    }
    table |= {row: score(model, data.test) for row, score in (rows or {}).items()}
    if arguments.data_root is None:
        config = SyntheticConfig(setting=arguments.setting, size=recipe.size)
        indices = clip_indices("test", len(data.test))
        table["audio-blind ceiling"] = {"miou": audio_blind_ceiling(config, indices)}
    measured = {} if numbers is None else dict(numbers(model, data.test))
    if not accelerator.is_main_process:
        return None
    model.save_pretrained(
        folder / "model",
        model_card_kwargs={
            "data": f"{arguments.setting.upper()}, "
            + ("synthetic clips" if arguments.data_root is None else "AVSBench")
            + f": {len(data.train)} to train, {len(data.test)} to test, {recipe.size} x {recipe.size}.",
            "protocol": "`avsbench`, one clip a batch.",
            "numbers": {
                f"{key}, {row}": f"{x:.3f}" for row, scores in table.items() for key, x in scores.items()
            }
            | {key: f"{x:.3f}" for key, x in measured.items()},
        },
    )
    plot_history(history, folder / "curves.png")
    plot_predictions(model, data.test, folder / "predictions.png", indices=range(min(3, len(data.test))))
    result = Result(folder, table, measured, time.monotonic() - started)
    _write_json(
        folder / "metrics.json",
        {
            "test": table,
            **measured,
            "best epoch": max(history, key=lambda record: record["validation"])["epoch"],
            "history": history,
            "seconds": {"data and training": trained_s, "all": result.seconds},
        },
    )
    return result


def format_result(result: Result) -> str:
    """Return the table of a result, as text of a fixed width.

    Example:
        >>> table = {"true sound": {"miou": 0.6, "f_score": 0.79}, "audio-blind ceiling": {"miou": 0.46}}
        >>> print(format_result(Result(Path("runs/demo"), table, {"std of z0": 1.1}, 490.2)))
        test split                  mIoU       F
        true sound                 0.600   0.790
        audio-blind ceiling        0.460
        std of z0                  1.100
        <BLANKLINE>
        490 s; the model, its scores and its pictures are in runs/demo/
    """
    lines = [f"{'test split':24}{'mIoU':>8}{'F':>8}"]
    for row, scores in result.table.items():
        f_score = f"{scores['f_score']:8.3f}" if "f_score" in scores else ""
        lines.append(f"{row:24}{scores['miou']:8.3f}{f_score}")
    lines += [f"{row:24}{number:8.3f}" for row, number in result.numbers.items()]
    done = f"{result.seconds:.0f} s; the model, its scores and its pictures are in {result.folder}/"
    return "\n".join([*lines, "", done])


def _load_initial_weights(model: nn.Module, arguments: argparse.Namespace, recipe: Recipe) -> None:
    anew = arguments.init_from is None and not arguments.resume
    for kind, part in (("visual", "visual_encoder"), ("vggish", "audio_encoder")):
        path, encoder = getattr(arguments, f"{kind}_weights"), getattr(model, part, None)
        words = part.replace("_", " ")
        if path is not None:
            if encoder is None:
                raise ValueError(f"--{kind}-weights: {type(model).__name__} has no {words}, got {path}")
            encoder.load_weights(path)
        elif encoder is not None and anew and not recipe.from_scratch:
            warnings.warn(f"without --{kind}-weights the {words} starts from random weights", stacklevel=3)
    if arguments.init_from is not None:
        load_weights(model, arguments.init_from)


def _train(
    model: nn.Module,
    objective: Objective,
    data: Splits,
    folder: Path,
    arguments: argparse.Namespace,
    recipe: Recipe,
    accelerator: Accelerator,
) -> list[dict[str, float]]:
    loader = DataLoader(
        data.train,
        recipe.batch_size,
        shuffle=True,
        drop_last=len(data.train) >= recipe.batch_size,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
    )
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    optimizer = torch.optim.Adam(trained, recipe.learning_rate, fused=True)
    epochs = recipe.epochs[arguments.setting]
    steps = epochs * math.ceil(len(loader) / accelerator.num_processes)
    return fit(
        model,
        objective,
        loader,
        optimizer,
        epochs=epochs,
        run_dir=folder,
        lr_scheduler=warmup_cosine(optimizer, steps=steps, warmup_steps=steps // 20)
        if recipe.anneal
        else None,
        validate=lambda network: evaluate(network, data.val)["miou"],
        accelerator=accelerator,
        resume=arguments.resume,
    )


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")
