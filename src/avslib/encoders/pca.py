"""Quantise VGGish embeddings to 8-bit numbers, the form in which AudioSet was published."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape

_LIMIT = 2.0


class PCAQuantizer(nn.Module):
    """VGGish's post-processor: PCA, whitening, clipping to [-2, 2] and quantisation to 8 bits.

    Classifiers trained on AudioSet's published embeddings need it. It is a constant transform and passes no
    gradient, because rounding has none. Its two buffers hold VGGish's published PCA constants; until they are
    loaded, it only clips and rounds.

    Args:
        embedding_dim: length of the embedding; VGGish's has 128.

    Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (ICASSP 2017), as in the code
    published with AudioSet. Unlike the PyTorch conversion, it keeps the batch axis of a single embedding.

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
        """Return whole numbers from 0 to 255, as a floating-point tensor of the same shape.

        The computation uses the dtype of the constants, even under autocast, where some numbers would round
        differently.

        Args:
            embedding: ``(..., embedding_dim)``.

        Raises:
            ValueError: if ``embedding`` has another length.
        """
        check_shape("embedding", embedding, "... a", a=self.means.shape[0])
        with torch.autocast(embedding.device.type, enabled=False):
            whitened = (embedding.to(self.means.dtype) - self.means) @ self.eigen_vectors.mT
        return ((whitened.clamp(-_LIMIT, _LIMIT) + _LIMIT) * (255 / (2 * _LIMIT))).round()


def scale_quantized(quantized: Tensor) -> Tensor:
    """Scale 8-bit numbers to [-1, 1) for a classifier: ``(q - 128) / 128``.

    Args:
        quantized: numbers from 0 to 255 in any shape, of an integer or floating-point dtype.

    Returns:
        A floating-point tensor of the same shape.

    Example:
        >>> scale_quantized(torch.tensor([0, 128, 255], dtype=torch.uint8))
        tensor([-1.0000,  0.0000,  0.9922])
    """
    return quantized / 128 - 1
