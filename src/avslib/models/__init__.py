"""Blocks wired as in one paper; one paper, one file."""

from avslib.models.diffusion_avs import HALF_SAMPLED, DiffusionAVS, Encoded
from avslib.models.output import LatentTerms, Segmentation

__all__ = ["HALF_SAMPLED", "DiffusionAVS", "Encoded", "LatentTerms", "Segmentation"]
