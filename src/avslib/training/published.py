"""The training objective that a model's authors published."""

from __future__ import annotations

from torch import nn

from avslib._checks import check_one_of
from avslib.losses import CrossEntropy
from avslib.models import (
    C3N,
    ECMVAE,
    AudioBlind,
    AVSBenchBaseline,
    AVSModel,
    CVAESegmenter,
    DiffusionAVS,
    EncoderDecoder,
)
from avslib.training.objectives import (
    AVSBENCH_SETTINGS,
    AVSBenchObjective,
    C3NObjective,
    CVAEObjective,
    DiffusionAVSObjective,
    ECMVAEObjective,
    SegmentationObjective,
)


def published_objective(model: AVSModel, setting: str | None = None) -> nn.Module:
    """Return the training objective that a model's authors published.

    Args:
        model: a model of this library; an audio-blind one and an :class:`~avslib.models.EncoderDecoder` have
            only the cross-entropy.
        setting: ``"s4"``, ``"ms3"`` or ``"avss"``; None for ``"avss"`` if the model is multi-class, else
            ``"ms3"``.

    Returns:
        A module that maps the model's output and a clip to named loss terms; minimise ``"loss"``.

    Raises:
        ValueError: if the model's masks do not fit the setting (multi-class in AVSS, binary in the others),
            or if no multi-class objective was published for it.

    Example:
        >>> from avslib.models import create_model
        >>> published_objective(create_model("cvae.small")).kl_weight
        0.01
    """
    setting = setting or ("ms3" if model.num_classes == 1 else "avss")
    check_one_of("setting", setting, AVSBENCH_SETTINGS)
    of_classes = setting == "avss"
    if of_classes != (model.num_classes > 1):
        expected = "more than one class" if of_classes else "one class"
        raise ValueError(f"model: expected {expected} in {setting!r}, got num_classes={model.num_classes}")
    match model:
        case AVSBenchBaseline():
            return AVSBenchObjective.published(setting)
        case AudioBlind() | EncoderDecoder():
            return SegmentationObjective(CrossEntropy() if of_classes else None)
        case _ if of_classes:
            pass
        case DiffusionAVS():
            return DiffusionAVSObjective()
        case CVAESegmenter():
            return CVAEObjective()
        case ECMVAE():
            return ECMVAEObjective()
        case C3N():
            return C3NObjective()
    raise ValueError(
        f"model: no objective of {type(model).__name__} in {setting!r} was published; train_and_test takes "
        "any"
    )
