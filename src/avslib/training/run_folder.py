"""Training and testing a model in a run folder, which gets its weights, scores and figures."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from avslib._checks import check_positive
from avslib._version import __version__
from avslib.clip import Clip
from avslib.data import ClipDataset
from avslib.models import AVSModel
from avslib.training.evaluation import evaluate
from avslib.training.figures import plot_history, plot_predictions
from avslib.training.listening import three_sounds
from avslib.training.optim import warmup_cosine
from avslib.training.prediction import collate_clips, num_classes
from avslib.training.provenance import describe_data
from avslib.training.trainer import Objective, best_epoch, fit, has_checkpoint, new_accelerator

if TYPE_CHECKING:
    from accelerate import Accelerator

Scores: TypeAlias = dict[str, float]
_Model = TypeVar("_Model", bound=AVSModel)

_MAY_CHANGE = {
    *("avslib", "torch", "epochs", "num_samples", "workers", "device"),
    *("resume", "resumed", "out", "root", "data_root", "folder"),  # clips' ids identify the data
    *("visual_weights", "vggish_weights", "init_from"),  # a resumed run has its own weights
}
"""Entries of ``config.json`` that may differ when a run is resumed."""


class Splits(NamedTuple):
    """The splits of one setting: readers, or any other map-style datasets of clips."""

    train: ClipDataset
    val: ClipDataset
    test: ClipDataset


class Result(NamedTuple):
    """The result of an experiment."""

    folder: Path
    """The run folder."""
    table: dict[str, Scores]
    """Scores on the test split, by row."""
    numbers: dict[str, float]
    """Further measurements on the test split, by name."""
    seconds: float
    """Duration in seconds, including data preparation."""


def train_and_test(
    model: _Model,
    objective: Objective,
    data: Splits,
    folder: Path,
    *,
    epochs: int,
    data_name: str,
    batch_size: int = 4,
    learning_rate: float = 1e-4,
    anneal: bool = False,
    num_workers: int = 0,
    num_samples: int = 1,
    seed: int = 0,
    resume: bool = False,
    rows: Mapping[str, Callable[[_Model, ClipDataset], Scores]] | None = None,
    numbers: Callable[[_Model, ClipDataset], Mapping[str, float]] | None = None,
    config: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
    started: float | None = None,
) -> Result | None:
    """Train a model, test it with the true sound and with others, and plot its curves and predictions.

    The run folder gets ``config.json``, ``metrics.json``, ``curves.png``, ``predictions.png``, the files that
    :func:`~avslib.training.fit` writes, and the folder ``model`` for ``from_pretrained``. A resumed run adds
    its configuration to that ``config.json``, under ``"resumed"``. It may differ from the first run in
    epochs, samples, workers, device, paths and versions; if anything else differs, nothing is written.

    Args:
        model: any model of this library.
        objective: maps the model's output and a clip to named loss terms.
        data: the splits; ``val`` selects the epoch that is kept, ``test`` is used only after training. The
            model stores the size of the training frames, if all have one.
        folder: the run folder, created if missing.
        epochs: passes over the training clips.
        data_name: name of the data in the model card.
        batch_size: clips per batch in each process.
        learning_rate: learning rate of Adam; its peak if ``anneal`` is True.
        anneal: whether the learning rate rises in the first twentieth of the steps and then falls to 0.
        num_workers: number of loader processes.
        num_samples: samples per frame in the test, for a stochastic model.
        seed: seed of the clips' order and of the noise; each process derives its own from it.
        resume: whether to continue from the run folder's checkpoint; without one, a new run starts.
        rows: further rows of the table, by name: functions that score the trained model on the test split.
            Every process calls them, so they may call :func:`~avslib.training.evaluate`.
        numbers: returns further measurements on the test split, by name; called in every process too.
        config: further entries of ``config.json``.
        accelerator: None for the default of :func:`~avslib.training.fit`, which also describes gradient
            accumulation.
        started: start time by ``time.monotonic``; None for now.

    Returns:
        The result; None in all processes but the first.

    Raises:
        ImportError: if Accelerate, or matplotlib, which draws the pictures, is not installed.
        ValueError: if a number is not above 0, a split has no clip, the model cannot be saved, or the run to
            resume differs from this one.
        FileExistsError: if the folder holds a run and ``resume`` is False, or a run without a checkpoint.
    """
    check_packages()
    from accelerate.utils import set_seed

    numbers_above_0 = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "num_samples": num_samples,
    }
    for name, number in numbers_above_0.items():
        check_positive(name, number)
    for split, clips in data._asdict().items():
        if not len(clips):
            raise ValueError(f"data.{split}: expected at least one clip, got none")
    model.check_saveable()
    resumes = will_resume(folder, resume=resume)
    started = time.monotonic() if started is None else started
    accelerator = new_accelerator() if accelerator is None else accelerator
    torch.set_flush_denormal(True)  # on a CPU, denormal numbers in the state of Adam slow a step down
    set_seed(seed, device_specific=True)
    told = {
        "avslib": __version__,
        "torch": torch.__version__,
        "model": type(model).__name__,
        "configuration": cast("dict[str, Any]", model._hub_mixin_config or {}),
        "data": {split: describe_data(clips) for split, clips in data._asdict().items()},
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accelerator.gradient_accumulation_steps,
        "processes": accelerator.num_processes,
        "learning_rate": learning_rate,
        "anneal": anneal,
        "num_samples": num_samples,
        "seed": seed,
        **(config or {}),
    }
    if resumes:
        told = _add_to_first(folder / "config.json", told)
    accelerator.wait_for_everyone()  # all have read the file that the first one now writes
    if accelerator.is_main_process:
        if resume and not resumes:
            warnings.warn(f"{folder}: nothing to resume, starting", stacklevel=2)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", told)
    loader = accelerator.prepare(
        DataLoader(
            cast("Dataset[Clip]", data.train),
            batch_size,
            collate_fn=collate_clips,
            shuffle=True,
            drop_last=len(data.train) >= batch_size * accelerator.num_processes,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )
    )
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    optimizer = torch.optim.Adam(trained, learning_rate, fused=True)
    score = partial(evaluate, batch_size=min(4, batch_size))
    steps = epochs * math.ceil(len(loader) / accelerator.gradient_accumulation_steps)
    history = fit(
        model,
        objective,
        loader,
        optimizer,
        epochs=epochs,
        run_dir=folder,
        lr_scheduler=warmup_cosine(optimizer, steps=steps, warmup_steps=steps // 20) if anneal else None,
        validate=lambda network: score(network, data.val)["miou"],
        accelerator=accelerator,
        resume=resume,
    )
    trained_s = time.monotonic() - started

    size = _frame_size(data.train)
    if size is not None:
        model.frame_size = size
    pixels = "their own size" if size is None else " x ".join(map(str, size))
    protocol = "avsbench" if num_classes(data.test, model) == 1 else "avsbench_semantic"
    card: dict[str, Any] = {
        "data": f"{data_name}: {len(data.train)} to train, {len(data.test)} to test, {pixels}.",
        "protocol": f"`{protocol}`, one clip a batch.",
    }
    if accelerator.is_main_process:  # already here, in case the test fails
        model.save_pretrained(folder / "model", model_card_kwargs=card)

    heard = three_sounds(data.test)
    table = {row: score(model, clips, num_samples=num_samples) for row, clips in heard.items()}
    table |= {row: measure(model, data.test) for row, measure in (rows or {}).items()}
    measured = {} if numbers is None else dict(numbers(model, data.test))
    if not accelerator.is_main_process:
        return None
    found = {f"{key}, {row}": x for row, scores in table.items() for key, x in scores.items()} | measured
    card["numbers"] = {key: f"{x:.3f}" for key, x in found.items()}
    # save_pretrained would keep the existing card
    model.generate_model_card(**card).save(folder / "model" / "README.md")
    result = Result(folder, table, measured, time.monotonic() - started)
    _write_json(
        folder / "metrics.json",
        {
            "test": table,
            **measured,
            "best epoch": best_epoch(history)["epoch"],
            "history": history,
            "seconds": {"data and training": trained_s, "all": result.seconds},
        },
    )
    plot_history(history, folder / "curves.png")
    plot_predictions(model, data.test, folder / "predictions.png", indices=range(min(3, len(data.test))))
    return result


def _frame_size(clips: ClipDataset) -> tuple[int, int] | None:
    """Return ``(H, W)`` of the frames, px; None if the first and the last clip differ in it."""
    height, width = clips[0].frames.shape[-2:]
    return (height, width) if clips[len(clips) - 1].frames.shape[-2:] == (height, width) else None


def format_result(result: Result) -> str:
    """Format the table of a result as fixed-width text.

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


