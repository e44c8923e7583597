"""Metrics of predicted masks, by named evaluation protocols, as functions and as accumulating classes."""

from avslib.metrics.boundary import BoundaryF, JAndF, boundary_f
from avslib.metrics.calibration import CalibrationError, Reliability, calibration_error
from avslib.metrics.class_measures import ClassBatch, semantic_measures
from avslib.metrics.classes import class_f, class_iou
from avslib.metrics.dependence import OnsetAccuracy, g_measure, iou_drop, onset_counts
from avslib.metrics.f_score import FScore, f_curves, f_measure, f_score
from avslib.metrics.jaccard import MaskIoU, frame_iou, jaccard, mask_iou
from avslib.metrics.measures import Batch, Measure, binary_measures
from avslib.metrics.predicted_area import FalsePositiveRate, NullScore
from avslib.metrics.protocols import PROTOCOLS, READING
from avslib.metrics.report import Prediction, report
from avslib.metrics.report_plots import (
    plot_categories,
    plot_classes,
    plot_iou_histogram,
    plot_pr_curve,
    plot_protocols,
    plot_report,
)
from avslib.metrics.report_record import Difference, Report, Score
from avslib.metrics.resampling import bootstrap, permutation_p_value
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
    "Batch",
    "BoundaryF",
    "CalibrationError",
    "ClassBatch",
    "Difference",
    "EnergyDistance",
    "FScore",
    "FalsePositiveRate",
    "FrameStatistics",
    "JAndF",
    "MaskIoU",
    "Measure",
    "NullScore",
    "OnsetAccuracy",
    "Prediction",
    "Reliability",
    "Report",
    "SampleDiversity",
    "SampleIoU",
    "Score",
    "SemanticFScore",
    "SemanticIoU",
    "binary_measures",
    "bootstrap",
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
    "permutation_p_value",
    "plot_categories",
    "plot_classes",
    "plot_iou_histogram",
    "plot_pr_curve",
    "plot_protocols",
    "plot_report",
    "report",
    "sample_diversity",
    "sample_iou",
    "semantic_measures",
]
