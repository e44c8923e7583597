"""The training loop, built on Accelerate: one or more processes, CPU or GPU, resumable."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from avslib._checks import check_positive
from avslib._jobs import permit_as_usual
from avslib.clip import Clip
from avslib.storage import ShardedClips
from avslib.training.checkpoint import load_weights, save_weights
from avslib.training.clip_order import own_order

if TYPE_CHECKING:
    from accelerate import Accelerator

HISTORY = "history.json"
_ORDER = "order.pt"
Objective = Callable[[Any, Clip], dict[str, torch.Tensor]]


def new_accelerator(*, accumulate: int = 1, cpu: bool = False) -> Accelerator:
    """Create the Accelerator of a run, with all its processes, on an accelerator device if there is one.

    Args:
        accumulate: number of batches whose mean gradient makes one optimizer step.
        cpu: whether to use the CPU even if there is an accelerator device.

    Raises:
        ValueError: if ``accumulate`` is not above 0.
    """
    from accelerate import Accelerator

    check_positive("accumulate", accumulate)
    return Accelerator(
        # without a GPU, several processes form one group only if Accelerate is told to use the CPU
        cpu=cpu or not torch.accelerator.is_available(),
        step_scheduler_with_optimizer=False,
        gradient_accumulation_steps=accumulate,
    )


def best_epoch(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the record of the first epoch with the highest validation score; NaN ranks lowest."""

    def score(record: dict[str, float]) -> float:
        return -math.inf if math.isnan(record["validation"]) else record["validation"]

    return max(history, key=score)


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
    """Train a model, and leave it with the weights of its best epoch.

    Args:
        model: called as ``model(frames, log_mel, masks, labelled, valid)``.
        objective: maps the model's output and the clip to named terms; ``"loss"`` is minimised.
        loader: yields batches of :class:`~avslib.clip.Clip`. :class:`~avslib.storage.ShardedClips` get a new
            order every epoch; with several processes they need ``uneven="drop"`` or ``"repeat"``, so that all
            processes take the same number of steps.
        optimizer: optimizer of the model's parameters.
        epochs: passes over the loader.
        run_dir: folder for ``checkpoint/`` (the last epoch, to resume from) and ``best.safetensors``.
        lr_scheduler: stepped after every optimizer step.
        validate: returns a score of the model, higher is better; called after every epoch to keep the weights
            of the best one. None keeps those of the last epoch.
        max_grad_norm: gradients with a larger norm are scaled down to this norm.
        accelerator: None for a default one, on a GPU if there is one. Create your own with
            ``step_scheduler_with_optimizer=False``, since the scheduler is stepped once per step whatever the
            number of processes. With ``gradient_accumulation_steps=N`` the optimizer steps after every N
            batches, by their mean gradient, and at the end of an epoch by that of the remaining ones.
        resume: whether to continue from ``checkpoint/`` if there is one, exactly as the uninterrupted run
            would have gone on, but for what worker processes draw at random. If False, it is removed.
        progress: whether to show a bar with the loss and the time left, on a terminal.

    Returns:
        One record per epoch: the mean of every term over all batches and processes, ``"epoch"``, the learning
        rate ``"lr"``, and with ``validate`` also ``"validation"``.

    Raises:
        ValueError: if the loader has no batch.
        FileNotFoundError: if a file of the checkpoint to resume from is missing.
    """
    from accelerate.utils import broadcast, send_to_device
    from tqdm import tqdm

    if accelerator is None:
        accelerator = new_accelerator()
    run_dir = Path(run_dir)
    checkpoint, best = run_dir / "checkpoint", run_dir / "best.safetensors"
    fresh = run_dir / "checkpoint.new"
    history: list[dict[str, float]] = []
    accelerator.free_memory()  # a checkpoint holds everything that was prepared, even for an earlier run
    prepared, optimizer, lr_scheduler = accelerator.prepare(model, optimizer, lr_scheduler)
    shards = loader.dataset if isinstance(loader.dataset, ShardedClips) else None
    if shards is None:  # shards are already split among processes; Accelerate would split them again
        loader = accelerator.prepare(loader)
    if len(loader) == 0:
        raise ValueError("loader: expected at least one batch in each process, got none")
    order = own_order(loader, processes=accelerator.num_processes)
    if accelerator.is_main_process:
        _clear_up(checkpoint, fresh, resume=resume)
    accelerator.wait_for_everyone()
    if resume and has_checkpoint(run_dir):
        _load_checkpoint(accelerator, checkpoint, order)
        history = json.loads((checkpoint / HISTORY).read_text(encoding="utf-8"))

    done = len(history)
    accumulate = accelerator.gradient_accumulation_steps
    left_over = len(loader) % accumulate
    bar = tqdm(
        total=epochs * len(loader),
        initial=done * len(loader),
        unit="batch",
        disable=None if progress and accelerator.is_main_process else True,
    )
    optimizer.zero_grad()  # what the model was used for before may have left gradients
    for epoch in range(done, epochs):
        prepared.train()
        sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=accelerator.device))
        if shards is not None:
            shards.set_epoch(epoch)
        for number, clip in enumerate(loader, start=1):
            if shards is not None:
                clip = send_to_device(clip, accelerator.device)
            # not accelerator.accumulate, which cannot tell where an epoch of shards ends
            is_step = number % accumulate == 0 or number == len(loader)
            # Accelerate divides by the number of batches of a full step
            share = accumulate / left_over if number > len(loader) - left_over else 1.0
            with nullcontext() if is_step else accelerator.no_sync(prepared):
                output = prepared(clip.frames, clip.log_mel, clip.masks, clip.labelled, clip.valid)
                terms = objective(output, clip)
                accelerator.backward(share * terms["loss"])
            if is_step:
                if max_grad_norm is not None:
                    accelerator.clip_grad_norm_(prepared.parameters(), max_grad_norm)
                optimizer.step()
                if lr_scheduler is not None:
                    lr_scheduler.step()
                optimizer.zero_grad()
            for name, term in terms.items():
                sums[name] += term.detach()
            if bar.update():  # the bar was drawn; reading every batch's loss would wait for the GPU
                bar.set_postfix(epoch=f"{epoch + 1}/{epochs}", loss=f"{terms['loss'].item():.3f}")
        means = accelerator.reduce(torch.stack([*sums.values()]) / len(loader), "mean")
        record = dict(zip(sums, means.tolist(), strict=True))
        record |= {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        if validate is not None:
            if accelerator.num_processes > 1:  # the first process's are kept
                broadcast([*model.buffers()])
            record["validation"] = validate(accelerator.unwrap_model(prepared))
        history.append(record)
        is_best = validate is None or best_epoch(history) is record
        if is_best and accelerator.is_main_process:
            save_weights(accelerator.unwrap_model(prepared, keep_torch_compile=False), best)
        _replace_checkpoint(accelerator, checkpoint, fresh, history, order)
    bar.close()
    accelerator.wait_for_everyone()
    # without the autocast that mixed precision puts around forward, which a loaded model does not have
    load_weights(accelerator.unwrap_model(prepared, keep_fp32_wrapper=False, keep_torch_compile=False), best)
    model.__dict__.pop("_is_accelerate_prepared", None)  # else a later run would not put it around again
    return history


def has_checkpoint(run_dir: Path) -> bool:
    """Return whether there is a complete checkpoint, even if a killed run had not moved it into place."""
    return any((run_dir / name / HISTORY).is_file() for name in ("checkpoint", "checkpoint.new"))


def _clear_up(checkpoint: Path, fresh: Path, *, resume: bool) -> None:
    """Finish moving the checkpoint of a killed run; without ``resume``, remove all checkpoints."""
    if not resume:
        for left in (checkpoint, fresh):
            shutil.rmtree(left, ignore_errors=True)
    elif (fresh / HISTORY).is_file():  # written last, so this checkpoint is complete; the other may not be
        _move(fresh, checkpoint)


def _load_checkpoint(accelerator: Accelerator, checkpoint: Path, order: torch.Generator | None) -> None:
    if order is not None and (checkpoint / _ORDER).is_file():  # a run without workers has none
        order.set_state(torch.load(checkpoint / _ORDER, weights_only=True))
    try:
        accelerator.load_state(str(checkpoint))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{checkpoint}: cannot be resumed, a file is missing: {error}") from error


def _replace_checkpoint(
    accelerator: Accelerator,
    checkpoint: Path,
    fresh: Path,
    history: list[dict[str, float]],
    order: torch.Generator | None,
) -> None:
    """Write a new checkpoint next to the old one, then replace the old one."""
    accelerator.save_state(str(fresh))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for weights in fresh.glob("*.safetensors"):
            permit_as_usual(weights)
        if order is not None:
            torch.save(order.get_state(), fresh / _ORDER)
        partial = fresh / "history.new"
        partial.write_text(json.dumps(history), encoding="utf-8")
        partial.replace(fresh / HISTORY)
        _move(fresh, checkpoint)
    accelerator.wait_for_everyone()


def _move(fresh: Path, checkpoint: Path) -> None:
    shutil.rmtree(checkpoint, ignore_errors=True)
    fresh.replace(checkpoint)
