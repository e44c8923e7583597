"""Measure predictions by all protocols in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avslib._checks import check_positive, check_shape
from avslib.metrics.class_measures import ClassBatch, measures_of
from avslib.metrics.measures import Batch, Measure
from avslib.metrics.report_record import Report


class Prediction(NamedTuple):
    """Predictions and ground truth for a batch of clips."""

    logits: Tensor
    """Scores before the sigmoid, ``(B, T, 1, H, W)``, or before the softmax, ``(B, T, 2, H, W)``; for
    semantic masks ``(B, T, K, H, W)``, or the class of each pixel, ``(B, T, H, W)``, any integer type."""
    masks: Tensor
    """Ground truth, ``(B, T, H, W)``, 0 and 1, or classes."""
    valid: Tensor
    """Which frames count, ``(B, T)``, bool; False for padding and for frames that are not labelled."""
    id: Sequence[str]
    """Names of the B clips, each its own."""
    category: Sequence[str]
    """What sounds in each clip; an empty string where this is unknown."""
    padding: Tensor | None = None
    """Which of the frames that do not count are padding, ``(B, T)``, bool; None for all of them. Some
    protocols of semantic masks count padding as background."""


def report(
    predictions: Iterable[Prediction],
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    wrong_sound: bool = False,
    replicates: int = 1000,
    seed: int = 0,
) -> Report:
    """Measure predictions by every protocol that applies to them, in one pass.

    Only a few kilobytes are kept per clip, whatever its size. Protocols whose batches hold several clips take
    the clips as they come, so pass them in the order of the dataset.

    Args:
        predictions: batches of any size, on any device, all with the same number of logits.
        num_classes: number of classes K for semantic masks, 1 for binary masks; None for the number of logits
            if there are more than two, else 1.
        class_names: names of the K classes, the background first; by default, their numbers.
        provenance: what else the report states, such as model, data and versions; JSON must be able to hold
            it.
        wrong_sound: whether the predictions were made under a wrong sound, for which two protocols of binary
            masks with one logit exist.
        replicates: number of sets of clips that are drawn for the intervals.
        seed: seed of these draws, and of the permutations in :meth:`Report.compare`.

    Returns:
        The report. Clips without a frame that counts enter no score and are listed as ``unread``.

    Raises:
        ValueError: if a shape differs, a mask holds anything but 0 and 1 or classes, the number of names does
            not match the classes or the clips, two clips have one id, ``replicates`` is not above 0, or there
            is no clip.

    Example:
        >>> masks = torch.zeros(4, 5, 8, 8)
        >>> masks[:3, :, 2:6, 2:6] = 1
        >>> logits = torch.where(masks.roll(1, dims=-1) > 0, 3.0, -3.0).unsqueeze(2)
        >>> clips = Prediction(logits, masks, torch.ones(4, 5, dtype=torch.bool), list("abcd"), [""] * 4)
        >>> found = report([clips])
        >>> for score in found.scores[:2]:
        ...     print(score.measure.name, round(score.value, 2))
        J, avsbench 0.7
        F, avsbench 0.56
        >>> print(found)  # doctest: +ELLIPSIS
        4 clips, 20 frames of 8 x 8, 5 of them without ground truth
        ...
    """
    check_positive("replicates", replicates)
    parts: list[dict[str, Tensor]] = []
    ids: list[str] = []
    categories: list[str] = []
    unread: list[str] = []
    known: set[str] = set()
    sizes: set[tuple[int, int]] = set()
    seen = 0
    truth = hashlib.sha256()
    totals: dict[str, Tensor] = {}
    measured: dict[str, Any] = {}
    measures: list[Measure] = []
    classes: tuple[str, ...] = ()
    for logits, masks, valid, names, kinds, padding in predictions:
        if not measures:
            measured = _what(logits, num_classes, wrong_sound)
            measures, _ = measures_of(measured)
            classes = _names(class_names, measured)
        batch = _batch(logits, masks, valid.bool(), padding, measured)
        _check_words("id", names, len(masks))
        _check_words("category", kinds, len(masks))
        for name in names:
            if name in known:
                raise ValueError(f"id: expected a name of its own for each clip, got {name!r} twice")
            known.add(name)
        read = batch.valid.any(dim=1)
        sums = {key: value[read].cpu() for key, value in _count(batch, measures).items()}
        sums["place"] = torch.arange(seen, seen + len(read))[read.cpu()]
        sums |= {key: value.cpu() for key, value in batch.frames().items()}
        _append(parts, sums)
        seen += len(read)
        for key, total in batch.totals().items():
            totals[key] = totals.get(key, 0) + total.cpu()
        sizes.add((masks.shape[-2], masks.shape[-1]))
        for name, kind, is_read, mask, counted in zip(
            names, kinds, read.tolist(), masks, batch.valid, strict=True
        ):
            (ids if is_read else unread).append(name)
            if is_read:
                categories.append(kind)
                truth.update(repr((name, counted.tolist(), tuple(mask.shape))).encode())
                truth.update(mask[counted].to("cpu", _truth_type(measured)).numpy().tobytes())
    if not ids:
        raise ValueError(f"predictions: expected clips with frames that count, got {len(unread)} without")
    tensors = _joined(parts)
    return Report(
        ids=tuple(ids),
        categories=tuple(categories),
        unread=tuple(unread),
        classes=classes,
        tensors=tensors | totals,
        measured=measured,
        size=" and ".join(f"{height} x {width}" for height, width in sorted(sizes)),
        truth=truth.hexdigest(),
        provenance=dict(provenance or {}),
        num_replicates=replicates,
        seed=seed,
    )


def _what(logits: Tensor, num_classes: int | None, wrong_sound: bool) -> dict[str, Any]:
    """Return the arguments of ``semantic_measures`` or ``binary_measures``."""
    channels = logits.shape[2] if logits.dim() == 5 else 1
    if num_classes is None and channels > 2:
        num_classes = channels
    if num_classes not in (None, 1):
        return {"num_classes": num_classes}
    return {"logits": channels, "wrong_sound": wrong_sound}


def _batch(
    logits: Tensor, masks: Tensor, valid: Tensor, padding: Tensor | None, measured: Mapping[str, Any]
) -> Batch | ClassBatch:
    if "num_classes" in measured:
        return ClassBatch(logits, masks, valid, padding=padding, **measured)
    check_shape("logits", logits, f"b t {measured['logits']} h w")
    return Batch(logits, masks, valid)


def _names(names: Sequence[str], measured: Mapping[str, Any]) -> tuple[str, ...]:
    count = measured.get("num_classes", 0)
    if names and not len(names) == len(set(names)) == count:
        raise ValueError(f"class_names: expected a name for each of {count} classes, got {len(set(names))}")
    return tuple(names or (str(number) for number in range(count)))


def _check_words(name: str, words: Sequence[str], count: int) -> None:
    if isinstance(words, str) or len(words) != count:
        raise ValueError(f"{name}: expected a list with a word for each of {count} clips, got {words!r}")


def _truth_type(measured: Mapping[str, Any]) -> torch.dtype:
    return torch.int32 if "num_classes" in measured else torch.uint8


def _count(batch: Batch | ClassBatch, measures: Iterable[Measure]) -> dict[str, Tensor]:
    frames = torch.stack([batch.valid, batch.valid & batch.has_truth()], dim=-1)
    sums = {"frames": frames.double().sum(dim=1)}
    for measure in measures:
        if measure.sums not in sums:
            sums[measure.sums] = measure.clip_sums(batch)
    return sums


def _append(parts: list[dict[str, Tensor]], part: dict[str, Tensor]) -> None:
    """Append a part, and join parts of similar size.

    Many small tensors would keep the allocator from releasing a hundred times their size.
    """
    parts.append(part)
    while len(parts) > 1 and len(parts[-2]["place"]) <= len(parts[-1]["place"]):
        parts[-2:] = [_joined(parts[-2:])]


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
