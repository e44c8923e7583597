"""Read and write masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor

from avslib._checks import check_shape
from avslib.media._image import MAX_PIXELS, damage_named, fit_picture, open_picture


def read_mask(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    fit: str = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a binary mask, however it is stored.

    A pixel is foreground if its brightest channel is at least half as bright as that of the brightest pixel.
    So white may be 1, 255 or a palette colour, and the brighter half of a smoothed edge is foreground. A
    black picture is an empty mask, and transparent pixels count as black.

    AVSBench's loader for S4 agrees for black and white, but it loses masks stored as grey levels 0 and 1, and
    dithers the grey of smoothed edges. Its loader for MS3 reads palette indices, so 1 becomes 1/255.

    Args:
        path: a PNG, JPEG or BMP file with one bit, 8 or 16 bits of grey, a palette, or RGB.
        size: ``(H, W)`` to resize to, px, by nearest neighbour; None for the picture's own size.
        fit: ``"stretch"`` or ``"crop"``. If the mask and the frame are stored in the same size, the mask
            lines up with what :func:`~avslib.media.read_frame` returns for the same ``size`` and ``fit``.
        max_pixels: largest number of pixels that is decoded.

    Returns:
        ``(H, W)``, int64: 0 is background, 1 foreground.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded completely; if it has more than ``max_pixels`` pixels, or would
            have once it is scaled to be cropped; or if ``fit`` is unknown or ``size`` not above 0.
    """
    brightness = read_brightness(path, max_pixels=max_pixels)
    is_foreground = brightness >= max(1, brightness.max().item() / 2)
    mask = Image.fromarray(is_foreground.to(torch.uint8).numpy())
    resampling = Image.Resampling.NEAREST
    mask = fit_picture(mask, size, fit=fit, resampling=resampling, path=path, max_pixels=max_pixels)
    return torch.from_numpy(np.asarray(mask).astype(np.int64))


def read_brightness(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read the brightness of the brightest channel of every pixel; transparent pixels are black.

    Args:
        path: a PNG, JPEG or BMP file.
        max_pixels: largest number of pixels that is decoded.

    Returns:
        ``(H, W)``, integers up to 255, or up to 65535 for 16-bit grey.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded completely; if it has more than ``max_pixels`` pixels, or would
            have once it is scaled to be cropped; or if ``fit`` is unknown or ``size`` not above 0.
    """
    image = open_picture(path, max_pixels=max_pixels)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        return torch.from_numpy(np.asarray(image).astype(np.int32))
    with damage_named(path):
        red, green, blue, opacity = image.convert("RGBA").split()
    brightness = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return torch.from_numpy(np.array(ImageChops.multiply(brightness, opacity)))


def read_numbers(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    fit: str = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a mask whose grey levels or palette indices are numbers, such as classes.

    Args:
        path: an 8-bit PNG or BMP file.
        size: ``(H, W)`` to resize to, px, by nearest neighbour; None for the picture's own size.
        fit: ``"stretch"`` or ``"crop"``, as in :func:`~avslib.media.read_frame`.
        max_pixels: largest number of pixels that is decoded.

    Returns:
        ``(H, W)``, int64, from 0 to 255.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded completely, has more than ``max_pixels`` pixels, or holds colours.
    """
    image = open_picture(path, max_pixels=max_pixels)
    if image.mode not in ("L", "P"):
        raise ValueError(f"{path}: expected 8-bit grey levels or a palette, got {image.mode}")
    resampling = Image.Resampling.NEAREST
    image = fit_picture(image, size, fit=fit, resampling=resampling, path=path, max_pixels=max_pixels)
    return torch.from_numpy(np.array(image).astype(np.int64))


def write_mask(path: str | Path, mask: Tensor) -> None:
    """Write a binary mask as an 8-bit grey picture, 0 for background and 255 for foreground.

    Args:
        path: a ``.png`` file, in a folder that exists.
        mask: ``(H, W)``, 0 and 1, any dtype.

    Raises:
        ValueError: if ``mask`` has another shape or holds anything but 0 and 1.
    """
    check_shape("mask", mask, "h w")
    if not torch.all((mask == 0) | (mask == 1)):
        raise ValueError("mask: expected only 0 and 1, got other values")
    Image.fromarray(mask.detach().cpu().to(torch.uint8).mul(255).numpy()).save(path, format="PNG")
