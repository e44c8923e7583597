"""A conditional VAE instead of the diffusion ("CVAE" in Table II of DiffusionAVS)."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
from typing import ClassVar

import torch
from torch import Generator, Tensor

from avslib.decoders import FPNHead, LatentInjection
from avslib.encoders import AudioEncoder, Neck, VisualEncoder
from avslib.fusion import PyramidFusion
from avslib.latent import GaussianEncoder
from avslib.models.base import AVSModel, every_frame
from avslib.models.output import Segmentation, VariationalTerms


class CVAESegmenter(AVSModel, paper_url="https://arxiv.org/abs/2307.16579"):
    """DiffusionAVS with a conditional VAE instead of the diffusion; encoders, decoder and D are the same.

    The prior p(z | x) sees the fused features, every level averaged over space. The posterior q(z | x, y)
    also sees the mask. In training the head decodes a sample of the posterior, in inference a sample of the
    prior. The paper draws this model (Fig. 3) but gives no sizes. The convolutions over the mask are as wide
    as those of :class:`~avslib.latent.GTEncoder`.

    Args:
        backbone: a timm model for the frames, see :class:`~avslib.encoders.VisualEncoder`.
        audio_encoder: ``"vggish"``, or ``"mel_cnn"`` for a small one that is trained from scratch.
        freeze_audio: whether to freeze the audio encoder. None freezes VGGish only.
        num_classes: K, channels of the logits.
        channels: c, width of every level after the neck.
        audio_channels: length of the audio embedding.
        latent_dim: D, length of the latent.
        window: seconds that attend to each other in the fusion; None for the whole clip, as in the paper.
            With 1, which is ours, a pixel attends only to the sound of its own second.

    Mao et al., "Contrastive Conditional Latent Diffusion for Audio-visual Segmentation", section IV-C,
    Fig. 3.
    """

    stochastic: ClassVar[bool] = True

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
        latent_dim: int = 24,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.visual_encoder = VisualEncoder(backbone)
        self.audio_encoder = AudioEncoder(audio_encoder, embedding_dim=audio_channels, frozen=freeze_audio)
        self.neck = Neck(self.visual_encoder.channels, channels)
        self.fusion = PyramidFusion(channels, audio_channels=audio_channels, window=window)
        self.prior = GaussianEncoder(latent_dim, vector_dim=len(self.neck) * channels)
        self.posterior = GaussianEncoder(
            latent_dim,
            vector_dim=len(self.neck) * channels,
            image_channels=1,
            widths=(16, 32, 64, 64, 64),
            summary_dim=channels,
        )
        self.inject = LatentInjection(channels, latent_dim=latent_dim)
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
        """Segment frames with embedded sound; see :meth:`AVSModel.forward`.

        Given masks in training mode, labelled frames are decoded from the posterior, others from the prior.
        """
        size = (frames.shape[-2], frames.shape[-1])
        levels = self.neck(self.visual_encoder(frames.flatten(0, 1)))
        pyramid = self.fusion(
            [level.unflatten(0, frames.shape[:2]) for level in levels], audio, valid
        ).pyramid
        summary = torch.cat([level.mean(dim=(-2, -1)) for level in pyramid], dim=-1)
        prior = self.prior(vector=summary)
        terms = None
        if masks is not None:
            labelled = every_frame(frames) if labelled is None else labelled
            shown = (masks[labelled] > 0).unsqueeze(1).to(summary.dtype)
            terms = VariationalTerms(
                self.posterior(image=shown, vector=summary[labelled]), prior.select(labelled)
            )
            if self.training:
                latent = prior.sample(generator=generator).masked_scatter(
                    labelled[..., None], terms.posterior.sample(generator=generator)
                )
                return Segmentation(self.decode(pyramid, latent, size=size), terms=terms)
        latents = prior.expand(num_samples).sample(generator=generator)
        return Segmentation.of_samples(self.decode(pyramid, latents, size=size), terms)

    def decode(self, pyramid: list[Tensor], latent: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Turn fused features and latents ``(..., B, T, D)`` into logits ``(..., B, T, K, H, W)``."""
        return self.head([*pyramid[:-1], self.inject(pyramid[-1], latent)], size=size)
