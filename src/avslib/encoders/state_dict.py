"""Read a file of weights without running code from it, and identify weights by a hash."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a ``.safetensors`` file or, with torch's restricted loader, from any other.

    Anything that training scripts wrap around them is removed; see :func:`unwrap_state_dict`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds anything but named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message suggests loading it anyway
        raise ValueError(
            f"{path}: expected a file of weights (.safetensors, .pth): it is damaged, or holds something "
            "other than tensors; save only its state_dict"
        ) from error
    except Exception as error:  # what the loaders raise for a damaged file depends on where it is damaged
        raise ValueError(
            f"{path}: expected a file of weights (.safetensors, .pth): it is damaged, or of another kind "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected a dictionary of tensors, got {type(loaded).__name__}")
    try:
        return unwrap_state_dict(loaded)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def unwrap_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Remove what training scripts wrap around weights: ``{"model": ...}``, ``module.``, ``_orig_mod.``.

    Raises:
        ValueError: if the content is anything but named tensors.
    """
    for wrapper in ("model", "state_dict", "model_state_dict"):
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping):
            return unwrap_state_dict(inner)
    other = [key for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if other or not state_dict:
        found = f"{other[0]!r}: {type(state_dict[other[0]]).__name__}" if other else "nothing"
        raise ValueError(f"state_dict: expected names and tensors, got {found}")
    return {
        re.sub(r"^(?:module\.)+", "", key.replace("_orig_mod.", "")): value
        for key, value in state_dict.items()
    }


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights: their names, dtypes, shapes and bytes, sorted by name.

    It depends neither on the file format nor on the device of the weights.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
