"""F of contours, and J&F, as the DAVIS benchmark computes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from avslib._checks import check_one_of
from avslib.metrics._batches import ClipBatchMean
from avslib.metrics._binary import check_binary, check_frames, not_binary
from avslib.metrics.jaccard import davis_iou
from avslib.metrics.statistics import frame_statistics

TOLERANCE = 0.008


def contour(masks: Tensor) -> Tensor:
    """Return the contours of masks, one pixel wide and shifted by half a pixel towards the upper left.

    A pixel is on the contour if its right, lower or lower right neighbour differs from it. The edge of the
    image is not a contour, since a mask may be cut off there.

    Args:
        masks: ``(..., H, W)``, bool.

    Returns:
        ``(..., H, W)``, bool.

    Example:
        >>> contour(torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).bool()).int()
        tensor([[1, 1, 1, 0],
                [1, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    lower = torch.cat([masks[..., 1:, :], masks[..., -1:, :]], dim=-2)
    right, lower_right = (torch.cat([m[..., 1:], m[..., -1:]], dim=-1) for m in (masks, lower))
    return (masks ^ right) | (masks ^ lower) | (masks ^ lower_right)


def boundary_f(logits: Tensor, masks: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Return the F of the contours of every frame (Perazzi et al., CVPR 2016, and their code).

    Precision is the fraction of the predicted contour that lies within r pixels of the true contour. Recall
    is the fraction of the true contour that lies within r pixels of the predicted one. The radius is
    r = ceil(``tolerance`` * diagonal), 3 at 224x224, and F = 2 P R / (P + R). A frame scores 1 if both
    contours are empty, and 0 if only one is.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32. The
            prediction is ``sigmoid(logits) > 0.5``.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        tolerance: radius as a fraction of the diagonal of the image, in (0, 1).

    Returns:
        One score per frame, ``(B, T)``, float64, in ``[0, 1]``.

    Raises:
        ValueError: if a shape differs, ``masks`` holds anything but 0 and 1, or ``tolerance`` is not in
            (0, 1).

    Example:
        >>> masks = torch.zeros(1, 1, 64, 64)
        >>> masks[..., 20:40, 20:40] = 1
        >>> shifted = masks.roll(1, dims=-1).unsqueeze(2) * 9 - 4.5  # by one pixel, and r is one here
        >>> boundary_f(shifted, masks)
        tensor([[1.]], dtype=torch.float64)
    """
    check_frames(logits, masks)
    check_binary(not_binary(masks))
    _check_tolerance(tolerance)
    return _boundary_f(logits, masks, tolerance)


class BoundaryF(ClipBatchMean):
    """F of contours: the mean of `boundary_f` over the frames of a clip, then over clips.

    Args:
        protocol: ``"davis"``.
        tolerance: how far apart contours may lie, as a fraction of the diagonal of the image.

    Raises:
        ValueError: if the protocol is unknown or ``tolerance`` is not in (0, 1).

    Example:
        >>> metric = BoundaryF()
        >>> metric.update(torch.full((2, 5, 1, 4, 4), 3.0), torch.ones(2, 5, 4, 4, dtype=torch.int64))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    protocols = ("davis",)

    def __init__(self, protocol: str = "davis", *, tolerance: float = TOLERANCE) -> None:
        check_one_of("protocol", protocol, self.protocols)
        _check_tolerance(tolerance)
        super().__init__((type(self).__name__, protocol, tolerance), sums=2)
        self.protocol = protocol
        self.tolerance = tolerance

    def _frame_scores(self, logits: Tensor, masks: Tensor) -> Tensor:
        return _boundary_f(logits, masks, self.tolerance)

    def _frame_sums(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        scores = self._frame_scores(logits, masks)
        return torch.stack([scores, torch.ones_like(scores)], dim=-1)

    def _score(self, sums: Tensor) -> Tensor:
        return sums[..., 0] / sums[..., 1]


class JAndF(BoundaryF):
    """J&F: the mean of ``MaskIoU("davis")`` and :class:`BoundaryF`.

    The published code of Ref-AVS does not use contours: its F is that of :class:`~avslib.metrics.FScore`.

    Args:
        protocol: ``"davis"``.
        tolerance: how far apart contours may lie, as a fraction of the diagonal of the image.

    Raises:
        ValueError: if the protocol is unknown or ``tolerance`` is not in (0, 1).

    Example:
        >>> metric = JAndF()
        >>> metric.update(torch.full((2, 5, 1, 4, 4), 3.0), torch.ones(2, 5, 4, 4, dtype=torch.int64))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    def _frame_scores(self, logits: Tensor, masks: Tensor) -> Tensor:
        j = davis_iou(frame_statistics(logits, masks, curves=False))
        return (j + super()._frame_scores(logits, masks)) / 2


def _check_tolerance(tolerance: float) -> None:
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: expected a number in (0, 1), got {tolerance}")


def _boundary_f(logits: Tensor, masks: Tensor, tolerance: float) -> Tensor:
    b, t, h, w = masks.shape
    radius = math.ceil(tolerance * math.hypot(h, w))
    scores = [
        _match(contour(part.sigmoid() > 0.5), contour(truth.bool()), radius)
        for part, truth in zip(
            logits.detach().float().flatten(0, 2).split(32),
            masks.flatten(0, 1).split(32),
            strict=True,
        )
    ]
    return torch.cat(scores).view(b, t)


def _match(predicted: Tensor, truth: Tensor, radius: int) -> Tensor:
    """Return F of contours ``(n, H, W)``."""
    precision, found = _near(predicted, truth, radius)
    recall, there = _near(truth, predicted, radius)
    f = (2 * precision * recall / (precision + recall)).nan_to_num(nan=0.0)
    return torch.where(found | there, f, 1.0)


def _near(these: Tensor, those: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Return the fraction of ``these`` within a radius of ``those``, and whether there are any, ``(n,)``."""
    reached = (_by_distance if those.device.type == "cpu" else _by_disk)(those, radius)
    count = these.flatten(1).sum(dim=1)
    return (these & reached).flatten(1).sum(dim=1) / count.double(), count > 0


def _by_distance(contours: Tensor, radius: int) -> Tensor:
    """Return the pixels within a radius of contours ``(n, H, W)``, in time independent of the radius."""
    from scipy.ndimage import distance_transform_edt

    reached = torch.zeros_like(contours)
    for one, there in zip(reached, contours, strict=True):
        if there.any():  # else there is no contour to measure from
            box = tuple(_around(there.any(dim=axis), radius) for axis in (1, 0))
            one[box] = torch.from_numpy(distance_transform_edt(~there[box].numpy()) <= radius)
    return reached


def _around(flags: Tensor, margin: int) -> slice:
    """Return the range in which flags ``(n,)`` are True, with a margin on both sides."""
    places = flags.nonzero()
    return slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1)


def _by_disk(contours: Tensor, radius: int) -> Tensor:
    """Return the same by a convolution, so that an accelerator need not wait for the CPU."""
    away = torch.arange(-radius, radius + 1, device=contours.device).square()
    disk = (away[:, None] + away <= radius**2).float()[None, None]
    return F.conv2d(contours[:, None].float(), disk, padding="same")[:, 0] > 0.5
