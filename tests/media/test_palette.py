from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avslib.media.frame import write_frame
from avslib.media.palette import class_palette, read_classes, write_classes


def published_palette(num_classes: int) -> list[list[int]]:
    """Take the bits of every class apart, three at a time, one after the other."""
    palette = []
    for number in range(num_classes):
        colour, left, place = [0, 0, 0], number, 7
        while left:
            for channel in range(3):
                colour[channel] |= ((left >> channel) & 1) << place
            left >>= 3
            place -= 1
        palette.append(colour)
    return palette


def compared_with_every_colour(pixels: np.ndarray, num_classes: int = 71) -> np.ndarray:
    """Find the class as the published loader does: the first that compares equal, else the first of all."""
    equal = [np.all(pixels == colour, axis=-1) for colour in published_palette(num_classes)]
    return np.argmax(np.stack(equal, axis=-1).astype(np.float32), axis=-1)


@pytest.mark.parametrize("num_classes", [1, 2, 21, 71, 600])
def test_the_palette_is_the_published_one(num_classes: int) -> None:
    palette = class_palette(num_classes)
    assert palette.dtype == torch.uint8
    assert palette.tolist() == published_palette(num_classes)
    assert len(palette.unique(dim=0)) == num_classes


def test_the_palette_of_twenty_one_classes_is_that_of_pascal_voc() -> None:
    aeroplane, sofa, monitor = class_palette(21)[[1, 18, 20]].tolist()
    assert (aeroplane, sofa, monitor) == ([128, 0, 0], [0, 192, 0], [0, 64, 128])


@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    seed=st.integers(0, 99),
    num_classes=st.sampled_from([2, 71, 999]),
)
def test_classes_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int, num_classes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "classes.png"
    classes = torch.randint(num_classes, (h, w), generator=torch.Generator().manual_seed(seed))
    write_classes(path, classes.int(), num_classes=num_classes)
    again = read_classes(path, num_classes=num_classes, unknown="raise")
    assert again.dtype == torch.int64
    assert torch.equal(again, classes)


@given(seed=st.integers(0, 99), known=st.floats(0, 1))
def test_colours_mean_what_they_mean_to_the_published_loader(
    tmp_path_factory: pytest.TempPathFactory, seed: int, known: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "colours.png"
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    right = rng.random((6, 7)) < known
    pixels[right] = class_palette().numpy()[rng.integers(0, 71, right.sum())]
    write_frame(path, torch.from_numpy(pixels).permute(2, 0, 1))
    np.testing.assert_array_equal(read_classes(path), compared_with_every_colour(pixels))


@pytest.mark.parametrize("suffix", ["png", "bmp"])
@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_every_mode_is_read_through_its_colours(tmp_path: Path, mode: str, suffix: str) -> None:
    classes = torch.arange(71)[None].repeat(2, 1)
    colours = class_palette()[classes]
    image = Image.fromarray(colours.numpy()).convert(mode)
    if mode == "P":  # a palette in another order than the classes'
        image = Image.fromarray((70 - classes).to(torch.uint8).numpy())
        image.putpalette(class_palette().flip(0).flatten().tolist())
        assert image.mode == "P"
    image.save(tmp_path / f"a.{suffix}")
    assert torch.equal(read_classes(tmp_path / f"a.{suffix}", unknown="raise"), classes)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_resizing_classes_or_colours_is_the_same(tmp_path: Path, fit: str) -> None:
    classes = torch.randint(71, (30, 50), generator=torch.Generator().manual_seed(0))
    write_classes(tmp_path / "a.png", classes)
    with Image.open(tmp_path / "a.png") as image:
        if fit == "crop":
            small = image.resize((20, 12), Image.Resampling.NEAREST).crop((4, 0, 16, 12))
        else:
            small = image.resize((12, 12), Image.Resampling.NEAREST)
    expected = compared_with_every_colour(np.asarray(small))
    np.testing.assert_array_equal(read_classes(tmp_path / "a.png", (12, 12), fit=fit), expected)


def test_a_colour_of_no_class_can_be_refused(tmp_path: Path) -> None:
    pixels = class_palette()[torch.full((4, 5), 7)]
    pixels[1, 2:] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    write_frame(tmp_path / "a.png", pixels.permute(2, 0, 1))
    assert read_classes(tmp_path / "a.png")[1].tolist() == [7, 7, 0, 0, 0]
    message = r"a\.png: expected only colours of 71 classes, got RGB \(1, 2, 3\) and 3 such pixels in all"
    with pytest.raises(ValueError, match=message):
        read_classes(tmp_path / "a.png", unknown="raise")
    write_classes(tmp_path / "b.png", torch.tensor([[70]]))
    with pytest.raises(
        ValueError, match=r"b\.png: expected only colours of 70 classes, got RGB \(32, 128, 128\)"
    ):
        read_classes(tmp_path / "b.png", num_classes=70, unknown="raise")


def test_it_takes_a_fraction_of_the_time_of_comparing(tmp_path: Path) -> None:
    classes = torch.randint(71, (224, 224), generator=torch.Generator().manual_seed(0))
    write_classes(tmp_path / "a.png", classes)
    pixels = class_palette()[classes].numpy()
    begun = time.perf_counter()
    for _ in range(5):
        read_classes(tmp_path / "a.png")
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    compared_with_every_colour(pixels)
    assert read < time.perf_counter() - begun  # five files, decoded too, in less time than one comparison


def test_errors_name_the_file_or_the_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes: expected whole numbers from 0 to 70, got others"):
        write_classes(tmp_path / "a.png", torch.tensor([[71]]))
    with pytest.raises(ValueError, match="classes: expected whole numbers"):
        write_classes(tmp_path / "a.png", torch.tensor([[-1]]))
    with pytest.raises(ValueError, match="classes: expected whole numbers"):
        write_classes(tmp_path / "a.png", torch.tensor([[1.5]]))
    with pytest.raises(ValueError, match=r"classes: expected shape \(h, w\), got \(1, 2, 2\)"):
        write_classes(tmp_path / "a.png", torch.zeros(1, 2, 2, dtype=torch.int64))
    write_classes(tmp_path / "a.png", torch.tensor([[1]]))
    with pytest.raises(ValueError, match="unknown: expected one of 'background', 'raise', got 'ignore'"):
        read_classes(tmp_path / "a.png", unknown="ignore")
    for num_classes in (0, 2**24 + 1):
        with pytest.raises(ValueError, match="num_classes: expected 1 to 16777216"):
            read_classes(tmp_path / "a.png", num_classes=num_classes)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"bad\.png: cannot be read as a picture"):
        read_classes(tmp_path / "bad.png")
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_classes(tmp_path / "none.png")
