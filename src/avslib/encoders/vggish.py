"""Embed a log-mel example with VGGish."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from avslib._checks import check_positive, check_shape
from avslib.encoders.state_dict import read_state_dict

_STAGES = ((64,), (128,), (256, 256), (512, 512))


class VGGish(nn.Module):
    """VGGish (Hershey et al., ICASSP 2017): six convolutions and three linear layers, a ReLU after each.

    Its input comes from :class:`~avslib.media.LogMel`. The weights are named as in the published PyTorch
    conversion. Features enter the linear layers in the order (time, frequency, channel). The embedding is
    never negative.

    Args:
        embedding_dim: length of the embedding; 128 with the published weights.
        weights: a local file with weights, see :meth:`load_weights`; None for random weights.

    Example:
        >>> import torch
        >>> with torch.device("meta"):  # shapes alone, without 72 million weights
        ...     VGGish()(torch.zeros(2, 5, 1, 96, 64)).shape
        torch.Size([2, 5, 128])
    """

    def __init__(self, *, embedding_dim: int = 128, weights: str | Path | None = None) -> None:
        super().__init__()
        check_positive("embedding_dim", embedding_dim)
        layers: list[nn.Module] = []
        channels = 1
        for stage in _STAGES:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        widths = (6 * 4 * channels, 4096, 4096, embedding_dim)
        self.embeddings = nn.Sequential(
            *(layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU()))
        )
        if weights is not None:
            self.load_weights(weights)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return one embedding per example, ``(..., embedding_dim)``.

        Args:
            log_mel: ``(..., 1, 96, 64)``.

        Raises:
            ValueError: if ``log_mel`` has another shape.
        """
        check_shape("log_mel", log_mel, "... 1 96 64")
        leading = log_mel.shape[:-3]
        features = self.features(log_mel.reshape(math.prod(leading), 1, 96, 64))
        embedding = self.embeddings(features.permute(0, 2, 3, 1).flatten(1))
        return embedding.reshape(*leading, embedding.shape[-1])

    def load_weights(self, path: str | Path) -> None:
        """Load weights from a ``.safetensors`` or ``.pth`` file in torchvggish's naming.

        The constants of torchvggish's post-processing, ``pproc.*``, are ignored; everything else must match.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a weight is missing, unknown or of another shape; the message names the first ones.
        """
        stored = {key: value for key, value in read_state_dict(path).items() if not key.startswith("pproc.")}
        wanted = self.state_dict()
        bad = [
            key
            for key in sorted(stored.keys() | wanted.keys())
            if key not in stored or key not in wanted or stored[key].shape != wanted[key].shape
        ]
        if bad:
            raise ValueError(
                f"{path}: expected the weights of VGGish as torchvggish names them, `features.0.weight` to "
                f"`embeddings.4.bias`; {len(bad)} are missing, unknown or have another shape, such as "
                f"{', '.join(bad[:3])}"
            )
        self.load_state_dict(stored)
