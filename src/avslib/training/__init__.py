"""A model, an objective and a dataset -> weights and scores."""

from avslib.training.evaluation import evaluate, latent_std
from avslib.training.figures import plot_history, plot_predictions
from avslib.training.objectives import DiffusionAVSObjective
from avslib.training.optim import warmup_cosine
from avslib.training.trainer import fit

__all__ = [
    "DiffusionAVSObjective",
    "evaluate",
    "fit",
    "latent_std",
    "plot_history",
    "plot_predictions",
    "warmup_cosine",
]
