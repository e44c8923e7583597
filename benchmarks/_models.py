"""Models and clips for the benchmarks: presets with random weights, clips of noise, ways to run a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from _measure import Run, Timing
from _plain import densify, fill
from torch import nn

from avslib.clip import Clip
from avslib.fusion import TPAVI
from avslib.models import C3N, AVSModel, create_model, list_models

DENSE = "dense"
"""The way that all others are compared with."""


def find(patterns: list[str]) -> list[str]:
    """Return the names of the presets that match any of the patterns, without duplicates."""
    return list(dict.fromkeys(name for pattern in patterns for name in list_models(pattern)))


def make_model(name: str, device: torch.device) -> AVSModel:
    """Build a preset, always with the same weights, in which every part affects the result."""
    torch.manual_seed(0)
    model = create_model(name)
    fill(model)
    if isinstance(model, C3N):  # normal: the best pair of classes must stand out beyond rounding errors
        model.consensus.set_similarity(torch.randn_like(model.consensus.similarity))
    return model.to(device)


def make_clip(model: AVSModel, *, batch: int, frames: int, size: int, device: torch.device) -> Clip:
    """Return a batch of clips of noise with ground truth in every frame."""
    generator = torch.Generator().manual_seed(0)
    every = torch.ones(batch, frames, dtype=torch.bool)
    masks = torch.randint(max(2, model.num_classes), (batch, frames, size, size), generator=generator)
    return Clip(
        torch.randn(batch, frames, 3, size, size, generator=generator).to(device),
        torch.randn(batch, frames, 1, 96, 64, generator=generator).to(device),
        masks.to(device),
        every.to(device),
        every.to(device),
        tuple(map(str, range(batch))),
    )


def build(model: AVSModel, way: str) -> nn.Module:
    """Return a copy of a model prepared to run in the way that the words of ``way`` name.

    "dense": with the published TPAVI. "channels last": with channels-last weights. "checkpointed": the
    backbone keeps only the inputs of its stages and recomputes the rest. "compiled": by ``torch.compile``.
    "bf16" is left to the caller.
    """
    if way == DENSE:
        return densify(model)
    model = copy.deepcopy(model)
    if "checkpointed" in way:
        cast("Any", model.get_submodule("visual_encoder.backbone")).set_grad_checkpointing()
    if "channels last" in way:
        model = model.to(memory_format=torch.channels_last)
    if "compiled" not in way:
        return model
    from torch._inductor import config

    config.fallback_random = True  # to draw the same noise as without compiling
    return cast("nn.Module", torch.compile(model, dynamic=False))


def ways_of(model: AVSModel, ways: Sequence[str]) -> list[str]:
    """Return the ways that apply to a model: one without TPAVI has no dense way."""
    fused = any(isinstance(module, TPAVI) for module in model.modules())
    return [way for way in ways if fused or way != DENSE]


def compiler_problem(run: Run) -> str | None:
    """Call a compiled function for the first time; return the error if it cannot be compiled, else None."""
    try:
        run()
    except Exception as error:  # compilers have many exceptions of their own
        return str(error).strip().splitlines()[0]
    return None


def rates(timing: Timing, clips: int) -> dict[str, float]:
    """Return quantiles of clips per second; p10 is the slow end."""
    return {p: 1e3 * clips / timing.ms[q] for p, q in (("p10", "p90"), ("p50", "p50"), ("p90", "p10"))}


def show(row: Mapping[str, Any]) -> None:
    """Print a row of one model."""
    ms, speedup, rate = row["ms"], row["speedup"]["p50"], row["clips/s"]["p50"]
    print(f"  {row['implementation']:<36}{ms['p50']:9.1f} ({ms['p10']:.1f} to {ms['p90']:.1f})", end="")
    print(f"{speedup:8.2f}{rate:9.2f}{(row['bytes'] or 0) / 1e6:9.0f}", flush=True)
