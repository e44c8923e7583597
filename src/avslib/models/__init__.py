"""Models, which combine the blocks as in their papers; one file per paper."""

from avslib.models.audio_blind import AudioBlind
from avslib.models.avsbench import AVSBenchBaseline
from avslib.models.base import AVSModel
from avslib.models.c3n import C3N
from avslib.models.cvae import CVAESegmenter
from avslib.models.diffusion_avs import MOSTLY_SAMPLED, DiffusionAVS, Encoded
from avslib.models.ecmvae import ECMVAE, Factors
from avslib.models.encoder_decoder import EncoderDecoder
from avslib.models.output import FactorTerms, LatentTerms, MatchingTerms, Segmentation, VariationalTerms
from avslib.models.presets import create_model, list_models
from avslib.models.saved import load_model

__all__ = [
    "C3N",
    "ECMVAE",
    "MOSTLY_SAMPLED",
    "AVSBenchBaseline",
    "AVSModel",
    "AudioBlind",
    "CVAESegmenter",
    "DiffusionAVS",
    "Encoded",
    "EncoderDecoder",
    "FactorTerms",
    "Factors",
    "LatentTerms",
    "MatchingTerms",
    "Segmentation",
    "VariationalTerms",
    "create_model",
    "list_models",
    "load_model",
]
