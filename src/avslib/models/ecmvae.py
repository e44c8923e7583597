"""ECMVAE: a code that frame and sound share, and one of each alone (Mao et al., ICCV 2023)."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
import functools
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from avslib._checks import check_one_of
from avslib.decoders import LatentInjection, TopDownDecoder
from avslib.encoders import AudioEncoder, DilatedNeck, ReductionNeck, VisualEncoder
from avslib.fusion import Fused, PyramidFusion
from avslib.latent import DiagonalGaussian, GaussianEncoder
from avslib.losses import MutualInformation
from avslib.models.base import AVSModel, every_frame
from avslib.models.output import FactorTerms, MatchingTerms, Segmentation, VariationalTerms

NECKS: dict[str, Callable[[Sequence[int], int], nn.ModuleList]] = {
    "reduction": ReductionNeck,
    "dilated": functools.partial(DilatedNeck, bias=False),
}
_T = TypeVar("_T")


class Factors(NamedTuple, Generic[_T]):
    """One item for each of the three factors, such as its distribution or its code."""

    visual: _T
    """Item of the factor that only the frame has."""
    audio: _T
    """Item of the factor that only the sound has."""
    shared: _T
    """Item of the factor that frame and sound share."""


class ECMVAE(AVSModel, paper_url="https://arxiv.org/abs/2310.08303"):
    """Explicit conditional multimodal variational auto-encoder.

    Six Gaussian encoders give a code of the frame alone, one of the sound alone and one that both share,
    each without the mask (prior) and with it (posterior). On each of these two sides, linear layers join the
    shared code with each of the other two. The results are tiled and written into the coarsest level, TPAVI
    fuses the pyramid with the sound, and a top-down decoder predicts the logits. The sides share TPAVI, but
    each has its own neck and decoder. Inference uses only the prior's side.

    As in the published code, evaluation also samples, so two calls differ; pass a generator to repeat one.

    Args:
        backbone: a timm model for the frames, see :class:`~avslib.encoders.VisualEncoder`.
        audio_encoder: ``"vggish"``, or ``"mel_cnn"`` for a small one that is trained from scratch.
        freeze_audio: whether to freeze the audio encoder. None freezes VGGish only.
        num_classes: K, channels of the logits.
        channels: C, width of every level after the neck, and of the audio embedding.
        latent_dim: D, length of each code.
        mutual_dim: hidden width of the mutual-information term between the two joined codes.
        neck: ``"reduction"`` (published default) or ``"dilated"`` (published as "aspp").
        grid: side of the grid before the latent heads, in cells; 224 x 224 gives the published 7, and other
            sizes are pooled to it.
        window: seconds that attend to each other in the fusion; None for the whole clip, as in the paper.
            With 1, which is ours, a pixel attends only to the sound of its own second.

    Raises:
        ValueError: if ``neck`` is not one of the two.

    Mao et al., "Multimodal Variational Auto-encoder based Audio-Visual Segmentation", ICCV 2023.
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
        latent_dim: int = 16,
        mutual_dim: int = 6,
        neck: str = "reduction",
        grid: int = 7,
        window: int | None = None,
    ) -> None:
        super().__init__()
        check_one_of("neck", neck, NECKS)
        self.num_classes = num_classes
        self.visual_encoder = VisualEncoder(backbone)
        self.audio_encoder = AudioEncoder(audio_encoder, embedding_dim=channels, frozen=freeze_audio)
        self.fusion = PyramidFusion(channels, audio_channels=None, normalize=True, window=window)
        self.prior, self.posterior = (
            _Side(
                NECKS[neck](self.visual_encoder.channels, channels),
                TopDownDecoder(
                    channels,
                    num_classes=num_classes,
                    unit="batch_norm",
                    upsample="nearest",
                    head_channels=(channels // 2, channels // 4),
                ),
                channels=channels,
                latent_dim=latent_dim,
                mutual_dim=mutual_dim,
                grid=grid,
                sees_mask=sees_mask,
            )
            for sees_mask in (False, True)
        )

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

        A frame without ground truth has its prior as its posterior.
        """
        assert audio is not None
        pyramid = self.visual_encoder(frames.flatten(0, 1))
        prior = self.prior.distributions(frames, audio)
        if self.training and masks is not None:
            num_samples = 1
        drawn = [_sample(prior, generator) for _ in range(num_samples)]
        unseen = drawn[0]
        levels = self.prior.neck(pyramid)
        first, fused = self.decode(levels, frames, audio, unseen, valid)
        more = [self.decode(levels, frames, audio, codes, valid)[0] for codes in drawn[1:]]
        output = Segmentation.of_samples(torch.stack([first, *more]))
        if masks is None:
            return output

        labelled = every_frame(frames) if labelled is None else labelled
        posterior = self.posterior.distributions(frames[labelled], audio[labelled], masks[labelled])
        seen = _sample(posterior, generator)
        filled = Factors(
            *(a.masked_scatter(labelled[..., None], b) for a, b in zip(unseen, seen, strict=True))
        )
        posterior_logits, _ = self.decode(
            self.posterior.neck(pyramid), frames, audio, filled, valid, posterior=True
        )
        unseen = Factors(*(code[labelled] for code in unseen))
        terms = FactorTerms(
            posterior_logits,
            visual=VariationalTerms(posterior.visual, prior.visual.select(labelled)),
            audio=VariationalTerms(posterior.audio, prior.audio.select(labelled)),
            shared=VariationalTerms(posterior.shared, prior.shared.select(labelled)),
            specific_codes=[unseen.visual, unseen.audio, seen.visual, seen.audio],
            shared_codes=[unseen.shared, unseen.shared, seen.shared, seen.shared],
            mutual_information=self.prior.mutual_information(unseen)
            + self.posterior.mutual_information(seen),
            matching=MatchingTerms(fused.pyramid, [a for a in fused.audio if a is not None]),
        )
        return output._replace(terms=terms)

    def decode(
        self,
        levels: Sequence[Tensor],
        frames: Tensor,
        audio: Tensor,
        codes: Factors[Tensor],
        valid: Tensor | None = None,
        *,
        posterior: bool = False,
    ) -> tuple[Tensor, Fused]:
        """Decode the levels of a side's neck, ``(B*T, C, h, w)``, and codes ``(B, T, D)`` into logits.

        Returns:
            The logits ``(B, T, K, H, W)`` and the fused pyramid that they were decoded from.
        """
        side = self.posterior if posterior else self.prior
        pyramid = [level.unflatten(0, frames.shape[:2]) for level in levels]
        pyramid[-1] = side.inject(pyramid[-1], torch.cat(side.join(codes), dim=-1))
        fused = self.fusion(pyramid, audio, valid)
        return side.decoder(fused.pyramid, size=(frames.shape[-2], frames.shape[-1])), fused


class _Side(nn.Module):
    """The modules that prior and posterior each have: neck, Gaussian encoders, injection, decoder.

    Args:
        neck: the side's neck.
        decoder: the side's decoder.
        channels: C, width of the neck and of the audio embedding.
        latent_dim: D, length of each code.
        mutual_dim: see :class:`ECMVAE`.
        grid: see :class:`ECMVAE`.
        sees_mask: whether the Gaussian encoders read the mask, as a fourth channel of the frame.
    """

    def __init__(
        self,
        neck: nn.ModuleList,
        decoder: TopDownDecoder,
        *,
        channels: int,
        latent_dim: int,
        mutual_dim: int,
        grid: int,
        sees_mask: bool,
    ) -> None:
        super().__init__()
        width = channels // 8
        narrow = (width, 2 * width, 4 * width, 4 * width, 4 * width)
        summary = channels // 4
        self.neck = neck
        self.decoder = decoder
        self.encoders = nn.ModuleDict(
            {
                "visual": GaussianEncoder(
                    latent_dim,
                    image_channels=3 + sees_mask,
                    widths=(width, 2 * width, 4 * width, 8 * width, 8 * width),
                    grid=grid,
                ),
                "audio": GaussianEncoder(
                    latent_dim,
                    vector_dim=channels,
                    image_channels=1 if sees_mask else None,
                    widths=narrow,
                    summary_dim=summary if sees_mask else None,
                    grid=grid,
                ),
                "shared": GaussianEncoder(
                    latent_dim,
                    vector_dim=channels,
                    image_channels=3 + sees_mask,
                    widths=narrow,
                    summary_dim=summary,
                    grid=grid,
                ),
            }
        )
        self.join_visual = nn.Linear(2 * latent_dim, latent_dim)
        self.join_audio = nn.Linear(2 * latent_dim, latent_dim)
        self.information = MutualInformation(latent_dim, hidden_dim=mutual_dim)
        self.inject = LatentInjection(channels, latent_dim=2 * latent_dim, kernel_size=1)

    def distributions(
        self, frames: Tensor, audio: Tensor, masks: Tensor | None = None
    ) -> Factors[DiagonalGaussian]:
        """Return the three Gaussians ``(..., D)`` for frames ``(..., 3, H, W)`` and sound ``(..., C)``."""
        mask = None if masks is None else (masks > 0).unsqueeze(-3).to(frames.dtype)
        image = frames if mask is None else torch.cat([frames, mask], dim=-3)
        return Factors(
            self.encoders["visual"](image=image),
            self.encoders["audio"](image=mask, vector=audio),
            self.encoders["shared"](image=image, vector=audio),
        )

    def join(self, codes: Factors[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the frame's and the sound's code, each joined with the shared one, ``(..., D)``."""
        visual, audio, shared = (code.to(self.join_visual.weight.dtype) for code in codes)
        return (
            self.join_visual(torch.cat([visual, shared], dim=-1)),
            self.join_audio(torch.cat([audio, shared], dim=-1)),
        )

    def mutual_information(self, codes: Factors[Tensor]) -> Tensor:
        """Return the log-likelihood of the sound's joined code under the frame's, a scalar."""
        return self.information(*self.join(codes))


def _sample(factors: Factors[DiagonalGaussian], generator: Generator | None) -> Factors[Tensor]:
    return Factors(*(gaussian.sample(generator=generator) for gaussian in factors))
