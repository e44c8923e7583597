"""Diagonal Gaussians over codes: sample, density, divergence, product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from avslib._checks import check_positive, check_shape


class DiagonalGaussian(NamedTuple):
    """Gaussians of independent dimensions, one for each row of the two tensors.

    Samples, densities and divergences are float32, or wider, even if the two come from autocast.

    Example:
        >>> gaussian = DiagonalGaussian(torch.zeros(2, 5, 16), torch.zeros(2, 5, 16))
        >>> gaussian.sample(generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 5, 16])
    """

    mean: Tensor
    """``(..., D)``."""
    log_variance: Tensor
    """Natural logarithm of each dimension's variance, ``(..., D)``."""

    def sample(self, *, noise: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Return ``mean + exp(log_variance / 2) * noise``, differentiable in both.

        Args:
            noise: unit noise, ``(..., D)``, or with more leading axes for several samples; None to draw it.
            generator: source of the noise if ``noise`` is None; None for PyTorch's default.

        Returns:
            Samples, ``(..., D)``.

        Raises:
            ValueError: if ``noise`` has a different D.

        Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, section 2.4.
        """
        mean, log_variance = _wide(self)
        if noise is None:
            device = mean.device if generator is None else generator.device
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=device)
        check_shape("noise", noise, "... d", d=mean.shape[-1])
        return mean + torch.exp(log_variance / 2) * noise.to(mean)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of x, ``(..., D)`` to ``(...)``, in nats.

        Raises:
            ValueError: if ``x`` has a different D.
        """
        check_shape("x", x, "... d", d=self.mean.shape[-1])
        return _log_densities(self, x).sum(dim=-1)

    def select(self, rows: Tensor) -> DiagonalGaussian:
        """Return the Gaussians at an index of the leading axes, such as ``labelled``, ``(B, T)`` bool."""
        return DiagonalGaussian(self.mean[rows], self.log_variance[rows])

    def expand(self, num_samples: int) -> DiagonalGaussian:
        """Return the same Gaussians ``num_samples`` times, ``(S, ..., D)``, without copying."""
        return DiagonalGaussian(
            self.mean.expand(num_samples, *self.mean.shape),
            self.log_variance.expand(num_samples, *self.log_variance.shape),
        )


def kl_divergence(
    posterior: DiagonalGaussian, prior: DiagonalGaussian, *, published_scale: bool = False
) -> Tensor:
    """Return the Kullback-Leibler divergence of posterior from prior, KL(posterior || prior), in nats.

    Args:
        posterior: ``(..., D)``.
        prior: ``(..., D)``.
        published_scale: whether to take ``exp(log_variance)`` as the standard deviation. The published code
            of ECMVAE does so, although its samples have the standard deviation ``exp(log_variance / 2)``. The
            result is the divergence of Gaussians whose variances are squared.

    Returns:
        The divergence, summed over D, ``(...)``, at least 0.

    Raises:
        ValueError: if the two have different D.

    Example:
        >>> standard = DiagonalGaussian(torch.zeros(16), torch.zeros(16))
        >>> kl_divergence(DiagonalGaussian(torch.ones(16), torch.zeros(16)), standard)  # 16 / 2
        tensor(8.)
    """
    _check_alike("prior", prior, posterior)
    mean, log_variance = _wide(posterior)
    prior_mean, prior_log_variance = _wide(prior)
    if published_scale:
        log_variance, prior_log_variance = 2 * log_variance, 2 * prior_log_variance
    log_ratio = log_variance - prior_log_variance
    distance = (mean - prior_mean).square() * torch.exp(-prior_log_variance)
    return (torch.expm1(log_ratio) - log_ratio + distance).sum(dim=-1) / 2


def jensen_shannon_divergence(
    first: DiagonalGaussian,
    second: DiagonalGaussian,
    *,
    num_samples: int = 16,
    generator: Generator | None = None,
) -> Tensor:
    """Estimate the Jensen-Shannon divergence, symmetric and between 0 and log 2, in nats.

    The divergence compares each Gaussian with the mixture of the two. It has no closed form, so expectations
    are estimated by means over samples. The estimate and its gradient are unbiased. The estimate is exactly 0
    for two equal Gaussians, and may fall slightly below 0 for two that are close.

    Args:
        first: ``(..., D)``.
        second: ``(..., D)``.
        num_samples: number of samples of each; the error falls with its square root.
        generator: source of the noise; None for PyTorch's default.

    Returns:
        The divergence of the joint densities over D, ``(...)``.

    Raises:
        ValueError: if the two have different D, or if ``num_samples`` is not above 0.

    Lin, "Divergence Measures Based on the Shannon Entropy", 1991.

    Example:
        >>> near, far = (DiagonalGaussian(torch.full((16,), m), torch.zeros(16)) for m in (0.0, 100.0))
        >>> jensen_shannon_divergence(near, far)  # nothing in common: log 2
        tensor(0.6931)
    """
    _check_alike("second", second, first)
    check_positive("num_samples", num_samples)
    halves = []
    for own, other in ((first, second), (second, first)):
        x = own.expand(num_samples).sample(generator=generator)
        halves.append(math.log(2) - F.softplus(other.log_prob(x) - own.log_prob(x)).mean(dim=0))
    return (halves[0] + halves[1]) / 2


def jensen_shannon_surrogate(
    first: DiagonalGaussian,
    second: DiagonalGaussian,
    *,
    noise: tuple[Tensor, Tensor] | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Return what the published code of ECMVAE computes instead of a Jensen-Shannon divergence.

    The density of each Gaussian is evaluated at one of its own samples, dimension by dimension. The two
    densities are put into the divergence's formula as if they were probabilities of the same event. They are
    neither probabilities nor of the same event: two equal Gaussians do not give 0, and narrow ones give more
    than log 2. No gradient passes through the samples, so the means get one only through the densities. This
    function is kept for parity with published training; :func:`jensen_shannon_divergence` is sound.

    Args:
        first: ``(..., D)``.
        second: ``(..., D)``.
        noise: unit noise of the two samples, ``(..., D)`` each; None to draw it, first for ``first``.
        generator: source of the noise if ``noise`` is None; None for PyTorch's default.

    Returns:
        The sum over D, ``(...)``, at least 0; the published loss is its mean.

    Raises:
        ValueError: if the two have different D.

    Mao et al., ECMVAE, ICCV 2023, published code.
    """
    _check_alike("second", second, first)
    noises = (None, None) if noise is None else noise
    logs = [
        _log_densities(gaussian, gaussian.sample(noise=eps, generator=generator).detach())
        for gaussian, eps in zip((first, second), noises, strict=True)
    ]
    log_mean = torch.logaddexp(*logs) - math.log(2)
    return torch.stack([log.exp() * (log - log_mean) for log in logs]).sum(dim=(0, -1)) / 2


def product_of_experts(
    gaussians: Sequence[DiagonalGaussian], *, standard_prior: bool = True
) -> DiagonalGaussian:
    """Return the normalised product of Gaussian densities, which is itself Gaussian.

    Precisions add up, and each mean is weighted by its precision, so a sure expert outweighs an unsure one.

    Args:
        gaussians: the experts, ``(..., D)`` each.
        standard_prior: whether to add a standard Gaussian as one more expert.

    Returns:
        The product, ``(..., D)``.

    Raises:
        ValueError: if there is no expert, or if two have different D.

    Wu and Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", 2018, section 2.2.

    Example:
        >>> standard = DiagonalGaussian(torch.zeros(1), torch.zeros(1))
        >>> product_of_experts([standard] * 3, standard_prior=False).log_variance.exp()
        tensor([0.3333])
    """
    if not gaussians:
        raise ValueError("gaussians: expected one or more, got none")
    for i, gaussian in enumerate(gaussians):
        _check_alike(f"gaussians[{i}]", gaussian, gaussians[0])
    experts = [_wide(gaussian) for gaussian in gaussians]
    if standard_prior:
        experts.append(DiagonalGaussian(*map(torch.zeros_like, experts[0])))
    means = torch.stack(torch.broadcast_tensors(*(expert.mean for expert in experts)))
    log_precisions = -torch.stack(torch.broadcast_tensors(*(expert.log_variance for expert in experts)))
    mean = (log_precisions.softmax(dim=0) * means).sum(dim=0)
    return DiagonalGaussian(mean, -log_precisions.logsumexp(dim=0))


def _log_densities(gaussian: DiagonalGaussian, x: Tensor) -> Tensor:
    """Return the log-density of each dimension separately, ``(..., D)``."""
    mean, log_variance = _wide(gaussian)
    return -(math.log(2 * math.pi) + log_variance + (x - mean).square() * torch.exp(-log_variance)) / 2


def _wide(gaussian: DiagonalGaussian) -> DiagonalGaussian:
    """Return the same Gaussian in float32, or wider."""
    return DiagonalGaussian(*(x.to(torch.promote_types(x.dtype, torch.float32)) for x in gaussian))


def _check_alike(name: str, gaussian: DiagonalGaussian, other: DiagonalGaussian) -> None:
    check_shape(f"{name}.mean", gaussian.mean, "... d", d=other.mean.shape[-1])
