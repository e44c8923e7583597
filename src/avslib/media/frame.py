"""Read, write, resize and normalise frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from avslib._checks import check_shape
from avslib.media._image import MAX_PIXELS, fit_picture, open_rgb

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of each channel over ImageNet, RGB in ``[0, 1]``."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of each channel over ImageNet, RGB in ``[0, 1]``."""


def read_frame(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    fit: str = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a frame from a picture file.

    Args:
        path: a PNG, JPEG or BMP file. A rotation noted in its EXIF is not applied: the published loaders
            ignore it, and masks have none. Of 16 bits the upper 8 are used.
        size: ``(H, W)`` to resize to, px, bilinearly; None for the picture's own size.
        fit: ``"stretch"`` ignores the aspect ratio, like AVSBench's own frames; ``"crop"`` scales the picture
            until it covers ``size`` and cuts out its centre, like the published code of AVSBench-semantic in
            training.
        max_pixels: largest number of pixels that is decoded; guards against a small file that announces a
            huge picture.

    Returns:
        ``(3, H, W)``, uint8, RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded completely; if it has more than ``max_pixels`` pixels, or would
            have once it is scaled to be cropped; or if ``fit`` is unknown or ``size`` not above 0.
    """
    image = open_rgb(path, max_pixels=max_pixels)
    resampling = Image.Resampling.BILINEAR
    image = fit_picture(image, size, fit=fit, resampling=resampling, path=path, max_pixels=max_pixels)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def resize_frame(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a frame bilinearly without antialiasing, like OpenCV by default.

    Each new pixel is computed from four old ones, however much smaller the frame becomes. AVSBench's frames
    were made this way, without keeping the aspect ratio.

    Args:
        frame: ``(3, H, W)``, uint8.
        size: new ``(H, W)``, px.

    Returns:
        ``(3, *size)``, uint8.

    Raises:
        ValueError: if ``frame`` has another shape or type.
    """
    check_shape("frame", frame, "3 h w")
    if frame.dtype != torch.uint8:
        raise ValueError(f"frame: expected uint8, got {frame.dtype}")
    resized = F.interpolate(frame[None].float(), size, mode="bilinear", align_corners=False)[0]
    return resized.round().to(torch.uint8)


def write_frame(path: str | Path, frame: Tensor) -> None:
    """Write a frame in the format given by the file's extension.

    Args:
        path: the file, in a folder that exists.
        frame: ``(3, H, W)``, RGB: uint8, or float in ``[0, 1]``.

    Raises:
        ValueError: if ``frame`` has another shape, or another integer type, or the extension is unknown.
    """
    check_shape("frame", frame, "3 h w")
    _check_type("frame", frame)
    frame = frame.detach().cpu()
    if frame.is_floating_point():
        frame = (frame * 255).round().clamp(0, 255)
    Image.fromarray(frame.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()).save(path)


def normalize_frames(frames: Tensor) -> Tensor:
    """Normalise RGB frames to zero mean and unit variance over ImageNet.

    Args:
        frames: ``(..., 3, H, W)``: uint8, or float in ``[0, 1]``.

    Returns:
        ``(..., 3, H, W)``, float32.

    Raises:
        ValueError: if ``frames`` has another shape, or another integer type.

    Example:
        >>> import torch
        >>> normalize_frames(torch.full((3, 1, 1), 255, dtype=torch.uint8)).flatten()
        tensor([2.2489, 2.4286, 2.6400])
    """
    check_shape("frames", frames, "... 3 h w")
    _check_type("frames", frames)
    scaled = frames.to(torch.float32)
    if frames.dtype == torch.uint8:
        scaled = scaled / 255
    return (scaled - _per_channel(IMAGENET_MEAN, scaled)) / _per_channel(IMAGENET_STD, scaled)


def denormalize_frames(frames: Tensor) -> Tensor:
    """Undo `normalize_frames`, for example to display a frame.

    Args:
        frames: ``(..., 3, H, W)``, ImageNet-normalised; or uint8, which is only scaled.

    Returns:
        ``(..., 3, H, W)``, RGB, clipped to ``[0, 1]``.

    Raises:
        ValueError: if ``frames`` has another shape, or another integer type.
    """
    check_shape("frames", frames, "... 3 h w")
    _check_type("frames", frames)
    if frames.dtype == torch.uint8:
        return frames / 255
    return (frames * _per_channel(IMAGENET_STD, frames) + _per_channel(IMAGENET_MEAN, frames)).clamp(0, 1)


def _check_type(name: str, frames: Tensor) -> None:
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        raise ValueError(f"{name}: expected uint8 or floating-point numbers, got {frames.dtype}")


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)
