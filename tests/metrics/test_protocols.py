"""Every protocol against its literal second version, under any batching, order and sharding."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from avslib.metrics import (
    PROTOCOLS,
    READING,
    BoundaryF,
    FalsePositiveRate,
    FrameStatistics,
    FScore,
    JAndF,
    MaskIoU,
    NullScore,
    SemanticFScore,
    SemanticIoU,
    f_measure,
    frame_statistics,
    jaccard,
)
from avslib.metrics.statistics import CHUNK
from tests.metrics._literal import clips_of, literal_f, literal_j

J: list[tuple[str, dict[str, Any]]] = [
    ("avsbench", {}),
    ("avsbench", {"threshold": 0.4, "clips_per_batch": 4}),
    ("avsbench", {"empty": "skip"}),
    ("avsbench", {"empty": "zero_one", "clips_per_batch": 2}),
    ("avsbench", {"empty": "skip", "clips_per_batch": 2}),
    ("avsbench", {"clips_per_batch": math.inf}),
    ("sama", {}),
    ("combo", {}),
    ("combo", {"ranks": 3}),
    ("combo", {"ranks": 8, "empty": "skip"}),
    ("stepping_stones", {}),
    ("davis", {}),
    ("dataset", {}),
    ("dataset", {"background": "keep", "threshold": 0.6}),
    ("cavp", {}),
    ("ddeseg", {}),
]
F: list[tuple[str, dict[str, Any]]] = [
    ("avsbench", {}),
    ("avsbench", {"clips_per_batch": 4}),
    ("avsbench", {"empty": "skip"}),
    ("avsbench", {"empty": "skip", "clips_per_batch": 2}),
    ("avsbench", {"clips_per_batch": math.inf}),
    ("sama", {}),
    ("sama", {"clips_per_batch": 3}),
    ("combo", {}),
    ("combo", {"ranks": 3}),
    ("stepping_stones", {}),
    ("dataset", {}),
    ("dataset", {"background": "keep", "threshold": 0.6}),
    ("cavp", {}),
    ("ddeseg", {}),
]
TWO = ("combo", "stepping_stones", "dataset", "cavp", "ddeseg")
CASES = [(MaskIoU, *case) for case in J] + [(FScore, *case) for case in F]


def clips(count: int, *, logits: int = 1, t: int = 3, size: int = 5, seed: int = 0) -> tuple[Tensor, ...]:
    """Clips with ties and silent frames, a silent clip, a padded one and one of padding only."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, t, size, size), generator=generator)
    masks *= torch.rand(count, t, 1, 1, generator=generator) > 0.3
    masks[2:3] = 0
    scores = torch.randint(-3, 4, (count, t, logits, size, size), generator=generator) / 2
    scores[:, :, -1] += masks * torch.rand(count, t, 1, 1, generator=generator).round(decimals=1)
    valid = torch.ones(count, t, dtype=torch.bool)
    valid[1:2, 1:] = False
    valid[3:4] = False
    return scores, masks, valid


def expected(kind: type, protocol: str, options: dict[str, Any], *given: Tensor) -> float:
    return (literal_j if kind is MaskIoU else literal_f)(clips_of(*given), protocol, **options)


@pytest.mark.parametrize(
    ("logits", "kind", "protocol", "options"),
    [(logits, *case) for case in CASES for logits in (1, 2) if logits == 1 or case[1] in TWO],
)
def test_it_is_the_definition(logits: int, kind: type, protocol: str, options: dict[str, Any]) -> None:
    given = clips(7, logits=logits)
    metric = kind(protocol, **options)
    metric.update(*given)
    assert metric.compute().item() == pytest.approx(expected(kind, protocol, options, *given), abs=1e-9)


