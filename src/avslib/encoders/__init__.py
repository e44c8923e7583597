"""Encoders: one modality to features."""

from avslib.encoders.audio import AudioEncoder
from avslib.encoders.audioset import AudioSetHead
from avslib.encoders.classifier import Classified, VisualClassifier
from avslib.encoders.mel_cnn import MelCNN
from avslib.encoders.neck import ASPPNeck, DilatedNeck, Neck, ReductionNeck
from avslib.encoders.pca import PCAQuantizer, scale_quantized
from avslib.encoders.state_dict import read_state_dict, unwrap_state_dict
from avslib.encoders.vggish import VGGish
from avslib.encoders.visual import VisualEncoder

__all__ = [
    "ASPPNeck",
    "AudioEncoder",
    "AudioSetHead",
    "Classified",
    "DilatedNeck",
    "MelCNN",
    "Neck",
    "PCAQuantizer",
    "ReductionNeck",
    "VGGish",
    "VisualClassifier",
    "VisualEncoder",
    "read_state_dict",
    "scale_quantized",
    "unwrap_state_dict",
]
