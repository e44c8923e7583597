"""Models by name, with the sizes of their papers."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from avslib.models.audio_blind import AudioBlind
from avslib.models.avsbench import AVSBenchBaseline
from avslib.models.base import AVSModel
from avslib.models.c3n import C3N
from avslib.models.cvae import CVAESegmenter
from avslib.models.diffusion_avs import DiffusionAVS
from avslib.models.ecmvae import ECMVAE
from avslib.models.encoder_decoder import EncoderDecoder


class _Preset(NamedTuple):
    model: type[AVSModel]
    arguments: Mapping[str, Any]


_BACKBONES = ("resnet50", "pvt_v2_b5")
_SEMANTIC = {"num_classes": 71, "window": 5, "audio_bias": False}
_SMALL = {"backbone": "regnetx_002", "channels": 64}
_SMALL_SOUND = _SMALL | {"audio_encoder": "mel_cnn"}


def _presets() -> dict[str, _Preset]:
    families: dict[str, tuple[type[AVSModel], dict[str, Any], dict[str, Any]]] = {
        "audio_blind": (AudioBlind, {}, _SMALL),
        "audio_blind_temporal": (AudioBlind, {"temporal": True}, _SMALL),
        "avsbench": (AVSBenchBaseline, {}, _SMALL_SOUND),
        "avsbench_semantic": (AVSBenchBaseline, _SEMANTIC, _SMALL_SOUND),
        "c3n": (C3N, {}, _SMALL_SOUND),
        "cvae": (CVAESegmenter, {}, _SMALL_SOUND),
        "diffusion_avs": (DiffusionAVS, {}, _SMALL_SOUND),
        "ecmvae": (ECMVAE, {}, _SMALL_SOUND),
        "encoder_decoder": (EncoderDecoder, {}, _SMALL_SOUND),
        "encoder_decoder_film": (EncoderDecoder, {"fusion": "film"}, _SMALL_SOUND),
    }
    table = {}
    for family, (model, arguments, small) in families.items():
        for backbone in _BACKBONES:
            table[f"{family}.{backbone}"] = _Preset(model, {"backbone": backbone} | arguments)
        table[f"{family}.small"] = _Preset(model, arguments | small)
    return table


_PRESETS = _presets()


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that :func:`create_model` knows, sorted.

    A name is ``family.backbone``; ``family.small`` is a variant that trains from scratch on a CPU.

    Args:
        pattern: a shell-style pattern.

    Example:
        >>> list_models("ecmvae.*")
        ['ecmvae.pvt_v2_b5', 'ecmvae.resnet50', 'ecmvae.small']
    """
    return sorted(fnmatch.filter(_PRESETS, pattern))


def create_model(name: str, **overrides: Any) -> AVSModel:
    """Build a model with its paper's sizes and random weights.

    Args:
        name: one of :func:`list_models`.
        overrides: constructor arguments that replace those of the preset.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: if there is no such model; the message lists the nearest names.
        TypeError: if the model has no such argument; the message lists those it has.

    Example:
        >>> create_model("avsbench.small", num_classes=3).num_classes
        3
    """
    if name not in _PRESETS:
        nearest = difflib.get_close_matches(name, _PRESETS, n=3, cutoff=0.4)
        hint = f"; the nearest are {', '.join(nearest)}" if nearest else f"; expected one of {list_models()}"
        raise ValueError(f"name: expected a model of list_models(), got {name!r}{hint}")
    model, arguments = _PRESETS[name]
    known = inspect.signature(model).parameters
    unknown = [argument for argument in overrides if argument not in known]
    if unknown:
        raise TypeError(f"{unknown[0]}: {model.__name__} has no such argument; it has {', '.join(known)}")
    return model(**{**arguments, **overrides})
