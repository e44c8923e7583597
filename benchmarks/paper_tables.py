"""Repeat the paper's tables on clips that anyone can generate: train every row with several seeds.

  python benchmarks/paper_tables.py 2 3 4 --seeds 3            # the missing runs of these tables
  python benchmarks/paper_tables.py all --budget gpu           # 224 x 224, PVT v2 b2; hours on a GPU
  python benchmarks/paper_tables.py 2 3 4 --by-second          # every second hears only its own sound
  python benchmarks/paper_tables.py 1 --budget cpu_long        # three times as many epochs
  python benchmarks/paper_tables.py 2 --seeds 3 --list         # which runs are finished and which are not
  python benchmarks/paper_tables.py full                       # one row
  python benchmarks/paper_tables.py full --seeds 1 --again     # repeat a run: is the number the same?

A run is a row, a setting and a seed. All runs of a budget see the same clips, take the same number of steps,
start from encoders that learned classes from clips with a single object, keep the epoch that is best on the
validation clips and use the test clips once. A run writes one JSON file, with the score of every test clip. A
run that was killed continues from its last epoch. All runs of one seed come before those of the next.
Several processes may work on the same tables: each takes runs that no other has started.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import cast

import torch
from _measure import describe
from _paper_rows import BY_SECOND, ROWS, TABLES, Row
from _paper_runs import BUDGETS, RUNS, Run, keep, open_splits
from accelerate import Accelerator
from accelerate.utils import set_seed
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avslib.clip import Clip
from avslib.data import ClipDataset, SilentSound, SwappedSound
from avslib.metrics import f_score, frame_iou
from avslib.models import C3N, AVSModel, DiffusionAVS
from avslib.training import (
    CLASSES,
    ModelPredictions,
    evaluate,
    fit,
    latent_statistics,
    pretrain_classifiers,
    pretrain_encoders,
    render_labelled,
    warmup_cosine,
)
from avslib.training.checkpoint import load_weights

LEARNED = ("visual_encoder", "audio_encoder", "audio_classifier")
"""The parts of a model that know classes before its training; only a C3N has the last one."""


def learned(run: Run, teacher: str, width: int) -> dict[str, Tensor]:
    """Return the encoders of the seed, and a C3N's classifier of sound: trained once and kept.

    Args:
        run: the run that starts from them.
        teacher: the row whose model learns the classes.
        width: length of the audio embedding.
    """
    budget = BUDGETS[run.budget]
    path = RUNS / run.budget / f"{teacher}-{width}-seed{run.seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            set_seed(run.seed)
            model = ROWS[teacher].build(**budget.sizes(), audio_channels=width)
            seconds = render_labelled("train", budget.pretrain_clips, budget.size)
            if isinstance(model, C3N):
                pretrain_classifiers(model, seconds)
            else:
                pretrain_encoders(model, seconds)
            save_file({k: v for k, v in model.state_dict().items() if k.split(".")[0] in LEARNED}, path)
    return load_file(path)


def start(model: AVSModel, run: Run) -> None:
    """Load the initial weights: the encoders of the seed, or all weights of another run.

    Raises:
        FileNotFoundError: if the weights of that other run are missing.
    """
    before = run.before
    if before is not None:
        with before.lock():  # another process may be training it
            if not before.weights.exists():
                raise FileNotFoundError(
                    f"{before.weights}: {run.row} begins with it; to train it again, delete the JSON of "
                    f"{before.name} ({before.setting})"
                )
            load_weights(model, before.weights)
        return
    teacher = "ldm"
    if isinstance(model, C3N):
        teacher = "c3n"
        model.consensus.set_similarity(torch.eye(len(CLASSES)))  # two classes are similar if they are equal
    width = 128 if model.audio_encoder is None else model.audio_encoder.embedding_dim
    stored = learned(run, teacher, width)
    for name in LEARNED:
        part = getattr(model, name, None)
        if part is not None:
            part.load_state_dict(
                {k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(f"{name}.")}
            )


def train(row: Row, run: Run, splits: Mapping[str, ClipDataset]) -> tuple[AVSModel, list[dict[str, float]]]:
    """Train a row; return the model of its best epoch and the history of all epochs."""
    budget = BUDGETS[run.budget]
    set_seed(run.seed)
    model = row.build(**budget.sizes())
    start(model, run)
    model.to(memory_format=torch.channels_last)  # takes a seventh less time on a CPU
    set_seed(run.seed)
    clips = SwappedSound(splits["train"]) if row.shuffled else splits["train"]
    loader = DataLoader(cast("Dataset[Clip]", clips), budget.batch_size, shuffle=True, drop_last=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, budget.learning_rate, fused=True)
    epochs = budget.epochs[run.setting]
    steps = epochs * len(loader)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), step_scheduler_with_optimizer=False)
    history = fit(
        model,
        row.objective(),
        loader,
        optimizer,
        epochs=epochs,
        run_dir=run.folder,
        lr_scheduler=warmup_cosine(optimizer, steps=steps, warmup_steps=steps // 20),
        validate=lambda network: evaluate(network, splits["val"])["miou"],
        accelerator=accelerator,
        resume=True,
    )
    return model, history


def score(model: AVSModel, clips: ClipDataset, num_samples: int) -> dict[str, list[float]]:
    """Return mIoU and F of every clip, by protocol ``avsbench``; F of a clip without ground truth is NaN."""
    ious, scores = [], []
    for prediction in ModelPredictions(model, clips, num_samples=num_samples):
        for logits, masks in zip(prediction.logits, prediction.masks, strict=True):
            ious.append(frame_iou(logits[None], masks[None]).mean().item())
            scores.append(f_score(logits[None], masks[None]).item())
    return {"miou": [round(x, 5) for x in ious], "f_score": [round(x, 5) for x in scores]}


def test(model: AVSModel, clips: ClipDataset, num_samples: int) -> dict[str, object]:
    """Score a model with its sound and with other sounds, and if it diffuses also with other latents."""
    sounds = {"true sound": clips, "silence": SilentSound(clips), "another clip's sound": SwappedSound(clips)}
    found: dict[str, object] = {name: score(model, heard, num_samples) for name, heard in sounds.items()}
    if isinstance(model, DiffusionAVS) and model.stochastic:
        found["latent: one sample"] = score(model, clips, 1)
        for name, latent in (("latent: noise", "noise"), ("latent: true z0", "ground_truth")):
            found[name] = evaluate(model, clips, latent=latent)
        found |= latent_statistics(model, clips)
    return found


def do(run: Run, out: Path) -> None:
    """Train and test one row, and write the report."""
    torch.set_flush_denormal(True)  # denormal numbers in the state of Adam slow down steps on a CPU
    row, budget = ROWS[run.row], BUDGETS[run.budget]
    splits = open_splits(run)
    begun, used = time.monotonic(), time.process_time()
    model, history = train(row, run, splits)
    trained = time.monotonic() - begun
    found = test(model, splits["test"], budget.num_samples)
    report = {
        **asdict(run),
        "title": row.title,
        "machine": describe("cuda" if torch.cuda.is_available() else "cpu"),
        "budget": {"name": run.budget, **asdict(budget)},
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "history": history,
        "seconds": {
            "training": trained,
            "all": time.monotonic() - begun,
            "of CPU": time.process_time() - used,
        },
        "test": found,
    }
    keep(report, out)
    shutil.rmtree(run.folder / "checkpoint", ignore_errors=True)  # keeps the best weights


def take(run: Run, out: Path) -> None:
    """Do a run that is missing, unless another process is working on it."""
    try:
        with run.lock(blocking=False):
            if not out.exists():
                do(run, out)
    except Timeout:
        print(f"{run.name} ({run.setting}): another process is at it")


def plan(arguments: argparse.Namespace) -> list[Run]:
    """Return the requested runs, seed after seed, each after the run that it starts from.

    Rows without sound have no run by second.
    """
    tables = list(TABLES) if "all" in arguments.tables else arguments.tables
    rows = list(dict.fromkeys(row for table in tables for row in TABLES.get(table, [table])))
    if arguments.by_second:
        rows = [row + BY_SECOND for row in rows if row + BY_SECOND in ROWS]
    runs = []
    for seed, setting, row in product(range(arguments.seeds), arguments.settings, rows):
        if ROWS[row].begins_in == setting:  # it would only be trained twice there
            continue
        run = Run(arguments.budget, setting, row, seed, arguments.again)
        runs += [run] if run.before is None else [run.before, run]
    return list(dict.fromkeys(runs))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables",
        nargs="+",
        choices=(*TABLES, "all", *ROWS),
        metavar="TABLE",
        help=f"{', '.join(TABLES)}, all, or the name of a row",
    )
    parser.add_argument(
        "--by-second", action="store_true", help="the rows with window=1: a second has its own sound alone"
    )
    parser.add_argument(
        "--settings", nargs="+", choices=("s4", "ms3"), default=["ms3"], help="the clips (default: ms3)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of every row (default: %(default)s)")
    parser.add_argument(
        "--budget",
        choices=BUDGETS,
        default="gpu" if torch.cuda.is_available() else "cpu",
        help="sizes, clips and epochs (default: gpu if there is one, else cpu)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: all)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks", "results", "paper"),
        help="folder of the results (default: %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="repeat runs, beside those that are there")
    parser.add_argument("--list", action="store_true", help="say what is there, and train nothing")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    for run in plan(arguments):
        out = arguments.out / run.place.parent / f"{run.name}.json"
        if arguments.list:
            print(
                f"{'there' if out.exists() else 'to do':8}{run.setting:5}{run.name:34}{ROWS[run.row].title}"
            )
        elif not out.exists():
            take(run, out)


if __name__ == "__main__":
    main()
