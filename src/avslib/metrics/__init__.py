"""Logits and masks to scores, by named protocols; each score a function and an accumulator."""

from avslib.metrics.f_score import FScore, f_curves, f_score
from avslib.metrics.jaccard import MaskIoU, frame_iou, mask_iou

__all__ = ["FScore", "MaskIoU", "f_curves", "f_score", "frame_iou", "mask_iou"]
