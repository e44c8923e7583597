"""Predict from VGGish embeddings which AudioSet classes are heard."""

from __future__ import annotations

import math

from torch import Tensor, nn

from avslib._checks import check_positive, check_shape


class AudioSetHead(nn.Module):
    """Score the classes of a stretch of sound: three layers per step, attention over steps, one final layer.

    Every hidden channel has its own attention weights over time: sigmoids divided by their sum. With a single
    step, as in C3N, they are 1.

    The published weights expect the output of :class:`~avslib.encoders.PCAQuantizer`, scaled by
    :func:`~avslib.encoders.scale_quantized`. They were trained on ten seconds at a time.

    Args:
        in_channels: A, length of the embedding.
        hidden_channels: width of the hidden layers.
        num_classes: number of scores; AudioSet has 527 classes.
        dropout: probability of dropping a hidden channel in training.

    Raises:
        ValueError: if a size is not above 0.

    Kong et al., "Weakly Labelled AudioSet Tagging with Attention Neural Networks" (2019), feature-level
    attention; the order and initialisation of the layers follow the published code.

    Example:
        >>> import torch
        >>> AudioSetHead()(torch.zeros(2, 5, 1, 128)).shape  # one second at a time, of two clips
        torch.Size([2, 5, 527])
    """

    def __init__(
        self,
        *,
        in_channels: int = 128,
        hidden_channels: int = 1024,
        num_classes: int = 527,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("hidden_channels", hidden_channels)
        check_positive("num_classes", num_classes)
        self.in_channels = in_channels
        self.input_norm = nn.BatchNorm1d(in_channels)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, hidden_channels, bias=False),
                nn.BatchNorm1d(hidden_channels),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
            for channels in (in_channels, hidden_channels, hidden_channels)
        )
        self.attention = nn.Linear(hidden_channels, hidden_channels)
        self.value = nn.Linear(hidden_channels, hidden_channels)
        self.output_norm = nn.BatchNorm1d(hidden_channels)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits ``(..., num_classes)``; classes are not exclusive, so apply a sigmoid to each.

        Args:
            embedding: ``(..., time, A)``.

        Raises:
            ValueError: if ``embedding`` has another shape or no time steps.
        """
        time = check_shape("embedding", embedding, "... time a", a=self.in_channels)["time"]
        check_positive("time", time)
        leading = embedding.shape[:-2]
        x = self.input_norm(embedding.reshape(math.prod(leading) * time, self.in_channels))
        for layer in self.layers:
            x = layer(x)
        weight = self.attention(x).sigmoid().clamp(min=1e-7).unflatten(0, (-1, time))  # the sum is never 0
        value = self.value(x).unflatten(0, (-1, time))
        x = (weight / weight.sum(dim=1, keepdim=True) * value).sum(dim=1)
        scores = self.classify(self.dropout(self.output_norm(x).relu()))
        return scores.reshape(*leading, scores.shape[-1])
