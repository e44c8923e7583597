"""DiffusionAVS: conditional latent diffusion with contrastive learning (Mao et al.)."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Generator, Tensor

from avslib._checks import check_one_of, check_positive
from avslib.decoders import FPNHead, LatentInjection
from avslib.encoders import AudioEncoder, Neck, VisualEncoder
from avslib.fusion.by_name import pyramid_fusion
from avslib.latent import (
    ConditionEncoder,
    FusedConditionEncoder,
    GTEncoder,
    LatentCondDiffusion,
    NoiseEstimator,
)
from avslib.latent.condition import CONDITIONS
from avslib.models.base import AVSModel, every_frame
from avslib.models.output import LatentTerms, Segmentation

LATENT_SOURCES = ("ground_truth", "noised", "one_step", "sampled")
FUSED_CONDITIONS = {"fused": False, "clip": True}
"""Conditions made from the fused pyramid, and whether the seconds attend to each other."""
MOSTLY_SAMPLED = {"ground_truth": 0.25, "sampled": 0.75}
"""A quarter of the frames is decoded from the ground truth, the others from a sample."""


class Encoded(NamedTuple):
    """The parts of a clip's encoding that do not depend on a latent."""

    pyramid: list[Tensor]
    """Fused features, ``(B, T, C, h, w)`` each, finest first."""
    condition: Tensor
    """Code of frame and sound, ``(B, T, D)``."""


