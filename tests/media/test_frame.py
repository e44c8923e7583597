from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avslib.media.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalize_frames,
    normalize_frames,
    read_frame,
    write_frame,
)


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
    white.save(tmp_path / ("a.tiff" if mode == "CMYK" else "a.png"))
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


def test_normalising_is_written_out_per_channel_and_undone() -> None:
    frames = torch.randint(0, 256, (2, 5, 3, 4, 6), dtype=torch.uint8)
    normalised = normalize_frames(frames)
    assert normalised.dtype == torch.float32
    for channel in range(3):
        expected = (frames[:, :, channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(normalised[:, :, channel], expected)
    torch.testing.assert_close(normalize_frames(frames.double() / 255), normalised)
    torch.testing.assert_close(denormalize_frames(normalised), frames / 255)
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
    with pytest.raises(ValueError, match=r"frames: expected uint8, or float in \[0, 1\], got torch.int64"):
        normalize_frames(torch.zeros(3, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"frames: expected shape \(\.\.\., 3, h, w\), got \(2, 2, 3\)"):
        normalize_frames(torch.zeros(2, 2, 3))
    with pytest.raises(ValueError, match=r"frame: expected shape \(3, h, w\)"):
        write_frame(tmp_path / "a.png", torch.zeros(2, 2, 3))
