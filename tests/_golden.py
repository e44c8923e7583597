"""Numbers that published implementations gave, and the recipe that made their weights.

Each case is ``golden/<name>.npz`` and one entry of ``golden/index.json``: where it came from (repository,
commit, symbol), its inputs, its outputs and their tolerances.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

ROOT = Path(__file__).parent / "golden"


def case(name: str) -> dict[str, Any]:
    return next(c for c in json.loads((ROOT / "index.json").read_text())["cases"] if c["name"] == name)


def arrays(name: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(ROOT / f"{name}.npz") as stored:
        return dict(stored)


def normal(name: str, shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    generator = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), seed]))
    return np.asarray(generator.standard_normal(shape)).astype(np.float32)


def fill(name: str, shape: tuple[int, ...], seed: int) -> npt.NDArray[Any]:
    """The value that the reference's parameter ``name`` had."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    x = normal(name, shape, seed)
    if name.endswith("running_var"):
        return np.float32(1) + np.float32(0.1) * np.abs(x)
    if name.endswith("running_mean"):
        return np.float32(0.1) * x
    if len(shape) >= 2:
        return x / np.float32(math.sqrt(math.prod(shape[1:])))
    if name.endswith("weight"):
        return np.float32(1) + np.float32(0.1) * x
    return np.float32(0.1) * x


def inputs(name: str) -> dict[str, npt.NDArray[Any]]:
    """The inputs of a case, stored or made by its recipe."""
    stored = arrays(name)
    made: dict[str, npt.NDArray[Any]] = {}
    for entry in case(name)["inputs"]:
        if "recipe" in entry:
            recipe = entry["recipe"]
            x = normal(recipe["name"], tuple(entry["shape"]), recipe["seed"])
            made[entry["name"]] = eval(recipe.get("transform") or "x", {"np": np, "x": x})
        else:
            made[entry["name"]] = stored[entry["key"]]
    return made


def load_filled(
    module: torch.nn.Module,
    name: str,
    rename: Callable[[str], str | None] = lambda key: key,
    *,
    double: bool = False,
) -> None:
    """Give a module the reference's weights; ``rename`` maps our key to the reference's, None keeps ours.

    The shapes of the reference's tensors come from the case's own table, so a 1x1x1 convolution there may be
    a 1x1 convolution or a linear layer here.
    """
    entry = case(name)
    table = {key: tuple(shape) for key, shape in entry["state_dict"]}
    state = module.state_dict()
    for key, ours in state.items():
        theirs = rename(key)
        if theirs is None:
            continue
        value = torch.from_numpy(fill(theirs, table[theirs], entry["weight_seed"])).reshape(ours.shape)
        state[key] = value.double() if double and value.is_floating_point() else value
    module.load_state_dict(state)


def assert_matches(name: str, output: str, actual: Any) -> None:
    """Compare with a stored output at the case's own tolerance."""
    entry = next(o for o in case(name)["outputs"] if o["name"] == output or o["key"] == output)
    expected = arrays(name)[entry["key"]]
    found = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    np.testing.assert_allclose(found, expected, rtol=entry["rtol"], atol=entry["atol"])