class DiffusionAVS(
    AVSModel,
    paper_url="https://arxiv.org/abs/2307.16579",
    coders={
        SchedulerMixin: (
            lambda scheduler: {"name": type(scheduler).__name__, "config": dict(scheduler.config)},
            lambda stored: getattr(diffusers, stored["name"]).from_config(stored["config"]),
        )
    },
):
    """Audio-visual segmentation as conditional generation: a latent diffusion over codes of masks.

    TPAVI fuses a pyramid of frame features with the sound. A diffusion over vectors, conditioned on frame and
    sound, draws the code of a mask. The FPN head turns pyramid and code into logits. In training the code of
    the ground truth is known, and ``decode_from`` selects the code that the head sees.

    Args:
        backbone: a timm model for the frames, see :class:`~avslib.encoders.VisualEncoder`.
        audio_encoder: ``"vggish"``, or ``"mel_cnn"`` for a small one that is trained from scratch.
        freeze_audio: whether to freeze the audio encoder. None freezes VGGish only.
        num_classes: K, channels of the logits.
        channels: c, width of every level after the neck.
        audio_channels: length of the audio embedding.
        latent_dim: D, length of latent and condition (Table VI).
        condition: source of the condition: ``"none"``, ``"audio"``, ``"visual"`` or ``"audio_visual"``
            (Table III). Two more are ours: ``"fused"`` reads the fused pyramid, and with ``"clip"`` the
            seconds also attend to each other, see :class:`~avslib.latent.FusedConditionEncoder`. With these
            two the head uses the latent more; for the effect see the docs, "The paper's tables, asked again".
        window: seconds that attend to each other in the fusion; None for the whole clip, as in the paper.
            With 1, which is ours, a pixel attends only to the sound of its own second; the effect is on the
            same page.
        fusion: how the pyramid is fused with the sound: ``"tpavi"``, as in the paper, or ``"film"``, which is
            ours, see :class:`~avslib.fusion.FiLM`. As with ``window=1``, ``"film"`` uses only the sound of
            the same second; the effect is on the same page.
        decode_from: the latent that the head decodes in training; the paper does not specify it. One of
            ``"ground_truth"`` (z0), ``"noised"`` (z0 with noise of a random level), ``"one_step"`` (the
            estimate of z0 from that) and ``"sampled"`` (a whole reverse pass, without gradient); or a mapping
            from these to weights, from which every frame draws its own. The default was chosen by
            measurement: with the ground truth alone the head needs more than the sampler can give, and with
            samples alone it ignores the latent. The numbers are in the docs, "The paper's tables, asked
            again" and "What the demo measures".
        detach_diffusion: whether to stop the gradient of the diffusion loss before the ground-truth encoder.
            Without this the encoder would collapse, since a constant code is the easiest to denoise.
        normalize_latent: whether z0 has unit variance, see :class:`~avslib.latent.GTEncoder`.
        scheduler: a diffusers scheduler; None for :func:`~avslib.latent.cosine_ddim`, K = 20.
        num_inference_steps: number of sampling steps.

    Raises:
        ValueError: if an argument is not one of the allowed values, or ``fusion="film"`` is given a
            ``window`` of several seconds.

    Mao et al., "Contrastive Conditional Latent Diffusion for Audio-visual Segmentation", section III.
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
        condition: str = "audio_visual",
        window: int | None = None,
        fusion: str = "tpavi",
        decode_from: str | dict[str, float] = MOSTLY_SAMPLED,
        detach_diffusion: bool = True,
        normalize_latent: bool = True,
        scheduler: SchedulerMixin | None = None,
        num_inference_steps: int = 10,
    ) -> None:
        super().__init__()
        check_one_of("condition", condition, (*CONDITIONS, *FUSED_CONDITIONS))
        self.num_classes = num_classes
        self.decode_from = decode_from
        self.detach_diffusion = detach_diffusion
        self.visual_encoder = VisualEncoder(backbone)
        self.audio_encoder = AudioEncoder(audio_encoder, embedding_dim=audio_channels, frozen=freeze_audio)
        self.neck = Neck(self.visual_encoder.channels, channels)
        self.fusion = pyramid_fusion(fusion, channels, audio_channels=audio_channels, window=window)
        self.ground_truth_encoder = GTEncoder(latent_dim, normalize=normalize_latent)
        self.condition_encoder: ConditionEncoder | FusedConditionEncoder = (
            FusedConditionEncoder(
                latent_dim,
                channels=channels,
                audio_channels=audio_channels,
                across_seconds=FUSED_CONDITIONS[condition],
            )
            if condition in FUSED_CONDITIONS
            else ConditionEncoder(latent_dim, audio_channels=audio_channels, source=condition)
        )
        self.diffusion = LatentCondDiffusion(
            NoiseEstimator(latent_dim, condition_dim=latent_dim),
            latent_dim=latent_dim,
            scheduler=scheduler,
            num_inference_steps=num_inference_steps,
        )
        self.inject = LatentInjection(channels, latent_dim=latent_dim)
        self.head = FPNHead(channels, channels=channels, num_classes=num_classes)

    @property
    def decode_from(self) -> dict[str, float]:
        """Weights of the latents that the head decodes in training; set it as in the constructor."""
        return self._decode_from

    @decode_from.setter
    def decode_from(self, decode_from: str | Mapping[str, float]) -> None:
        self._decode_from = _latent_weights(decode_from)

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

        Given masks in training mode, the head decodes the latents that ``decode_from`` selects, else samples.
        """
        assert audio is not None
        encoded = self.encode(frames, audio, valid)
        pixels = (frames.shape[-2], frames.shape[-1])
        labelled = every_frame(frames) if labelled is None else labelled
        if self.training and masks is not None:
            terms, candidates = self._learn(encoded.condition, masks, labelled, generator)
            latent = self._choose(encoded.condition, candidates, labelled, generator)
            return Segmentation(self.decode(encoded.pyramid, latent, size=pixels), terms=terms)
        condition = encoded.condition.expand(num_samples, *encoded.condition.shape)
        latents = self.diffusion.sample(condition, generator=generator)
        output = Segmentation.of_samples(self.decode(encoded.pyramid, latents, size=pixels))
        if masks is None:
            return output
        return output._replace(terms=self._learn(encoded.condition, masks, labelled, generator)[0])

    def encode(self, frames: Tensor, audio: Tensor, valid: Tensor | None = None) -> Encoded:
        """Encode frames and embedded sound ``(B, T, A)``: all that does not depend on a latent."""
        levels = self.neck(self.visual_encoder(frames.flatten(0, 1)))
        pyramid = [level.unflatten(0, frames.shape[:2]) for level in levels]
        fused = self.fusion(pyramid, audio, valid).pyramid
        if isinstance(self.condition_encoder, FusedConditionEncoder):
            return Encoded(fused, self.condition_encoder(fused, audio, valid))
        return Encoded(fused, self.condition_encoder(frames, audio))

    def decode(self, pyramid: list[Tensor], latent: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Turn fused features and latents ``(..., B, T, D)`` into logits ``(..., B, T, K, H, W)``."""
        return self.head([*pyramid[:-1], self.inject(pyramid[-1], latent)], size=size)

    def check_saveable(self) -> None:
        """Raise ``ValueError`` if the model cannot be saved; the scheduler must be one of diffusers' own."""
        kind = type(self.diffusion.scheduler)
        if getattr(diffusers, kind.__name__, None) is not kind:
            raise ValueError(f"scheduler: expected one of diffusers' own, got {kind.__name__}")
        super().check_saveable()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Save the model with its current scheduler, steps and ``decode_from``, which may have changed."""
        self.check_saveable()
        assert isinstance(self._hub_mixin_config, dict)
        self._hub_mixin_config |= {
            "scheduler": self._encode_arg(self.diffusion.scheduler),
            "num_inference_steps": self.diffusion.num_inference_steps,
            "decode_from": self.decode_from,
        }
        super()._save_pretrained(save_directory)

    def _learn(
        self, condition: Tensor, masks: Tensor, labelled: Tensor, generator: Generator | None
    ) -> tuple[LatentTerms, dict[str, Tensor]]:
        """Encode the ground truth and denoise it; also return the latents of it that the head may decode."""
        latent = self.ground_truth_encoder(masks[labelled])
        step = self.diffusion(
            latent.detach() if self.detach_diffusion else latent, condition[labelled], generator=generator
        )
        terms = LatentTerms(
            latent=latent,
            condition=condition[labelled],
            noise=step.noise,
            predicted_noise=step.predicted_noise,
            signal=step.signal,
            clip=labelled.nonzero()[:, 0],
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
        """Return each frame's latent, from a source drawn for it; frames without ground truth are sampled."""
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
            if source in candidates:  # even if none drew it: all processes of a group need the same graph
                chosen = candidates[source][drawn[labelled] == i]
                latent = latent.masked_scatter((drawn == i)[..., None], chosen.to(latent.dtype))
        return latent


def _latent_weights(decode_from: str | Mapping[str, float]) -> dict[str, float]:
    weights = {decode_from: 1.0} if isinstance(decode_from, str) else dict(decode_from)
    if not weights:
        raise ValueError("decode_from: expected at least one latent, got none")
    for source, weight in weights.items():
        check_one_of("decode_from", source, LATENT_SOURCES)
        check_positive(f"decode_from[{source!r}]", weight)
    return weights
