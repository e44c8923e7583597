"""Reading an estimator's output, and the steps of DDIM as numbers, so that sampling needs no scheduler."""

from __future__ import annotations

import copy
import weakref
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


class LinearStep(NamedTuple):
    """The factors of signal and noise at a level and at the next lower one."""

    timestep: int
    """The level that is passed to the denoiser."""
    signal: float
    noise: float
    next_signal: float
    next_noise: float


Level = TypeVar("Level", float, Tensor)


def read_output(
    prediction_type: str, output: Tensor, noisy: Tensor, signal: Level, spread: Level
) -> tuple[Tensor, Tensor]:
    """Convert an estimator's output to the noise and the latent without noise, ``(..., D)`` each.

    Args:
        prediction_type: what the output is, in diffusers' terms: ``"epsilon"`` for the noise, ``"sample"``
            for the latent, ``"v_prediction"`` for the velocity, signal * noise - spread * latent.
        output: output of the estimator, ``(..., D)``.
        noisy: noisy latent that it was computed from, ``(..., D)``.
        signal: factor of the latent in ``noisy``.
        spread: factor of the noise in ``noisy``.
    """
    match prediction_type:
        case "epsilon":
            return output, (noisy - spread * output) / signal
        case "sample":
            return (noisy - signal * output) / spread, output
        case "v_prediction":
            return signal * output + spread * noisy, signal * noisy - spread * output
    raise ValueError(f"prediction_type: expected one of {PREDICTION_TYPES}, got {prediction_type!r}")


def step_down(step: LinearStep, prediction_type: str, latent: Tensor, output: Tensor) -> Tensor:
    """Return the next latent, ``(..., D)``, in diffusers' order of operations so that it rounds the same."""
    noise, estimate = read_output(prediction_type, output, latent, step.signal, step.noise)
    return step.next_signal * estimate + step.next_noise * noise


_known: weakref.WeakKeyDictionary[Any, dict[int, tuple[LinearStep, ...] | None]] = weakref.WeakKeyDictionary()


def linear_steps(scheduler: Any, num_inference_steps: int) -> tuple[LinearStep, ...] | None:
    """Return the steps of a run, with diffusers' numbers; None unless the scheduler is DDIM without clipping.

    The numbers are computed once.

    A step ends at the level where the next one begins. In diffusers it ends ``K // steps`` levels below its
    start. If levels are not evenly spaced (K = 20 in 7 steps), this is a different level, and the error in
    signal and noise stays in the latent.

    Args:
        scheduler: a diffusers scheduler; it is not modified.
        num_inference_steps: number of steps of the run.
    """
    runs = _known.setdefault(scheduler, {})
    if num_inference_steps not in runs:
        runs[num_inference_steps] = _read(copy.deepcopy(scheduler), num_inference_steps)
    return runs[num_inference_steps]


def _read(scheduler: Any, num_inference_steps: int) -> tuple[LinearStep, ...] | None:
    from diffusers import DDIMScheduler

    config = scheduler.config
    if type(scheduler) is not DDIMScheduler or config.clip_sample or config.thresholding:
        return None
    scheduler.set_timesteps(num_inference_steps)
    timesteps = scheduler.timesteps.tolist()
    levels = [*scheduler.alphas_cumprod[timesteps], scheduler.final_alpha_cumprod]
    return tuple(
        LinearStep(timestep, *(float(x**0.5) for x in (level, 1 - level, below, 1 - below)))
        for timestep, (level, below) in zip(timesteps, pairwise(levels), strict=True)
    )
