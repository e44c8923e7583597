"""Audio-visual segmentation: find, in every frame of a video, the pixels of what is making the sound.

Every public name is loaded when it is first used, so that ``import avslib`` costs next to nothing beyond
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from avslib._version import __version__
from avslib.clip import Clip

if TYPE_CHECKING:
    from avslib import data, decoders, encoders, fusion, latent, losses, media, metrics, models, training
    from avslib.data import AVSBenchMS3, AVSBenchS4, SyntheticAVS
    from avslib.decoders import FPNHead, LatentInjection
    from avslib.encoders import MelCNN, Neck, VGGish, VisualEncoder
    from avslib.fusion import TPAVI
    from avslib.latent import ConditionEncoder, GTEncoder, LatentCondDiffusion, NoiseEstimator
    from avslib.losses import InfoNCE
    from avslib.media import LogMel
    from avslib.metrics import FScore, MaskIoU
    from avslib.models import DiffusionAVS, Segmentation

__all__ = [
    "TPAVI",
    "AVSBenchMS3",
    "AVSBenchS4",
    "Clip",
    "ConditionEncoder",
    "DiffusionAVS",
    "FPNHead",
    "FScore",
    "GTEncoder",
    "InfoNCE",
    "LatentCondDiffusion",
    "LatentInjection",
    "LogMel",
    "MaskIoU",
    "MelCNN",
    "Neck",
    "NoiseEstimator",
    "Segmentation",
    "SyntheticAVS",
    "VGGish",
    "VisualEncoder",
    "__version__",
    "data",
    "decoders",
    "encoders",
    "fusion",
    "latent",
    "losses",
    "media",
    "metrics",
    "models",
    "training",
]

_FOLDER = {
    "AVSBenchMS3": "data",
    "AVSBenchS4": "data",
    "SyntheticAVS": "data",
    "FPNHead": "decoders",
    "LatentInjection": "decoders",
    "MelCNN": "encoders",
    "Neck": "encoders",
    "VGGish": "encoders",
    "VisualEncoder": "encoders",
    "TPAVI": "fusion",
    "ConditionEncoder": "latent",
    "GTEncoder": "latent",
    "LatentCondDiffusion": "latent",
    "NoiseEstimator": "latent",
    "InfoNCE": "losses",
    "LogMel": "media",
    "FScore": "metrics",
    "MaskIoU": "metrics",
    "DiffusionAVS": "models",
    "Segmentation": "models",
}


def __getattr__(name: str) -> Any:
    """Load a public name, or a folder, when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    folder = importlib.import_module(f"{__name__}.{_FOLDER.get(name, name)}")
    value = getattr(folder, name) if name in _FOLDER else folder
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
