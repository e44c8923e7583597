"""Read a file of weights without running what is in it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a ``.safetensors`` file or, by torch's own restricted loader, any other.

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
    except Exception as error:  # what the loaders raise for a damaged file depends on where it is damaged
        raise ValueError(f"{path}: expected a file of weights (.safetensors, .pth): {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path}: expected a dictionary of tensors, got {type(loaded).__name__}")
    return loaded
