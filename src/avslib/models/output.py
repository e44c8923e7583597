"""What every model's ``forward`` returns, in training and in inference alike."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
    """``(B, T, K, H, W)`` before the sigmoid; of several samples, the logit of their mean probability."""
    samples: Tensor | None = None
    """``(S, B, T, K, H, W)``, the logits of each sample, where a stochastic model was asked for several."""
    terms: LatentTerms | None = None
    """What a latent diffusion model's objective reads; None without ground truth."""

    def probabilities(self) -> Tensor:
        """Return the sigmoid of the logits, ``(B, T, K, H, W)``, in ``[0, 1]``."""
        return self.logits.sigmoid()

    def uncertainty(self) -> Tensor:
        """Return the probability's standard deviation over samples, ``(B, T, K, H, W)``, in ``[0, 0.5]``.

        Raises:
            ValueError: if the model was asked for one sample only.
        """
        if self.samples is None:
            raise ValueError("uncertainty: expected several samples; call the model with num_samples above 1")
        return self.samples.sigmoid().std(dim=0, correction=0)
