"""Code shared by the visual encoders: a timm backbone, its four levels and its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from avslib._checks import check_shape
from avslib.encoders.state_dict import read_state_dict

STRIDES = (4, 8, 16, 32)


def check_backbone(name: str) -> None:
    """Raise ``ValueError`` unless timm knows the backbone; the message lists similar names."""
    import timm

    if not timm.is_model(name):
        nearest = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
        raise ValueError(f"backbone: expected a model that timm knows, got {name!r}{hint}")


def find_levels(name: str, strides: Sequence[int]) -> list[int]:
    """Return the indices of the levels at strides 4, 8, 16 and 32.

    Raises:
        ValueError: if one of the four strides is missing.
    """
    if not set(STRIDES) <= set(strides):
        raise ValueError(f"backbone: expected strides {STRIDES}, {name!r} has {tuple(strides)}")
    return [strides.index(stride) for stride in STRIDES]


def check_frames(frames: Tensor) -> None:
    """Raise ``ValueError`` unless the frames are ``(N, 3, H, W)`` with ``H, W >= 32``."""
    size = check_shape("frames", frames, "n 3 h w")
    if min(size["h"], size["w"]) < STRIDES[-1]:
        raise ValueError(f"frames: expected H and W of at least 32 px, got {size['h']} x {size['w']}")


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Load a timm model's weights from a ``.safetensors`` or ``.pth`` file in timm's naming.

    Anything else in the file, such as the head of a classifier that was built without one, is ignored.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a weight is missing or has another shape; the message names the first ones.
    """
    stored = {_folded(key): value for key, value in read_state_dict(path).items()}
    wanted = backbone.state_dict()
    # features_only flattens stages, `stages.0.` to `stages_0.`, or wraps the model as `model` or `body`
    found = {
        key: stored.get(_folded(key), stored.get(_folded(re.sub(r"^(?:model|body)\.", "", key))))
        for key in wanted
    }
    bad = [key for key, value in found.items() if value is None or value.shape != wanted[key].shape]
    if bad:
        raise ValueError(
            f"{path}: expected the weights of {type(backbone).__name__} as timm names them; "
            f"{len(bad)} of {len(wanted)} are missing or have another shape, such as {', '.join(bad[:3])}"
        )
    backbone.load_state_dict(found)


def _folded(key: str) -> str:
    return key.replace(".", "_")
