"""VGGish's embedding as 8-bit numbers, the form in which AudioSet was published."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape

_LIMIT = 2.0


class PCAQuantizer(nn.Module):
    """VGGish's post-processor: PCA, whitening, clipping to [-2, 2], 8 bits.

    Classifiers of AudioSet's published embeddings hear through it. It is a constant transform and passes no
    gradient: rounding has none. Its two buffers come from VGGish's published PCA constants; until they are
    loaded it only clips and rounds.

    Args:
        embedding_dim: length of the embedding; VGGish's has 128.

    Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (ICASSP 2017), as in the code
    published with AudioSet. Unlike the PyTorch conversion it leaves the batch axis of a single embedding.

    Example:
        >>> PCAQuantizer(embedding_dim=4)(torch.tensor([-3.0, 0.0, 0.5, 2.0]))
        tensor([  0., 128., 159., 255.])
    """

    eigen_vectors: Tensor
    means: Tensor

    def __init__(self, *, embedding_dim: int = 128) -> None:
        super().__init__()
        check_positive("embedding_dim", embedding_dim)
        self.register_buffer("eigen_vectors", torch.eye(embedding_dim))
        self.register_buffer("means", torch.zeros(embedding_dim))

    @torch.no_grad()
    def forward(self, embedding: Tensor) -> Tensor:
        """Return whole numbers from 0 to 255, as floating-point numbers of the same shape.

        Computed in the constants' own type, also under autocast: rounding would show the difference.

        Args:
            embedding: ``(..., 128)``.

        Raises:
            ValueError: if ``embedding`` has another length.
        """
        check_shape("embedding", embedding, "... a", a=self.means.shape[0])
        with torch.autocast(embedding.device.type, enabled=False):
            whitened = (embedding.to(self.means.dtype) - self.means) @ self.eigen_vectors.mT
        return ((whitened.clamp(-_LIMIT, _LIMIT) + _LIMIT) * (255 / (2 * _LIMIT))).round()


def scale_quantized(quantized: Tensor) -> Tensor:
    """Scale 8-bit numbers to [-1, 1), ``(q - 128) / 128``, as classifiers of them take them.

    Args:
        quantized: numbers from 0 to 255 of any shape, integers or not.

    Returns:
        Floating-point numbers of the same shape.

    Example:
        >>> scale_quantized(torch.tensor([0, 128, 255], dtype=torch.uint8))
        tensor([-1.0000,  0.0000,  0.9922])
    """
    return quantized / 128 - 1
