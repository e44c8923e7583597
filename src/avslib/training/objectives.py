"""The training objective of each paper: from a model's output and a clip to named loss terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from avslib._checks import check_one_of
from avslib.clip import Clip
from avslib.latent import jensen_shannon_surrogate, kl_divergence
from avslib.losses import (
    AudioVisualMatching,
    BinaryCrossEntropy,
    CrossEntropy,
    DiceLoss,
    InfoNCE,
    StructureLoss,
    difference_loss,
)
from avslib.models.output import FactorTerms, LatentTerms, MatchingTerms, Segmentation, VariationalTerms

SegmentationLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps logits ``(B, T, K, H, W)``, masks ``(B, T, H, W)`` and labelled frames ``(B, T)`` to a scalar."""

AVSBENCH_SETTINGS = ("s4", "ms3", "avss")
"""The settings of AVSBench; its baseline is trained differently in each."""

Terms = TypeVar("Terms")


class SegmentationObjective(nn.Module):
    """A single loss between logits and masks.

    Args:
        segmentation: the loss; None for the binary cross-entropy.
    """

    def __init__(self, segmentation: SegmentationLoss | None = None) -> None:
        super().__init__()
        self.segmentation = BinaryCrossEntropy() if segmentation is None else segmentation

    def forward(self, output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        """Return ``"loss"``."""
        return {"loss": self.segmentation(output.logits, clip.masks, clip.labelled)}


class AVSBenchObjective(nn.Module):
    """The objective of the AVSBench baseline: segmentation and audio-visual matching.

    Args:
        matching_weight: lambda; 0.5 in the published multi-source training, 0 (the term is left out) in the
            single-source one.
        matching: the matching loss; None for the one of the published multi-source training. It covers every
            frame that is not padding; with several classes it covers every labelled frame, as published.
        segmentation: the loss between logits and masks; None for the binary cross-entropy.

    Zhou et al., "Audio-Visual Segmentation", ECCV 2022, section 3.4.
    """

    def __init__(
        self,
        *,
        matching_weight: float = 0.5,
        matching: AudioVisualMatching | None = None,
        segmentation: SegmentationLoss | None = None,
    ) -> None:
        super().__init__()
        self.matching_weight = matching_weight
        self.matching = AudioVisualMatching() if matching is None else matching
        self.segmentation = BinaryCrossEntropy() if segmentation is None else segmentation

    @classmethod
    def published(
        cls,
        setting: str,
        *,
        matching_weight: float | None = None,
        segmentation: SegmentationLoss | None = None,
    ) -> Self:
        """Return the objective of a setting's published script; each setting has its own matching loss.

        Args:
            setting: ``"s4"``, ``"ms3"`` or ``"avss"``.
            matching_weight: lambda; None for the published one, 0 in S4 and 0.5 in the others.
            segmentation: the loss between logits and masks; None for the published one, the cross-entropy,
                binary or over classes.
        """
        check_one_of("setting", setting, AVSBENCH_SETTINGS)
        matching = {
            "s4": AudioVisualMatching(
                foreground="probabilities",
                threshold=True,
                normalize=True,
                distance="cosine",
                reduction="mean",
            ),
            "ms3": AudioVisualMatching(),
            "avss": AudioVisualMatching(foreground="argmax", reduction="mean"),
        }
        if matching_weight is None:
            matching_weight = 0.0 if setting == "s4" else 0.5
        if segmentation is None and setting == "avss":
            segmentation = CrossEntropy()
        return cls(matching_weight=matching_weight, matching=matching[setting], segmentation=segmentation)

    def forward(self, output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        """Return ``"loss"`` and its terms, ``"segmentation"`` and ``"matching"``.

        Raises:
            ValueError: if the model did not fuse any level with the sound.
        """
        terms = {"segmentation": self.segmentation(output.logits, clip.masks, clip.labelled)}
        loss = terms["segmentation"]
        if self.matching_weight:
            matched = _expect(output, MatchingTerms)
            frames = clip.valid if output.logits.shape[2] == 1 else clip.labelled
            terms["matching"] = self.matching(output.logits, *matched, frames)
            loss = loss + self.matching_weight * terms["matching"]
        return {"loss": loss, **terms}


class CVAEObjective(nn.Module):
    """The objective of the conditional VAE: segmentation and the divergence of the posterior from the prior.

    Args:
        kl_weight: weight of the divergence. The paper gives none; 0.01 is from ECMVAE, by the same authors.
        segmentation: the loss between logits and masks; None for the binary cross-entropy.

    Mao et al., DiffusionAVS, section IV-C.
    """

    def __init__(self, *, kl_weight: float = 0.01, segmentation: SegmentationLoss | None = None) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.segmentation = BinaryCrossEntropy() if segmentation is None else segmentation

    def forward(self, output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        """Return ``"loss"`` and its terms, ``"segmentation"`` and ``"kl"``.

        Raises:
            ValueError: if the model was called without ground truth.
        """
        distributions = _expect(output, VariationalTerms)
        terms = {
            "segmentation": self.segmentation(output.logits, clip.masks, clip.labelled),
            "kl": _mean(kl_divergence(distributions.posterior, distributions.prior)),
        }
        return {"loss": terms["segmentation"] + self.kl_weight * terms["kl"], **terms}


class ECMVAEObjective(nn.Module):
    """The objective of ECMVAE: the loss of both predictions, and four regularisers of its codes.

    The published code has the terms and their weights, but not the training script that combines them. Here
    the predictions from prior and posterior have the same weight, and the matching loss reads the prior's.

    Args:
        kl_weight: weight of the divergences of the posteriors from the priors: Kullback-Leibler for the two
            specific codes, a Jensen-Shannon surrogate on sampled densities for the shared code.
        information_weight: weight of the log-likelihood of the sound's code under the frame's. It is
            subtracted, because the paper maximises it. The published code calls it a loss; whether the
            missing script adds it, which would make the codes less informative of each other, is unknown.
        difference_weight: weight of the orthogonality of specific and shared codes.
        matching_weight: weight of the audio-visual matching.
        published_scale: whether the Kullback-Leibler divergence takes exp(log variance) as the standard
            deviation, as published, although sampling takes its square root. False takes the root in both.

    Mao et al., "Multimodal Variational Auto-encoder based Audio-Visual Segmentation", ICCV 2023.
    """

    def __init__(
        self,
        *,
        kl_weight: float = 0.01,
        information_weight: float = 0.001,
        difference_weight: float = 0.001,
        matching_weight: float = 0.5,
        published_scale: bool = True,
    ) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.information_weight = information_weight
        self.difference_weight = difference_weight
        self.matching_weight = matching_weight
        self.published_scale = published_scale
        self.segmentation = StructureLoss()
        self.matching = AudioVisualMatching(normalize=True)

    def forward(self, output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        """Return ``"loss"`` and its terms: two segmentations, kl, information, difference, matching.

        Raises:
            ValueError: if the model was called without ground truth.
        """
        factors = _expect(output, FactorTerms)
        kl = torch.stack(
            [
                _mean(kl_divergence(*pair, published_scale=self.published_scale))
                for pair in (factors.visual, factors.audio)
            ]
        ).sum()
        pairs = zip(factors.specific_codes, factors.shared_codes, strict=True)
        terms = {
            "segmentation": self.segmentation(output.logits, clip.masks, clip.labelled),
            "posterior segmentation": self.segmentation(factors.posterior_logits, clip.masks, clip.labelled),
            "kl": kl + _mean(jensen_shannon_surrogate(factors.shared.prior, factors.shared.posterior)),
            "information": factors.mutual_information,
            "difference": torch.stack([difference_loss(*pair) for pair in pairs]).sum(),
            "matching": self.matching(output.logits, *factors.matching, clip.valid),
        }
        loss = (
            terms["segmentation"]
            + terms["posterior segmentation"]
            + self.kl_weight * terms["kl"]
            - self.information_weight * terms["information"]
            + self.difference_weight * terms["difference"]
            + self.matching_weight * terms["matching"]
        )
        return {"loss": loss, **terms}


class C3NObjective(nn.Module):
    """The objective of C3N: binary cross-entropy and Dice.

    Shi et al., "Cross-modal Cognitive Consensus guided Audio-Visual Segmentation".
    """

    def __init__(self) -> None:
        super().__init__()
        self.segmentation = BinaryCrossEntropy()
        self.dice = DiceLoss()

    def forward(self, output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        """Return ``"loss"`` and its terms, ``"segmentation"`` and ``"dice"``."""
        terms = {
            "segmentation": self.segmentation(output.logits, clip.masks, clip.labelled),
            "dice": self.dice(output.logits, clip.masks, clip.labelled),
        }
        return {"loss": terms["segmentation"] + terms["dice"], **terms}


class DiffusionAVSObjective(nn.Module):
    """The objective of DiffusionAVS: segmentation, diffusion and contrastive loss (equation 12).

    Args:
        diffusion_weight: lambda 1, weight of the diffusion loss.
        contrastive_weight: lambda 2, weight of L_contrastive (equation 10); 0 leaves the term out (Table IV).
        contrastive: the contrastive loss between condition and latent; None for ``InfoNCE()``.
        diffusion: the quantity whose squared error is the diffusion loss. ``"noise"`` is L_simple of
            equation 9; with it, an estimator that outputs a velocity hardly learns at the noise levels where
            sampling begins, since its output is a small part of the noise there. ``"velocity"`` is our own
            variant and weights all levels equally; on synthetic clips it gave no better masks (docs, "The
            paper's tables, asked again").
        segmentation: the loss between logits and masks; None for the binary cross-entropy.

    The diffusion loss is a mean over the elements of a latent; equation 9 has a sum.

    Raises:
        ValueError: if ``diffusion`` is neither ``"noise"`` nor ``"velocity"``.

    Mao et al., DiffusionAVS, section III-C, "Objective function"; Salimans and Ho 2022 for the velocity.
    """

    def __init__(
        self,
        *,
        diffusion_weight: float = 1.0,
        contrastive_weight: float = 0.1,
        contrastive: InfoNCE | None = None,
        diffusion: str = "noise",
        segmentation: SegmentationLoss | None = None,
    ) -> None:
        super().__init__()
        check_one_of("diffusion", diffusion, ("noise", "velocity"))
        self.diffusion_weight = diffusion_weight
        self.contrastive_weight = contrastive_weight
        self.contrastive = InfoNCE() if contrastive is None else contrastive
        self.diffusion = diffusion
        self.segmentation = BinaryCrossEntropy() if segmentation is None else segmentation

    def forward(self, output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        """Return ``"loss"`` and its terms, ``"segmentation"``, ``"diffusion"`` and ``"contrastive"``.

        Raises:
            ValueError: if the model was called without ground truth.
        """
        latent = _expect(output, LatentTerms)
        terms = {
            "segmentation": self.segmentation(output.logits, clip.masks, clip.labelled),
            "diffusion": self._diffusion_loss(latent),
        }
        loss = terms["segmentation"] + self.diffusion_weight * terms["diffusion"]
        if self.contrastive_weight:
            terms["contrastive"] = self.contrastive(latent.condition, latent.latent, latent.clip)
            loss = loss + self.contrastive_weight * terms["contrastive"]
        return {"loss": loss, **terms}

    def _diffusion_loss(self, latent: LatentTerms) -> Tensor:
        error = (latent.predicted_noise - latent.noise).square()
        if self.diffusion == "velocity":  # the noise's error is the signal times the velocity's
            error = error / latent.signal.square()
        return _mean(error)


def _mean(values: Tensor) -> Tensor:
    """Return the mean; if there is no value, because no frame is labelled, 0 that still has a graph."""
    return values.sum() / max(values.numel(), 1)


def _expect(output: Segmentation, kind: type[Terms]) -> Terms:
    if not isinstance(output.terms, kind):
        raise ValueError(
            f"output.terms: expected {kind.__name__}, got {type(output.terms).__name__}; "
            "call the objective's own model, with masks"
        )
    return output.terms
