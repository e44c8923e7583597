"""Numbers that published implementations gave, and the recipe that made their weights.

Each case is ``golden/<name>.npz`` and one entry of ``golden/index.json``: where it came from (repository,
commit, symbol), its inputs, its outputs and their tolerances. ``golden/state_dicts`` holds the names and
shapes of the reference's weights where they are many; ``index.json`` may describe cases that are not stored.
"""

from __future__ import annotations

import functools
import gzip
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


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in json.loads((ROOT / "index.json").read_text())["cases"]}


def case(name: str) -> dict[str, Any]:
    return _index()[name]


def names(prefix: str) -> list[str]:
    """The stored cases whose name begins so, for ``pytest.mark.parametrize``."""
    return sorted(name for name in _index() if name.startswith(prefix) and (ROOT / f"{name}.npz").is_file())


def arrays(name: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(ROOT / f"{name}.npz") as stored:
        return dict(stored)


def table(name: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the reference's weights: of a case, or of a file in ``state_dicts``."""
    if name in _index():
        entry = case(name)
        if "state_dict" in entry:
            return {key: tuple(shape) for key, shape in entry["state_dict"]}
        name = entry["state_dict_file"]
    path = ROOT / "state_dicts" / Path(name).name
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return {key: tuple(shape) for key, shape in json.load(file)}


def reference_weights(name: str) -> dict[str, torch.Tensor]:
    """The weights that the reference had in a case, under its own names."""
    seed = case(name)["weight_seed"]
    return {key: torch.from_numpy(fill(key, shape, seed)) for key, shape in table(name).items()}


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
    """The inputs of a case, stored or made by their recipe."""
    made: dict[str, npt.NDArray[Any]] = {}
    entries = case(name)["inputs"]
    for entry in sorted(entries, key=lambda entry: "recipe" in entry):  # a recipe may use stored ones
        if "recipe" in entry:
            recipe = entry["recipe"]
            x = normal(recipe["name"], tuple(entry["shape"]), recipe["seed"])
            made[entry["name"]] = eval(recipe.get("transform") or "x", {**made, "np": np, "x": x})
        else:
            made[entry["name"]] = arrays(Path(entry.get("file", name)).stem)[entry["key"]]
    return {entry["name"]: made[entry["name"]] for entry in entries}


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
    stored = reference_weights(name)
    state = module.state_dict()
    for key, ours in state.items():
        theirs = rename(key)
        if theirs is None:
            continue
        value = stored[theirs].reshape(ours.shape)
        state[key] = value.double() if double and value.is_floating_point() else value
    module.load_state_dict(state)


def assert_matches(name: str, output: str, actual: Any) -> None:
    """Compare with a stored output at the case's own tolerance: float64 with the float64 one, if stored."""
    entry = next(o for o in case(name)["outputs"] if output in (o["name"], o["key"]))
    found = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    wide = found.dtype == np.float64 and "key64" in entry
    expected = arrays(name)[entry["key64" if wide else "key"]]
    np.testing.assert_allclose(found, expected, rtol=entry["rtol"], atol=entry["atol"])
