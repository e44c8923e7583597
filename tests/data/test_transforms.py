from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, write_avsbench
from avslib.data.sound_transforms import RandomLogMelGain
from avslib.data.transforms import ClipTransform, train_transform
from avslib.media.frame import normalize_frames

BILINEAR = v2.InterpolationMode.BILINEAR
WHOLE_PIXELS = {
    "horizontal flip": v2.RandomHorizontalFlip(),
    "vertical flip": v2.RandomVerticalFlip(),
    "crop": v2.RandomCrop((17, 21)),
    "crop of a padded picture": v2.RandomCrop(48, padding=6, pad_if_needed=True),
    "pad": v2.Pad((1, 2, 3, 4)),
    "mirrored border": v2.Pad(5, padding_mode="reflect"),
    "zoom out": v2.RandomZoomOut(),
    "affine": v2.RandomAffine(40, translate=(0.2, 0.2), scale=(0.7, 1.4), shear=10),
    "perspective, nearest pixel": v2.RandomPerspective(interpolation=v2.InterpolationMode.NEAREST),
}
"""Every pixel of theirs is one of the picture, or of none."""
BETWEEN_PIXELS = {
    "smaller": v2.Resize((23, 19), antialias=True),
    "larger": v2.Resize((71, 83), antialias=True),
    "resized crop": v2.RandomResizedCrop((40, 40), scale=(0.3, 1), antialias=True),
    "rotation": v2.RandomRotation(180, interpolation=BILINEAR),
    "affine": v2.RandomAffine(40, translate=(0.2, 0.2), scale=(0.7, 1.4), shear=10, interpolation=BILINEAR),
    "perspective": v2.RandomPerspective(p=1),
    "elastic": v2.ElasticTransform(alpha=20.0),
}
COLOURS = {
    "jitter": v2.ColorJitter(0.5, 0.5, 0.5, 0.1),
    "grey": v2.RandomGrayscale(p=1),
    "invert": v2.RandomInvert(p=1),
    "blur": v2.GaussianBlur(5),
    "channels": v2.RandomChannelPermutation(),
}
seeds = st.integers(0, 2**31)


def parametrize(transforms: dict[str, nn.Module]) -> Any:
    return pytest.mark.parametrize("transform", transforms.values(), ids=transforms)


def discs(size: int = 40, classes: tuple[int, ...] = (1, 1, 1)) -> Tensor:
    """A disc that wanders from second to second."""
    at = torch.arange(size)
    masks = [
        ((at[:, None] - 14 - 4 * t) ** 2 + (at - 24 + 3 * t) ** 2 < 90) * k for t, k in enumerate(classes)
    ]
    return torch.stack(masks)


def clip_of(masks: Tensor, frames: Tensor | None = None) -> Clip:
    if frames is None:
        frames = torch.stack([255 * (masks > 0), torch.full_like(masks, 90), masks], dim=1).to(torch.uint8)
    seconds = len(masks)
    return Clip(
        frames=frames,
        log_mel=torch.randn(seconds, 1, 96, 64),
        masks=masks,
        labelled=torch.ones(seconds, dtype=torch.bool),
        valid=torch.ones(seconds, dtype=torch.bool),
        id="painted",
    )


def painted(size: int = 40, classes: tuple[int, ...] = (1, 1, 1)) -> Clip:
    """A clip whose red shows its mask, and whose blue its classes."""
    return clip_of(discs(size, classes))


def draw(transform: Callable[..., Any], clip: Clip, seed: int = 0) -> Clip:
    torch.manual_seed(seed)
    return ClipTransform(transform)(clip)


