"""Temporal pixel-wise audio-visual interaction: every pixel attends to the sound of every second."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from avslib._checks import check_one_of, check_positive, check_shape
from avslib.fusion.attention import dot_attention, relu_attention, softmax_attention
from avslib.fusion.folded_norm import fold_batch_norm

MODES = ("dot", "embedded", "gaussian", "concatenate")


def project_onto(linear: nn.Linear, x: Tensor, directions: Tensor) -> Tensor:
    """Compute ``linear(x) @ directions.mT`` for a few directions, without forming the wide ``linear(x)``.

    Args:
        linear: a layer from C to D channels, with a bias.
        x: ``(B, N, C)``.
        directions: ``(B, K, D)`` or ``(K, D)``.

    Returns:
        ``(B, N, K)``.
    """
    return x @ (directions @ linear.weight).mT + (directions @ linear.bias)[..., None, :]


class TPAVI(nn.Module):
    """Temporal pixel-wise audio-visual interaction (Zhou et al., ECCV 2022, section 3.2).

    With N = T*H*W positions, the paper forms an N x N matrix f of pixels and sounds, where the sound of a
    second is copied to its H*W pixels, and ``z = layer_norm(x + batch_norm(out(f @ value(x))))``. As copies
    share their key, only the mean of their values matters. So f shrinks to N x T and ``out(value(x))`` to T
    vectors per clip, which makes time and memory linear in N. Without sound a clip attends to itself;
    ``avslib.fusion.attention`` does not form an N x N matrix either.

    A new block only normalises x: the scale of its batch norm, or ``out`` if it has none, starts at 0.

    Args:
        channels: width C of the visual features, in and out.
        audio_channels: width A of the audio embedding; VGGish gives 128. None if the embedding already has C
            channels and needs no ``align``, as in ECMVAE.
        hidden_channels: width inside the attention; by default half of ``channels``, as in the paper.
        mode: how pixel i and sound j are compared, with q = query(x_i) and k = key(align(audio_j)):
            "dot" is q.k / N, as in the paper; "embedded" is the softmax over j of q.k; "gaussian" is that of
            x_i.align(audio_j), without query or key; "concatenate" is relu(pair([q, k])) / N.
        batch_norm: whether ``out`` is followed by a batch norm over all positions of the batch.
        audio_bias: whether ``align`` has a bias; in AVSBench's semantic setting it has none.
        normalize: whether to first scale the features of each pixel and the aligned audio of each second to
            length 1, as in ECMVAE (Mao et al., ICCV 2023). Attention and residual see the scaled features,
            and the scaled audio is returned.

    Raises:
        ValueError: if ``mode`` is not one of the four or a width is below 1.

    Example:
        >>> fuse = TPAVI(16)
        >>> fused, aligned = fuse(torch.rand(2, 5, 16, 7, 7), torch.rand(2, 5, 128))
        >>> fused.shape, aligned.shape
        (torch.Size([2, 5, 16, 7, 7]), torch.Size([2, 5, 16]))
    """

    def __init__(
        self,
        channels: int,
        *,
        audio_channels: int | None = 128,
        hidden_channels: int | None = None,
        mode: str = "dot",
        batch_norm: bool = True,
        audio_bias: bool = True,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if hidden_channels is None:
            hidden_channels = max(1, channels // 2)
        check_positive("channels", channels)
        if audio_channels is not None:
            check_positive("audio_channels", audio_channels)
        check_positive("hidden_channels", hidden_channels)
        check_one_of("mode", mode, MODES)
        self.channels = channels
        self.audio_channels = channels if audio_channels is None else audio_channels
        self.mode = mode
        self.normalize = normalize
        self.align: nn.Module = nn.Identity()
        if audio_channels is not None:
            self.align = nn.Linear(audio_channels, channels, bias=audio_bias)
        if mode != "gaussian":
            self.query = nn.Linear(channels, hidden_channels)
            self.key = nn.Linear(channels, hidden_channels)
        if mode == "concatenate":
            self.pair = nn.Linear(2 * hidden_channels, 1)
        self.value = nn.Linear(channels, hidden_channels)
        self.out = nn.Linear(hidden_channels, channels)
        self.batch_norm = nn.BatchNorm1d(channels) if batch_norm else nn.Identity()
        self.layer_norm = nn.LayerNorm(channels)
        for parameter in (self.batch_norm if batch_norm else self.out).parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, audio: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Fuse the features of a clip with its sound, or with each other.

        Args:
            x: visual features, ``(B, T, C, H, W)``.
            audio: one embedding per second, ``(B, T, A)``; None lets every pixel attend to all pixels.

        Returns:
            The fused features ``(B, T, C, H, W)``, stored with the channels last, and the aligned audio
            ``(B, T, C)``, or None without audio.

        Raises:
            ValueError: if ``x`` or ``audio`` has another shape; the message names it.
        """
        size = check_shape("x", x, "b t c h w", c=self.channels)
        if self.normalize:
            x = _scale_to_length_1(x, dim=2)
        pixels = rearrange(x, "b t c h w -> b (t h w) c")
        if audio is None:
            fused = pixels + self._normalize(self.out(self._attend_to_pixels(pixels)))
        else:
            check_shape("audio", audio, "b t a", b=size["b"], t=size["t"], a=self.audio_channels)
            audio = self.align(audio)
            if self.normalize:
                audio = _scale_to_length_1(audio, dim=2)
            weights = self._compare_with_sound(pixels, audio)
            # Not the mean: the gradient of a sum need not be written out for every pixel.
            pooled = reduce(x, "b t c h w -> b t c", "sum") / (size["h"] * size["w"])
            values = self.value(pooled) @ self.out.weight.mT
            fused = self._add_product(pixels, weights, values)
        z = self.layer_norm(fused)
        return rearrange(z, "b (t h w) c -> b t c h w", t=size["t"], h=size["h"]), audio

    def _add_product(self, pixels: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        """Return ``pixels + batch_norm(weights @ values + out.bias)`` in one pass over the pixels."""
        bias: Tensor = self.out.bias
        if type(self.batch_norm) is nn.BatchNorm1d:
            values, bias = fold_batch_norm(self.batch_norm, weights, values, bias)
        elif not isinstance(self.batch_norm, nn.Identity):  # such as a SyncBatchNorm
            return pixels + self._normalize(torch.baddbmm(bias, weights, values))
        # The bias is the value of one more second, whose weight is 1 for every pixel.
        values = torch.cat([values, bias.to(values.dtype).expand(values.shape[0], 1, -1)], dim=1)
        return torch.baddbmm(pixels, F.pad(weights, (0, 1), value=1.0), values)

    def _normalize(self, y: Tensor) -> Tensor:
        return self.batch_norm(y.flatten(0, 1)).view_as(y)

    def _compare_with_sound(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Return the weight of every second for every pixel, ``(B, N, T)``: f, summed over copies."""
        if self.mode == "gaussian":
            return (pixels @ audio.mT).softmax(dim=-1)
        if self.mode == "concatenate":
            query, key = self._pair(pixels, audio)
            return F.relu(query[:, :, None] + key[:, None, :]) / audio.shape[1]
        scores = project_onto(self.query, pixels, self.key(audio))
        return scores.softmax(dim=-1) if self.mode == "embedded" else scores / audio.shape[1]

    def _attend_to_pixels(self, pixels: Tensor) -> Tensor:
        """Return ``f @ value(x)``, ``(B, N, hidden_channels)``."""
        if self.mode == "gaussian":
            # The weights sum to 1, so the value layer can come last and the fused kernel sees one width.
            return self.value(softmax_attention(pixels, pixels, pixels))
        if self.mode == "concatenate":
            return relu_attention(*self._pair(pixels, pixels), self.value(pixels))
        attention = softmax_attention if self.mode == "embedded" else dot_attention
        return attention(self.query(pixels), self.key(pixels), self.value(pixels))

    def _pair(self, pixels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Split ``pair([query(x_i), key(a_j)])`` into the sum of a number for each i and one for each j."""
        query, key = self.pair.weight.chunk(2, dim=-1)
        query = project_onto(self.query, pixels, query) + self.pair.bias
        return query.squeeze(-1), project_onto(self.key, others, key).squeeze(-1)


def _scale_to_length_1(x: Tensor, *, dim: int) -> Tensor:
    return x / (x.square().sum(dim=dim, keepdim=True) + 1e-6).sqrt()  # ECMVAE's constant
