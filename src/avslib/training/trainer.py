"""The training loop, on Accelerate: one process or many, CPU or GPU, resumable."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from avslib.clip import Clip
from avslib.storage import ShardedClips
from avslib.training.checkpoint import load_weights, save_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

HISTORY = "history.json"
Objective = Callable[[Any, Clip], dict[str, torch.Tensor]]


def new_accelerator() -> Accelerator:
    """Return what a run is trained on: an accelerator if there is one, and all processes that there are."""
    from accelerate import Accelerator

    # without a GPU several processes are one group only if Accelerate is told that the CPU is meant
    return Accelerator(cpu=not torch.accelerator.is_available(), step_scheduler_with_optimizer=False)


def fit(
    model: nn.Module,
    objective: Objective,
    loader: DataLoader[Clip],
    optimizer: Optimizer,
    *,
    epochs: int,
    run_dir: str | Path,
    lr_scheduler: LRScheduler | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    max_grad_norm: float | None = None,
    accelerator: Accelerator | None = None,
    resume: bool = False,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a model; leave it with the weights of its best epoch.

    Args:
        model: called as ``model(frames, log_mel, masks, labelled, valid)``.
        objective: its output and the clip to named terms; ``"loss"`` is minimised.
        loader: batches of :class:`~avslib.clip.Clip`. :class:`~avslib.storage.ShardedClips` give every epoch
            its own order; under several processes they need ``uneven="drop"`` or ``"repeat"``, so that all
            take the same number of steps.
        optimizer: over the model's parameters.
        epochs: passes over the loader.
        run_dir: where ``checkpoint/`` (the last epoch, to resume from) and ``best.safetensors`` are written.
        lr_scheduler: stepped after every batch.
        validate: a score of the model, higher is better, taken after every epoch; the best epoch's weights
            are kept. None keeps the last epoch's.
        max_grad_norm: gradients are scaled down to this norm.
        accelerator: None for Accelerate's own, on a GPU if there is one. One that is given should be made
            with ``step_scheduler_with_optimizer=False``, since the schedule is stepped once a batch whatever
            the number of processes.
        resume: go on from ``checkpoint/`` if there is one.
        progress: show a bar with the loss and the time left.

    Returns:
        One record an epoch: the mean of every term, the learning rate, and ``"validation"``.
    """
    from accelerate.utils import send_to_device
    from tqdm import tqdm

    if accelerator is None:
        accelerator = new_accelerator()
    run_dir = Path(run_dir)
    checkpoint, best = run_dir / "checkpoint", run_dir / "best.safetensors"
    fresh = run_dir / "checkpoint.new"
    history: list[dict[str, float]] = []
    prepared, optimizer, lr_scheduler = accelerator.prepare(model, optimizer, lr_scheduler)
    shards = loader.dataset if isinstance(loader.dataset, ShardedClips) else None
    if shards is None:  # shards are dealt out already, and Accelerate would deal out a share once more
        loader = accelerator.prepare(loader)
    stored = checkpoint if checkpoint.is_dir() else fresh  # a run may end while one takes the other's place
    if resume and (stored / HISTORY).is_file():
        accelerator.load_state(str(stored))
        history = json.loads((stored / HISTORY).read_text(encoding="utf-8"))

    done = len(history)
    show = progress and accelerator.is_main_process
    bar = tqdm(total=epochs * len(loader), initial=done * len(loader), unit="batch", disable=not show)
    for epoch in range(done, epochs):
        prepared.train()
        sums: dict[str, float] = defaultdict(float)
        if shards is not None:
            shards.set_epoch(epoch)
        for clip in loader:
            if shards is not None:
                clip = send_to_device(clip, accelerator.device)
            output = prepared(clip.frames, clip.log_mel, clip.masks, clip.labelled, clip.valid)
            terms = objective(output, clip)
            accelerator.backward(terms["loss"])
            if max_grad_norm is not None:
                accelerator.clip_grad_norm_(prepared.parameters(), max_grad_norm)
            optimizer.step()
            if lr_scheduler is not None:
                lr_scheduler.step()
            optimizer.zero_grad()
            for name, term in terms.items():
                sums[name] += term.item()
            bar.update()
            bar.set_postfix(epoch=f"{epoch + 1}/{epochs}", loss=f"{terms['loss'].item():.3f}")
        record = {name: total / len(loader) for name, total in sums.items()}
        record |= {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        if validate is not None:
            record["validation"] = validate(accelerator.unwrap_model(prepared))
        is_best = validate is None or all(record["validation"] > old["validation"] for old in history)
        history.append(record)
        if is_best and accelerator.is_main_process:
            save_weights(accelerator.unwrap_model(prepared), best)
        _replace_checkpoint(accelerator, checkpoint, fresh, history)
    bar.close()
    accelerator.wait_for_everyone()
    load_weights(accelerator.unwrap_model(prepared), best)
    return history


def _replace_checkpoint(
    accelerator: Accelerator, checkpoint: Path, fresh: Path, history: list[dict[str, float]]
) -> None:
    """Write a new checkpoint beside the old one, then put it in its place."""
    accelerator.save_state(str(fresh))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (fresh / HISTORY).write_text(json.dumps(history), encoding="utf-8")
        shutil.rmtree(checkpoint, ignore_errors=True)
        fresh.rename(checkpoint)
    accelerator.wait_for_everyone()
