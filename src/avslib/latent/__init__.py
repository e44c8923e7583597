"""Mask <-> latent code, and the diffusion over codes."""

from avslib.latent.condition import ConditionEncoder
from avslib.latent.denoiser import NoiseEstimator
from avslib.latent.diffusion import Denoising, LatentCondDiffusion, Scheduler, cosine_ddim
from avslib.latent.ground_truth import GTEncoder

__all__ = [
    "ConditionEncoder",
    "Denoising",
    "GTEncoder",
    "LatentCondDiffusion",
    "NoiseEstimator",
    "Scheduler",
    "cosine_ddim",
]
