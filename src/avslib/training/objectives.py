"""What each paper minimises: a model's output and a clip to named loss terms."""

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
"""Logits ``(B, T, K, H, W)``, masks ``(B, T, H, W)`` and labelled frames ``(B, T)`` to a scalar."""

AVSBENCH_SETTINGS = ("s4", "ms3", "avss")
"""Of AVSBench, in each of which its baseline is trained otherwise."""

Terms = TypeVar("Terms")


class SegmentationObjective(nn.Module):
    """One loss between logits and masks, and nothing else.

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
        matching: the matching loss; None for the one of the published multi-source training. It counts every
            frame that is no padding, and with several classes, as published, every labelled one.
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
        """Return what the published script of a setting minimises; each has a matching loss of its own.

        Args:
            setting: ``"s4"``, ``"ms3"`` or ``"avss"``.
            matching_weight: lambda; None for the published one, 0.5, and 0 in S4.
            segmentation: None for the published one, the cross-entropy, binary or over classes.
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
            ValueError: if the model fused no level with the sound.
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
    """The objective of the conditional VAE: segmentation and the divergence of posterior from prior.

    Args:
        kl_weight: of the divergence. The paper gives none; 0.01 is ECMVAE's, by the same authors.
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
    """The objective of ECMVAE: both predictions, and four regularisers of its codes.

    The published code gives the terms and their weights, but not the training script that joins them: here
    both sides' predictions count alike, and the matching loss reads the prior's side.

    Args:
        kl_weight: of the divergences of posterior from prior: Kullback-Leibler of the two specific codes,
            Jensen-Shannon (a surrogate on sampled densities) of the shared one.
        information_weight: of the log-likelihood of the sound's code under the frame's, which is subtracted:
            the paper maximises it. The published code calls it a loss; whether its missing script adds it,
            so that the codes would tell less of each other, cannot be established.
        difference_weight: of the orthogonality of specific and shared codes.
        matching_weight: of the audio-visual matching.
        published_scale: as published, the Kullback-Leibler divergence takes exp(log variance) as the standard
            deviation, while sampling takes its root. False takes the root in both.

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
        diffusion_weight: lambda 1, of the diffusion loss.
        contrastive_weight: lambda 2, of L_contrastive (equation 10); 0 leaves the term out (Table IV).
        contrastive: the contrastive loss between condition and latent.
        diffusion: whose squared error the diffusion loss is: ``"noise"``, L_simple of equation 9, in which
            an estimator that puts out a velocity hardly learns at the levels where sampling begins, where
            its output is a small part of the noise; or ``"velocity"``, which is ours, and counts all levels
            alike. On synthetic clips the masks were no better for it (docs, "The paper's tables, asked
            again").
        segmentation: the loss between logits and masks; None for the binary cross-entropy.

    The diffusion loss is a mean over the numbers of a latent, where equation 9 has a sum.

    Raises:
        ValueError: if ``diffusion`` is neither.

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
        if self.diffusion == "velocity":  # of which the noise is off by the signal times as much
            error = error / latent.signal.square()
        return _mean(error)


def _mean(values: Tensor) -> Tensor:
    """Return the mean; of no value at all, where no frame is labelled, 0 with a graph."""
    return values.sum() / max(values.numel(), 1)


def _expect(output: Segmentation, kind: type[Terms]) -> Terms:
    if not isinstance(output.terms, kind):
        raise ValueError(
            f"output.terms: expected {kind.__name__}, got {type(output.terms).__name__}; "
            "call the objective's own model, with masks"
        )
    return output.terms
