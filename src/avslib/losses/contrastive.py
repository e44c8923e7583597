"""InfoNCE, the loss of telling the right code from all others, and its bound on mutual information."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from avslib._checks import check_positive, check_shape


def info_nce(
    query: Tensor, positive: Tensor, *, temperature: float = 1.0, clip: Tensor | None = None
) -> Tensor:
    """Return how hard it is to tell each row's positive from those of the other rows, in nats.

    The score of two vectors is their cosine, so their lengths do not matter. The temperature divides the
    score inside the exponential, as in equation 1; equation 10 prints it outside, where it would cancel.
    The loss is computed in float32, or wider, even under autocast.

    Args:
        query: ``(n, D)``; the condition c of each frame.
        positive: ``(n, D)``; the latent z0 of the same frames. Row j is a negative for every query but j.
        temperature: tau, above 0.
        clip: id of the clip that each row comes from, ``(n,)``. If given, the other rows of a query's own
            clip are not negatives; if None, all other rows are.

    Returns:
        The mean over rows, at least 0. A row without negatives contributes 0; without rows, the loss is 0.

    Raises:
        ValueError: if a shape differs, or if ``temperature`` is not above 0.

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018; Mao et al.,
    DiffusionAVS, equations 1 and 10.

    Example:
        >>> info_nce(torch.ones(4, 24), torch.ones(4, 24))  # nothing to tell them apart by: log 4
        tensor(1.3863)
    """
    size = check_shape("query", query, "n d")
    check_shape("positive", positive, "n d", **size)
    check_positive("temperature", temperature)
    dtype = torch.promote_types(torch.promote_types(query.dtype, positive.dtype), torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        scores = F.normalize(query.to(dtype), dim=1) @ F.normalize(positive.to(dtype), dim=1).mT
        scores = scores / temperature
    if clip is not None:
        check_shape("clip", clip, "n", n=size["n"])
        scores = scores.masked_fill(~_candidates(clip), -torch.inf)
    losses = -scores.log_softmax(dim=1).diagonal()
    return losses.sum() / max(size["n"], 1)  # a sum, so that an empty batch gives 0 and keeps its graph


def mutual_information_bound(loss: Tensor, candidates: int | Tensor) -> Tensor:
    """Return ``log(n) - loss``, a lower bound on the mutual information of query and positive, in nats.

    If the negatives are independent draws, InfoNCE is at least ``log(n) - I`` in expectation, where I is the
    mutual information. Frames of one clip are not independent: the bound is strict if every clip contributes
    one frame, and only a guide if it contributes several. The bound never exceeds ``log(n)`` or, because
    scores are cosines, ``2 / temperature``.

    Args:
        loss: the result of :func:`info_nce`.
        candidates: n, the number of vectors a query was compared with, including its positive. If rows
            differ, a tensor with the number of each row, whose logarithms are averaged.

    Raises:
        ValueError: if ``candidates`` is a number below 1.

    van den Oord et al., 2018, section 2.3; Mao et al., DiffusionAVS, equation 11.

    Example:
        >>> codes = torch.eye(2).repeat(8, 1)  # 16 rows, two kinds of code: one bit, log 2 nats
        >>> mutual_information_bound(info_nce(codes, codes, temperature=0.05), 16)
        tensor(0.6931)
    """
    if not isinstance(candidates, Tensor):
        check_positive("candidates", candidates)
        candidates = torch.tensor([candidates], device=loss.device)
    return candidates.to(loss.dtype).log().sum() / max(candidates.numel(), 1) - loss


class InfoNCE(nn.Module):
    """InfoNCE over the whole batch, across all processes: see :func:`info_nce`.

    If ``torch.distributed`` is initialised, rows are gathered from all processes, which may have different
    numbers of them. Every process must make the call, and each returns the loss of the whole batch. Averaged
    over processes, as DistributedDataParallel does, its gradient is that of one process with the whole batch.
    Every process scores all pairs, so that the backward pass communicates nothing and cannot wait for a
    process whose graph differs.

    Args:
        temperature: tau; 1 in the paper.
        detach_positive: whether to pass no gradient to the positives. The paper writes the loss as a function
            of the condition encoder's weights alone.
        same_clip_negatives: whether other frames of a query's own clip are negatives, as in the paper. They
            are near duplicates of its positive.

    Raises:
        ValueError: if ``temperature`` is not above 0.

    Mao et al., DiffusionAVS, section III-B.

    Example:
        >>> condition, latent, clip = torch.randn(4, 24), torch.randn(4, 24), torch.tensor([0, 0, 1, 1])
        >>> InfoNCE(same_clip_negatives=False)(condition, latent, clip).shape
        torch.Size([])
    """

    def __init__(
        self, *, temperature: float = 1.0, detach_positive: bool = True, same_clip_negatives: bool = True
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.detach_positive = detach_positive
        self.same_clip_negatives = same_clip_negatives

    def forward(self, query: Tensor, positive: Tensor, clip: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            query: ``(n, D)``.
            positive: ``(n, D)``.
            clip: which of this process's clips each row comes from, ``(n,)`` integers; only read if
                ``same_clip_negatives`` is False.

        Raises:
            ValueError: if a shape differs, or if ``clip`` is needed but missing.
        """
        if self.detach_positive:
            positive = positive.detach()
        query, positive, clip = self._whole_batch(query, positive, clip)
        loss = info_nce(query, positive, temperature=self.temperature, clip=clip)
        # A process has the gradient of its own rows only: the sum over processes, not the mean, is the whole.
        return loss.detach() + _processes() * (loss - loss.detach())

    @torch.no_grad()
    def mutual_information_bound(self, query: Tensor, positive: Tensor, clip: Tensor | None = None) -> Tensor:
        """Return the bound of :func:`mutual_information_bound` on the batch, without gradient.

        Args:
            query: ``(n, D)``.
            positive: ``(n, D)``.
            clip: as in ``forward``.

        Raises:
            ValueError: as ``forward`` does.
        """
        query, positive, clip = self._whole_batch(query, positive, clip)
        loss = info_nce(query, positive, temperature=self.temperature, clip=clip)
        every_row = torch.full(query.shape[:1], len(query), device=query.device)
        return mutual_information_bound(loss, every_row if clip is None else _candidates(clip).sum(1))

    def _whole_batch(
        self, query: Tensor, positive: Tensor, clip: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Check the rows and gather those of all processes; clip ids only if they are needed, else None."""
        size = check_shape("query", query, "n d")
        check_shape("positive", positive, "n d", **size)
        if self.same_clip_negatives:
            clip = None
        elif clip is None:
            raise ValueError("clip: expected the clip of each row, as same_clip_negatives is False, got None")
        else:
            check_shape("clip", clip, "n", n=size["n"])
        if _processes() == 1:
            return query, positive, clip
        count = torch.tensor([size["n"]], device=query.device)
        counts = _gather(count, [1] * _processes()).tolist()
        if clip is not None:
            numbered = torch.unique(clip, return_inverse=True)[1]
            clip = _gather(numbered + dist.get_rank() * max(counts), counts)
        return _gather(query, counts), _gather(positive, counts), clip


def _candidates(clip: Tensor) -> Tensor:
    """Return which rows each row is compared with, ``(n, n)`` bool: itself and those of other clips."""
    return (clip[:, None] != clip) | torch.eye(len(clip), dtype=torch.bool, device=clip.device)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    """Join the rows of all processes in order of rank; this process's own rows keep their graph.

    Args:
        rows: ``(n, ...)``.
        counts: n of each process.
    """
    padded = rows.new_zeros(max(counts), *rows.shape[1:])  # all processes must send the same size
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    parts = [part[:count] for part, count in zip(parts, counts, strict=True)]
    parts[dist.get_rank()] = rows
    return torch.cat(parts)
