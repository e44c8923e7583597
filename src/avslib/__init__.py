"""Audio-visual segmentation: find, in every frame of a video, the pixels of what is making the sound.

Every public name is loaded when it is first used, so ``import avslib`` takes little longer than
``import torch``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from avslib._version import __version__
from avslib.clip import Clip

if TYPE_CHECKING:
    from avslib import (
        curation,
        data,
        decoders,
        encoders,
        fusion,
        latent,
        losses,
        media,
        metrics,
        models,
        pipeline,
        storage,
        training,
    )
    from avslib.data import (
        VPO,
        AVSBenchMS3,
        AVSBenchS4,
        AVSBenchSemantic,
        ClipFolder,
        ClipTransform,
        MixedClips,
        SyntheticAVS,
    )
    from avslib.decoders import FPNHead, LatentInjection, TopDownDecoder
    from avslib.encoders import (
        ASPPNeck,
        AudioEncoder,
        AudioSetHead,
        DilatedNeck,
        MelCNN,
        Neck,
        PCAQuantizer,
        ReductionNeck,
        VGGish,
        VisualClassifier,
        VisualEncoder,
    )
    from avslib.fusion import TPAVI, ConsensusAttention, PyramidFusion
    from avslib.latent import (
        ConditionEncoder,
        DiagonalGaussian,
        GaussianEncoder,
        GTEncoder,
        LatentCondDiffusion,
        NoiseEstimator,
    )
    from avslib.losses import AudioVisualMatching, InfoNCE
    from avslib.media import LogMel
    from avslib.metrics import FScore, MaskIoU
    from avslib.models import (
        C3N,
        ECMVAE,
        AudioBlind,
        AVSBenchBaseline,
        AVSModel,
        CVAESegmenter,
        DiffusionAVS,
        EncoderDecoder,
        Segmentation,
        create_model,
        list_models,
        load_model,
    )
    from avslib.pipeline import VideoSegmenter
    from avslib.storage import ShardedClips

__all__ = [
    "C3N",
    "ECMVAE",
    "TPAVI",
    "VPO",
    "ASPPNeck",
    "AVSBenchBaseline",
    "AVSBenchMS3",
    "AVSBenchS4",
    "AVSBenchSemantic",
    "AVSModel",
    "AudioBlind",
    "AudioEncoder",
    "AudioSetHead",
    "AudioVisualMatching",
    "CVAESegmenter",
    "Clip",
    "ClipFolder",
    "ClipTransform",
    "ConditionEncoder",
    "ConsensusAttention",
    "DiagonalGaussian",
    "DiffusionAVS",
    "DilatedNeck",
    "EncoderDecoder",
    "FPNHead",
    "FScore",
    "GTEncoder",
    "GaussianEncoder",
    "InfoNCE",
    "LatentCondDiffusion",
    "LatentInjection",
    "LogMel",
    "MaskIoU",
    "MelCNN",
    "MixedClips",
    "Neck",
    "NoiseEstimator",
    "PCAQuantizer",
    "PyramidFusion",
    "ReductionNeck",
    "Segmentation",
    "ShardedClips",
    "SyntheticAVS",
    "TopDownDecoder",
    "VGGish",
    "VideoSegmenter",
    "VisualClassifier",
    "VisualEncoder",
    "__version__",
    "create_model",
    "curation",
    "data",
    "decoders",
    "encoders",
    "fusion",
    "latent",
    "list_models",
    "load_model",
    "losses",
    "media",
    "metrics",
    "models",
    "pipeline",
    "storage",
    "training",
]

_FOLDER = {
    "AVSBenchMS3": "data",
    "AVSBenchS4": "data",
    "AVSBenchSemantic": "data",
    "ClipFolder": "data",
    "ClipTransform": "data",
    "MixedClips": "data",
    "ShardedClips": "storage",
    "SyntheticAVS": "data",
    "VPO": "data",
    "FPNHead": "decoders",
    "LatentInjection": "decoders",
    "TopDownDecoder": "decoders",
    "ASPPNeck": "encoders",
    "AudioEncoder": "encoders",
    "AudioSetHead": "encoders",
    "DilatedNeck": "encoders",
    "MelCNN": "encoders",
    "Neck": "encoders",
    "PCAQuantizer": "encoders",
    "ReductionNeck": "encoders",
    "VGGish": "encoders",
    "VisualClassifier": "encoders",
    "VisualEncoder": "encoders",
    "ConsensusAttention": "fusion",
    "PyramidFusion": "fusion",
    "TPAVI": "fusion",
    "ConditionEncoder": "latent",
    "DiagonalGaussian": "latent",
    "GTEncoder": "latent",
    "GaussianEncoder": "latent",
    "LatentCondDiffusion": "latent",
    "NoiseEstimator": "latent",
    "AudioVisualMatching": "losses",
    "InfoNCE": "losses",
    "LogMel": "media",
    "FScore": "metrics",
    "MaskIoU": "metrics",
    "AVSBenchBaseline": "models",
    "AVSModel": "models",
    "AudioBlind": "models",
    "C3N": "models",
    "CVAESegmenter": "models",
    "DiffusionAVS": "models",
    "ECMVAE": "models",
    "EncoderDecoder": "models",
    "Segmentation": "models",
    "create_model": "models",
    "list_models": "models",
    "load_model": "models",
    "VideoSegmenter": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Load a public name, or a subpackage, when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    folder = importlib.import_module(f"{__name__}.{_FOLDER.get(name, name)}")
    value = getattr(folder, name) if name in _FOLDER else folder
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
