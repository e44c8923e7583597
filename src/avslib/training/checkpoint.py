"""The weights of a model as a file."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_model, save_model
from torch import nn


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights to a safetensors file; an interrupted write leaves the old file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    save_model(model, str(fresh))
    fresh.rename(path)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a model's weights from a safetensors file, all of them and no others."""
    load_model(model, str(path))
