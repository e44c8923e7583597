from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from avslib.media.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalize_frames,
    normalize_frames,
    read_frame,
    resize_frame,
    write_frame,
)
from avslib.media.mask import read_mask, write_mask
from avslib.media.palette import read_classes


@given(h=st.integers(1, 9), w=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_png_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "frame.png"
    frame = torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    write_frame(path, frame)
    assert torch.equal(read_frame(path), frame)
    write_frame(path, frame / 255)
    assert torch.equal(read_frame(str(path), (h, w)), frame)


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2), (255, 10, 0)).save(tmp_path / "a.png")
    frame = read_frame(tmp_path / "a.png")
    assert frame.shape == (3, 2, 4)
    assert frame.is_contiguous()
    assert frame[:, 0, 0].tolist() == [255, 10, 0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    white = Image.new("RGB", (4, 2), (255, 255, 255)).convert(mode)
    white.save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    assert read_frame(next(tmp_path.iterdir())).eq(255).all()


def test_resizing_is_bilinear_and_ignores_the_aspect_ratio(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).round().astype(np.uint8)[None, :, None], 32, axis=0).repeat(
        3, axis=2
    )
    Image.fromarray(ramp).save(tmp_path / "a.png")
    resized = read_frame(tmp_path / "a.png", (16, 16))
    assert resized.shape == (3, 16, 16)
    averaged = torch.from_numpy(ramp[0, :, 0]).double().view(16, 4).mean(dim=1)
    inner = slice(1, -1)  # a straight ramp is kept, except where the filter meets the border
    torch.testing.assert_close(resized[0, 3].double()[inner], averaged[inner], rtol=0, atol=1)


