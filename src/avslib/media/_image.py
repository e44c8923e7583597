"""Open and resize pictures, with errors that name the file."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from avslib._checks import check_one_of, check_positive

MAX_PIXELS = 64 * 2**20
"""Default limit on the pixels of a picture that is decoded; this many take 256 MiB as RGB."""

# Pillow reads fifty more formats, some through other programs; frames and masks use none of them.
_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8\xff", JpegImageFile),
    (b"BM", BmpImageFile),
)

_BYTES_A_PIXEL, _OTHER_BYTES = 8, 16 * 2**20  # largest file: four channels of 16 bits, and metadata


def open_rgb(path: str | Path, *, max_pixels: int) -> Image.Image:
    """Decode a picture as RGB; raises the same errors as `open_picture`."""
    return open_picture(path, mode="RGB", max_pixels=max_pixels)


def open_picture(path: str | Path, *, mode: str | None = None, max_pixels: int) -> Image.Image:
    """Decode a PNG, JPEG or BMP picture as it is stored: a rotation noted in EXIF is not applied.

    Args:
        path: the file.
        mode: Pillow mode to convert to; RGB keeps the upper 8 of 16 bits. None keeps the picture's own mode.
        max_pixels: largest number of pixels that is decoded.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file's size or header announces more than ``max_pixels`` pixels, before anything is
            decoded; or if it cannot be decoded completely.
    """
    check_positive("max_pixels", max_pixels)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture")
    if path.stat().st_size > _BYTES_A_PIXEL * max_pixels + _OTHER_BYTES:
        raise ValueError(
            f"{path}: expected a picture of at most {max_pixels} pixels, got {path.stat().st_size} bytes; "
            "max_pixels= raises the limit"
        )
    file = io.BytesIO(path.read_bytes())  # from a file, Pillow would allocate whatever a header announces
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata and animations, not pixels
        with damage_named(path):
            image = _open(file)
        if math.prod(image.size) > max_pixels:
            raise ValueError(
                f"{path}: expected a picture of at most {max_pixels} pixels, got {image.width} x "
                f"{image.height}; max_pixels= raises the limit"
            )
        with damage_named(path):
            if mode == "RGB" and image.mode.startswith("I"):  # 16-bit grey, which Pillow clips at 255
                return image.point(lambda level: level / 256).convert(mode)
            return image.copy() if mode is None else image.convert(mode)


def fit_picture(
    image: Image.Image,
    size: tuple[int, int] | None,
    *,
    fit: str,
    resampling: Image.Resampling,
    path: str | Path,
    max_pixels: int,
) -> Image.Image:
    """Resize a picture to ``(H, W)``; frames and masks both use this function, so they line up.

    ``"stretch"`` ignores the aspect ratio. ``"crop"`` scales the picture until it just covers the size, with
    its longer side truncated to whole pixels, and cuts out the centre. The published code of
    AVSBench-semantic prepares its square training clips this way.

    Raises:
        ValueError: if ``fit`` is unknown, or the picture is so narrow that scaling it would take more than
            ``max_pixels`` pixels.
    """
    check_one_of("fit", fit, ("stretch", "crop"))
    if size is None:
        return image
    height, width = size
    check_positive("size", min(size))
    if fit == "stretch":
        return image.resize((width, height), resampling)
    if image.width * height > image.height * width:
        scaled = image.width * height // image.height, height
    else:
        scaled = width, image.height * width // image.width
    if math.prod(scaled) > max_pixels:
        raise ValueError(
            f"{path}: expected at most {max_pixels} pixels once the picture is scaled to cover {size}, got "
            f'{scaled[0]} x {scaled[1]}; use fit="stretch", or max_pixels= to raise the limit'
        )
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return image.resize(scaled, resampling).crop((left, top, left + width, top + height))


def _open(file: BinaryIO) -> ImageFile:
    """Read a header. Pillow's ``open`` has its own limit, which only a global variable lifts."""
    beginning = file.read(8)
    file.seek(0)
    for signature, reader in _FORMATS:
        if beginning.startswith(signature):
            return reader(file)
    raise ValueError("neither PNG, JPEG nor BMP")


@contextlib.contextmanager
def damage_named(path: str | Path) -> Iterator[None]:
    """Turn any error into one that names the file."""
    try:
        yield
    except Exception as error:  # a damaged file raises errors of many types
        raise ValueError(
            f"{path}: cannot be read as a picture ({error}); fetch or extract it again"
        ) from error
