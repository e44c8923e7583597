from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from avslib.media.mask import read_mask, write_mask
from tests._golden import arrays


def checkered(h: int = 6, w: int = 8) -> Tensor:
    return (torch.arange(h * w).view(h, w) // 3) % 2


def indexed(mask: Tensor, colours: list[int]) -> Image.Image:
    image = Image.fromarray(mask.to(torch.uint8).numpy()).convert("P")
    image.putpalette(colours)
    return image


@pytest.mark.parametrize("mode", ["1", "L", "P01", "P255", "RGB"])
def test_every_mode_is_read_as_by_the_published_loader_of_s4(tmp_path: Path, mode: str) -> None:
    stored = arrays("C_mask_loader_modes")
    mask = stored["in.mask01"]
    grey = Image.fromarray(mask * np.uint8(255))
    image = {
        "P01": indexed(torch.from_numpy(mask), [0, 0, 0, 255, 255, 255]),
        "P255": grey.convert("P"),
    }.get(mode) or grey.convert(mode)
    image.save(tmp_path / "a.png")
    read = read_mask(tmp_path / "a.png")
    assert read.dtype == torch.int64
    np.testing.assert_array_equal(read, stored[f"out.s4_{mode}"][0])


def test_masks_that_the_published_loaders_lose_are_read(tmp_path: Path) -> None:
    mask = checkered()
    zero_one = Image.fromarray(mask.to(torch.uint8).numpy())
    red = indexed(mask, [0, 0, 0, 128, 0, 0])
    white_first = indexed(1 - mask, [255, 255, 255, 0, 0, 0])
    wide = Image.fromarray((mask * 65535).numpy().astype(np.uint16))
    for image in (zero_one, zero_one.convert("RGB"), red, red.convert("RGB"), white_first, wide):
        image.save(tmp_path / "a.png")
        assert torch.equal(read_mask(tmp_path / "a.png"), mask)


def test_the_brighter_half_of_a_smoothed_edge_is_foreground(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 127, 128, 200, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("scale", [1, 257])
def test_16_bits_are_read_as_8_are(tmp_path: Path, scale: int) -> None:
    levels = np.array([[0, 1, 127, 128, 200, 255]])
    Image.fromarray((levels * scale).astype(np.uint16)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 0, 0, 1, 1, 1]]
    assert read_mask(tmp_path / "a.png", (2, 6)).tolist() == [[0, 0, 0, 1, 1, 1]] * 2


@pytest.mark.parametrize("level", [1, 255])
def test_what_is_transparent_is_background(tmp_path: Path, level: int) -> None:
    mask = checkered()
    grey = torch.full_like(mask, level)
    for mode, channels in (("LA", [grey]), ("RGBA", [grey] * 3)):
        pixels = torch.stack([*channels, mask * 255], dim=-1).to(torch.uint8).numpy()
        Image.fromarray(pixels, mode).save(tmp_path / "a.png")
        assert torch.equal(read_mask(tmp_path / "a.png"), mask)
    indexes = indexed(mask, [255, 255, 255, 255, 255, 255])
    indexes.save(tmp_path / "a.png", transparency=0)
    assert torch.equal(read_mask(tmp_path / "a.png"), mask)


@pytest.mark.parametrize("value", [0, 1])
def test_a_picture_of_one_class_is_read(tmp_path: Path, value: int) -> None:
    write_mask(tmp_path / "a.png", torch.full((4, 5), value))
    assert torch.equal(read_mask(tmp_path / "a.png"), torch.full((4, 5), value))


@given(h=st.integers(1, 9), w=st.integers(1, 9), seed=st.integers(0, 99), bilevel=st.booleans())
def test_a_mask_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int, bilevel: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "mask.png"
    mask = torch.rand(h, w, generator=torch.Generator().manual_seed(seed)) > 0.5
    write_mask(path, mask if bilevel else mask.float())
    assert torch.equal(read_mask(path), mask.long())
    with Image.open(path) as image:
        assert image.mode == "L"


def test_resizing_takes_the_nearest_pixel(tmp_path: Path) -> None:
    mask = checkered()
    write_mask(tmp_path / "a.png", mask)
    doubled = mask.repeat_interleave(2, dim=0).repeat_interleave(3, dim=1)
    assert torch.equal(read_mask(tmp_path / "a.png", (12, 24)), doubled)
    write_mask(tmp_path / "a.png", doubled)
    assert torch.equal(read_mask(tmp_path / "a.png", (6, 8)), mask)


def test_errors_name_the_file_or_the_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mask: expected only 0 and 1"):
        write_mask(tmp_path / "a.png", torch.tensor([[0, 255]]))
    with pytest.raises(ValueError, match=r"mask: expected shape \(h, w\), got \(1, 2, 2\)"):
        write_mask(tmp_path / "a.png", torch.zeros(1, 2, 2))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"bad\.png: cannot be read as a picture"):
        read_mask(tmp_path / "bad.png")
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_mask(tmp_path / "none.png")