def check_packages() -> None:
    """Raise ``ImportError``, saying how to install it, if a package that training needs is missing."""
    missing = [package for package in ("accelerate", "matplotlib") if find_spec(package) is None]
    if missing:
        raise ImportError(f'training needs {" and ".join(missing)}: pip install "avslib[train]"')


def will_resume(folder: Path, *, resume: bool) -> bool:
    """Return whether to resume the run in a folder instead of starting a new one.

    A run that failed before its first epoch ended left nothing to keep and does not count.

    Raises:
        FileExistsError: if the folder holds a run and ``resume`` is False, or a run without a checkpoint.
    """
    if has_checkpoint(folder):
        if resume:
            return True
        raise FileExistsError(f"{folder}: already holds a run; --resume continues it")
    if any((folder / name).exists() for name in ("model", "metrics.json")):
        raise FileExistsError(f"{folder}: holds a run without a checkpoint; choose another folder")
    return False


def _add_to_first(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the first run with that of the resuming run added.

    Raises:
        ValueError: if the two are different runs; the message names the differences.
    """
    if not path.is_file():
        return told
    told = json.loads(json.dumps(told))  # in the form in which the first was written
    first = json.loads(path.read_text(encoding="utf-8"))
    # by name, since a command-line argument is also stored as text
    if changes := dict(_changes(first, told)):
        was, got = (", ".join(f"{name} {pair[i]!r}" for name, pair in changes.items()) for i in range(2))
        raise ValueError(f"{path.parent}: expected to resume its run with {was}, got {got}")
    return {**first, "resumed": [*first.get("resumed", []), told]}


def _changes(first: dict[str, Any], told: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in sorted({*first, *told} - _MAY_CHANGE):
        if name.startswith("_"):  # diffusers' own notes in a scheduler's configuration, in any order
            continue
        before, now = first.get(name), told.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _changes(before, now)
        elif before != now:
            yield name, (before, now)


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")
