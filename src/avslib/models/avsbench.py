"""The AVSBench baseline: a pyramid fused with the sound by TPAVI, decoded top-down (Zhou et al., 2022)."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
from collections.abc import Sequence

from torch import Generator, Tensor

from avslib.decoders import TopDownDecoder
from avslib.encoders import AudioEncoder, DilatedNeck, VisualEncoder
from avslib.fusion import PyramidFusion
from avslib.models.base import AVSModel
from avslib.models.output import MatchingTerms, Segmentation


class AVSBenchBaseline(AVSModel, paper_url="https://arxiv.org/abs/2207.05042"):
    """The baseline that came with the benchmark.

    It has a backbone, dilated convolutions, TPAVI at every level and a top-down decoder. It computes the same
    as the published implementation, so that published weights load
    (:func:`~avslib.models.weights.from_reference`). This includes the rectified skip connections that result
    from an in-place ReLU in the published code, see :class:`~avslib.decoders.TopDownDecoder`.

    Args:
        backbone: a timm model for the frames, see :class:`~avslib.encoders.VisualEncoder`.
        audio_encoder: ``"vggish"``, or ``"mel_cnn"`` for a small one that is trained from scratch.
        freeze_audio: whether to freeze the audio encoder. None freezes VGGish only. An encoder that no level
            hears is frozen.
        num_classes: K, channels of the logits; 71 in the semantic setting.
        channels: C, width of every level after the neck.
        audio_channels: length of the audio embedding.
        fused_levels: levels that TPAVI fuses, 0 being the finest; None for all four.
        attention: what a pixel attends to: ``"audio"``, ``"visual"``, or both, which are averaged.
        window: frames that attend to each other; None for all frames of a clip. The published code always
            uses 5, so that a 10-frame clip of the semantic setting is split into two windows.
        audio_bias: whether the layer that aligns the sound has a bias; False in the semantic setting.

    Zhou et al., "Audio-Visual Segmentation", ECCV 2022, sections 3 and 4.
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
        fused_levels: Sequence[int] | None = None,
        attention: Sequence[str] = ("audio",),
        window: int | None = None,
        audio_bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.visual_encoder = VisualEncoder(backbone)
        heard = "audio" in attention and (fused_levels is None or len(fused_levels) > 0)
        self.audio_encoder = AudioEncoder(
            audio_encoder, embedding_dim=audio_channels, frozen=freeze_audio if heard else True
        )
        self.neck = DilatedNeck(self.visual_encoder.channels, channels)
        self.fusion = PyramidFusion(
            channels,
            audio_channels=audio_channels,
            levels=fused_levels,
            attention=attention,
            window=window,
            audio_bias=audio_bias,
        )
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
        """Segment frames with embedded sound; see :meth:`AVSModel.forward`.

        ``output.terms`` holds the inputs of the matching losses; their features are rectified, as in the
        published code.
        """
        levels = self.neck(self.visual_encoder(frames.flatten(0, 1)))
        fused = self.fusion([level.unflatten(0, frames.shape[:2]) for level in levels], audio, valid)
        logits = self.decoder(fused.pyramid, size=(frames.shape[-2], frames.shape[-1]))
        heard = [(x, a) for x, a in zip(fused.pyramid, fused.audio, strict=True) if a is not None]
        terms = MatchingTerms([x.relu() for x, _ in heard], [a for _, a in heard]) if heard else None
        return Segmentation(logits, terms=terms)
