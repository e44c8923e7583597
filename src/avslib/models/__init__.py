"""Blocks wired as in one paper; one paper, one file."""

from avslib.models.diffusion_avs import DiffusionAVS, Encoded
from avslib.models.output import LatentTerms, Segmentation

__all__ = ["DiffusionAVS", "Encoded", "LatentTerms", "Segmentation"]
