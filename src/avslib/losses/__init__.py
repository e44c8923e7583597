"""Losses: tensors to scalar, as functions and as modules."""

from avslib.losses.contrastive import InfoNCE, info_nce, mutual_information_bound
from avslib.losses.disentangle import MutualInformation, difference_loss
from avslib.losses.matching import (
    AudioVisualMatching,
    VisualVisualMatching,
    audio_visual_matching,
    visual_visual_matching,
)
from avslib.losses.overlap import CrossEntropyDice, DiceLoss, StructureLoss, dice_loss, structure_loss
from avslib.losses.segmentation import (
    BinaryCrossEntropy,
    CrossEntropy,
    binary_cross_entropy,
    cross_entropy,
)

__all__ = [
    "AudioVisualMatching",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "CrossEntropyDice",
    "DiceLoss",
    "InfoNCE",
    "MutualInformation",
    "StructureLoss",
    "VisualVisualMatching",
    "audio_visual_matching",
    "binary_cross_entropy",
    "cross_entropy",
    "dice_loss",
    "difference_loss",
    "info_nce",
    "mutual_information_bound",
    "structure_loss",
    "visual_visual_matching",
]
