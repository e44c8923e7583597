"""DiffusionAVS without a latent ("E-D"): the head decodes the fused pyramid."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
from torch import Generator, Tensor

from avslib.decoders import FPNHead
from avslib.encoders import AudioEncoder, Neck, VisualEncoder
from avslib.fusion.by_name import pyramid_fusion
from avslib.models.base import AVSModel
from avslib.models.output import Segmentation


class EncoderDecoder(AVSModel, paper_url="https://arxiv.org/abs/2307.16579"):
    """DiffusionAVS without a latent: one deterministic pass, in which the head decodes the fused pyramid.

    Encoders, neck, fusion and head are those of :class:`~avslib.models.DiffusionAVS`, so that what the latent
    adds can be measured. On synthetic clips no gain was found, and this model with ``fusion="film"`` scores
    highest; see the docs, "The paper's tables, asked again". But it draws no samples, whose differences would
    show how uncertain a mask is.

    Args:
        backbone: a timm model for the frames, see :class:`~avslib.encoders.VisualEncoder`.
        audio_encoder: ``"vggish"``, or ``"mel_cnn"`` for a small one that is trained from scratch.
        freeze_audio: whether to freeze the audio encoder. None freezes VGGish only.
        num_classes: K, channels of the logits.
        channels: c, width of every level after the neck.
        audio_channels: length of the audio embedding.
        window: seconds that attend to each other in the fusion; None for the whole clip, as in the paper.
            With 1, which is ours, a pixel attends only to the sound of its own second.
        fusion: how the pyramid is fused with the sound: ``"tpavi"``, as in the paper, or ``"film"``, see
            :class:`~avslib.fusion.FiLM`. As with ``window=1``, ``"film"`` uses only the sound of the same
            second.

    Raises:
        ValueError: if an argument is not one of the allowed values, or ``fusion="film"`` is given a
            ``window`` of several seconds.

    Mao et al., "Contrastive Conditional Latent Diffusion for Audio-visual Segmentation", section IV-C: "E-D"
    feeds the fused features directly to the decoder. The paper adds that it is the same as AVSBench, whose
    neck and decoder are others, see :class:`~avslib.models.AVSBenchBaseline`.
    """

    audio_encoder: AudioEncoder

    def __init__(
        self,
        backbone: str = "pvt_v2_b5",
        *,
        audio_encoder: str = "vggish",
        freeze_audio: bool | None = None,
        num_classes: int = 1,
        channels: int = 128,
        audio_channels: int = 128,
        window: int | None = None,
        fusion: str = "tpavi",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.visual_encoder = VisualEncoder(backbone)
        self.audio_encoder = AudioEncoder(audio_encoder, embedding_dim=audio_channels, frozen=freeze_audio)
        self.neck = Neck(self.visual_encoder.channels, channels)
        self.fusion = pyramid_fusion(fusion, channels, audio_channels=audio_channels, window=window)
        self.head = FPNHead(channels, channels=channels, num_classes=num_classes)

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
        """Segment frames with embedded sound; see :meth:`AVSModel.forward`."""
        assert audio is not None
        levels = self.neck(self.visual_encoder(frames.flatten(0, 1)))
        fused = self.fusion([level.unflatten(0, frames.shape[:2]) for level in levels], audio, valid)
        return Segmentation(self.head(fused.pyramid, size=(frames.shape[-2], frames.shape[-1])))
