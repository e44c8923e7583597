"""Read and write masks of classes as colour pictures, with the palette of AVSBench-semantic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avslib._checks import check_one_of, check_shape
from avslib.media._image import MAX_PIXELS, fit_picture, open_rgb

NUM_CLASSES = 71
"""Number of classes of AVSBench-semantic, including the background."""


def class_palette(num_classes: int = NUM_CLASSES) -> Tensor:
    """Return the colour of each class, as in PASCAL VOC.

    The bits of a class go to red, green and blue in turn; the lowest three become the highest bit of each
    channel. So every colour stands for exactly one of 2**24 classes, and the background is black.

    Args:
        num_classes: number of classes, including the background, 1 to 2**24.

    Returns:
        ``(num_classes, 3)``, uint8, RGB.

    Raises:
        ValueError: if ``num_classes`` is out of this range.

    Example:
        >>> class_palette(4).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    _check_num_classes(num_classes)
    bits = torch.arange(num_classes)[:, None] >> torch.arange(3)  # each channel's own bit is the lowest
    palette = torch.zeros_like(bits)
    for place in range(8):
        palette |= ((bits >> 3 * place) & 1) << 7 - place
    return palette.to(torch.uint8)


def read_classes(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    num_classes: int = NUM_CLASSES,
    unknown: str = "background",
    fit: str = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a mask of classes from a colour picture.

    Args:
        path: a PNG or BMP file in the colours of `class_palette`, as RGB or with a palette. JPEG would change
            the colours.
        size: ``(H, W)`` to resize to, px, by nearest neighbour; None for the picture's own size.
        num_classes: number of classes, including the background.
        unknown: how to treat a colour of no class. ``"background"`` reads it as background, as the published
            code of AVSBench-semantic does silently; ``"raise"`` refuses the file.
        fit: ``"stretch"`` or ``"crop"``, as in :func:`~avslib.media.read_frame`.
        max_pixels: largest number of pixels that is decoded.

    Returns:
        ``(H, W)``, int64, in ``[0, num_classes)``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded completely, has more than ``max_pixels`` pixels, or holds a colour
            of no class and ``unknown`` is ``"raise"``; the message names one such colour.
    """
    _check_num_classes(num_classes)
    check_one_of("unknown", unknown, ("background", "raise"))
    image = open_rgb(path, max_pixels=max_pixels)
    resampling = Image.Resampling.NEAREST
    image = fit_picture(image, size, fit=fit, resampling=resampling, path=path, max_pixels=max_pixels)
    pixels = np.asarray(image)
    classes = np.empty(pixels.shape[:2], np.int64)
    for top in range(0, len(pixels), 64):  # a few rows at a time stay in the cache
        rows = slice(top, top + 64)
        red, green, blue = (np.take(bits, pixels[rows, :, i]) for i, bits in enumerate(_CLASS_BITS))
        classes[rows] = red | green | blue
    known = classes < num_classes
    if unknown == "raise" and not known.all():
        foreign = pixels[~known]
        raise ValueError(
            f"{path}: expected only colours of {num_classes} classes, got RGB "
            f'{tuple(foreign[0].tolist())} and {len(foreign)} such pixels in all; unknown="background" takes '
            "them for background"
        )
    classes *= known
    return torch.from_numpy(classes)


def write_classes(path: str | Path, classes: Tensor, *, num_classes: int = NUM_CLASSES) -> None:
    """Write a mask of classes as an RGB picture, which `read_classes` reads back.

    Args:
        path: a ``.png`` file, in a folder that exists.
        classes: ``(H, W)``, whole numbers in ``[0, num_classes)``.
        num_classes: number of classes, including the background.

    Raises:
        ValueError: if ``classes`` has another shape, is not of an integer type, or holds other numbers.
    """
    check_shape("classes", classes, "h w")
    palette = class_palette(num_classes)
    classes = classes.detach().cpu()
    if classes.is_floating_point() or torch.any((classes < 0) | (classes >= num_classes)):
        raise ValueError(f"classes: expected whole numbers from 0 to {num_classes - 1}, got others")
    Image.fromarray(palette[classes.long()].numpy()).save(path, format="PNG")


def _check_num_classes(num_classes: int) -> None:
    if not 1 <= num_classes <= 2**24:
        raise ValueError(f"num_classes: expected 1 to {2**24}, got {num_classes}")


def _class_bits() -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the bits of a class that each value of each channel stands for, ``(3, 256)``."""
    values = np.arange(256, dtype=np.int32)
    bits = np.zeros((3, 256), np.int32)
    for place in range(8):
        bits |= ((values >> 7 - place) & 1) << 3 * place
    return bits << np.arange(3, dtype=np.int32)[:, None]


_CLASS_BITS = _class_bits()
