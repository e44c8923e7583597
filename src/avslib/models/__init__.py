"""Blocks wired as in one paper; one paper, one file."""

from avslib.models.diffusion_avs import MOSTLY_SAMPLED, DiffusionAVS, Encoded
from avslib.models.output import LatentTerms, Segmentation

__all__ = ["MOSTLY_SAMPLED", "DiffusionAVS", "Encoded", "LatentTerms", "Segmentation"]
