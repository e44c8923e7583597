"""Logits and masks to scores, by named protocols; each score a function and an accumulator."""

from avslib.metrics.boundary import BoundaryF, JAndF, boundary_f
from avslib.metrics.calibration import CalibrationError, Reliability, calibration_error
from avslib.metrics.classes import class_f, class_iou
from avslib.metrics.dependence import OnsetAccuracy, g_measure, iou_drop, onset_counts
from avslib.metrics.f_score import FScore, f_curves, f_measure, f_score
from avslib.metrics.jaccard import MaskIoU, frame_iou, jaccard, mask_iou
from avslib.metrics.predicted_area import FalsePositiveRate, NullScore
from avslib.metrics.protocols import PROTOCOLS, READING
from avslib.metrics.semantic import SemanticFScore, SemanticIoU
from avslib.metrics.statistics import FrameStatistics, frame_statistics
from avslib.metrics.uncertainty import (
    EnergyDistance,
    SampleDiversity,
    SampleIoU,
    energy_distance,
    sample_diversity,
    sample_iou,
)

__all__ = [
    "PROTOCOLS",
    "READING",
    "BoundaryF",
    "CalibrationError",
    "EnergyDistance",
    "FScore",
    "FalsePositiveRate",
    "FrameStatistics",
    "JAndF",
    "MaskIoU",
    "NullScore",
    "OnsetAccuracy",
    "Reliability",
    "SampleDiversity",
    "SampleIoU",
    "SemanticFScore",
    "SemanticIoU",
    "boundary_f",
    "calibration_error",
    "class_f",
    "class_iou",
    "energy_distance",
    "f_curves",
    "f_measure",
    "f_score",
    "frame_iou",
    "frame_statistics",
    "g_measure",
    "iou_drop",
    "jaccard",
    "mask_iou",
    "onset_counts",
    "sample_diversity",
    "sample_iou",
]
