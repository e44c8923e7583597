"""Audio-blind models, which show how far vision alone gets; audio-visual numbers mean little without them."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
from torch import Generator, Tensor, nn

from avslib._checks import check_one_of
from avslib.decoders import FPNHead, TopDownDecoder
from avslib.encoders import DilatedNeck, Neck, VisualEncoder
from avslib.fusion import PyramidFusion
from avslib.models.base import AVSModel
from avslib.models.output import Segmentation

DECODERS = ("top_down", "fpn")


class AudioBlind(AVSModel):
    """An audio-visual model without the sound, for one frame at a time or with attention over the clip.

    Args:
        backbone: a timm model for the frames, see :class:`~avslib.encoders.VisualEncoder`.
        decoder: ``"top_down"`` with the dilated neck, as in AVSBench, or ``"fpn"`` with the plain neck, as in
            DiffusionAVS.
        temporal: whether all pixels of a clip attend to each other at every level (TPAVI without sound).
        num_classes: K, channels of the logits.
        channels: C, width of every level after the neck; None for 256 (``"top_down"``) or 128 (``"fpn"``).

    Raises:
        ValueError: if ``decoder`` is not one of the two.

    Mao et al., DiffusionAVS, Table I: the columns "VOS" and "SOD" show other networks without sound.
    """

    def __init__(
        self,
        backbone: str = "pvt_v2_b5",
        *,
        decoder: str = "top_down",
        temporal: bool = False,
        num_classes: int = 1,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        check_one_of("decoder", decoder, DECODERS)
        self.visual_encoder = VisualEncoder(backbone)
        self.audio_encoder = None
        self.neck: nn.ModuleList
        if decoder == "top_down":
            channels = 256 if channels is None else channels
            self.neck = DilatedNeck(self.visual_encoder.channels, channels)
            self.decoder: TopDownDecoder | FPNHead = TopDownDecoder(channels, num_classes=num_classes)
        else:
            channels = 128 if channels is None else channels
            self.neck = Neck(self.visual_encoder.channels, channels)
            self.decoder = FPNHead(channels, channels=channels, num_classes=num_classes)
        self.fusion = PyramidFusion(channels, levels=None if temporal else (), attention=("visual",))

    def segment(
        self,
        frames: Tensor,
        audio: Tensor | None = None,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Segmentation:
        """Segment frames; see :meth:`AVSModel.forward`. ``audio`` is ignored."""
        levels = self.neck(self.visual_encoder(frames.flatten(0, 1)))
        fused = self.fusion([level.unflatten(0, frames.shape[:2]) for level in levels], None, valid)
        return Segmentation(self.decoder(fused.pyramid, size=(frames.shape[-2], frames.shape[-1])))
