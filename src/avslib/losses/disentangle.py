"""ECMVAE's loss terms that keep codes apart or make them informative about each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape


def difference_loss(specific: Tensor, shared: Tensor) -> Tensor:
    """Return how far the codes of one modality are from orthogonal to the codes that two modalities share.

    Every dimension is centred over the batch, then every code is scaled to length 1. For each pair of a
    specific and a shared dimension, their products are summed over the batch. The loss is the mean square of
    these sums.

    As published, the sum is not divided by the batch size, so the loss grows with the square of the batch
    size, and the gradient treats the lengths as constants. A batch of one has a centred code of 0, and a loss
    of 0.

    The loss is computed in float32, or wider, even under autocast.

    Args:
        specific: codes of one modality, ``(n, D)``.
        shared: shared codes of the same frames, ``(n, E)``.

    Returns:
        The loss, a scalar, at least 0; 0, with a graph, for an empty batch.

    Raises:
        ValueError: if a shape differs.

    Bousmalis et al., "Domain Separation Networks", NeurIPS 2016, equation 5; Mao et al., ECMVAE, ICCV 2023,
    published code.

    Example:
        >>> codes = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> difference_loss(codes[:, :1], codes[:, 1:])  # each dimension tells nothing of the other
        tensor(0.)
    """
    size = check_shape("specific", specific, "n d")
    check_shape("shared", shared, "n e", n=size["n"])
    with torch.autocast(specific.device.type, enabled=False):
        return (_centred_directions(specific).mT @ _centred_directions(shared)).square().mean()


def conditional_log_likelihood(
    mean: Tensor, log_variance: Tensor, value: Tensor, *, normalized: bool = False
) -> Tensor:
    """Return the mean log-likelihood of values under diagonal Gaussians, in nats.

    Args:
        mean: ``(..., D)``.
        log_variance: ``(..., D)``.
        value: ``(..., D)``.
        normalized: whether to return the logarithm of a density. The published code does not: it omits the
            log-variance and the constant, so nothing keeps the variance from growing.

    Returns:
        The sum over D, averaged over all other axes; at most 0 unless ``normalized``.

    Raises:
        ValueError: if D differs.

    Barber and Agakov, "The IM Algorithm: A Variational Approach to Information Maximization", 2003.

    Example:
        >>> zero = torch.zeros(10, 6)
        >>> conditional_log_likelihood(zero + 1, zero, zero)  # 6 / 2
        tensor(-3.)
    """
    d = check_shape("mean", mean, "... d")["d"]
    check_shape("log_variance", log_variance, "... d", d=d)
    check_shape("value", value, "... d", d=d)
    mean, log_variance, value = (_wide(x) for x in (mean, log_variance, value))
    terms = (value - mean).square() * torch.exp(-log_variance)
    if normalized:
        terms = terms + log_variance + math.log(2 * math.pi)
    rows = -terms.sum(dim=-1) / 2
    return rows.sum() / max(rows.numel(), 1)


class MutualInformation(nn.Module):
    """ECMVAE's mutual-information term: how well the code of one modality predicts that of the other.

    The first code is mapped to the mean and log-variance of a Gaussian, the second to a point, each by a
    linear layer and a tanh. The term is the log-likelihood of the point. With ``normalized``, and with the
    entropy of the point added, it would be Barber and Agakov's lower bound on the mutual information of the
    two codes. But that entropy is not estimated, and the point is learned: a layer that maps every code to
    the same point maximises the likelihood, with an information of 0. So the term is a guide, not a bound.

    The published code calls it ``mi_loss`` and gives it the weight +0.001. The training loop of this model
    is not published. The published loop of an older model adds its mutual-information term to the loss that
    it minimises, which here would make the codes less informative about each other. The paper maximises
    mutual information: subtract the term.

    Args:
        latent_dim: D, length of both codes.
        hidden_dim: length of the point.
        normalized: as in :func:`conditional_log_likelihood`.

    Raises:
        ValueError: if a size is not above 0.

    Mao et al., ECMVAE, ICCV 2023, published code.

    Example:
        >>> term = MutualInformation(16)
        >>> bool(term(torch.randn(10, 16), torch.randn(10, 16)) < 0)
        True
    """

    def __init__(self, latent_dim: int = 16, *, hidden_dim: int = 6, normalized: bool = False) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        check_positive("hidden_dim", hidden_dim)
        self.mean = nn.Linear(latent_dim, hidden_dim)
        self.log_variance = nn.Linear(latent_dim, hidden_dim)
        self.other = nn.Linear(latent_dim, hidden_dim)
        self.normalized = normalized

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean log-likelihood of the second code given the first, a scalar.

        Args:
            first: code of the frame, ``(..., D)``.
            second: code of its sound, ``(..., D)``.

        Raises:
            ValueError: if a shape differs.
        """
        check_shape("first", first, "... d", d=self.mean.in_features)
        if second.shape != first.shape:
            raise ValueError(f"second: expected the shape {tuple(first.shape)}, got {tuple(second.shape)}")
        return conditional_log_likelihood(
            self.mean(first).tanh(),
            self.log_variance(first).tanh(),
            self.other(second).tanh(),
            normalized=self.normalized,
        )


def _centred_directions(codes: Tensor) -> Tensor:
    codes = _wide(codes)
    codes = codes - codes.mean(dim=0)
    return codes / (codes.norm(dim=1, keepdim=True).detach() + 1e-6)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