@pytest.mark.parametrize(
    ("transform", "literal"),
    [
        (v2.RandomHorizontalFlip(p=1), lambda x: x.flip(-1)),
        (v2.RandomVerticalFlip(p=1), lambda x: x.flip(-2)),
        (v2.CenterCrop(20), lambda x: x[..., 10:30, 10:30]),
        (v2.Pad(2), lambda x: F.pad(x, (2, 2, 2, 2))),
        (v2.RandomRotation((90, 90)), lambda x: x.rot90(1, (-2, -1))),
        (
            v2.Resize((80, 80), interpolation=v2.InterpolationMode.NEAREST),
            lambda x: x.mT.repeat_interleave(2, -1).mT.repeat_interleave(2, -1),
        ),
    ],
    ids=["flip left and right", "upside down", "middle", "border", "quarter turn", "double size"],
)
def test_frames_and_masks_undergo_the_same_change(
    transform: nn.Module, literal: Callable[[Tensor], Tensor]
) -> None:
    masks = torch.randint(0, 71, (3, 40, 40))
    clip = clip_of(masks, torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8))
    changed = draw(transform, clip)
    assert torch.equal(changed.frames, literal(clip.frames))
    assert torch.equal(changed.masks, literal(clip.masks))


@parametrize(WHOLE_PIXELS)
@given(seed=seeds)
def test_a_mask_painted_into_the_frame_stays_its_mask(transform: nn.Module, seed: int) -> None:
    changed = draw(transform, painted(classes=(1, 70, 3)), seed)
    assert torch.equal(changed.frames[:, 0] == 255, changed.masks > 0)
    assert torch.equal(changed.frames[:, 2].long(), changed.masks)


@parametrize(BETWEEN_PIXELS)
@given(seed=seeds)
def test_where_pixels_are_mixed_only_the_outline_can_differ(transform: nn.Module, seed: int) -> None:
    changed = draw(transform, painted(), seed)
    mask = changed.masks.float().unsqueeze(1)
    padded = F.pad(mask, (1, 1, 1, 1), mode="replicate")
    grown, shrunk = F.max_pool2d(padded, 3, 1), -F.max_pool2d(-padded, 3, 1)
    red = changed.frames[:, :1] >= 128
    assert (red <= grown.bool()).all()
    assert (red >= shrunk.bool()).all()


@parametrize({**WHOLE_PIXELS, **BETWEEN_PIXELS, **COLOURS, "training": train_transform((32, 32)).transforms})
@given(seed=seeds)
def test_one_draw_holds_for_all_seconds(transform: nn.Module, seed: int) -> None:
    still = clip_of(
        discs(classes=(1,)).expand(3, -1, -1),
        torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8).expand(3, -1, -1, -1),
    )
    changed = draw(transform, still, seed)
    assert (changed.frames == changed.frames[:1]).all()
    assert (changed.masks == changed.masks[:1]).all()


@parametrize(COLOURS)
def test_colours_change_and_masks_stay(transform: nn.Module) -> None:
    clip = painted()
    changed = [draw(transform, clip, seed) for seed in range(5)]
    assert all(torch.equal(c.masks, clip.masks) for c in changed)
    assert any(not torch.equal(c.frames, clip.frames) for c in changed)


@pytest.mark.parametrize("fill", [0, 1, 2, 200, 255])
@pytest.mark.parametrize(
    "transform",
    [
        lambda fill: v2.Pad(7, fill=fill),
        lambda fill: v2.RandomAffine(30, translate=(0.3, 0.3), fill=fill),
        lambda fill: v2.RandomRotation((30, 45), fill=fill),
        lambda fill: v2.RandomPerspective(p=1, fill=fill),
        lambda fill: v2.RandomZoomOut(p=1, fill=fill),
        lambda fill: v2.RandomCrop(60, pad_if_needed=True, fill=fill),
    ],
    ids=["pad", "affine", "rotation", "perspective", "zoom out", "crop"],
)
def test_what_comes_from_outside_is_background_whatever_its_colour(
    transform: Callable[[int], nn.Module], fill: int
) -> None:
    everywhere = clip_of(torch.full((2, 40, 40), 70), torch.full((2, 3, 40, 40), 100, dtype=torch.uint8))
    changed = draw(transform(fill), everywhere)
    assert changed.masks.unique().tolist() == [0, 70]
    inside = changed.masks == 70
    assert (changed.frames[:, 0][~inside] != 100).all()
    assert draw(transform(fill), painted(), seed=0).masks.unique().tolist() == [0, 1]


def test_a_colour_for_each_channel_is_torchvisions_dictionary() -> None:
    fill = {tv_tensors.Image: (9, 8, 7), "others": 0}
    changed = draw(v2.RandomRotation((45, 45), fill=fill), painted())
    assert changed.frames[0, :, 0, 0].tolist() == [9, 8, 7]
    assert changed.masks[0, 0, 0] == 0


