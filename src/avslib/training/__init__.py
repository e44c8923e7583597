"""A model, an objective and a dataset -> weights and scores."""

from avslib.training.evaluation import evaluate, latent_std
from avslib.training.experiment import Result, Splits, format_result, open_data, run
from avslib.training.figures import plot_history, plot_predictions
from avslib.training.objectives import (
    AVSBenchObjective,
    C3NObjective,
    CVAEObjective,
    DiffusionAVSObjective,
    ECMVAEObjective,
    SegmentationObjective,
)
from avslib.training.optim import warmup_cosine
from avslib.training.recipe import SMALL, Recipe, add_arguments, parse_arguments
from avslib.training.trainer import fit

__all__ = [
    "SMALL",
    "AVSBenchObjective",
    "C3NObjective",
    "CVAEObjective",
    "DiffusionAVSObjective",
    "ECMVAEObjective",
    "Recipe",
    "Result",
    "SegmentationObjective",
    "Splits",
    "add_arguments",
    "evaluate",
    "fit",
    "format_result",
    "latent_std",
    "open_data",
    "parse_arguments",
    "plot_history",
    "plot_predictions",
    "run",
    "warmup_cosine",
]
