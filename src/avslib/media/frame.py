"""Frame file <-> tensor, and the normalisation that every network here expects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avslib._checks import check_shape
from avslib.media._image import open_rgb

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of each channel over ImageNet, RGB in ``[0, 1]``."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of each channel over ImageNet, RGB in ``[0, 1]``."""


def read_frame(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Read a picture.

    Args:
        path: a file of any format that Pillow reads.
        size: ``(H, W)`` to resize to, px, bilinearly and without keeping the aspect ratio, as AVSBench's
            frames were; None for its own size.

    Returns:
        ``(3, H, W)``, uint8, RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded to its last pixel.
    """
    image = open_rgb(path)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def write_frame(path: str | Path, frame: Tensor) -> None:
    """Write a picture in the format that the file's name tells.

    Args:
        path: the file, in a folder that exists.
        frame: ``(3, H, W)``, RGB: uint8, or float in ``[0, 1]``.
    """
    check_shape("frame", frame, "3 h w")
    frame = frame.detach().cpu()
    if frame.is_floating_point():
        frame = (frame * 255).round().clamp(0, 255)
    Image.fromarray(frame.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()).save(path)


def normalize_frames(frames: Tensor) -> Tensor:
    """Take RGB to zero mean and unit variance over ImageNet.

    Args:
        frames: ``(..., 3, H, W)``: uint8, or float in ``[0, 1]``.

    Returns:
        ``(..., 3, H, W)``, float32.

    Raises:
        ValueError: if ``frames`` has another shape, or is of another integer type.

    Example:
        >>> import torch
        >>> normalize_frames(torch.full((3, 1, 1), 255, dtype=torch.uint8)).flatten()
        tensor([2.2489, 2.4286, 2.6400])
    """
    check_shape("frames", frames, "... 3 h w")
    if frames.dtype == torch.uint8:
        scaled = frames.to(torch.float32) / 255
    elif frames.is_floating_point():
        scaled = frames.to(torch.float32)
    else:
        raise ValueError(f"frames: expected uint8, or float in [0, 1], got {frames.dtype}")
    return (scaled - _per_channel(IMAGENET_MEAN, scaled)) / _per_channel(IMAGENET_STD, scaled)


def denormalize_frames(frames: Tensor) -> Tensor:
    """Undo `normalize_frames`, to look at a frame.

    Args:
        frames: ``(..., 3, H, W)``, ImageNet-normalised.

    Returns:
        ``(..., 3, H, W)``, RGB in ``[0, 1]``; what lies outside is clipped.
    """
    check_shape("frames", frames, "... 3 h w")
    return (frames * _per_channel(IMAGENET_STD, frames) + _per_channel(IMAGENET_MEAN, frames)).clamp(0, 1)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)
