"""Logits and masks to scores, by named protocols; each score a function and an accumulator."""

from avslib.metrics.boundary import BoundaryF, JAndF, boundary_f
from avslib.metrics.classes import class_f, class_iou
from avslib.metrics.f_score import FScore, f_curves, f_measure, f_score
from avslib.metrics.jaccard import MaskIoU, frame_iou, jaccard, mask_iou
from avslib.metrics.predicted_area import FalsePositiveRate, NullScore
from avslib.metrics.protocols import PROTOCOLS, READING
from avslib.metrics.semantic import SemanticFScore, SemanticIoU
from avslib.metrics.statistics import FrameStatistics, frame_statistics

__all__ = [
    "PROTOCOLS",
    "READING",
    "BoundaryF",
    "FScore",
    "FalsePositiveRate",
    "FrameStatistics",
    "JAndF",
    "MaskIoU",
    "NullScore",
    "SemanticFScore",
    "SemanticIoU",
    "boundary_f",
    "class_f",
    "class_iou",
    "f_curves",
    "f_measure",
    "f_score",
    "frame_iou",
    "frame_statistics",
    "jaccard",
    "mask_iou",
]
