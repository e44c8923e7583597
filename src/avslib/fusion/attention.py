"""Attention between all N positions of a clip, without the N x N matrix of their pairs.

Non-local networks (Wang et al., CVPR 2018) call the four ways to compare two positions dot product, embedded
Gaussian, Gaussian and concatenation; the two Gaussians are both :func:`softmax_attention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dot_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Average the values, weighted by ``query_i . key_j`` without normalisation.

    ``(query @ key.mT) @ value`` equals ``query @ (key.mT @ value)``, whose inner matrix is only ``(D, E)``.

    Args:
        query: ``(B, M, D)``.
        key: ``(B, N, D)``.
        value: ``(B, N, E)``.

    Returns:
        ``(B, M, E)``: ``sum_j (query_i . key_j) value_j / N``.
    """
    root = key.shape[1] ** 0.5  # divide by it twice: an undivided sum may leave the range of float16
    return query @ ((key / root).mT @ value / root)


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Average the values, weighted by the softmax over j of the unscaled ``query_i . key_j``.

    PyTorch's fused kernels process the pairs in tiles. They need the same width for all three arguments. If
    the values have another width, or in float64 on CUDA, PyTorch falls back to the full matrix.

    Args:
        query: ``(B, M, D)``.
        key: ``(B, N, D)``.
        value: ``(B, N, D)``.

    Returns:
        ``(B, M, D)``.
    """
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]


def relu_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Average the values, weighted by ``relu(query_i + key_j)``, where queries and keys are scalars.

    Position i only uses the keys above ``-query_i``. Sorted in descending order, these come first. So two
    running sums, of ``value`` and of ``key * value``, give the exact result for all queries in
    ``O(N log N)``.

    Args:
        query: ``(B, M)``.
        key: ``(B, N)``.
        value: ``(B, N, E)``.

    Returns:
        ``(B, M, E)``: ``sum_j relu(query_i + key_j) value_j / N``; float32 for narrower inputs, which are
        too imprecise for running sums.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    offset = key.detach().mean(dim=1, keepdim=True)  # keeps query + key, but makes the summands smaller
    query, key = query + offset, key - offset
    key, order = key.sort(dim=1, descending=True)
    value = value.take_along_dim(order[..., None], dim=1)
    sums = torch.cat([value, key[..., None] * value], dim=-1).cumsum(dim=1)
    sums = F.pad(sums, (0, 0, 1, 0))  # row k is the sum over the k largest keys
    met = torch.searchsorted(-key.detach(), query.detach().contiguous())  # how many keys lie above -query
    values, keyed_values = sums.take_along_dim(met[..., None], dim=1).chunk(2, dim=-1)
    return (query[..., None] * values + keyed_values) / key.shape[1]
