"""Conditional diffusion of a latent: add noise to it, and sample it with a diffusers scheduler."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from avslib._checks import check_one_of, check_positive
from avslib.latent.denoiser import NoiseEstimator
from avslib.latent.linear_steps import PREDICTION_TYPES, LinearStep, linear_steps, read_output, step_down


class Scheduler(Protocol):
    """Interface that :class:`LatentCondDiffusion` needs; diffusers' schedulers with noise levels fit."""

    config: Any
    timesteps: Tensor
    alphas_cumprod: Tensor
    init_noise_sigma: Any

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps of a sampling run."""

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """Scale a sample as in training."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor) -> Any:
        """Go one timestep down."""


class Denoising(NamedTuple):
    """One training step of the diffusion; fields are ``(..., D)`` unless stated otherwise."""

    noise: Tensor
    """The noise that was added."""
    predicted_noise: Tensor
    """The noise that the denoiser predicted."""
    estimate: Tensor
    """The estimate of z0 that follows from that prediction."""
    noisy: Tensor
    """The noisy latent, z_k."""
    timestep: Tensor
    """Noise level k of each latent, ``(...)`` int64."""
    signal: Tensor
    """Factor that scales the latent at that level, ``(..., 1)``."""


def cosine_ddim(
    num_train_timesteps: int = 20,
    *,
    prediction_type: str = "v_prediction",
    timestep_spacing: str = "trailing",
) -> Any:
    """Make the paper's scheduler: DDIM over 20 noise levels with the cosine schedule.

    Three of diffusers' defaults do not suit latents and are replaced. Clipping the estimate of z0 to [-1, 1]
    is turned off, because a latent has no such bound. ``prediction_type`` and ``timestep_spacing`` were
    chosen by measurement; the numbers are in the docs, "The paper's tables, asked again".

    Args:
        num_train_timesteps: K, number of noise levels.
        prediction_type: what the network predicts. The diffusion loss compares the noise by default (eq. 9),
            whatever the network predicts. With ``"epsilon"``, the noise itself, the estimate of z0 is a small
            difference of large numbers where there is hardly any signal: at level 19 (alpha-bar 6e-6) an
            error of 0.2 in the noise becomes one of 80 in z0. With ``"v_prediction"`` the noise is
            spread * z_k + signal * output (Salimans and Ho 2022), and z0 is as exact as the output. But the
            output is scaled by the signal, so the loss of the noise hardly trains it at the levels where
            sampling begins (see ``diffusion`` of :class:`~avslib.training.DiffusionAVSObjective`).
        timestep_spacing: which levels a shorter sampling run visits. With K = 20 and 10 steps ``"leading"``
            starts at level 18, where a trace of the signal is left (alpha-bar 0.006) that pure noise lacks;
            ``"trailing"`` starts at 19. ``"trailing"`` with ``"epsilon"`` samples latents that are dozens of
            times too wide.

    Mao et al., DiffusionAVS, section IV-A; Nichol and Dhariwal 2021 for the schedule; Song et al. 2021 for
    DDIM.
    """
    from diffusers import DDIMScheduler

    check_one_of("prediction_type", prediction_type, PREDICTION_TYPES)
    check_one_of("timestep_spacing", timestep_spacing, ("leading", "linspace", "trailing"))
    return DDIMScheduler(
        num_train_timesteps=num_train_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction_type,
        clip_sample=False,
        timestep_spacing=timestep_spacing,
    )


