"""C3N's cognitive consensus: the class on which sight and sound agree, and the attention it guides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avslib._checks import check_positive, check_shape

_FRAMES_AT_ONCE = 16  # 34 MB for 1000 x 527 classes


@torch.no_grad()
def consensus(
    visual_scores: Tensor, audio_scores: Tensor, similarity: Tensor, *, alpha: float = 0.1
) -> Tensor:
    """Return the visual class of the pair of classes on which sight and sound agree most.

    The pair (i, j) maximises ``p_i ** alpha * similarity[i, j] * q_j ** alpha``, where p and q are the
    probabilities of the visual and the audio classifier. A small alpha makes them nearly flat, so the
    similarity decides unless a probability is tiny. As p is never negative, the best j for each i does not
    depend on p. Ties go to the smallest i.

    Args:
        visual_scores: logits of the visual classes, ``(..., I)``.
        audio_scores: logits of the audio classes, ``(..., J)``.
        similarity: similarity of the classes, ``(I, J)``; may be negative.
        alpha: exponent of the probabilities.

    Returns:
        i of the best pair, ``(...)`` int64, without gradient.

    Raises:
        ValueError: if a shape does not match or ``alpha`` is not above 0; the message names it.

    Shi et al., C3N (2023), cognitive consensus inference; ties as in the published code.

    Example:
        >>> similarity = torch.tensor([[0.1, 0.9], [0.2, 0.1]])
        >>> consensus(torch.zeros(2), torch.tensor([0.0, 0.0]), similarity)
        tensor(0)
        >>> consensus(torch.tensor([-40.0, 0.0]), torch.tensor([0.0, 0.0]), similarity)
        tensor(1)
    """
    check_positive("alpha", alpha)
    size = check_shape("similarity", similarity, "i j")
    check_shape("visual_scores", visual_scores, "... i", i=size["i"])
    check_shape("audio_scores", audio_scores, "... j", j=size["j"])
    leading = visual_scores.shape[:-1]
    if audio_scores.shape[:-1] != leading:
        raise ValueError(
            f"audio_scores: expected shape {(*leading, size['j'])} with visual_scores "
            f"{tuple(visual_scores.shape)}, got {tuple(audio_scores.shape)}"
        )
    seen, heard = (
        scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).pow(alpha)
        for scores in (visual_scores.reshape(-1, size["i"]), audio_scores.reshape(-1, size["j"]))
    )
    chunks = heard.split(_FRAMES_AT_ONCE)
    best = torch.cat([(chunk[:, None] * similarity).amax(dim=-1) for chunk in chunks])
    return (seen * best).argmax(dim=-1).view(leading)


def class_gradient_weights(scores: Tensor, classes: Tensor, taps: Sequence[Tensor]) -> list[Tensor]:
    """Return how much each channel supports a class: the gradient of the class's score, averaged over space.

    One backward pass serves all taps of all frames. It leaves the gradients of the parameters alone, and it
    works under ``torch.no_grad()`` if the scores were computed with a graph. The graph is kept for the loss
    only if gradients are enabled. The returned weights are constants.

    Args:
        scores: logits ``(N, I)``, with their graph.
        classes: the class of each frame, ``(N,)`` int64.
        taps: tensors ``(N, C_l, ...)`` from which the scores were computed.

    Returns:
        ``(N, C_l)`` for each tap, in float32 at least.

    Raises:
        ValueError: if a shape does not match, or the scores have no graph.

    These are the channel weights of Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1). C3N uses no more of it.

    Example:
        >>> tap = torch.rand(2, 3, 4, 4, requires_grad=True)
        >>> scores = tap.mean(dim=(2, 3)) @ torch.eye(3)
        >>> 16 * class_gradient_weights(scores, torch.tensor([0, 2]), [tap])[0]
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """
    n = check_shape("scores", scores, "n i")["n"]
    check_shape("classes", classes, "n", n=n)
    for i, tap in enumerate(taps):
        check_shape(f"taps[{i}]", tap.flatten(2), "n c s", n=n)
    if not scores.requires_grad:
        raise ValueError("scores: expected scores with their graph back to the taps, got scores without one")
    picked = torch.zeros_like(scores).scatter_(1, classes[:, None], 1)
    gradients = torch.autograd.grad(scores, taps, picked, retain_graph=torch.is_grad_enabled())
    dtypes = [torch.promote_types(gradient.dtype, torch.float32) for gradient in gradients]
    return [g.flatten(2).mean(dim=2, dtype=dtype) for g, dtype in zip(gradients, dtypes, strict=True)]


def channel_spatial_attention(x: Tensor, weights: Tensor) -> Tensor:
    """Gate the channels of a feature map by given weights, then its pixels by their gated means.

    Computes ``y = x * sigmoid(weights / |weights|)``, then ``y * sigmoid(mean of y over channels)``. The C
    weights of a unit vector are small, so the first gate is 0.5, give or take about ``0.25 / sqrt(C)``.

    Args:
        x: ``(N, C, h, w)``.
        weights: one weight per channel, ``(N, C)``; only the direction of the vector matters.

    Returns:
        ``(N, C, h, w)``.

    Raises:
        ValueError: if a shape does not match.

    Shi et al., C3N (2023), consensus-guided attention; the details follow the published code.
    """
    size = check_shape("x", x, "n c h w")
    check_shape("weights", weights, "n c", n=size["n"], c=size["c"])
    gate = F.normalize(weights, dim=1).sigmoid().to(x.dtype)
    x = x * gate[:, :, None, None]
    return x * x.mean(dim=1, keepdim=True).sigmoid()


class ConsensusAttention(nn.Module):
    """Attend to the channels of a pyramid that support the class on which sight and sound agree.

    The similarity of the class names is stored with the weights. It has no default: set it with
    :meth:`set_similarity`, or load weights that include it, before calling the module.

    Args:
        num_visual_classes: I, classes of the visual classifier; ImageNet has 1000.
        num_audio_classes: J, classes of the audio classifier; AudioSet has 527.
        alpha: exponent of the classifiers' probabilities, see :func:`consensus`.

    Raises:
        ValueError: if a number is not above 0.

    Shi et al., "Cross-modal Cognitive Consensus guided Audio-Visual Segmentation" (2023).

    Example:
        >>> attend = ConsensusAttention(10, 4)
        >>> attend.set_similarity(torch.rand(10, 4))
        >>> level = torch.rand(2, 8, 7, 7, requires_grad=True)
        >>> scores = level.mean(dim=(2, 3)) @ torch.rand(8, 10)
        >>> levels, classes = attend([level], [level], scores, torch.rand(2, 4))
        >>> levels[0].shape, classes.shape
        (torch.Size([2, 8, 7, 7]), torch.Size([2]))
    """

    similarity: Tensor

    def __init__(
        self, num_visual_classes: int = 1000, num_audio_classes: int = 527, *, alpha: float = 0.1
    ) -> None:
        super().__init__()
        check_positive("num_visual_classes", num_visual_classes)
        check_positive("num_audio_classes", num_audio_classes)
        check_positive("alpha", alpha)
        self.alpha = alpha
        self.register_buffer("similarity", torch.full((num_visual_classes, num_audio_classes), torch.nan))
        self._has_similarity = False  # avoids asking the device at every step

    def set_similarity(self, similarity: Tensor) -> None:
        """Set the similarity of the classes, ``(I, J)``.

        Raises:
            ValueError: if the shape differs or a number is not finite.
        """
        i, j = self.similarity.shape
        check_shape("similarity", similarity, "i j", i=i, j=j)
        if not similarity.isfinite().all():
            raise ValueError("similarity: expected finite numbers, got NaN or infinity")
        self.similarity.copy_(similarity.detach())
        self._has_similarity = True

    def forward(
        self, levels: Sequence[Tensor], taps: Sequence[Tensor], visual_scores: Tensor, audio_scores: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return the attended levels and the class of each frame.

        The first three arguments are what :class:`~avslib.encoders.VisualClassifier` returns.

        Args:
            levels: feature maps ``(N, C_l, h_l, w_l)``.
            taps: one tensor per level, ``(N, C_l, ...)``, by which the visual scores can be differentiated.
            visual_scores: logits ``(N, I)``, with their graph.
            audio_scores: logits ``(N, J)``.

        Returns:
            Levels of the same shapes, and classes ``(N,)`` int64. Gradients flow through the levels only.

        Raises:
            ValueError: if no similarity has been set, or a shape does not match; the message names it.
        """
        if not self._has_similarity:
            i, j = self.similarity.shape
            raise ValueError(
                f"similarity: expected set_similarity with a ({i}, {j}) matrix, or weights that hold one, "
                "before the first call; see avslib.fusion.label_similarity"
            )
        if len(levels) != len(taps):
            raise ValueError(f"taps: expected one per level, {len(levels)}, got {len(taps)}")
        classes = consensus(visual_scores, audio_scores, self.similarity, alpha=self.alpha)
        weights = class_gradient_weights(visual_scores, classes, taps)
        attended = [channel_spatial_attention(*pair) for pair in zip(levels, weights, strict=True)]
        return attended, classes

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        loaded = not self.similarity.is_meta and self.similarity.isfinite().all()
        self._has_similarity = bool(loaded)  # NaN if a model was saved without one
