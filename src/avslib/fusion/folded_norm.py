"""Batch norm of a matrix product, computed from the moments of its small factor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fold_batch_norm(
    norm: nn.BatchNorm1d, weights: Tensor, values: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Fold a batch norm into the values and the bias of ``weights @ values + bias``.

    With the returned values and bias, the product is ``norm(weights @ values + bias)`` of the arguments. The
    unnormalised product is never formed: its mean and variance over all positions follow from those of the K
    weights, and a batch norm is a scale and a shift. In training, this updates the running statistics, as
    calling ``norm`` does.

    Args:
        norm: a batch norm over C channels.
        weights: ``(B, N, K)``.
        values: ``(B, K, C)``.
        bias: ``(C,)``.

    Returns:
        Values ``(B, K, C)`` and a bias ``(C,)``, in the dtypes of the arguments.

    Raises:
        ValueError: if there is only one position in training, so that there is no variance.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        mean, variance = _moments(weights, values, bias)
        if norm.running_mean is not None:
            _track(norm, mean.detach(), variance.detach(), count=weights.shape[0] * weights.shape[1])
    else:
        mean, variance = norm.running_mean, norm.running_var
    scale = (variance + norm.eps).rsqrt() * norm.weight
    return (values * scale).to(values.dtype), (norm.bias + (bias - mean) * scale).to(bias.dtype)


def _moments(weights: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of ``weights @ values + bias`` over clips and positions, ``(C,)`` each."""
    clips, positions, _ = weights.shape
    if clips * positions < 2:
        raise ValueError("x: expected more than one position in training, whose batch norm needs a variance")
    with torch.autocast(weights.device.type, enabled=False):
        dtype = torch.promote_types(weights.dtype, torch.float32)
        weights, values = weights.to(dtype), values.to(dtype)
        center = weights.mean(dim=1, keepdim=True)
        spread = weights - center
        covariance = spread.mT @ spread / positions
        means = (center @ values).squeeze(1)  # of every clip, (B, C)
        mean = means.mean(dim=0)
        within = (covariance @ values * values).sum(dim=1).clamp(min=0)  # rounding may go below 0
        variance = (within + (means - mean).square()).mean(dim=0)
    return mean + bias, variance


def _track(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, *, count: int) -> None:
    """Update the running statistics; outside autograd, as in torch, so that ``norm`` may be called twice."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.data.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.data.lerp_((variance * count / (count - 1)).to(norm.running_var.dtype), momentum)
