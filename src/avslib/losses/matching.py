"""AVSBench's matching losses: segmented features should resemble those of the sound."""

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

    At each level, the prediction is pooled to the size of the feature map and weights its mean. The resulting
    vector is compared with that of the sound. The loss is the mean over levels. The defaults are those of the
    published multi-source training; the published code differs by setting:

    ====================  =============  =========  =========  ========  =========
    setting               foreground     threshold  normalize  distance  reduction
    ====================  =============  =========  =========  ========  =========
    AVSBench S4           probabilities  True       True       cosine    mean
    AVSBench MS3          logits         False      False      kl        sum
    AVSBench AVSS         argmax         False      False      kl        mean
    ECMVAE                logits         False      True       kl        sum
    ====================  =============  =========  =========  ========  =========

    A sum over frames grows with the batch. The loss is computed in float32, or wider, even under autocast.

    Args:
        logits: scores before the sigmoid, ``(B, T, K, H, W)``; K is 1 unless ``foreground`` is ``"argmax"``.
        features: feature maps of the levels to match, one or more, ``(B, T, C, h, w)`` each.
        audio: the sound aligned to each level, ``(B, T, C)`` each.
        labelled: which frames count, ``(B, T)``, bool; None for all, as published for S4, MS3 and ECMVAE.
            Other frames are not read.
        foreground: what is pooled to a level's size. ``"logits"``: the logits, followed by a sigmoid;
            ``"probabilities"``: the sigmoid of the logits; ``"argmax"``: 1 where the most likely of the K
            classes is not class 0, which passes no gradient to the logits.
        pooling: ``"avg"`` or ``"max"``.
        threshold: whether to average the features over the cells with a pooled weight above 0.5 only, without
            gradient to the weights. If False, the weighted features are averaged over all cells, so that a
            small object gives a short vector.
        normalize: whether to scale both vectors to length 1; ``"cosine"`` implies it.
        distance: ``"kl"``: KL(audio || visual) of the softmax over channels; ``"euclidean"``; ``"cosine"``:
            minus the logarithm of the cosine, where a negative cosine counts as 1e-6 and gets no gradient.
        reduction: ``"sum"`` or ``"mean"`` over frames.

    Returns:
        The loss, a scalar, at least 0 up to rounding; 0, with a graph, if no frame counts.

    Raises:
        ValueError: if there is no level, if a shape differs, or if an option is unknown.

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

    The frame that sounds most alike is the other frame of the batch whose audio features are nearest, or the
    frame itself if it is the only one. The sound has no other role in the loss and gets no gradient.

    The published code adds 10 to a frame's distance from itself, which excludes the frame only if another is
    nearer than that; here it is always excluded. For AVSS, the published code also says "closest", but with
    ``"kl"`` it compares the frame with its own sound: that is :func:`audio_visual_matching`.

    Args:
        logits: as for :func:`audio_visual_matching`, which explains the other arguments too.
        features: ``(B, T, C, h, w)`` each.
        audio: ``(B, T, C)`` each.
        labelled: which frames count, ``(B, T)``, bool; the frame that sounds most alike may be any frame.
        foreground: ``"logits"``, ``"probabilities"`` or ``"argmax"``.
        pooling: ``"avg"`` or ``"max"``.
        threshold: whether the weights are 0 or 1.
        normalize: whether to scale the vectors, including the sound's, to length 1.
        distance: ``"kl"``, ``"euclidean"`` or ``"cosine"``.
        reduction: ``"sum"`` or ``"mean"`` over frames.

    Returns:
        The loss, a scalar; 0, with a graph, if no frame counts.

    Raises:
        ValueError: if there is no level, if a shape differs, or if an option is unknown.

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
    """Base of the modules: one of the functions above with its options."""

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
    """Match the foreground with the sound, as a module: see :func:`audio_visual_matching`.

    Example:
        >>> loss = AudioVisualMatching(foreground="argmax", reduction="mean")  # as for AVSS
        >>> features, audio = [torch.zeros(2, 5, 16, 8, 8)], [torch.zeros(2, 5, 16)]
        >>> loss(torch.randn(2, 5, 71, 32, 32), features, audio)
        tensor(0.)
    """

    function = staticmethod(audio_visual_matching)


class VisualVisualMatching(_Matching):
    """Match the foregrounds of frames that sound alike, as a module: see :func:`visual_visual_matching`."""

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
    """Yield the visual and the audio vectors of each level, ``(n, C)`` each, for the n frames that count."""
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
    """Return the mean of a feature map, weighted by how much of each cell is foreground, ``(n, C)``."""
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
    """Return the index of each row's nearest other row, ``(n, C)`` to ``(n,)``; a single row gets its own."""
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(torch.inf).argmin(dim=0)


def _distance(target: Tensor, seen: Tensor, distance: str) -> Tensor:
    """Return the distance of each row of ``seen`` from that of ``target``, ``(n, C)`` to ``(n,)``."""
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