class LatentCondDiffusion(nn.Module):
    """Conditional latent diffusion, which learns p(z0 | c) by predicting noise and samples from it.

    Args:
        denoiser: ``(noisy latent (..., D), timestep (...), condition (..., C)) -> (..., D)``, such as
            :class:`~avslib.latent.NoiseEstimator`.
        latent_dim: D, length of the latent.
        scheduler: a diffusers scheduler with noise levels (DDPM, DDIM, DPM-Solver++, UniPC, Euler, ...); None
            for :func:`cosine_ddim`. Training reads its ``alphas_cumprod`` and its ``prediction_type``.
            Sampling calls ``step`` of a copy, except for DDIM without clipping, whose steps are computed
            here. The scheduler may be replaced between calls.
        num_inference_steps: number of steps of a sampling run.

    Raises:
        ValueError: if the scheduler has no ``alphas_cumprod``, an unknown prediction type, or fewer levels
            than ``num_inference_steps``.

    Mao et al., DiffusionAVS, section III-A, equations 2 to 9.

    Example:
        >>> from avslib.latent import NoiseEstimator
        >>> diffusion = LatentCondDiffusion(NoiseEstimator())
        >>> diffusion.sample(torch.zeros(2, 5, 24), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 5, 24])
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        denoiser: nn.Module,
        *,
        latent_dim: int = 24,
        scheduler: Scheduler | None = None,
        num_inference_steps: int = 10,
    ) -> None:
        super().__init__()
        check_positive("num_inference_steps", num_inference_steps)
        self.denoiser = denoiser
        self.latent_dim = latent_dim
        self.num_inference_steps = num_inference_steps
        self.register_buffer("alphas_cumprod", torch.empty(0), persistent=False)
        self.scheduler = cosine_ddim() if scheduler is None else scheduler
        if num_inference_steps > len(self.alphas_cumprod):
            raise ValueError(
                f"num_inference_steps: expected at most the {len(self.alphas_cumprod)} levels of the "
                f"scheduler, got {num_inference_steps}"
            )

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler for training and sampling. Assign another to replace it; do not modify it."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler) -> None:
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"scheduler: expected one with noise levels (alphas_cumprod), such as DDIMScheduler, "
                f"got {type(scheduler).__name__}"
            )
        check_one_of("scheduler.config.prediction_type", scheduler.config.prediction_type, PREDICTION_TYPES)
        self._scheduler = scheduler
        self.alphas_cumprod = scheduler.alphas_cumprod.to(self.alphas_cumprod, copy=True)

    def add_noise(self, latent: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Return z_k of equation 5, ``(..., D)``, for latents at timesteps ``(...)``."""
        signal, spread = self._levels(timestep)
        return signal * latent + spread * noise

    def forward(self, latent: Tensor, condition: Tensor, *, generator: Generator | None = None) -> Denoising:
        """Add noise of a random level to each latent and predict it with the denoiser (equation 9).

        Args:
            latent: z0, ``(..., D)``.
            condition: c, ``(..., C)``, one for each latent.
            generator: source of the noise and the levels; None for PyTorch's default.
        """
        noise = _randn(latent, generator)
        timestep = torch.randint(
            len(self.alphas_cumprod),
            latent.shape[:-1],
            generator=generator,
            device=latent.device if generator is None else generator.device,
        ).to(latent.device)
        noisy = self.add_noise(latent, noise, timestep)
        output = self.denoiser(noisy, timestep, condition).float()
        signal, spread = self._levels(timestep)
        predicted, estimate = read_output(
            self.scheduler.config.prediction_type, output, noisy, signal, spread
        )
        return Denoising(noise, predicted, estimate, noisy, timestep, signal)

    @torch.no_grad()
    def sample(
        self, condition: Tensor, *, noise: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Turn noise into a latent, ``(..., D)`` (equation 8).

        Args:
            condition: c, ``(..., C)``; expand it by a leading axis to draw several samples per condition.
            noise: unit noise to start from, ``(..., D)``; None to draw it.
            generator: source of this noise, and of the noise that a stochastic scheduler adds in its steps.
                With the same seed on the same device the result is the same.

        Raises:
            ValueError: if ``noise`` has the wrong shape.
        """
        if noise is None:
            noise = _randn(condition.new_empty(*condition.shape[:-1], self.latent_dim), generator)
        expected = (*condition.shape[:-1], self.latent_dim)
        if noise.shape != expected:
            raise ValueError(f"noise: expected shape {expected}, got {tuple(noise.shape)}")
        steps = self._linear_steps()
        if steps is None:
            return self._sample_by_scheduler(condition, noise, generator)
        levels = [
            torch.full((), step.timestep, device=noise.device) for step in steps
        ]  # no copy from the host
        predict = self._predictor(torch.stack(levels), condition)
        latent, kind = noise.float(), self.scheduler.config.prediction_type
        for i, step in enumerate(steps):
            latent = step_down(step, kind, latent, predict(latent, i).float())
        return latent

    # A method, because the compiler of torch 2.11 refuses a scheduler as an argument of a constant function.
    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _linear_steps(self) -> tuple[LinearStep, ...] | None:
        return linear_steps(self.scheduler, self.num_inference_steps)

    def _sample_by_scheduler(self, condition: Tensor, noise: Tensor, generator: Generator | None) -> Tensor:
        scheduler = copy.deepcopy(self.scheduler)  # a run changes its state
        scheduler.set_timesteps(self.num_inference_steps, device=noise.device)
        extra = (
            {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        )
        predict = self._predictor(scheduler.timesteps, condition)
        latent = noise.float() * scheduler.init_noise_sigma
        for i, timestep in enumerate(scheduler.timesteps):
            output = predict(scheduler.scale_model_input(latent, timestep), i)
            latent = scheduler.step(output.float(), timestep, latent, **extra).prev_sample
        return latent

    def _predictor(self, timesteps: Tensor, condition: Tensor) -> Callable[[Tensor, int], Tensor]:
        """Return a function from a noisy latent and the index of a step to the denoiser's output."""
        denoiser = self.denoiser
        if type(denoiser) is not NoiseEstimator:
            return lambda noisy, i: denoiser(noisy, timesteps[i].expand(noisy.shape[:-1]), condition)
        fixed, of_step = denoiser.condition_terms(condition), denoiser.timestep_terms(timesteps)
        return lambda noisy, i: denoiser.denoise(noisy, fixed + of_step[i])

    def _levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of signal and noise at a timestep, each ``(..., 1)``."""
        alpha = self.alphas_cumprod[timestep][..., None]
        return alpha.sqrt(), (1 - alpha).sqrt()


def _randn(like: Tensor, generator: Generator | None) -> Tensor:
    """Return unit noise with the shape and device of a tensor, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device).to(like.device)
