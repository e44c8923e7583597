"""Load a saved model of any class, from a folder or from a repository of the hub."""

from __future__ import annotations

import contextlib
import io
import json
import pkgutil
import re
import textwrap
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError

from avslib.models.base import AVSModel


def load_model(name: str | Path, *, model_class: str | None = None) -> AVSModel:
    """Load a saved model of any class, in evaluation mode.

    The class is read from ``architectures`` in ``config.json``, or else from the example in the model card.
    It must be one of ours, or a subclass of :class:`AVSModel` that is already imported. Nothing that the
    folder names is imported.

    Args:
        name: a folder written by ``save_pretrained``, or a repository of the hub, which is downloaded.
        model_class: name of the class, if the folder does not state it; or ``"module:class"`` to import a
            class of your own.

    Raises:
        FileNotFoundError: if there is no such folder or repository, or it has no ``config.json``.
        ImportError: if the module of ``model_class`` cannot be imported.
        ValueError: if the class is not stated or not known, or the weights are damaged or of another model.
    """
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or str(name).count("/") != 1:
            raise FileNotFoundError(f"{name}: no such folder, and not the name of a repository on the hub")
        try:
            folder = Path(
                snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "README.md"])
            )
        except (OSError, HFValidationError) as error:
            raise FileNotFoundError(
                f"{name}: no such folder, and it cannot be loaded from the hub ({error})"
            ) from error
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder / 'config.json'}: not there; save_pretrained writes it")
    if model_class is not None and ":" in model_class:
        kind = _import_class(model_class)
    else:
        kind = _known_class(model_class or _stated_class(folder))
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the hub mixin prints
            return kind.from_pretrained(folder).eval()
    except (SafetensorError, RuntimeError) as error:  # torch's has a line for each weight
        reason = textwrap.shorten(str(error), 240, placeholder=" ...")
        raise ValueError(f"{folder}: expected the weights of {kind.__name__} ({reason})") from error


def _import_class(named: str) -> type[AVSModel]:
    """Import the class that ``module:class`` names; this runs the module."""
    try:
        kind = pkgutil.resolve_name(named)
    except ImportError as error:
        raise ImportError(f"model_class: {named!r} cannot be imported ({error})") from error
    except (AttributeError, ValueError) as error:
        raise ValueError(f"model_class: expected module:class, got {named!r} ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, AVSModel)):
        raise ValueError(f"model_class: expected a subclass of AVSModel, {named!r} is not one")
    return kind


def _known_class(name: str) -> type[AVSModel]:
    classes = _subclasses(AVSModel)
    if name not in classes:
        known = ", ".join(map(repr, classes))
        raise ValueError(
            f"model_class: expected one of {known}, or 'module:class' for one of your own, got {name!r}"
        )
    return classes[name]


def _subclasses(base: type[AVSModel]) -> dict[str, type[AVSModel]]:
    """Return all subclasses by name."""
    found: dict[str, type[AVSModel]] = {}
    for subclass in base.__subclasses__():
        found |= {subclass.__name__: subclass, **_subclasses(subclass)}
    return found


def _stated_class(folder: Path) -> str:
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'}: expected a JSON object ({error})") from error
    if isinstance(stated, list) and stated:
        return str(stated[0])
    card = folder / "README.md"
    match = (
        re.search(r"(\w+)\.from_pretrained\(", card.read_text(encoding="utf-8")) if card.is_file() else None
    )
    if match is None:
        raise ValueError(f"model_class: neither config.json nor README.md in {folder} says the model's class")
    return match[1]
