"""Mask file <-> tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avslib._checks import check_shape
from avslib.media._image import open_rgb


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Read a mask of two classes, however it was stored.

    A pixel is foreground if its brightest channel is at least half as bright as that of the brightest pixel.
    So white may be 1, 255 or a palette's colour; of a smoothed edge the brighter half is foreground; a black
    picture is empty.

    AVSBench's loader for S4 says the same of black and white, but loses a mask of 0 and 1 stored as grey
    levels and dithers the grey of a smoothed edge; its loader for MS3 reads palette indices, so that 1
    becomes 1/255.

    Args:
        path: a picture of one bit, grey levels, palette or RGB.
        size: ``(H, W)`` to resize to, px, by nearest neighbour; None for its own size.

    Returns:
        ``(H, W)``, int64, 0 is background and 1 foreground.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded to its last pixel.
    """
    brightness = np.asarray(open_rgb(path)).max(axis=-1).astype(np.uint8)
    mask = brightness >= max(1, brightness.max() / 2)
    if size is not None:
        resized = Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
        mask = np.asarray(resized)
    return torch.from_numpy(mask.astype(np.int64))


def write_mask(path: str | Path, mask: Tensor) -> None:
    """Write a mask as a grey picture of 8 bits, 0 for background and 255 for foreground.

    Args:
        path: a ``.png`` file, in a folder that exists.
        mask: ``(H, W)``, 0 and 1, any type.

    Raises:
        ValueError: if ``mask`` has another shape or holds anything but 0 and 1.
    """
    check_shape("mask", mask, "h w")
    if not torch.all((mask == 0) | (mask == 1)):
        raise ValueError("mask: expected only 0 and 1, got other values")
    Image.fromarray(mask.detach().cpu().to(torch.uint8).mul(255).numpy()).save(path, format="PNG")
