"""Calibration of probabilities: of pixels with probability 0.7, seven in ten should be foreground."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from avslib._checks import check_integer, check_one_of, check_positive
from avslib.metrics._binary import BinaryMetric, check_binary, check_frames, not_binary
from avslib.metrics._plots import new_axes
from avslib.metrics.statistics import frame_chunks

KINDS = ("foreground", "prediction")


class Reliability(NamedTuple):
    """Statistics of the pixels in each bin of probabilities; the last two are NaN where a bin is empty."""

    pixels: Tensor  # (bins,), int64, number of pixels
    confidence: Tensor  # (bins,), float64, mean probability
    accuracy: Tensor  # (bins,), float64, fraction that is foreground, or predicted correctly


def calibration_error(logits: Tensor, masks: Tensor, *, bins: int = 15, kind: str = "foreground") -> Tensor:
    """Return the expected calibration error of all pixels, see :class:`CalibrationError`.

    Args:
        logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        bins: number of bins of equal width.
        kind: ``"foreground"`` or ``"prediction"``.

    Returns:
        A scalar, float64, in ``[0, 1]``.

    Raises:
        ValueError: if a shape differs, ``masks`` holds anything but 0 and 1, or an argument is out of range.

    Example:
        >>> logits = torch.tensor([0.7, 0.7, 0.7, 0.9]).logit().view(1, 1, 1, 2, 2)
        >>> calibration_error(logits, torch.tensor([1, 1, 0, 1]).view(1, 1, 2, 2), bins=10)
        tensor(0.0500, dtype=torch.float64)
    """
    check_frames(logits, masks)
    check_binary(not_binary(masks))
    _check_arguments(bins, kind)
    return _error(_bin_sums(logits, masks, torch.ones(masks.shape[:2], device=masks.device), bins, kind))


class CalibrationError(BinaryMetric):
    """Expected calibration error of pixels (Guo et al., ICML 2017, equation 3), and its reliability diagram.

    The pixels of valid frames are sorted into bins of [0, 1]: probability p goes into bin floor(p * bins),
    and 1 into the last bin. A bin holds n_b of n pixels, with mean probability c_b and accuracy a_b::

        ECE = sum over bins of n_b / n * |a_b - c_b| .

    - ``"foreground"``: p is the probability of foreground, and a_b the fraction of foreground pixels.
    - ``"prediction"``: p is the probability of the predicted class, background or foreground, so at least
      1/2. a_b is the fraction of pixels predicted correctly, as Guo et al. define it for classes.

    For several samples, pass the logits of their mean probability, ``Segmentation.logits``. Most pixels are
    easy background, so the error is small for every model: compare models only on the same dataset, and look
    at the plot.

    Args:
        bins: number of bins.
        kind: ``"foreground"`` or ``"prediction"``.

    Raises:
        ValueError: if ``bins`` is not an integer above 0 or ``kind`` is unknown.

    Example:
        >>> metric = CalibrationError(bins=10)
        >>> logits = torch.tensor([0.7, 0.7, 0.7, 0.9]).logit().view(1, 1, 1, 2, 2)
        >>> metric.update(logits, torch.tensor([1, 1, 0, 1]).view(1, 1, 2, 2))
        >>> metric.compute()  # 3/4 |2/3 - 0.7| + 1/4 |1 - 0.9|
        tensor(0.0500, dtype=torch.float64)
    """

    higher_is_better = False

    sums: Tensor

    def __init__(self, *, bins: int = 15, kind: str = "foreground") -> None:
        _check_arguments(bins, kind)
        super().__init__(("calibration", bins, kind))
        self.bins = bins
        self.kind = kind
        self.add_state("sums", torch.zeros(3, bins, dtype=torch.float64), "sum")

    def update(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> None:
        """Add clips, without waiting for an accelerator.

        Args:
            logits: scores before the sigmoid, ``(B, T, 1, H, W)``, any float type, converted to float32.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            valid: False where a frame is padding and does not count, ``(B, T)``, bool.

        Raises:
            ValueError: if a shape differs, or if a mask of a valid frame holds anything but 0 and 1. On an
                accelerator, ``compute`` raises the latter.
        """
        check_frames(logits, masks, valid)
        self.sums += _bin_sums(logits, masks, self._counted(masks, valid), self.bins, self.kind)

    def compute(self) -> Tensor:
        """Return the error, a float64 scalar in ``[0, 1]``; NaN without a pixel.

        Raises:
            ValueError: if a mask seen on an accelerator held anything but 0 and 1.
        """
        self._check()
        return _error(self.sums)

    def reliability(self) -> Reliability:
        """Return the number of pixels in each bin, their mean probability and their accuracy."""
        with self.sync_context():
            pixels, confidence, right = self.sums.clone()
        return Reliability(pixels.long(), confidence / pixels, right / pixels)

    def plot_reliability(self, ax: Any = None) -> Any:
        """Plot accuracy over mean probability, and the share of pixels in each bin; needs matplotlib.

        A calibrated model lies on the dashed line; a flatter curve means that a model is overconfident.

        Args:
            ax: matplotlib axes to draw on; by default, new ones.

        Returns:
            The figure and its axes.
        """
        pixels, confidence, accuracy = (values.cpu() for values in self.reliability())
        share = pixels / pixels.sum()
        error = (share * (accuracy - confidence).abs()).nansum().item()
        figure, ax = new_axes(ax)
        edges = [i / self.bins for i in range(self.bins)]
        width = 1 / self.bins
        ax.bar(edges, share.tolist(), width=width, align="edge", color="0.85", label="share of pixels")
        ax.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1)
        seen = pixels > 0
        ax.plot(confidence[seen], accuracy[seen], "o-", label=f"ECE = {error:.4f}")
        name = "foreground" if self.kind == "foreground" else "the prediction"
        outcome = "how often it is" if self.kind == "foreground" else "how often it is right"
        ax.set(xlabel=f"probability of {name}", ylabel=outcome, xlim=(0, 1), ylim=(0, 1))
        ax.legend()
        return figure, ax


def _check_arguments(bins: int, kind: str) -> None:
    check_one_of("kind", kind, KINDS)
    check_integer("bins", bins)
    check_positive("bins", bins)


def _bin_sums(logits: Tensor, masks: Tensor, counted: Tensor, bins: int, kind: str) -> Tensor:
    """Return pixels, summed probability and correct pixels of each bin, ``(3, bins)``, float64.

    Frames count where ``counted``, ``(B, T)``, is True.
    """
    sums = torch.zeros(3, bins, dtype=torch.float64, device=masks.device)
    frames = frame_chunks(masks.flatten(0, 1), logits.detach().flatten(0, 2), counted.flatten())
    for truth, part, kept in frames:
        probability = part.float().sigmoid().nan_to_num(nan=0.0)  # NaN is background, as in every score
        right = truth != 0
        if kind == "prediction":
            predicted = probability > 0.5
            probability = torch.where(predicted, probability, 1 - probability)
            right = predicted == right
        place = (probability * bins).long().clamp(max=bins - 1)
        values = torch.stack([torch.ones_like(probability), probability, right.float()]).double()
        values = values * kept[:, None, None]
        sums.scatter_add_(1, place.flatten().expand(3, -1), values.flatten(1))
    return sums


def _error(sums: Tensor) -> Tensor:
    pixels, confidence, right = sums
    return (confidence - right).abs().sum() / pixels.sum()
