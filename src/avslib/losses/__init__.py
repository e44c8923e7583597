"""Tensors -> scalar: each loss a function and a module around it."""

from avslib.losses.contrastive import InfoNCE, info_nce, mutual_information_bound
from avslib.losses.segmentation import BinaryCrossEntropy, binary_cross_entropy

__all__ = [
    "BinaryCrossEntropy",
    "InfoNCE",
    "binary_cross_entropy",
    "info_nce",
    "mutual_information_bound",
]
