"""Embed a log-mel example with a network small enough to train from scratch."""

from __future__ import annotations

import math

from torch import Tensor, nn

from avslib._checks import check_positive, check_shape

_MEAN, _STD = -1.0, 2.0  # silence is log 0.01 = -4.6, loud sound reaches 3


class MelCNN(nn.Module):
    """Four strided convolutions and a linear layer: half a million weights, where VGGish has 72 million.

    The network averages over time but not over frequency: the frequencies of a sound tell what it is, while
    order matters little within an example of one second. It is ours, not from a paper.

    Args:
        embedding_dim: length of the embedding.
        width: channels of the first convolution; each of the next three doubles the number.

    Example:
        >>> import torch
        >>> MelCNN()(torch.zeros(2, 5, 1, 96, 64)).shape
        torch.Size([2, 5, 128])
    """

    def __init__(self, *, embedding_dim: int = 128, width: int = 32) -> None:
        super().__init__()
        check_positive("embedding_dim", embedding_dim)
        check_positive("width", width)
        layers: list[nn.Module] = []
        channels = 1
        for out_channels in (width, 2 * width, 4 * width, 8 * width):
            layers += [
                nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            ]
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.embed = nn.Linear(channels * 4, embedding_dim)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return one embedding per example, ``(..., embedding_dim)``.

        Args:
            log_mel: ``(..., 1, 96, 64)``.

        Raises:
            ValueError: if ``log_mel`` has another shape.
        """
        check_shape("log_mel", log_mel, "... 1 96 64")
        leading = log_mel.shape[:-3]
        standardised = (log_mel.reshape(math.prod(leading), 1, 96, 64) - _MEAN) / _STD
        embedding = self.embed(self.features(standardised).mean(dim=2).flatten(1))
        return embedding.reshape(*leading, embedding.shape[-1])
