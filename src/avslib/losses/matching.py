"""AVSBench's matching losses: what is segmented should look like what is heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avslib._checks import check_one_of, check_shape

FOREGROUNDS = ("logits", "probabilities", "argmax")
POOLINGS = ("avg", "max")
DISTANCES = ("kl", "euclidean", "cosine")
REDUCTIONS = ("sum", "mean")


def audio_visual_matching(
    logits: Tensor,
    features: Sequence[Tensor],
    audio: Sequence[Tensor],
    labelled: Tensor | None = None,
    *,
    foreground: str = "logits",
    pooling: str = "avg",
    threshold: bool = False,
    normalize: bool = False,
    distance: str = "kl",
    reduction: str = "sum",
) -> Tensor:
    """Return how far the features of a frame's foreground are from those of its sound (AVM-AV).

    At each level the prediction is pooled to the feature map's size and weights its mean; that vector is
    compared with the sound's. The loss is the mean over levels. The defaults are those of the published
    multi-source training; the published code differs by setting:

    ====================  =============  =========  =========  ========  =========
    setting               foreground     threshold  normalize  distance  reduction
    ====================  =============  =========  =========  ========  =========
    AVSBench S4           probabilities  True       True       cosine    mean
    AVSBench MS3          logits         False      False      kl        sum
    AVSBench AVSS         argmax         False      False      kl        mean
    ECMVAE                logits         False      True       kl        sum
    ====================  =============  =========  =========  ========  =========

    A sum over frames grows with the batch. Computed in float32, or wider, also under autocast.

    Args:
        logits: scores before the sigmoid, ``(B, T, K, H, W)``; K is 1 unless ``foreground`` is ``"argmax"``.
        features: feature maps, ``(B, T, C, h, w)`` each: the levels that count, one or more.
        audio: the sound aligned to each level, ``(B, T, C)`` each.
        labelled: which frames count, ``(B, T)``, bool; None for all, as published for S4, MS3 and ECMVAE.
            Other frames are not read.
        foreground: what is pooled to a level's size. ``"logits"``: the logits, and the sigmoid is taken
            afterwards; ``"probabilities"``: the sigmoid of the logits; ``"argmax"``: 1 where the likeliest of
            K classes is not class 0, which gives the logits no gradient.
        pooling: ``"avg"`` or ``"max"``.
        threshold: whether pooled weights above 0.5 become 1 and others 0, without gradient, and the features
            are averaged over the cells with 1. If not, they are averaged over all cells of the weighted map,
            so that a small object gives a short vector.
        normalize: whether both vectors are brought to length 1; ``"cosine"`` implies it.
        distance: ``"kl"``: KL(audio || visual) of the softmax over channels; ``"euclidean"``; ``"cosine"``:
            minus the logarithm of the cosine, where a negative cosine counts as 1e-6, without gradient.
        reduction: ``"sum"`` or ``"mean"`` over frames.

    Returns:
        The loss, a scalar, at least 0 but for rounding; 0, with a graph, if no frame counts.

    Raises:
        ValueError: if there is no level, if a shape differs, or if a word is not known.

    Zhou et al., "Audio-Visual Segmentation", ECCV 2022, AVM-AV.

    Example:
        >>> features, audio = [torch.zeros(2, 5, 16, 8, 8)], [torch.zeros(2, 5, 16)]
        >>> audio_visual_matching(torch.zeros(2, 5, 1, 32, 32), features, audio)
        tensor(0.)
    """
    _check_words(foreground, pooling, distance, reduction)
    pairs = _vectors(
        logits,
        features,
        audio,
        labelled,
        foreground=foreground,
        pooling=pooling,
        threshold=threshold,
        normalize=normalize or distance == "cosine",
    )
    return torch.stack([_reduce(_distance(heard, seen, distance), reduction) for seen, heard in pairs]).mean()


def visual_visual_matching(
    logits: Tensor,
    features: Sequence[Tensor],
    audio: Sequence[Tensor],
    labelled: Tensor | None = None,
    *,
    foreground: str = "logits",
    pooling: str = "avg",
    threshold: bool = False,
    normalize: bool = False,
    distance: str = "kl",
    reduction: str = "sum",
) -> Tensor:
    """Return how far the foreground's features are from those of the frame that sounds most alike (AVM-VV).

    The frame that sounds most alike is the nearest other one of the whole batch in the audio's features, or
    the frame itself if it is the only one. The sound has no other part in the loss and gets no gradient.

    The published code adds 10 to a frame's distance from itself, which excludes it only while another is
    nearer than that; here it is excluded. For AVSS, the published code says "closest" too, but with ``"kl"``
    compares with the frame's own sound: that is :func:`audio_visual_matching`.

    Args:
        logits: as for :func:`audio_visual_matching`, and so are all others.
        features: ``(B, T, C, h, w)`` each.
        audio: ``(B, T, C)`` each.
        labelled: which frames are compared, ``(B, T)``, bool; every frame is one to be compared with.
        foreground: ``"logits"``, ``"probabilities"`` or ``"argmax"``.
        pooling: ``"avg"`` or ``"max"``.
        threshold: whether the weights are 0 or 1.
        normalize: whether the vectors, sound included, are brought to length 1.
        distance: ``"kl"``, ``"euclidean"`` or ``"cosine"``.
        reduction: ``"sum"`` or ``"mean"`` over frames.

    Returns:
        The loss, a scalar; 0, with a graph, if no frame counts.

    Raises:
        ValueError: if there is no level, if a shape differs, or if a word is not known.

    Zhou et al., "Audio-Visual Segmentation", ECCV 2022, AVM-VV.
    """
    _check_words(foreground, pooling, distance, reduction)
    if labelled is not None:
        check_shape("labelled", labelled, "b t", b=logits.shape[0], t=logits.shape[1])
    losses = []
    for seen, heard in _vectors(
        logits,
        features,
        audio,
        foreground=foreground,
        pooling=pooling,
        threshold=threshold,
        normalize=normalize or distance == "cosine",
    ):
        distances = _distance(seen[_nearest(heard.detach())], seen, distance)
        if labelled is not None:
            distances = distances[labelled.flatten().bool()]
        losses.append(_reduce(distances, reduction))
    return torch.stack(losses).mean()


class _Matching(nn.Module):
    """One of the functions above and its options."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        *,
        foreground: str = "logits",
        pooling: str = "avg",
        threshold: bool = False,
        normalize: bool = False,
        distance: str = "kl",
        reduction: str = "sum",
    ) -> None:
        super().__init__()
        _check_words(foreground, pooling, distance, reduction)
        self.foreground = foreground
        self.pooling = pooling
        self.threshold = threshold
        self.normalize = normalize
        self.distance = distance
        self.reduction = reduction

    def forward(
        self,
        logits: Tensor,
        features: Sequence[Tensor],
        audio: Sequence[Tensor],
        labelled: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a scalar; the arguments are those of the function."""
        return type(self).function(
            logits,
            features,
            audio,
            labelled,
            foreground=self.foreground,
            pooling=self.pooling,
            threshold=self.threshold,
            normalize=self.normalize,
            distance=self.distance,
            reduction=self.reduction,
        )


class AudioVisualMatching(_Matching):
    """The foreground against the sound, as a module: see :func:`audio_visual_matching`.

    Example:
        >>> loss = AudioVisualMatching(foreground="argmax", reduction="mean")  # as for AVSS
        >>> features, audio = [torch.zeros(2, 5, 16, 8, 8)], [torch.zeros(2, 5, 16)]
        >>> loss(torch.randn(2, 5, 71, 32, 32), features, audio)
        tensor(0.)
    """

    function = staticmethod(audio_visual_matching)


class VisualVisualMatching(_Matching):
    """The foreground against that of the frame that sounds most alike: see :func:`visual_visual_matching`."""

    function = staticmethod(visual_visual_matching)


def _check_words(foreground: str, pooling: str, distance: str, reduction: str) -> None:
    check_one_of("foreground", foreground, FOREGROUNDS)
    check_one_of("pooling", pooling, POOLINGS)
    check_one_of("distance", distance, DISTANCES)
    check_one_of("reduction", reduction, REDUCTIONS)


def _vectors(
    logits: Tensor,
    features: Sequence[Tensor],
    audio: Sequence[Tensor],
    labelled: Tensor | None = None,
    *,
    foreground: str,
    pooling: str,
    threshold: bool,
    normalize: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """What is seen and what is heard at each level, ``(n, C)`` each, in the n frames that count."""
    if not features:
        raise ValueError("features: expected one level or more, got none")
    if len(audio) != len(features):
        raise ValueError(f"audio: expected {len(features)} levels, as many as features, got {len(audio)}")
    size = check_shape("logits", logits, "b t k h w" if foreground == "argmax" else "b t 1 h w")
    frames = {"b": size["b"], "t": size["t"]}
    if labelled is not None:
        check_shape("labelled", labelled, "b t", **frames)

    def fold(x: Tensor) -> Tensor:
        x = x.flatten(0, 1) if labelled is None else x[labelled.bool()]
        return x.to(torch.promote_types(x.dtype, torch.float32))

    for i, (level, sound) in enumerate(zip(features, audio, strict=True)):
        channels = check_shape(f"features[{i}]", level, "b t c h w", **frames)["c"]
        check_shape(f"audio[{i}]", sound, "b t c", **frames, c=channels)
        seen = _foreground_features(
            fold(logits), fold(level), foreground=foreground, pooling=pooling, threshold=threshold
        )
        heard = fold(sound)
        if normalize:
            seen, heard = F.normalize(seen, dim=-1), F.normalize(heard, dim=-1)
        yield seen, heard


def _foreground_features(
    logits: Tensor, features: Tensor, *, foreground: str, pooling: str, threshold: bool
) -> Tensor:
    """The mean of a feature map, weighted by how much of each cell is foreground, ``(n, C)``."""
    match foreground:
        case "argmax":
            picture = (logits.argmax(dim=1, keepdim=True) != 0).to(logits.dtype)
        case "probabilities":
            picture = logits.sigmoid()
        case _:
            picture = logits
    size = (features.shape[-2], features.shape[-1])
    weights = (
        F.adaptive_avg_pool2d(picture, size) if pooling == "avg" else F.adaptive_max_pool2d(picture, size)
    )
    if foreground == "logits":
        weights = weights.sigmoid()
    if not threshold:
        return (features * weights).mean(dim=(-2, -1))
    chosen = (weights > 0.5).to(features.dtype)
    return (features * chosen).sum(dim=(-2, -1)) / (chosen.sum(dim=(-2, -1)) + 1e-6)


def _nearest(vectors: Tensor) -> Tensor:
    """The index of each row's nearest other row, ``(n, C)`` to ``(n,)``; of an only row, its own."""
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(torch.inf).argmin(dim=0)


def _distance(target: Tensor, seen: Tensor, distance: str) -> Tensor:
    """The distance of each row of ``seen`` from that of ``target``, ``(n, C)`` to ``(n,)``."""
    match distance:
        case "kl":
            return F.kl_div(
                seen.log_softmax(dim=-1), target.log_softmax(dim=-1), reduction="none", log_target=True
            ).sum(dim=-1)
        case "euclidean":
            return F.pairwise_distance(target, seen)
        case _:
            return -torch.log(F.relu((target * seen).sum(dim=-1)) + 1e-6)


def _reduce(distances: Tensor, reduction: str) -> Tensor:
    total = distances.sum()
    return total if reduction == "sum" else total / max(distances.numel(), 1)
