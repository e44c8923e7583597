"""ECMVAE's terms that keep codes apart, or make them tell of each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape


def difference_loss(specific: Tensor, shared: Tensor) -> Tensor:
    """Return how far the codes of one modality are from orthogonal to the codes that two share.

    Every dimension is centred over the batch and every code brought to length 1; the loss is the mean square
    over all pairs of a specific and a shared dimension, of their products summed over the batch.

    As published, the sum is not divided by the batch, so the loss grows with its square, and the lengths are
    constants to the gradient. A batch of one, whose centred code is 0, costs nothing.

    Computed in float32, or wider, also under autocast.

    Args:
        specific: codes of one modality, ``(n, D)``.
        shared: shared codes of the same frames, ``(n, E)``.

    Returns:
        The loss, a scalar, at least 0; 0, with a graph, for no row at all.

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
        normalized: whether it is the logarithm of a density. As published it is not: the log-variance and the
            constant are left out, so nothing keeps the variance from growing.

    Returns:
        The sum over D, averaged over all else; at most 0 unless ``normalized``.

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
    """How well the code of one modality predicts that of the other: ECMVAE's mutual-information term.

    The first code gives mean and log-variance of a Gaussian, the second a point, each by a linear layer and a
    tanh; the term is the log-likelihood of the point. With ``normalized`` and the entropy of the point added
    it would be Barber and Agakov's lower bound on the mutual information of the two. That entropy is not
    estimated, and the point is learned: a layer that maps every code to one point makes the likelihood as
    large as it gets and the information 0. So it is a guide, not a bound.

    The published code calls it ``mi_loss`` and gives it the weight +0.001. The training loop of this model
    is not published; the one that is, of an older model, adds its mutual-information term to what it
    minimises, which here would make the codes tell less of each other. The paper maximises mutual
    information: subtract the term.

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
            first: ``(..., D)``, of the frame.
            second: ``(..., D)``, of its sound.

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
