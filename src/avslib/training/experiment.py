"""Running an experiment: open the data, build and initialise the model, train it and test it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock

from avslib.data import (
    READERS,
    ClipDataset,
    SyntheticConfig,
    audio_blind_ceiling,
    clip_indices,
    write_avsbench,
)
from avslib.models import AVSModel
from avslib.training.checkpoint import load_initial_weights
from avslib.training.pretraining import LabelledSeconds, pretrain_encoders, render_labelled
from avslib.training.recipe import Recipe
from avslib.training.run_folder import Result, Scores, Splits, train_and_test, will_resume
from avslib.training.trainer import Objective, new_accelerator

_Model = TypeVar("_Model", bound=AVSModel)


def open_data(
    setting: str, root: Path | None = None, *, size: int, clips: int = 2300, sound: str = "log_mel"
) -> Splits:
    """Open the splits of AVSBench, or of a synthetic set in its layout, which is created if missing.

    If several scripts start together, the first one creates the synthetic clips and the others wait for them.

    Args:
        setting: ``"s4"`` or ``"ms3"``.
        root: folder with AVSBench's ``Single-source`` or ``Multi-sources``. None for synthetic clips in
            ``runs/data``; worker processes render them, so the script needs ``if __name__ == "__main__"``.
        size: side of a frame, px.
        clips: number of synthetic training clips; validation has a twentieth of it, the test a tenth.
        sound: ``"log_mel"`` or ``"wav"``, see :class:`~avslib.data.ClipReader`.

    Raises:
        FileNotFoundError: if the table of clips, or a file that it lists, does not exist.
    """
    if root is None:
        from tqdm import tqdm

        root = Path("runs", "data", f"synthetic-{setting}-{size}px-{clips}")
        counts = {"train": clips, "val": max(clips // 20, 2), "test": max(clips // 10, 2)}
        root.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(root.with_name(f"{root.name}.lock")),
            tqdm(total=sum(counts.values()), desc="making clips", unit="clip", disable=None) as bar,
        ):
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
    """Train a model, test it with the true sound and with others, and plot its curves and predictions.

    It seeds the global random generators, and destroys the process group at the end. The run folder is that
    of :func:`train_and_test`.

    Args:
        arguments: the arguments that :func:`parse_arguments` returned.
        recipe: the recipe that :func:`parse_arguments` returned.
        build_model: builds the model; called after the seed is set.
        objective: maps the model's output and a clip to named loss terms.
        name: name of the run folder, before setting and seed, unless ``--out`` is given.
        num_samples: samples per frame in the test, for a stochastic model.
        pretrain: pretrains the model's encoders as classifiers, if the recipe asks for it; skipped if the run
            is resumed or starts from another run's weights.
        rows: further rows of the table, by name: functions that score the trained model on the test split.
            Every process calls them, so they may call :func:`~avslib.training.evaluate`.
        numbers: returns further measurements on the test split, by name; called in every process too.

    Returns:
        The result; None in all processes but the first.

    Raises:
        FileNotFoundError: if the data or the initial weights do not exist.
        FileExistsError: if the run folder holds a run and ``--resume`` is not given.
        ValueError: if weights are given for an encoder that the model lacks, or if the run to resume differs
            from this one.
    """
    from accelerate.utils import set_seed

    folder = arguments.out or Path("runs", f"{name}-{arguments.setting}-seed{arguments.seed}")
    resumes = will_resume(folder, resume=arguments.resume)  # before anything slow
    started = time.monotonic()
    torch.set_flush_denormal(True)  # this early because the encoders may be pretrained
    accelerator = new_accelerator()
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
    anew = arguments.init_from is None and not resumes
    if recipe.pretrain_clips and anew:
        pretrain(model, render_labelled("train", recipe.pretrain_clips, recipe.size))
    load_initial_weights(
        model,
        visual=arguments.visual_weights,
        vggish=arguments.vggish_weights,
        whole=arguments.init_from,
        expected=anew and not recipe.from_scratch,
    )

    rows = dict(rows or {})
    if arguments.data_root is None:
        config = SyntheticConfig(setting=arguments.setting, size=recipe.size)
        indices = clip_indices("test", len(data.test))
        rows["audio-blind ceiling"] = lambda *_: {"miou": audio_blind_ceiling(config, indices)}
    clips = "synthetic clips" if arguments.data_root is None else "AVSBench"
    result = train_and_test(
        model,
        objective,
        data,
        folder,
        epochs=recipe.epochs[arguments.setting],
        data_name=f"{arguments.setting.upper()}, {clips}",
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        anneal=recipe.anneal,
        num_workers=arguments.workers,
        num_samples=num_samples,
        seed=arguments.seed,
        resume=arguments.resume,
        rows=rows,
        numbers=numbers,
        config={
            "arguments": {key: str(value) for key, value in vars(arguments).items() if value is not None},
            "recipe": dataclasses.asdict(recipe),
        },
        accelerator=accelerator,
        started=started,
    )
    accelerator.end_training()
    return result
