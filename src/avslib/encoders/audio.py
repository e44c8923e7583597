"""Embed the sound of each second with a frozen or trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from avslib._checks import check_one_of
from avslib.encoders.mel_cnn import MelCNN
from avslib.encoders.vggish import VGGish

AUDIO_NETWORKS = {"vggish": VGGish, "mel_cnn": MelCNN}


class AudioEncoder(nn.Module):
    """Compute one embedding per log-mel example.

    A frozen network stays in evaluation mode and runs without autograd.

    Args:
        network: ``"vggish"``, or ``"mel_cnn"`` for a small network to train from scratch.
        embedding_dim: A, length of the embedding; 128 with VGGish's published weights.
        frozen: whether the network keeps its weights. None freezes VGGish only, as is usual in the field.

    Raises:
        ValueError: if ``network`` is unknown.

    Example:
        >>> encoder = AudioEncoder("mel_cnn", embedding_dim=64)
        >>> encoder(torch.zeros(2, 5, 1, 96, 64)).shape
        torch.Size([2, 5, 64])
    """

    def __init__(
        self, network: str = "vggish", *, embedding_dim: int = 128, frozen: bool | None = None
    ) -> None:
        super().__init__()
        check_one_of("audio_encoder", network, AUDIO_NETWORKS)
        self.embedding_dim = embedding_dim
        self.frozen = network == "vggish" if frozen is None else frozen
        self.network = AUDIO_NETWORKS[network](embedding_dim=embedding_dim)
        self.network.requires_grad_(not self.frozen)
        self.train()

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return one embedding per example, ``(..., A)``.

        Args:
            log_mel: VGGish log-mel examples, ``(..., 1, 96, 64)``.

        Raises:
            ValueError: if ``log_mel`` has another shape.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.network(log_mel)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def load_weights(self, path: str | Path) -> None:
        """Load VGGish's weights; see :meth:`VGGish.load_weights`.

        Raises:
            TypeError: if the network is not VGGish, since no other has published weights.
        """
        if not isinstance(self.network, VGGish):
            raise TypeError(f"{path}: weights to load are VGGish's, this is a {type(self.network).__name__}")
        self.network.load_weights(path)
