"""DiffusionAVS: conditional latent diffusion with contrastive learning (Mao et al.)."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
from collections.abc import Mapping
from typing import NamedTuple, Self

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from huggingface_hub import PyTorchModelHubMixin
from torch import Generator, Tensor, nn

from avslib._checks import check_one_of, check_positive, check_shape
from avslib.decoders import FPNHead, LatentInjection
from avslib.encoders import MelCNN, Neck, VGGish, VisualEncoder
from avslib.fusion import TPAVI
from avslib.latent import ConditionEncoder, GTEncoder, LatentCondDiffusion, NoiseEstimator
from avslib.models.output import LatentTerms, Segmentation

AUDIO_ENCODERS = {"vggish": VGGish, "mel_cnn": MelCNN}
LATENT_SOURCES = ("ground_truth", "noised", "one_step", "sampled")
MOSTLY_SAMPLED = {"ground_truth": 0.25, "sampled": 0.75}
"""A quarter of the frames is decoded from the truth, the others from a sample."""


class Encoded(NamedTuple):
    """What a clip says before any latent is drawn."""

    pyramid: list[Tensor]
    """Fused features, ``(B, T, C, h, w)`` each, finest first."""
    condition: Tensor
    """Code of frame and sound, ``(B, T, D)``."""


class DiffusionAVS(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="avslib",
    tags=["audio-visual-segmentation"],
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2307.16579",
    coders={
        SchedulerMixin: (
            lambda scheduler: {"name": type(scheduler).__name__, "config": dict(scheduler.config)},
            lambda stored: getattr(diffusers, stored["name"]).from_config(stored["config"]),
        )
    },
):
    """Audio-visual segmentation as conditional generation: a latent diffusion over codes of masks.

    A pyramid of frame features is fused with the sound by TPAVI; a diffusion over vectors, conditioned on
    frame and sound, draws the code of a mask; the FPN head turns pyramid and code into logits. In training
    the code of the ground truth is known, and ``decode_from`` says which code the head then sees.

    Args:
        backbone: a timm model for the frames, see :class:`~avslib.encoders.VisualEncoder`.
        audio_encoder: ``"vggish"``, or ``"mel_cnn"`` for a small one that is trained from scratch.
        freeze_audio: whether the audio encoder keeps its weights. None freezes VGGish only.
        num_classes: K, channels of the logits.
        channels: c, width of every level after the neck.
        audio_channels: length of the audio embedding.
        latent_dim: D, length of latent and condition (Table VI).
        condition: what the condition is made of: ``"none"``, ``"audio"``, ``"visual"`` or ``"audio_visual"``
            (Table III).
        decode_from: the latent that the head decodes in training; the paper does not say. One of
            ``"ground_truth"`` (z0), ``"noised"`` (z0 noised to a random level), ``"one_step"`` (the estimate
            of z0 from such a one), ``"sampled"`` (a whole reverse pass, without gradient); or a mapping from
            these to weights, and every frame draws its own. The default was chosen by measurement: the truth
            keeps the code meaningful, the samples keep the head from needing more than the sampler can give;
            the numbers are in the docs, "What the demo measures".
        detach_diffusion: whether the diffusion loss leaves the ground-truth encoder alone. It would otherwise
            collapse it: a constant code is the easiest to denoise.
        normalize_latent: whether z0 has unit variance, see :class:`~avslib.latent.GTEncoder`.
        scheduler: a diffusers scheduler; None for :func:`~avslib.latent.cosine_ddim`, K = 20.
        num_inference_steps: sampling steps.

    Raises:
        ValueError: if an argument is not one of its words.

    Mao et al., "Contrastive Conditional Latent Diffusion for Audio-visual Segmentation", section III.
    """

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
        condition: str = "audio_visual",
        decode_from: str | dict[str, float] = MOSTLY_SAMPLED,
        detach_diffusion: bool = True,
        normalize_latent: bool = True,
        scheduler: SchedulerMixin | None = None,
        num_inference_steps: int = 10,
    ) -> None:
        super().__init__()
        check_one_of("audio_encoder", audio_encoder, AUDIO_ENCODERS)
        self.decode_from = _latent_weights(decode_from)
        self.detach_diffusion = detach_diffusion
        self.visual_encoder = VisualEncoder(backbone)
        self.audio_encoder = AUDIO_ENCODERS[audio_encoder](embedding_dim=audio_channels)
        self.freeze_audio = audio_encoder == "vggish" if freeze_audio is None else freeze_audio
        self.audio_encoder.requires_grad_(not self.freeze_audio)
        self.neck = Neck(self.visual_encoder.channels, channels)
        self.fusion = nn.ModuleList(TPAVI(channels, audio_channels=audio_channels) for _ in self.neck)
        self.ground_truth_encoder = GTEncoder(latent_dim, normalize=normalize_latent)
        self.condition_encoder = ConditionEncoder(latent_dim, audio_channels=audio_channels, source=condition)
        self.diffusion = LatentCondDiffusion(
            NoiseEstimator(latent_dim, condition_dim=latent_dim),
            latent_dim=latent_dim,
            scheduler=scheduler,
            num_inference_steps=num_inference_steps,
        )
        self.inject = LatentInjection(channels, latent_dim=latent_dim)
        self.head = FPNHead(channels, channels=channels, num_classes=num_classes)

    def forward(
        self,
        frames: Tensor,
        log_mel: Tensor,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Segmentation:
        """Segment a batch of clips.

        Args:
            frames: ``(B, T, 3, H, W)``, ImageNet-normalised, ``H, W >= 32``.
            log_mel: VGGish log-mel examples, ``(B, T, 1, 96, 64)``.
            masks: ground truth, ``(B, T, H, W)``; with it the output carries what the objective needs, and in
                training mode the head decodes the latents that ``decode_from`` names.
            labelled: which frames have ground truth, ``(B, T)`` bool; None for all. Masks of other frames are
                not read.
            num_samples: S, latents to draw for every frame. The encoders run once; the logits are those of
                the mean probability, and ``output.samples`` holds each.
            generator: source of all noise; the same seed on the same device gives the same masks.

        Raises:
            ValueError: if a tensor has another shape; the message names it.
        """
        size = check_shape("frames", frames, "b t 3 h w")
        check_positive("num_samples", num_samples)
        encoded = self.encode(frames, log_mel)
        pixels = (size["h"], size["w"])
        terms = None
        if masks is not None:
            b, t = size["b"], size["t"]
            check_shape("masks", masks, "b t h w", **size)
            if labelled is None:
                labelled = torch.ones(b, t, dtype=torch.bool, device=frames.device)
            check_shape("labelled", labelled, "b t", b=b, t=t)
            terms, candidates = self._learn(encoded.condition, masks, labelled, generator)
            if self.training:
                latent = self._choose(encoded.condition, candidates, labelled, generator)
                return Segmentation(self.decode(encoded.pyramid, latent, size=pixels), terms=terms)
        condition = encoded.condition.expand(num_samples, *encoded.condition.shape)
        latents = self.diffusion.sample(condition, generator=generator)
        samples = self.decode(encoded.pyramid, latents, size=pixels)
        if num_samples == 1:
            return Segmentation(samples[0], terms=terms)
        return Segmentation(_logit_of_mean(samples), samples, terms)

    def encode(self, frames: Tensor, log_mel: Tensor) -> Encoded:
        """Fuse frames and sound; everything that does not depend on a latent."""
        size = check_shape("frames", frames, "b t 3 h w")
        check_shape("log_mel", log_mel, "b t 1 96 64", b=size["b"], t=size["t"])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_audio):
            audio = self.audio_encoder(log_mel)
        levels = self.neck(self.visual_encoder(frames.flatten(0, 1)))
        pyramid = [
            fuse(level.unflatten(0, frames.shape[:2]), audio)[0]
            for fuse, level in zip(self.fusion, levels, strict=True)
        ]
        return Encoded(pyramid, self.condition_encoder(frames, audio))

    def decode(self, pyramid: list[Tensor], latent: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Turn fused features and latents ``(..., B, T, D)`` into logits ``(..., B, T, K, H, W)``."""
        return self.head([*pyramid[:-1], self.inject(pyramid[-1], latent)], size=size)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen audio encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_audio:
            self.audio_encoder.eval()
        return self

    def _learn(
        self, condition: Tensor, masks: Tensor, labelled: Tensor, generator: Generator | None
    ) -> tuple[LatentTerms, dict[str, Tensor]]:
        """Encode the ground truth and denoise it; return also every latent that the head could decode."""
        latent = self.ground_truth_encoder(masks[labelled])
        if not len(latent):
            raise ValueError("labelled: expected at least one frame with ground truth, got none")
        step = self.diffusion(
            latent.detach() if self.detach_diffusion else latent, condition[labelled], generator=generator
        )
        terms = LatentTerms(
            latent, condition[labelled], step.noise, step.predicted_noise, labelled.nonzero()[:, 0]
        )
        noised = self.diffusion.add_noise(latent, step.noise, step.timestep)
        return terms, {"ground_truth": latent, "noised": noised, "one_step": step.estimate}

    def _choose(
        self,
        condition: Tensor,
        candidates: Mapping[str, Tensor],
        labelled: Tensor,
        generator: Generator | None,
    ) -> Tensor:
        """Draw the source of the latent that each frame is decoded from; without ground truth, sample."""
        weights = torch.tensor([self.decode_from.get(source, 0.0) for source in LATENT_SOURCES])
        drawn = torch.multinomial(
            weights if generator is None else weights.to(generator.device),
            labelled.numel(),
            replacement=True,
            generator=generator,
        )
        drawn = drawn.to(labelled.device).view_as(labelled)
        sampled = LATENT_SOURCES.index("sampled")
        drawn = torch.where(labelled, drawn, sampled)
        latent = condition.new_zeros(condition.shape, dtype=torch.float32)
        if (drawn == sampled).any():
            latent = self.diffusion.sample(condition, generator=generator)
        for i, source in enumerate(LATENT_SOURCES):
            if source in candidates and source in self.decode_from:
                latent = latent.masked_scatter(
                    (drawn == i)[..., None], candidates[source][drawn[labelled] == i]
                )
        return latent


def _latent_weights(decode_from: str | Mapping[str, float]) -> dict[str, float]:
    weights = {decode_from: 1.0} if isinstance(decode_from, str) else dict(decode_from)
    for source, weight in weights.items():
        check_one_of("decode_from", source, LATENT_SOURCES)
        check_positive(f"decode_from[{source!r}]", weight)
    return weights


def _logit_of_mean(samples: Tensor) -> Tensor:
    """The logit of the mean probability over samples, exact also where every probability rounds to 0 or 1."""
    log_on = torch.logsumexp(nn.functional.logsigmoid(samples.float()), dim=0)
    log_off = torch.logsumexp(nn.functional.logsigmoid(-samples.float()), dim=0)
    return log_on - log_off
