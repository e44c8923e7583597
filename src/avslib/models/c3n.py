"""C3N: attention guided by the class on which frame and sound agree (Shi et al., 2023)."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
from typing import Self

import torch
from torch import Generator, Tensor

from avslib.decoders import TopDownDecoder
from avslib.encoders import (
    ASPPNeck,
    AudioEncoder,
    AudioSetHead,
    PCAQuantizer,
    VisualClassifier,
    scale_quantized,
)
from avslib.fusion import ConsensusAttention, PyramidFusion
from avslib.models.base import AVSModel
from avslib.models.output import Segmentation


class C3N(AVSModel, paper_url="https://arxiv.org/abs/2310.06259"):
    """Cross-modal cognitive consensus guided network.

    One classifier scores what is seen, another what is heard. The consensus is the pair of classes that is
    most likely and whose names are closest in meaning. The gradient of its visual score shows which channels
    of the backbone speak for it, and an attention weights them before neck, TPAVI and decoder.

    Two things are missing from the published checkpoints; both are saved with the model. One is the weights
    of the audio classifier: load them with ``model.audio_classifier.load_state_dict``. The other is the
    similarity of the classes' names: compute it with :func:`~avslib.fusion.label_similarity` and pass it to
    ``model.consensus.set_similarity``. Until then, calling the model is an error.

    Args:
        backbone: a timm classifier for the frames, see :class:`~avslib.encoders.VisualClassifier`.
        audio_encoder: ``"vggish"``, or ``"mel_cnn"`` for a small one that is trained from scratch.
        freeze_audio: whether to freeze the audio encoder. None freezes VGGish only.
        num_classes: K, channels of the logits.
        channels: C, width of every level after the neck.
        audio_channels: length of the audio embedding.
        num_visual_classes: number of classes of the visual classifier; ImageNet has 1000.
        num_audio_classes: number of classes of the audio classifier; AudioSet has 527.
        alpha: power that flattens the classifiers' probabilities.
        window: seconds that attend to each other in the fusion; None for the whole clip, as in the paper.
            With 1, which is ours, a pixel attends only to the sound of its own second.

    Shi et al., "Cross-modal Cognitive Consensus guided Audio-Visual Segmentation".
    """

    audio_encoder: AudioEncoder

    def __init__(
        self,
        backbone: str = "pvt_v2_b5",
        *,
        audio_encoder: str = "vggish",
        freeze_audio: bool | None = None,
        num_classes: int = 1,
        channels: int = 256,
        audio_channels: int = 128,
        num_visual_classes: int = 1000,
        num_audio_classes: int = 527,
        alpha: float = 0.1,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.visual_encoder = VisualClassifier(backbone, num_classes=num_visual_classes)
        self.audio_encoder = AudioEncoder(audio_encoder, embedding_dim=audio_channels, frozen=freeze_audio)
        is_vggish = audio_encoder == "vggish"
        self.quantizer = PCAQuantizer(embedding_dim=audio_channels) if is_vggish else None
        self.audio_classifier = AudioSetHead(in_channels=audio_channels, num_classes=num_audio_classes)
        self.audio_classifier.requires_grad_(False)
        self.consensus = ConsensusAttention(num_visual_classes, num_audio_classes, alpha=alpha)
        self.neck = ASPPNeck(self.visual_encoder.channels, channels)
        self.fusion = PyramidFusion(channels, audio_channels=audio_channels, window=window)
        self.decoder = TopDownDecoder(channels, num_classes=num_classes)

    def segment(
        self,
        frames: Tensor,
        audio: Tensor | None,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Segmentation:
        """Segment frames with embedded sound, which is classified here; see :meth:`AVSModel.forward`."""
        assert audio is not None
        with torch.no_grad():
            audio_scores = self.score_sound(audio)
        return self.segment_with_scores(frames, audio, audio_scores, valid)

    def score_sound(self, audio: Tensor) -> Tensor:
        """Return the class scores of embedded sound ``(..., A)``: logits ``(..., J)``."""
        embedding = audio if self.quantizer is None else scale_quantized(self.quantizer(audio))
        return self.audio_classifier(embedding.unsqueeze(-2))  # each second is one time step

    def segment_with_scores(
        self, frames: Tensor, audio: Tensor, audio_scores: Tensor, valid: Tensor | None = None
    ) -> Segmentation:
        """Segment frames with embedded sound ``(B, T, A)`` and its class scores, logits ``(B, T, J)``."""
        seen = self.visual_encoder(frames.flatten(0, 1))
        attended, _ = self.consensus(*seen, audio_scores.flatten(0, 1))
        levels = [level.unflatten(0, frames.shape[:2]) for level in self.neck(attended)]
        fused = self.fusion(levels, audio, valid)
        return Segmentation(self.decoder(fused.pyramid, size=(frames.shape[-2], frames.shape[-1])))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the audio classifier stays in evaluation mode, since no loss reaches it."""
        super().train(mode)
        self.audio_classifier.eval()
        return self
