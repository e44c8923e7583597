"""What every model's ``forward`` returns, in training and in inference alike."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avslib.latent import DiagonalGaussian


class MatchingTerms(NamedTuple):
    """What AVSBench's matching losses compare, one item for each level that is fused with the sound."""

    features: list[Tensor]
    """Fused features as the decoder reads them, ``(B, T, C, h, w)``."""
    audio: list[Tensor]
    """The sound, aligned to the level's channels, ``(B, T, C)``."""


class VariationalTerms(NamedTuple):
    """What the objective of a conditional VAE needs, one row for each of the ``n`` labelled frames."""

    posterior: DiagonalGaussian
    """Distribution of the code, the mask seen, ``(n, D)``."""
    prior: DiagonalGaussian
    """Distribution of the code without the mask, ``(n, D)``."""


class FactorTerms(NamedTuple):
    """What ECMVAE's objective needs; rows are the ``n`` labelled frames."""

    posterior_logits: Tensor
    """The second decoder's prediction, from codes that saw the mask, ``(B, T, K, H, W)``."""
    visual: VariationalTerms
    """Distributions of the code that only the frame has."""
    audio: VariationalTerms
    """Distributions of the code that only the sound has."""
    shared: VariationalTerms
    """Distributions of the code that frame and sound share."""
    specific_codes: list[Tensor]
    """Sampled codes of one modality, ``(n, D)``; each must be unlike the shared code at the same place."""
    shared_codes: list[Tensor]
    """Sampled shared codes, ``(n, D)``."""
    mutual_information: Tensor
    """Log-likelihood of the sound's code under the frame's, a scalar."""
    matching: MatchingTerms
    """Fused features and sound of the first decoder."""


class LatentTerms(NamedTuple):
    """What the objective of a latent diffusion model needs, one row for each of the ``n`` labelled frames."""

    latent: Tensor
    """Code of the ground truth, z0, ``(n, D)``."""
    condition: Tensor
    """Code of frame and sound, c, ``(n, D)``."""
    noise: Tensor
    """The noise that was added to the latent, ``(n, D)``; what the estimator should say."""
    predicted_noise: Tensor
    """What the noise estimator said, ``(n, D)``."""
    signal: Tensor
    """By which the latent was scaled before the noise was added to it, ``(n, 1)``, in ``(0, 1]``."""
    clip: Tensor
    """Which clip of the batch a row comes from, ``(n,)`` int64."""


class Segmentation(NamedTuple):
    """The prediction for a batch of clips.

    Example:
        >>> import torch
        >>> output = Segmentation(logits=torch.zeros(2, 5, 1, 32, 32))
        >>> output.probabilities().shape
        torch.Size([2, 5, 1, 32, 32])
    """

    logits: Tensor
    """``(B, T, K, H, W)``, before the sigmoid where K is 1, else before the softmax over K; of several
    samples, those of their mean probability."""
    samples: Tensor | None = None
    """``(S, B, T, K, H, W)``, the logits of each sample, where a stochastic model was asked for several."""
    terms: tuple[Any, ...] | None = None
    """What the model's objective reads beside the logits, if it reads more: a named tuple, see the model."""

    @classmethod
    def of_samples(cls, samples: Tensor, terms: tuple[Any, ...] | None = None) -> Segmentation:
        """Return the prediction that samples ``(S, B, T, K, H, W)`` make; a single one is the prediction."""
        if len(samples) == 1:
            return cls(samples[0], terms=terms)
        return cls(logits_of_mean(samples), samples, terms)

    def probabilities(self) -> Tensor:
        """Return ``(B, T, K, H, W)`` in ``[0, 1]``: of the foreground where K is 1, else of each class."""
        return to_probabilities(self.logits)

    def masks(self) -> Tensor:
        """Return the class of each pixel, ``(B, T, H, W)`` int64; 0 is background."""
        if self.logits.shape[-3] == 1:
            return (self.probabilities().squeeze(-3) > 0.5).long()
        return self.logits.argmax(dim=-3)

    def uncertainty(self) -> Tensor:
        """Return the probability's standard deviation over samples, ``(B, T, K, H, W)``, in ``[0, 0.5]``.

        Raises:
            ValueError: if the model was asked for one sample only.
        """
        if self.samples is None:
            raise ValueError("uncertainty: expected several samples; call the model with num_samples above 1")
        return to_probabilities(self.samples).std(dim=0, correction=0)

    def without_padding(self, valid: Tensor) -> Segmentation:
        """Return the same with logits 0 where ``valid``, ``(B, T)`` bool, is False, as published for AVSS."""
        padding = ~valid[..., None, None, None]
        samples = None if self.samples is None else self.samples.masked_fill(padding, 0)
        return self._replace(logits=self.logits.masked_fill(padding, 0), samples=samples)


def to_probabilities(logits: Tensor) -> Tensor:
    """Return what logits ``(..., K, H, W)`` stand for: their sigmoid where K is 1, else the softmax over K.

    In float32, or wider.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.sigmoid() if logits.shape[-3] == 1 else logits.softmax(dim=-3)


def logits_of_mean(samples: Tensor) -> Tensor:
    """Return the logits of the mean probability over samples, exact also where all round to 0 or 1.

    Shapes: ``(S, ..., K, H, W)`` -> ``(..., K, H, W)``.
    """
    samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
    if samples.shape[-3] > 1:
        return samples.log_softmax(dim=-3).logsumexp(dim=0) - math.log(len(samples))
    log_on = torch.logsumexp(torch.nn.functional.logsigmoid(samples), dim=0)
    log_off = torch.logsumexp(torch.nn.functional.logsigmoid(-samples), dim=0)
    return log_on - log_off
