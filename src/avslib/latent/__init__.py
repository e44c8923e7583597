"""Latent codes of masks: encoders, diffusion and Gaussian distributions."""

from avslib.latent.condition import ConditionEncoder, FusedConditionEncoder
from avslib.latent.denoiser import NoiseEstimator
from avslib.latent.diffusion import Denoising, LatentCondDiffusion, Scheduler, cosine_ddim
from avslib.latent.gaussian import (
    DiagonalGaussian,
    jensen_shannon_divergence,
    jensen_shannon_surrogate,
    kl_divergence,
    product_of_experts,
)
from avslib.latent.gaussian_encoder import GaussianEncoder
from avslib.latent.ground_truth import GTEncoder

__all__ = [
    "ConditionEncoder",
    "Denoising",
    "DiagonalGaussian",
    "FusedConditionEncoder",
    "GTEncoder",
    "GaussianEncoder",
    "LatentCondDiffusion",
    "NoiseEstimator",
    "Scheduler",
    "cosine_ddim",
    "jensen_shannon_divergence",
    "jensen_shannon_surrogate",
    "kl_divergence",
    "product_of_experts",
]
