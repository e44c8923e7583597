"""Metrics of several samples of a stochastic model against one ground truth."""

from __future__ import annotations

from abc import abstractmethod

import torch
from einops import rearrange
from torch import Tensor

from avslib._checks import check_one_of, check_shape
from avslib.metrics._binary import BinaryMetric, check_binary, not_binary
from avslib.metrics.jaccard import frame_iou
from avslib.metrics.statistics import check_threshold

CHOICES = ("mean", "each", "best", "best_frame")


def sample_iou(samples: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return J of every sample in every frame, as `frame_iou` computes it.

    Args:
        samples: logits of each sample, ``(S, B, T, 1, H, W)``, any float type, converted to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Returns:
        ``(S, B, T)``, float64, in ``[0, 1]``.

    Raises:
        ValueError: if a shape differs, there is no sample, ``masks`` holds anything but 0 and 1, or
            ``threshold`` is not in ``[0, 1)``.
    """
    _check_samples(samples, masks)
    return torch.stack([frame_iou(sample, masks, threshold=threshold) for sample in samples])


def energy_distance(samples: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return the squared generalised energy distance between samples and ground truth of every frame.

    With the distance d(a, b) = 1 - IoU(a, b) between masks, 0 if both are empty,

        GED^2 = 2 E d(S, Y) - E d(S, S') - E d(Y, Y')

    (Kohl et al., A Probabilistic U-Net, NeurIPS 2018, section 3). There is one ground truth Y, so the last
    term is 0. S and S' are any two of the samples, or the same one twice. The result is small if the samples
    are near the ground truth. Of two sets of samples that are equally far from it, the more diverse set has
    the smaller result. For one sample, or equal samples, it is twice the distance d(S, Y).

    Args:
        samples: logits of each sample, ``(S, B, T, 1, H, W)``, any float type, converted to float32.
        masks: ground truth, ``(B, T, H, W)``, 0 and 1.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Returns:
        One number per frame, ``(B, T)``, float64, in ``[0, 2]``.

    Raises:
        ValueError: if a shape differs, there is no sample, ``masks`` holds anything but 0 and 1, or
            ``threshold`` is not in ``[0, 1)``.

    Example:
        >>> samples = torch.tensor([[-9.0, -9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, 9.0]]).view(2, 1, 1, 1, 2, 2)
        >>> masks = torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2)
        >>> energy_distance(samples, masks)  # 2 (0 + 1/2) / 2 - (0 + 1/2 + 1/2 + 0) / 4
        tensor([[0.2500]], dtype=torch.float64)
    """
    _check_samples(samples, masks)
    check_binary(not_binary(masks))
    return _energy_distance(samples, masks, threshold)


def sample_diversity(samples: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return how far apart the samples of every frame are: E d(S, S') of `energy_distance`.

    Pairs of a sample with itself count too, so this is the amount by which diversity lowers the energy
    distance. It says nothing about accuracy.

    Args:
        samples: logits of each sample, ``(S, B, T, 1, H, W)``, any float type, converted to float32.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Returns:
        One number per frame, ``(B, T)``, float64, at least 0 and less than 1; 0 for one sample.

    Raises:
        ValueError: if the shape differs, there is no sample, or ``threshold`` is not in ``[0, 1)``.
    """
    _check_samples(samples)
    return _distances(_predicted(samples, threshold)).mean(dim=(-2, -1))


class _SampleMean(BinaryMetric):
    """Mean over clips of a score of several samples."""

    total: Tensor
    clips: Tensor

    def __init__(self, settings: tuple[object, ...], threshold: float) -> None:
        check_threshold(threshold)
        super().__init__((*settings, threshold))
        self.threshold = threshold
        self.add_state("total", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("clips", torch.zeros((), dtype=torch.int64), "sum")

    @abstractmethod
    def _clip_scores(self, samples: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        """Return the score of each clip, ``(B,)``, over its frames that are ``counted``."""

    def update(self, samples: Tensor, masks: Tensor, valid: Tensor | None = None) -> None:
        """Add clips.

        Args:
            samples: logits of each sample, ``(S, B, T, 1, H, W)``, any float type, converted to float32. A
                deterministic prediction is passed as ``logits[None]``.
            masks: ground truth, ``(B, T, H, W)``, 0 and 1.
            valid: False where a frame is padding and does not count, ``(B, T)``, bool.

        Raises:
            ValueError: if a shape differs, or if a mask of a valid frame holds anything but 0 and 1.
        """
        size = _check_samples(samples, masks)
        if valid is not None:
            check_shape("valid", valid, "b t", b=size["b"], t=size["t"])
        counted = self._counted(masks, valid)
        masks = torch.where(counted[..., None, None], masks, 0)  # values in padding do not matter
        is_clip = counted.any(dim=1)
        scores = self._clip_scores(samples, masks, counted)
        self.total += torch.where(is_clip, scores, 0.0).sum()
        self.clips += is_clip.sum()

    def compute(self) -> Tensor:
        """Return the mean over clips, a float64 scalar; NaN without a clip."""
        self._check()
        return self.total / self.clips


class SampleIoU(_SampleMean):
    """J of several samples, averaged over the frames of a clip, then over clips.

    J of a frame is AVSBench's, see `frame_iou`, so with one sample every choice equals :class:`MaskIoU`.

    - ``"mean"``: J of the mean of the samples' probabilities, as in ``Segmentation.logits``.
    - ``"each"``: the mean of the samples' J, which is the expected J of one sample.
    - ``"best"``: J of the sample that is best over the whole clip, chosen with the ground truth.
    - ``"best_frame"``: J of the sample that is best in each frame, chosen with the ground truth. Where a
      latent code is drawn for every frame, the frames of a sample are drawn independently, so any mixture of
      samples is a sample too.

    The best of n samples improves with n, even if the samples mean nothing. Compare results with equal n, and
    look at ``"each"``.

    Args:
        choice: one of the names above.
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Raises:
        ValueError: if ``choice`` is unknown or the threshold is not in ``[0, 1)``.

    Example:
        >>> samples = torch.tensor([[-9.0, -9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, 9.0]]).view(2, 1, 1, 1, 2, 2)
        >>> for choice in ("mean", "each", "best"):
        ...     metric = SampleIoU(choice)
        ...     metric.update(samples, torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2))
        ...     print(choice, round(metric.compute().item(), 4))
        mean 0.5
        each 0.75
        best 1.0
    """

    def __init__(self, choice: str = "best", *, threshold: float = 0.5) -> None:
        check_one_of("choice", choice, CHOICES)
        super().__init__(("J of samples", choice), threshold)
        self.choice = choice

    def _clip_scores(self, samples: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        if self.choice == "mean":
            samples = samples.detach().float().sigmoid().mean(dim=0, keepdim=True).logit()
        frames = sample_iou(samples, masks, threshold=self.threshold)
        if self.choice == "best_frame":
            return _mean_over_frames(frames.amax(dim=0), counted)
        clips = _mean_over_frames(frames, counted)
        return clips.mean(dim=0) if self.choice == "each" else clips.amax(dim=0)


class EnergyDistance(_SampleMean):
    """Squared generalised energy distance: mean of `energy_distance` over frames of a clip, then over clips.

    Lower is better. It falls with more samples, since each sample has distance 0 from itself: compare only
    results with equal numbers of samples.

    Args:
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Raises:
        ValueError: if the threshold is not in ``[0, 1)``.

    Example:
        >>> metric = EnergyDistance()
        >>> metric.update(torch.full((4, 2, 5, 1, 8, 8), 3.0), torch.ones(2, 5, 8, 8))
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    higher_is_better = False
    plot_upper_bound = 2.0

    def __init__(self, *, threshold: float = 0.5) -> None:
        super().__init__(("energy distance",), threshold)

    def _clip_scores(self, samples: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        return _mean_over_frames(_energy_distance(samples, masks, self.threshold), counted)


class SampleDiversity(_SampleMean):
    """Diversity of samples: mean of `sample_diversity` over the frames of a clip, then over clips.

    Args:
        threshold: probability in ``[0, 1)`` above which a pixel is foreground.

    Raises:
        ValueError: if the threshold is not in ``[0, 1)``.
    """

    higher_is_better = None

    def __init__(self, *, threshold: float = 0.5) -> None:
        super().__init__(("diversity",), threshold)

    def _clip_scores(self, samples: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        return _mean_over_frames(sample_diversity(samples, threshold=self.threshold), counted)


def _check_samples(samples: Tensor, masks: Tensor | None = None) -> dict[str, int]:
    size = check_shape("samples", samples, "s b t 1 h w")
    if size.pop("s") == 0:
        raise ValueError("samples: expected at least one, got none")
    if masks is not None:
        check_shape("masks", masks, "b t h w", **size)
    return size


def _predicted(samples: Tensor, threshold: float) -> Tensor:
    check_threshold(threshold)
    return samples.detach().float().sigmoid() > threshold


def _mean_over_frames(scores: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of scores ``(..., B, T)`` over the frames that count, ``(..., B)``."""
    return torch.where(counted, scores, 0.0).sum(dim=-1) / counted.sum(dim=-1)


def _energy_distance(samples: Tensor, masks: Tensor, threshold: float) -> Tensor:
    truth = rearrange(masks != 0, "b t h w -> 1 b t 1 h w")
    distances = _distances(torch.cat([_predicted(samples, threshold), truth]))
    to_truth, apart = distances[..., :-1, -1], distances[..., :-1, :-1]
    return 2 * to_truth.mean(dim=-1) - apart.mean(dim=(-2, -1))


def _distances(masks: Tensor) -> Tensor:
    """Return 1 - IoU of all pairs of masks ``(N, B, T, 1, H, W)``, ``(B, T, N, N)``; 0 if both are empty.

    Products of 0 and 1 add up exactly in float64, which autocast does not change.
    """
    n, b, t, *_ = masks.shape
    distances = torch.zeros(b, t, n, n, dtype=torch.float64, device=masks.device)
    frames = rearrange(masks, "n b t 1 h w -> (b t) n (h w)")
    for of_frame, frame in zip(distances.flatten(0, 1), frames, strict=True):
        of_frame.copy_(_frame_distances(frame))
    return distances


def _frame_distances(masks: Tensor) -> Tensor:
    pixels = masks.double()
    both = pixels @ pixels.mT
    area = both.diagonal()
    either = area[:, None] + area - both
    return torch.where(either > 0, 1 - both / either, 0.0)
