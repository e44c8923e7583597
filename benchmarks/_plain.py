"""TPAVI as published: it forms the matrix of all pairs of positions, for all clips of a batch at once."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from avslib.fusion import TPAVI

Model = TypeVar("Model", bound=nn.Module)


class DenseTPAVI(TPAVI):
    """A TPAVI that forms f, of size N x N for the N = T*H*W positions of a clip.

    As in the published code, the sound of a second is copied to every position of its frame, and f is divided
    by N out of place. ``mode="concatenate"`` is not supported: its pairs take a hundred times that size.
    """

    def forward(self, x: Tensor, audio: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Fuse as :class:`TPAVI` does, with the same parameters."""
        assert self.mode in ("dot", "embedded", "gaussian")
        _, t, _, h, w = x.shape
        if audio is not None:
            audio = self.align(audio)
        if self.normalize:
            x = _unit_length(x, dim=2)
            audio = None if audio is None else _unit_length(audio, dim=2)
        pixels = rearrange(x, "b t c h w -> b (t h w) c")
        others = pixels if audio is None else repeat(audio, "b t c -> b (t h w) c", h=h, w=w)
        embedded = self.mode != "gaussian"
        f = (self.query(pixels) if embedded else pixels) @ (self.key(others) if embedded else others).mT
        f_div_n = f / f.shape[-1] if self.mode == "dot" else f.softmax(dim=-1)
        y = self.out(f_div_n @ self.value(pixels))
        y = self.batch_norm(y.mT).mT
        z = self.layer_norm(pixels + y)
        return rearrange(z, "b (t h w) c -> b t c h w", t=t, h=h, w=w), audio


def densify(model: Model) -> Model:
    """Return a copy of a model or of a single block in which every TPAVI forms the matrix of all pairs."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, TPAVI):
            module.__class__ = DenseTPAVI
    return model


def fill(model: nn.Module) -> None:
    """Replace the scales that start at 0, so that TPAVI changes its input."""
    for module in model.modules():
        if isinstance(module, TPAVI):
            scaled = module.batch_norm if isinstance(module.batch_norm, nn.BatchNorm1d) else module.out
            nn.init.uniform_(scaled.weight, 0.5, 1.0)


def _unit_length(x: Tensor, *, dim: int) -> Tensor:
    return x / torch.sqrt(x.pow(2).sum(dim=dim, keepdim=True) + 1e-6)