@pytest.mark.parametrize(("kind", "protocol", "options"), CASES)
@given(order=st.permutations(range(7)), cuts=st.sets(st.integers(1, 6)), shards=st.integers(1, 3))
@settings(max_examples=10)
def test_neither_batching_nor_order_nor_sharding_counts(
    kind: type, protocol: str, options: dict[str, Any], order: list[int], cuts: set[int], shards: int
) -> None:
    scores, masks, valid = clips(7)
    whole = kind(protocol, **options)
    whole.update(scores, masks, valid)
    parts = [kind(protocol, **options) for _ in range(shards)]
    bounds = [0, *sorted(cuts), 7]
    for i, (start, stop) in enumerate(pairwise(bounds)):
        some = order[start:stop]
        parts[i % shards].update(scores[some], masks[some], valid[some], index=torch.tensor(some))
    merged = parts[0]
    for part in parts[1:]:
        if part.update_called:
            merged.merge_state(part)
    assert merged.compute().item() == pytest.approx(whole.compute().item(), abs=1e-9)


@pytest.mark.parametrize(("kind", "protocol", "options"), CASES)
def test_the_function_of_counts_is_the_metric(kind: type, protocol: str, options: dict[str, Any]) -> None:
    scores, masks, valid = clips(7)
    metric = kind(protocol, **options)
    metric.update(scores, masks, valid)
    options = dict(options)
    threshold = options.pop("threshold", 0.5)
    statistics = frame_statistics(scores, masks, reading=READING[protocol], threshold=threshold)
    clip = (torch.arange(7)[:, None] * 10).expand(7, 3)[valid]  # numbers need not be consecutive
    counts = FrameStatistics(*(field[valid] for field in statistics))
    function = jaccard if kind is MaskIoU else f_measure
    found = function(counts, clip, protocol, **options)
    assert found.item() == pytest.approx(metric.compute().item(), abs=1e-9)


def test_counts_of_another_shape_are_refused() -> None:
    scores, masks, _ = clips(2)
    statistics = frame_statistics(scores, masks)
    folded = FrameStatistics(*(field.flatten(0, 1) for field in statistics))
    with pytest.raises(ValueError, match=r"^statistics: expected shape \(n, s\) with n=2, got \(2, 3, 2\)"):
        jaccard(statistics, torch.arange(2))
    with pytest.raises(ValueError, match=r"^statistics: expected shape \(n, s\) with n=5, got \(6, 2\)"):
        jaccard(folded, torch.arange(5))
    with pytest.raises(ValueError, match=r"^statistics.selected: expected shape \(n, 255\) .*, got \(6, 0\)"):
        f_measure(folded._replace(selected=folded.selected[:, :0]), torch.arange(6))


def test_protocols_of_one_prediction_differ() -> None:
    scores, masks, valid = clips(12, size=8)
    found = {}
    for kind, protocol, options in CASES:
        metric = kind(protocol, **options)
        metric.update(scores, masks, valid)
        found[kind.__name__, protocol, str(options)] = round(metric.compute().item(), 6)
    assert len(set(found.values())) > 20, found