def crop_as_published(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """Do what AVSBench-semantic's training loader does, step by step."""
    width, height = image.size
    if width > height:
        new_height = side
        new_width = int(1.0 * width * new_height / height)
    else:
        new_width = side
        new_height = int(1.0 * height * new_width / width)
    image = image.resize((new_width, new_height), resampling)
    left = int(round((new_width - side) / 2.0))  # noqa: RUF046
    top = int(round((new_height - side) / 2.0))  # noqa: RUF046
    return image.crop((left, top, left + side, top + side))


@given(h=st.integers(1, 90), w=st.integers(1, 90), side=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_square_crop_is_the_published_one(
    tmp_path_factory: pytest.TempPathFactory, h: int, w: int, side: int, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    picture = torch.randint(
        0, 256, (3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    write_frame(folder / "crop.png", picture)
    write_mask(folder / "crop_mask.png", picture[0] > 99)
    with Image.open(folder / "crop.png") as image:
        expected = np.asarray(crop_as_published(image, side, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(
        read_frame(folder / "crop.png", (side, side), fit="crop").permute(1, 2, 0), expected
    )
    with Image.open(folder / "crop_mask.png") as image:
        expected = np.asarray(crop_as_published(image, side, Image.Resampling.NEAREST))
    np.testing.assert_array_equal(
        read_mask(folder / "crop_mask.png", (side, side), fit="crop") * 255, expected
    )


@given(h=st.integers(1, 60), w=st.integers(1, 60), height=st.integers(1, 30), width=st.integers(1, 30))
def test_any_crop_covers_its_target_and_keeps_the_aspect_ratio(
    tmp_path_factory: pytest.TempPathFactory, h: int, w: int, height: int, width: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "position.png"
    rows, columns = torch.arange(h).mul(4)[:, None].expand(h, w), torch.arange(w).mul(4)[None].expand(h, w)
    write_frame(path, torch.stack([rows, columns, torch.full((h, w), 255)]).to(torch.uint8))
    cropped = read_frame(path, (height, width), fit="crop")
    assert cropped.shape == (3, height, width)
    assert cropped[2].eq(255).all()  # nothing lies outside the picture
    scale = max(height / h, width / w)
    for channel, axis, have, want in ((0, 1, h, height), (1, 0, w, width)):
        centre = (have - 1) / 2 + (torch.arange(want) - (want - 1) / 2) / scale
        read = cropped[channel].double().mean(dim=axis) / 4
        inner = slice(want // 4, want - want // 4)
        assert (read - centre)[inner].abs().max() <= 1 + 1.5 / scale  # a pixel of either grid


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("size", [None, (8, 8), (5, 17), (40, 3)])
def test_a_frame_and_its_mask_line_up(tmp_path: Path, fit: str, size: tuple[int, int] | None) -> None:
    halves = torch.zeros(24, 36, dtype=torch.int64)
    halves[9:, 13:] = 1
    write_mask(tmp_path / "mask.png", halves)
    write_frame(tmp_path / "frame.png", halves.mul(255).to(torch.uint8).expand(3, -1, -1))
    frame = read_frame(tmp_path / "frame.png", size, fit=fit)[0].double() / 255
    mask = read_mask(tmp_path / "mask.png", size, fit=fit)
    assert frame.shape == mask.shape
    clear = (frame < 0.02) | (frame > 0.98)  # away from the edge, where the frame is smoothed
    assert torch.equal(frame[clear].round().long(), mask[clear])


def announce(width: int, height: int) -> bytes:
    """Give a PNG whose header announces a size and which then ends."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return (
        b"\x89PNG\r\n\x1a\n" + data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize("read", [read_frame, read_mask, read_classes])
def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(announce(8193, 8192))
    message = r"huge\.png: expected a picture of at most 67108864 pixels, got 8193 x 8192; max_pixels= raises"
    with pytest.raises(ValueError, match=message):
        read(path)
    path.write_bytes(announce(2**31 - 1, 2**31 - 1))
    with pytest.raises(ValueError, match=r"huge\.png: expected a picture of at most"):
        read(path)
    write_frame(path, torch.zeros(3, 4, 5, dtype=torch.uint8))
    assert read(path, max_pixels=20).shape[-2:] == (4, 5)
    with pytest.raises(ValueError, match="of at most 19 pixels, got 5 x 4"):
        read(path, max_pixels=19)
    with pytest.raises(ValueError, match="max_pixels: expected a number above 0"):
        read(path, max_pixels=0)
    with path.open("ab") as file:
        file.truncate(2**40)  # no byte of it takes room on the disk
    with pytest.raises(
        ValueError, match=r"huge\.png: expected a picture .*, got 1099511627776 bytes; max_pixels="
    ):
        read(path)


def test_of_16_bits_the_higher_8_are_taken(tmp_path: Path) -> None:
    levels = torch.tensor([[0, 255, 256, 32768, 65535]])
    Image.fromarray(levels.numpy().astype(np.uint16)).save(tmp_path / "a.png")
    assert torch.equal(read_frame(tmp_path / "a.png"), (levels >> 8).to(torch.uint8).expand(3, -1, -1))


@pytest.mark.parametrize("pillows_limit", [10, 30, None])
def test_pillows_own_limit_is_no_longer_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pillows_limit: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)  # 10: an error; 30: a warning
    frame = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    write_frame(tmp_path / "a.png", frame)
    assert torch.equal(read_frame(tmp_path / "a.png"), frame)
    assert pillows_limit == Image.MAX_IMAGE_PIXELS


def test_a_crop_of_a_narrow_picture_cannot_take_much(tmp_path: Path) -> None:
    Image.new("RGB", (1, 20_000)).save(tmp_path / "narrow.png")
    assert read_frame(tmp_path / "narrow.png", (8, 8)).shape == (3, 8, 8)
    message = r"narrow\.png: expected at most 67108864 pixels once .* cover \(224, 224\), got 224 x 4480000;"
    with pytest.raises(ValueError, match=message):
        read_frame(tmp_path / "narrow.png", (224, 224), fit="crop")


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "eps", "ppm", "pdf", "psd", "ico"])
def test_other_formats_are_refused_whatever_they_are_called(tmp_path: Path, suffix: str) -> None:
    if suffix == "psd":
        (tmp_path / "a.psd").write_bytes(b"8BPS\0\1" + bytes(40))
    else:
        Image.new("RGB", (16, 16)).save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"a\.png: cannot be read as a picture \(neither PNG, JPEG nor BMP\)"
    ):
        read_frame(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_rotation_in_the_metadata_is_not_applied(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    Image.new("RGB", (16, 8)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert read_frame(tmp_path / f"a.{suffix}").shape == (3, 8, 16)


def test_pillows_warnings_about_other_things_than_pixels_stay_inside(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "see_through.png", transparency=b"\x00\x80")
    assert read_frame(tmp_path / "see_through.png")[:, 0, 0].tolist() == [10, 20, 30]
    whole = (tmp_path / "see_through.png").read_bytes()
    body = b"acTL" + bytes(8)
    chunk = struct.pack(">I", 8) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "animated.png").write_bytes(whole[:33] + chunk + whole[33:])
    assert read_frame(tmp_path / "animated.png")[:, 0, 0].tolist() == [10, 20, 30]


def test_normalising_is_written_out_per_channel_and_undone() -> None:
    frames = torch.randint(0, 256, (2, 5, 3, 4, 6), dtype=torch.uint8)
    normalised = normalize_frames(frames)
    assert normalised.dtype == torch.float32
    for channel in range(3):
        expected = (frames[:, :, channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(normalised[:, :, channel], expected)
    torch.testing.assert_close(normalize_frames(frames.double() / 255), normalised)
    torch.testing.assert_close(denormalize_frames(normalised), frames / 255)
    torch.testing.assert_close(denormalize_frames(frames), frames / 255)
    assert (IMAGENET_MEAN, IMAGENET_STD) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)  # timm's
    clipped = denormalize_frames(normalised * 100)
    assert (clipped.min(), clipped.max()) == (0, 1)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    write_frame(path, torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for damaged in (b"", whole[:20], whole[: len(whole) // 2], bytes(flipped), b"hello"):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"cut\.png: cannot be read as a picture .*fetch or extract it again"
        ):
            read_frame(path)
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such picture"):
        read_frame(tmp_path / "none.png")


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    whole_numbers = torch.full((3, 2, 2), 200)
    for change in (normalize_frames, denormalize_frames, partial(write_frame, tmp_path / "never.png")):
        with pytest.raises(
            ValueError, match=r"frames?: expected uint8 or floating-point numbers, got torch.int64"
        ):
            change(whole_numbers)
    assert not (tmp_path / "never.png").exists()
    with pytest.raises(ValueError, match=r"frame: expected uint8, got torch.float32"):
        resize_frame(torch.rand(3, 4, 4), (2, 2))
    with pytest.raises(ValueError, match=r"frames: expected shape \(\.\.\., 3, h, w\), got \(2, 2, 3\)"):
        normalize_frames(torch.zeros(2, 2, 3))
    write_frame(tmp_path / "a.png", torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match="size: expected a number above 0, got 0"):
        read_frame(tmp_path / "a.png", (0, 4))
    with pytest.raises(ValueError, match="fit: expected one of 'stretch', 'crop', got 'pad'"):
        read_frame(tmp_path / "a.png", fit="pad")
    with pytest.raises(ValueError, match=r"frame: expected shape \(3, h, w\)"):
        write_frame(tmp_path / "a.png", torch.zeros(2, 2, 3))


@pytest.mark.parametrize(
    ("h", "w", "size"), [(9, 13, (5, 4)), (6, 5, (11, 8)), (8, 8, (8, 8)), (50, 3, (7, 7))]
)
def test_pictures_are_resized_from_four_pixels(h: int, w: int, size: tuple[int, int]) -> None:
    picture = torch.randint(256, (3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(h))

    def along(at: int, old: int, new: int) -> tuple[int, int, float]:
        place = min(max((at + 0.5) * old / new - 0.5, 0), old - 1)
        low = int(place)
        return low, min(low + 1, old - 1), place - low

    expected = torch.zeros(3, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            top, bottom, down = along(y, h, size[0])
            left, right, over = along(x, w, size[1])
            corners = picture[:, [top, top, bottom, bottom], [left, right, left, right]].float()
            weights = [(1 - down) * (1 - over), (1 - down) * over, down * (1 - over), down * over]
            expected[:, y, x] = corners @ torch.tensor(weights, dtype=torch.float32)
    assert (resize_frame(picture, size).float() - expected).abs().max() <= 0.5 + 1e-3
