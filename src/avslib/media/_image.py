"""One way to open a picture, and to say what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def open_rgb(path: str | Path) -> Image.Image:
    """Decode a picture as RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be decoded to its last pixel.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # a damaged file surfaces as one of many types
        raise ValueError(
            f"{path}: cannot be read as a picture ({error}); fetch or extract it again"
        ) from error
