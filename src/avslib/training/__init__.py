"""Training, evaluation and experiments: from a model, an objective and a dataset to weights and scores."""

from avslib.encoders.state_dict import weights_sha256
from avslib.training.contact_sheet import plot_worst
from avslib.training.evaluation import evaluate, latent_statistics
from avslib.training.experiment import open_data, run
from avslib.training.figures import plot_history, plot_predictions
from avslib.training.folder_predictions import FolderPredictions, read_probability
from avslib.training.listening import format_listening, g_measures, listen, sound_protocols
from avslib.training.objectives import (
    AVSBenchObjective,
    C3NObjective,
    CVAEObjective,
    DiffusionAVSObjective,
    ECMVAEObjective,
    SegmentationObjective,
)
from avslib.training.optim import warmup_cosine
from avslib.training.prediction import ModelPredictions, Predictions, save_prediction
from avslib.training.pretraining import (
    CLASSES,
    LabelledSeconds,
    Right,
    measure_classifiers,
    pretrain_classifiers,
    pretrain_encoders,
    render_labelled,
    train_classifiers,
)
from avslib.training.provenance import describe_data, describe_model, describe_run
from avslib.training.published import published_objective
from avslib.training.recipe import (
    PAPER_RECIPES,
    SMALL,
    SMALL_PRETRAINED,
    Recipe,
    add_arguments,
    parse_arguments,
)
from avslib.training.run_folder import Result, Splits, format_result, train_and_test
from avslib.training.trainer import fit

__all__ = [
    "CLASSES",
    "PAPER_RECIPES",
    "SMALL",
    "SMALL_PRETRAINED",
    "AVSBenchObjective",
    "C3NObjective",
    "CVAEObjective",
    "DiffusionAVSObjective",
    "ECMVAEObjective",
    "FolderPredictions",
    "LabelledSeconds",
    "ModelPredictions",
    "Predictions",
    "Recipe",
    "Result",
    "Right",
    "SegmentationObjective",
    "Splits",
    "add_arguments",
    "describe_data",
    "describe_model",
    "describe_run",
    "evaluate",
    "fit",
    "format_listening",
    "format_result",
    "g_measures",
    "latent_statistics",
    "listen",
    "measure_classifiers",
    "open_data",
    "parse_arguments",
    "plot_history",
    "plot_predictions",
    "plot_worst",
    "pretrain_classifiers",
    "pretrain_encoders",
    "published_objective",
    "read_probability",
    "render_labelled",
    "run",
    "save_prediction",
    "sound_protocols",
    "train_and_test",
    "train_classifiers",
    "warmup_cosine",
    "weights_sha256",
]