@pytest.mark.parametrize(("kind", "protocol", "options"), CASES)
def test_state_survives_reset_forward_pickle_and_copy(
    kind: type, protocol: str, options: dict[str, Any]
) -> None:
    scores, masks, valid = clips(4)
    metric, alone = kind(protocol, **options), kind(protocol, **options)
    alone.update(scores[:1], masks[:1], valid[:1])
    torch.testing.assert_close(metric(scores[:1], masks[:1], valid[:1]), alone.compute())
    metric(scores[1:], masks[1:], valid[1:])
    whole = kind(protocol, **options)
    whole.update(scores, masks, valid)
    for one in (metric, pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        torch.testing.assert_close(one.compute(), whole.compute(), rtol=0, atol=1e-9)
    metric.reset()
    metric.update(scores[:1], masks[:1], valid[:1])
    torch.testing.assert_close(metric.compute(), alone.compute())


def test_a_collection_of_all_protocols_is_the_metrics_alone() -> None:
    perfect = torch.tensor([-9.0, 9.0]).expand(2, 3, 1, 4, 2)
    batches = [(perfect, (perfect.squeeze(2) > 0).long()), clips(6)[:2]]
    singles: dict[str, Any] = {
        f"{i} {kind.__name__} {protocol}": kind(protocol, **options)
        for i, (kind, protocol, options) in enumerate(CASES)
    }
    singles |= {
        "boundary": BoundaryF(),
        "J&F": JAndF(),
        "false positives": FalsePositiveRate(),
        "S": NullScore(),
    }
    together = MetricCollection(copy.deepcopy(singles))
    for batch in batches:
        together.update(*batch)
        for metric in singles.values():
            metric.update(*batch)
    for name, value in together.compute().items():
        torch.testing.assert_close(value, singles[name].compute(), rtol=0, atol=1e-12)


def test_a_chunk_of_frames_is_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, masks, _ = clips(5, logits=2)
    whole = frame_statistics(scores, masks, reading="stepping_stones")
    monkeypatch.setitem(CHUNK, "cpu", 30)
    for one, other in zip(frame_statistics(scores, masks, reading="stepping_stones"), whole, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def test_every_metric_says_its_protocols_and_the_list_says_them_all() -> None:
    kinds = (MaskIoU, FScore, BoundaryF, JAndF, FalsePositiveRate, NullScore, SemanticIoU, SemanticFScore)
    assert {word for kind in kinds for word in kind.protocols} == set(PROTOCOLS)
    assert set(READING) == set(MaskIoU.protocols) | set(FScore.protocols)
    for kind in kinds:
        for word in kind.protocols:
            assert kind(word).protocol == word
        with pytest.raises(
            ValueError, match=rf"^protocol: expected one of '{kind.protocols[0]}'.*, got 'miou'"
        ):
            kind("miou")


def test_an_option_of_another_protocol_is_refused() -> None:
    for kind in (MaskIoU, FScore):
        with pytest.raises(ValueError, match=r"^ranks: the protocol 'avsbench' has 1, got 8"):
            kind(ranks=8)
        with pytest.raises(ValueError, match=r"^clips_per_batch: the protocol 'combo' has 1, got 4"):
            kind("combo", clips_per_batch=4)
        with pytest.raises(ValueError, match=r"^background: the protocol 'cavp' has 'drop', got 'keep'"):
            kind("cavp", background="keep")
        with pytest.raises(ValueError, match=r"^threshold: the protocol 'stepping_stones' has 0.5, got 0.4"):
            kind("stepping_stones", threshold=0.4)
        with pytest.raises(
            ValueError, match=r"^clips_per_batch: expected a whole number or infinity, got 1.5"
        ):
            kind(clips_per_batch=1.5)
        with pytest.raises(ValueError, match=r"^background: expected one of 'drop', 'keep', got 'none'"):
            kind("dataset", background="none")
    with pytest.raises(
        ValueError, match=r"^empty: expected one of 'tn_ratio', 'skip', 'zero_one', got 'zero'"
    ):
        MaskIoU(empty="zero")
    with pytest.raises(ValueError, match=r"^empty: expected one of 'zero', 'skip', got 'tn_ratio'"):
        FScore(empty="tn_ratio")
    with pytest.raises(ValueError, match=r"^empty: the protocol 'davis' has 'tn_ratio', got 'skip'"):
        MaskIoU("davis", empty="skip")


def test_two_logits_are_for_protocols_that_know_them() -> None:
    two, masks = torch.zeros(1, 2, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    for kind in (MaskIoU, FScore):
        for word in kind.protocols:
            metric = kind(word)
            if word in TWO:
                metric.update(two, masks)
            else:
                with pytest.raises(
                    ValueError, match=r"^logits: expected shape \(b, t, 1, h, w\), got \(1, 2, 2, "
                ):
                    metric.update(two, masks)
    with pytest.raises(ValueError, match=r"^logits: expected shape \(b, t, 1, h, w\), got \(1, 2, 2, "):
        frame_statistics(two, masks, reading="logit")
    with pytest.raises(ValueError, match=r"^reading: expected one of 'probability', .*, got 'sigmoid'"):
        frame_statistics(two, masks, reading="sigmoid")


def test_the_place_of_every_clip_is_given_once() -> None:
    scores, masks, _ = clips(2)
    metric = MaskIoU(clips_per_batch=2)
    metric.update(scores, masks, index=torch.tensor([4, 4]))
    with pytest.raises(ValueError, match=r"^index: expected another place for every clip, got one twice"):
        metric.compute()
    with pytest.raises(ValueError, match=r"^index: expected an integer type, got torch\.float32"):
        metric.update(scores, masks, index=torch.tensor([0.5, 1.5]))
    metric = MaskIoU(clips_per_batch=2)
    metric.update(scores, masks, index=torch.tensor([4, 3]))
    metric.update(scores, masks)
    with pytest.raises(ValueError, match=r"^index: expected the place of every clip, got it for some only"):
        metric.compute()
    with pytest.raises(ValueError, match=r"^index: expected shape \(b\) with b=2, got \(3,\)"):
        metric.update(scores, masks, index=torch.arange(3))


@pytest.mark.parametrize(("kind", "protocol", "options"), CASES)
def test_without_a_clip_there_is_no_score(kind: type, protocol: str, options: dict[str, Any]) -> None:
    scores, masks, valid = clips(2)
    metric = kind(protocol, **options)
    metric.update(scores, masks, torch.zeros_like(valid))
    assert metric.compute().isnan()


def test_half_precision_is_taken_to_float32_first() -> None:
    scores, masks, _ = clips(2, logits=2, seed=3)
    for reading in ("probability", "argmax", "argmax_probability", "stepping_stones"):
        half = frame_statistics(scores.bfloat16() / 3, masks, reading=reading)
        full = frame_statistics((scores.bfloat16() / 3).float(), masks, reading=reading)
        assert all(torch.equal(one, other) for one, other in zip(half, full, strict=True))


def test_ties_are_background_but_the_argmax_sees_less_than_the_sigmoid() -> None:
    tie = torch.tensor([0.0, 2e-8]).view(1, 1, 1, 1, 2)
    masks = torch.ones(1, 1, 1, 2)
    predicted = {
        reading: frame_statistics(tie, masks, reading=reading).predicted.item()
        for reading in ("probability", "argmax", "argmax_probability")
    }
    assert predicted == {"probability": 0, "argmax": 1, "argmax_probability": 0}


OTHERS: list[tuple[type, str, dict[str, Any]]] = [
    (BoundaryF, "davis", {}),
    (JAndF, "davis", {}),
    (FalsePositiveRate, "robust", {}),
    (NullScore, "refavs", {"clips_per_batch": 4}),
    (SemanticIoU, "avsbench_semantic", {"num_classes": 2}),
    (SemanticFScore, "cavp", {"num_classes": 2}),
]


@pytest.mark.parametrize(("kind", "protocol", "options"), CASES + OTHERS)
def test_update_never_looks_at_a_value(kind: type, protocol: str, options: dict[str, Any]) -> None:
    """On the meta device there is none: what would stall a GPU fails there."""
    scores, masks, valid = (tensor.to("meta") for tensor in clips(2))
    if kind in (SemanticIoU, SemanticFScore):
        scores = scores.expand(-1, -1, 2, -1, -1)
    metric = kind(protocol, **options).to("meta")
    metric.update(scores, masks, valid)
    metric.update(scores, masks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "protocol", "options"), CASES + OTHERS)
def test_a_gpu_counts_like_a_cpu_and_waits_for_nothing(
    kind: type, protocol: str, options: dict[str, Any]
) -> None:
    scores, masks, valid = clips(7, size=40)
    if kind in (SemanticIoU, SemanticFScore):
        scores = torch.cat([-scores, scores], dim=2)
    on_cpu, on_gpu = kind(protocol, **options), kind(protocol, **options).cuda()
    on_cpu.update(scores, masks, valid)
    moved = [tensor.cuda() for tensor in (scores, masks, valid)]
    on_gpu.update(*moved)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu.update(*moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu.update(scores, masks, valid)
    torch.testing.assert_close(on_gpu.compute().cpu(), on_cpu.compute(), rtol=0, atol=1e-6)
