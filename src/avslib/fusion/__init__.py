"""Fusion: pyramid and audio to fused pyramid."""

from avslib.fusion.consensus import (
    ConsensusAttention,
    channel_spatial_attention,
    class_gradient_weights,
    consensus,
)
from avslib.fusion.film import FiLM, PyramidFiLM
from avslib.fusion.pyramid import Fused, PyramidFusion
from avslib.fusion.similarity import label_similarity
from avslib.fusion.tpavi import TPAVI

__all__ = [
    "TPAVI",
    "ConsensusAttention",
    "FiLM",
    "Fused",
    "PyramidFiLM",
    "PyramidFusion",
    "channel_spatial_attention",
    "class_gradient_weights",
    "consensus",
    "label_similarity",
]
