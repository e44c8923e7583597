"""The output of every model's ``forward``, in training and in inference."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avslib.latent import DiagonalGaussian


class MatchingTerms(NamedTuple):
    """Inputs of AVSBench's matching losses, one item for each level that is fused with the sound."""

    features: list[Tensor]
    """Fused features, ``(B, T, C, h, w)``; AVSBench's are rectified."""
    audio: list[Tensor]
    """The sound, aligned to the level's channels, ``(B, T, C)``."""


class VariationalTerms(NamedTuple):
    """Inputs of the objective of a conditional VAE, one row for each of the ``n`` labelled frames."""

    posterior: DiagonalGaussian
    """Distribution of the code given the mask, ``(n, D)``."""
    prior: DiagonalGaussian
    """Distribution of the code without the mask, ``(n, D)``."""


class FactorTerms(NamedTuple):
    """Inputs of ECMVAE's objective; rows are the ``n`` labelled frames."""

    posterior_logits: Tensor
    """Logits of the posterior's decoder, from codes that saw the mask, ``(B, T, K, H, W)``."""
    visual: VariationalTerms
    """Distributions of the code that only the frame has."""
    audio: VariationalTerms
    """Distributions of the code that only the sound has."""
    shared: VariationalTerms
    """Distributions of the code that frame and sound share."""
    specific_codes: list[Tensor]
    """Sampled codes of one modality, ``(n, D)``; each should be unlike the shared code at the same index."""
    shared_codes: list[Tensor]
    """Sampled shared codes, ``(n, D)``."""
    mutual_information: Tensor
    """Log-likelihood of the sound's code under the frame's, summed over prior and posterior, a scalar."""
    matching: MatchingTerms
    """Fused features and sound of the prior's decoder."""


class LatentTerms(NamedTuple):
    """Inputs of the objective of a latent diffusion model, one row for each of the ``n`` labelled frames."""

    latent: Tensor
    """Code of the ground truth, z0, ``(n, D)``."""
    condition: Tensor
    """Code of frame and sound, c, ``(n, D)``."""
    noise: Tensor
    """The noise that was added to the latent, ``(n, D)``; the target of the estimator."""
    predicted_noise: Tensor
    """The noise that the estimator predicted, ``(n, D)``."""
    signal: Tensor
    """Factor that scaled the latent before the noise was added, ``(n, 1)``, in ``(0, 1]``."""
    clip: Tensor
    """Index of the clip in the batch that a row comes from, ``(n,)`` int64."""


class Segmentation(NamedTuple):
    """The prediction for a batch of clips.

    Example:
        >>> import torch
        >>> output = Segmentation(logits=torch.zeros(2, 5, 1, 32, 32))
        >>> output.probabilities().shape
        torch.Size([2, 5, 1, 32, 32])
    """

    logits: Tensor
    """``(B, T, K, H, W)``, before the sigmoid if K is 1, else before the softmax over K. For several samples
    they are the logits of the mean probability."""
    samples: Tensor | None = None
    """``(S, B, T, K, H, W)``, the logits of each sample, if a stochastic model was asked for several."""
    terms: tuple[Any, ...] | None = None
    """Further inputs of the model's objective besides the logits, if any: a named tuple, see the model."""

    @classmethod
    def of_samples(cls, samples: Tensor, terms: tuple[Any, ...] | None = None) -> Segmentation:
        """Combine samples ``(S, B, T, K, H, W)`` into a prediction; a single one is the prediction itself."""
        if len(samples) == 1:
            return cls(samples[0], terms=terms)
        return cls(logits_of_mean(samples), samples, terms)

    def probabilities(self) -> Tensor:
        """Return ``(B, T, K, H, W)`` in ``[0, 1]``: of the foreground if K is 1, else of each class."""
        return to_probabilities(self.logits)

    def masks(self) -> Tensor:
        """Return the class of each pixel, ``(B, T, H, W)`` int64; 0 is background."""
        if self.logits.shape[-3] == 1:
            return (self.probabilities().squeeze(-3) > 0.5).long()
        return self.logits.argmax(dim=-3)

    def uncertainty(self) -> Tensor:
        """Return the probability's standard deviation over samples, ``(B, T, K, H, W)``, in ``[0, 0.5]``.

        Raises:
            ValueError: if the model was asked for only one sample.
        """
        if self.samples is None:
            raise ValueError("uncertainty: expected several samples; call the model with num_samples above 1")
        return to_probabilities(self.samples).std(dim=0, correction=0)

    def without_padding(self, valid: Tensor) -> Segmentation:
        """Return a copy with logits 0 where ``valid``, ``(B, T)`` bool, is False, as published for AVSS."""
        padding = ~valid[..., None, None, None]
        samples = None if self.samples is None else self.samples.masked_fill(padding, 0)
        return self._replace(logits=self.logits.masked_fill(padding, 0), samples=samples)


def to_probabilities(logits: Tensor) -> Tensor:
    """Convert logits ``(..., K, H, W)`` to probabilities: sigmoid if K is 1, else softmax over K.

    The result is float32, or wider.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.sigmoid() if logits.shape[-3] == 1 else logits.softmax(dim=-3)


def logits_of_mean(samples: Tensor) -> Tensor:
    """Return the logits of the mean probability over samples, exact even if all round to 0 or 1.

    Shapes: ``(S, ..., K, H, W)`` -> ``(..., K, H, W)``.
    """
    samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
    if samples.shape[-3] > 1:
        return samples.log_softmax(dim=-3).logsumexp(dim=0) - math.log(len(samples))
    log_on = torch.logsumexp(torch.nn.functional.logsigmoid(samples), dim=0)
    log_off = torch.logsumexp(torch.nn.functional.logsigmoid(-samples), dim=0)
    return log_on - log_off
