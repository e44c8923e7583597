"""Random changes of a clip's pictures, alike for its frames and its masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from avslib._checks import check_shape
from avslib.clip import Clip


class ClipTransform(nn.Module):
    """Transforms of ``torchvision.transforms.v2`` for a clip, to pass to a reader as ``transform``.

    All seconds of a clip, and frames and masks alike, undergo one random draw: a flip flips the whole clip.
    A change of place or size takes the nearest pixel of a mask, a change of colour leaves masks alone. What
    comes into view from outside the picture is background, whatever colour ``fill`` gives it in the frames.
    A crop may cut away what sounds; then nothing that is seen sounds, and the empty mask is right. The sound
    is one channel, so that it fits a flipped picture too.

    Several changes of a clip follow one another in an ``nn.Sequential``.

    Args:
        *transforms: of an image and its mask, one after the other. A ``fill`` with a value for each channel
            needs torchvision's form ``{tv_tensors.Image: (r, g, b), "others": 0}``. Those that know no masks,
            such as ``RandAugment`` and ``FiveCrop``, raise a ``TypeError``.

    Example:
        >>> from torchvision.transforms import v2
        >>> from avslib.data import AVSBenchMS3, write_avsbench
        >>> folder = getfixture("tmp_path")
        >>> write_avsbench(folder, setting="ms3", clips={"train": 1}, size=48, videos=False)
        >>> transform = ClipTransform(v2.RandomHorizontalFlip(), v2.RandomCrop(40))
        >>> clip = AVSBenchMS3(folder, "train", size=None, transform=transform)[0]
        >>> clip.frames.shape, clip.masks.shape
        (torch.Size([5, 3, 40, 40]), torch.Size([5, 40, 40]))
    """

    def __init__(self, *transforms: Callable[..., Any]) -> None:
        super().__init__()
        from torchvision.transforms import v2

        self.transforms = v2.Compose(transforms)

    def forward(self, clip: Clip) -> Clip:
        """Return the clip with its frames and masks changed.

        Args:
            clip: with frames as uint8, as a reader hands them over before it normalises them.

        Raises:
            ValueError: if the frames are not uint8 or the masks not int64, before or after, or the two do not
                fit each other.
        """
        from torchvision import tv_tensors

        _check("frames", clip.frames, torch.uint8)
        _check("masks", clip.masks, torch.int64)
        size = check_shape("frames", clip.frames, "t 3 h w")
        check_shape("masks", clip.masks, "t h w", **size)
        # Classes become negative, so that no fill is mistaken for one.
        frames, masks = self.transforms(
            tv_tensors.Image(clip.frames), tv_tensors.Mask(-1 - clip.masks.unsqueeze(1))
        )
        _check("frames after the transforms", frames, torch.uint8)
        _check("masks after the transforms", masks, torch.int64)
        size = check_shape("frames after the transforms", frames, "t 3 h w", t=size["t"])
        check_shape("masks after the transforms", masks, "t 1 h w", **size)
        masks = (-1 - masks.as_subclass(Tensor)).clamp(min=0).squeeze(1)
        return clip._replace(frames=frames.as_subclass(Tensor), masks=masks)


def train_transform(size: tuple[int, int] = (224, 224)) -> ClipTransform:
    """Return moderate random changes to train with: mirrored or not, a crop, other light and colours.

    A crop holds at least half of the picture, so that what sounds is seldom cut away. Hues stay, since they
    tell things apart. AVSBench and the models after it train without any such change; leave it out to
    reproduce them.

    Args:
        size: ``(H, W)`` that crops are scaled to, px. A reader with ``size=None`` crops the stored picture
            rather than a scaled one.
    """
    from torchvision.transforms import v2

    return ClipTransform(
        v2.RandomHorizontalFlip(),
        v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
        v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
    )


def _check(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise ValueError(
            f"{name}: expected {dtype}, as a clip is before its frames are normalised, got {tensor.dtype}"
        )
