"""Where scores come from: which weights, clips, versions and command."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import shlex
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from avslib._version import __version__
from avslib.data import ClipReader, OtherSound, SilentSound, SwappedSound
from avslib.data.sound import ClipDataset
from avslib.encoders.state_dict import weights_sha256
from avslib.training.prediction import layers


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Return a model's class, configuration, number of parameters and `weights_sha256`."""
    return {
        "class": type(model).__name__,
        "configuration": dict(getattr(model, "_hub_mixin_config", None) or {}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": weights_sha256(model),
    }


_SOUNDS: dict[type[OtherSound], str] = {SilentSound: "silence", SwappedSound: "another clip's"}


def describe_data(clips: ClipDataset) -> dict[str, Any]:
    """Return a dataset's reader, folder name, split, frame size, sound, number of clips and hash of ids.

    Caches are looked through.
    """
    above = layers(clips)
    clips = above.pop()
    sounds = [
        _SOUNDS.get(type(layer), type(layer).__name__) for layer in above if isinstance(layer, OtherSound)
    ]
    sound = sounds[-1] if sounds else "true"
    told: dict[str, Any] = {"reader": type(clips).__name__, "clips": len(clips), "sound": sound}
    if isinstance(clips, ClipReader):
        told |= {
            "folder": clips.root.resolve().name,
            "split": clips.split,
            "size": clips.size,
            "fit": clips.fit,
            "ids_sha256": hashlib.sha256(json.dumps([clip.id for clip in clips.clips]).encode()).hexdigest(),
        }
    return told


def describe_run(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the versions, the date (UTC) and, if given, the command."""
    told = {
        "avslib": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return told | ({} if command is None else {"command": shlex.join(command)})
