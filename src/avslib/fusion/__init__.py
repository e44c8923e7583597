"""Pyramid + audio -> fused pyramid."""

from avslib.fusion.consensus import (
    ConsensusAttention,
    channel_spatial_attention,
    class_gradient_weights,
    consensus,
)
from avslib.fusion.pyramid import Fused, PyramidFusion
from avslib.fusion.similarity import label_similarity
from avslib.fusion.tpavi import TPAVI

__all__ = [
    "TPAVI",
    "ConsensusAttention",
    "Fused",
    "PyramidFusion",
    "channel_spatial_attention",
    "class_gradient_weights",
    "consensus",
    "label_similarity",
]
