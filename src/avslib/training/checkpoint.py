"""Saving and loading the weights of a model."""

from __future__ import annotations

import warnings
from pathlib import Path

from safetensors.torch import load_model, save_model
from torch import nn

from avslib._jobs import permit_as_usual
from avslib.encoders import MelCNN


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights to a safetensors file; an interrupted write keeps the old file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    save_model(model, str(fresh))
    permit_as_usual(fresh)
    fresh.replace(path)  # rename would fail on Windows if the file exists


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a model's weights from a safetensors file; the keys must match exactly."""
    load_model(model, str(path))


def load_initial_weights(
    model: nn.Module,
    *,
    visual: Path | None = None,
    vggish: Path | None = None,
    whole: Path | None = None,
    expected: bool = True,
) -> None:
    """Load the initial weights of a training run, as given on the command line.

    Args:
        model: the model to load into.
        visual: weights of the visual backbone, in timm's naming.
        vggish: weights of the audio encoder, in torchvggish's naming.
        whole: weights of the whole model, from another run.
        expected: whether to warn about an encoder without weights.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if weights are given for an encoder that the model lacks.
    """
    for kind, path, encoder, words in (
        ("visual", visual, getattr(model, "visual_encoder", None), "visual encoder"),
        ("vggish", vggish, getattr(model, "audio_encoder", None), "audio encoder"),
    ):
        if isinstance(getattr(encoder, "network", None), MelCNN):
            encoder, words = None, "VGGish"
        if path is not None:
            if encoder is None:
                raise ValueError(f"--{kind}-weights: {type(model).__name__} has no {words}, got {path}")
            encoder.load_weights(path)
        elif encoder is not None and expected:
            warnings.warn(f"without --{kind}-weights the {words} starts from random weights", stacklevel=3)
    if whole is not None:
        load_weights(model, whole)