@parametrize({**WHOLE_PIXELS, **BETWEEN_PIXELS, **COLOURS})
def test_nothing_else_changes(transform: nn.Module) -> None:
    clip = painted(classes=(1, 0, 0))._replace(labelled=torch.tensor([True, False, False]))
    before = [tensor.clone() for tensor in clip[:5]]
    changed = draw(transform, clip)
    assert changed.log_mel is clip.log_mel
    assert changed.labelled is clip.labelled
    assert changed.valid is clip.valid
    assert changed.id == "painted"
    assert not changed.masks[1:].any()
    assert (type(changed.frames), changed.frames.dtype) == (Tensor, torch.uint8)
    assert (type(changed.masks), changed.masks.dtype) == (Tensor, torch.int64)
    assert all(torch.equal(old, new) for old, new in zip(before, clip[:5], strict=True))


def test_a_crop_may_cut_away_what_sounds_and_the_frame_stays_labelled() -> None:
    masks = torch.zeros(1, 40, 40, dtype=torch.int64)
    masks[:, :5, :5] = 1
    changed = draw(v2.CenterCrop(20), clip_of(masks))
    assert not changed.masks.any()
    assert changed.labelled.all()


@given(seed=seeds, h=st.integers(24, 50), w=st.integers(24, 50))
def test_training_changes_give_the_size_asked_for(seed: int, h: int, w: int) -> None:
    torch.manual_seed(seed)
    changed = train_transform((h, w))(painted())
    assert changed.frames.shape == (3, 3, h, w)
    assert changed.masks.shape == (3, h, w)
    assert changed.masks.any()  # the disc is too large to be cut away


def test_a_seed_tells_the_draw() -> None:
    transform = train_transform((32, 32))
    clip = painted()
    once, again, other = (draw(transform.transforms, clip, seed) for seed in (5, 5, 6))
    assert torch.equal(once.frames, again.frames)
    assert torch.equal(once.masks, again.masks)
    assert not torch.equal(once.frames, other.frames)


def test_a_reader_takes_changes_of_picture_and_sound_in_a_row(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"train": 2}, size=48, videos=False)
    plain = AVSBenchMS3(tmp_path, "train", size=None)[0]
    transform = nn.Sequential(ClipTransform(v2.RandomHorizontalFlip(p=1)), RandomLogMelGain(6, 6))
    changed = AVSBenchMS3(tmp_path, "train", size=None, transform=transform)[0]
    torch.testing.assert_close(changed.frames, plain.frames.flip(-1))
    assert torch.equal(changed.masks, plain.masks.flip(-1))
    assert changed.log_mel.mean() > plain.log_mel.mean()


def test_errors_name_what_does_not_fit() -> None:
    clip = painted()
    flip = ClipTransform(v2.RandomHorizontalFlip())
    with pytest.raises(
        ValueError, match=r"frames: expected torch\.uint8.* before.* normalised, got torch\.float32"
    ):
        flip(clip._replace(frames=normalize_frames(clip.frames)))
    with pytest.raises(ValueError, match=r"masks: expected shape \(t, h, w\) with t=3, h=40, w=40, got"):
        flip(clip._replace(masks=clip.masks[:2]))
    with pytest.raises(
        ValueError, match=r"frames after the transforms: expected torch\.uint8.* torch\.float32"
    ):
        ClipTransform(v2.ToDtype(torch.float32, scale=True))(clip)
    to_bytes = v2.ToDtype({tv_tensors.Mask: torch.uint8, "others": None})
    with pytest.raises(ValueError, match=r"masks after the transforms: expected torch\.int64.* torch\.uint8"):
        ClipTransform(to_bytes)(clip)
    with pytest.raises(ValueError, match=r"frames after the transforms: expected shape \(t, 3, h, w\)"):
        ClipTransform(v2.Grayscale())(clip)
    with pytest.raises(TypeError, match="Mask are not supported by RandAugment"):
        ClipTransform(v2.RandAugment())(clip)


def test_importing_it_does_not_load_torchvision() -> None:
    code = "import sys, avslib.data.transforms; print('torchvision' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
