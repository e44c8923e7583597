"""The panoptic FPN head: pyramid to logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from avslib._checks import check_positive, check_shape


class FPNHead(nn.Module):
    """Semantic branch of Panoptic FPN: upsample all levels to the finest, sum, classify, upsample again.

    A level that is 2^i times coarser than the finest passes through i steps of 3x3 convolution, group norm,
    ReLU and bilinear doubling. The finest level passes through one step without doubling. Where sizes are
    odd, a step upsamples to the size of the next finer level, so any ``H`` and ``W`` work.

    Leading axes broadcast: if only the deepest level differs between samples, only it needs a sample axis,
    and the other levels are decoded once.

    Args:
        in_channels: width of every level of the pyramid.
        channels: width inside the head.
        num_classes: K, channels of the logits.
        num_levels: levels of the pyramid, finest first.
        num_groups: groups of the group norms; must divide ``channels``.

    Raises:
        ValueError: if ``num_classes`` is not above 0, or ``num_groups`` does not divide ``channels``.

    Kirillov et al., Panoptic Feature Pyramid Networks (CVPR 2019), section 3; the decoder of DiffusionAVS,
    section III-C.

    Example:
        >>> import torch
        >>> head = FPNHead(in_channels=128)
        >>> pyramid = [torch.rand(2, 5, 128, side, side) for side in (28, 14, 7, 4)]
        >>> head(pyramid, size=(112, 112)).shape
        torch.Size([2, 5, 1, 112, 112])
    """

    def __init__(
        self,
        in_channels: int = 128,
        *,
        channels: int = 128,
        num_classes: int = 1,
        num_levels: int = 4,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes)
        if channels % num_groups:
            raise ValueError(f"channels: expected a multiple of num_groups={num_groups}, got {channels}")
        self.in_channels = in_channels
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(
                    _step(in_channels if i == 0 else channels, channels, num_groups)
                    for i in range(max(level, 1))
                )
            )
            for level in range(num_levels)
        )
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, pyramid: Sequence[Tensor], *, size: tuple[int, int]) -> Tensor:
        """Return logits ``(..., K, H, W)``.

        Args:
            pyramid: feature maps ``(..., C, h, w)``, finest first; their leading axes broadcast.
            size: ``(H, W)`` of the logits, px.

        Raises:
            ValueError: if the number of levels or a width differs.
        """
        if len(pyramid) != len(self.levels):
            raise ValueError(f"pyramid: expected {len(self.levels)} levels, got {len(pyramid)}")
        for i, level in enumerate(pyramid):
            check_shape(f"pyramid[{i}]", level, "... c h w", c=self.in_channels)
        sizes = [(level.shape[-2], level.shape[-1]) for level in pyramid]
        total = self._classify(pyramid[0], 0, sizes)
        for i in range(1, len(pyramid)):
            total = total + self._classify(pyramid[i], i, sizes)
        logits = _enlarge(total.reshape(-1, *total.shape[-3:]), size)
        return logits.reshape(*total.shape[:-3], *logits.shape[1:])

    def _classify(self, x: Tensor, level: int, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return what a level adds to the logits, at the size of the finest level.

        The paper's head upsamples the features of every level to that size and classifies their sum. Both are
        linear; upsampling treats all channels alike, and classification all pixels. So the order can be
        swapped, and each level is classified before it is upsampled, while it is smaller.
        """
        leading = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:])
        steps = list(self.levels[level].children())
        for i, step in enumerate(steps):
            x = step(x)
            if i < len(steps) - 1:
                x = _enlarge(x, sizes[level - 1 - i])
        if level == 0:
            logits = self.classify(x)
        else:  # the bias counts once
            logits = _enlarge(nn.functional.conv2d(x, self.classify.weight), sizes[0])
        return logits.reshape(*leading, *logits.shape[1:])


def _step(in_channels: int, out_channels: int, num_groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(num_groups, out_channels),
        nn.ReLU(),
    )


def _enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    return nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
