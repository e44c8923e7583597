"""Random changes of a clip's pictures, applied to frames and masks alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from avslib._checks import check_shape
from avslib.clip import Clip


class ClipTransform(nn.Module):
    """Transforms of ``torchvision.transforms.v2`` for a clip, to pass to a reader as ``transform``.

    One random draw applies to all seconds of a clip, and to frames and masks alike: a flip flips the whole
    clip. Geometric transforms resample masks by nearest neighbour; colour transforms leave masks unchanged.
    What comes into view from outside the picture is background, whatever colour ``fill`` gives it in the
    frames. A crop may cut away what sounds; then nothing in view sounds, and the empty mask is correct. The
    sound has one channel, so it fits a flipped picture too.

    Chain several changes of a clip with ``nn.Sequential``.

    Args:
        *transforms: transforms of an image and its mask, applied in turn. A ``fill`` with a value for each
            channel needs torchvision's form ``{tv_tensors.Image: (r, g, b), "others": 0}``. Transforms that
            do not support masks, such as ``RandAugment`` and ``FiveCrop``, raise a ``TypeError``.

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
            clip: a clip with uint8 frames, as a reader passes it before normalising them.

        Raises:
            ValueError: if the frames are not uint8 or the masks not int64, before or after the transforms, or
                the shapes of the two do not match.
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
    """Return moderate random changes for training: mirroring, cropping, and other light and colours.

    A crop keeps at least half of the picture (less if one side is over 8/3 of the other), so that what sounds
    is seldom cut away. Hues stay, since they tell objects apart. AVSBench was trained without any such
    change; leave it out to reproduce it.

    Args:
        size: ``(H, W)`` to which crops are scaled, px. Use a reader with ``size=None`` to crop the stored
            picture rather than a scaled one.
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
