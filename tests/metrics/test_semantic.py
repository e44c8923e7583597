from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from avslib.metrics import SemanticFScore, SemanticIoU
from avslib.metrics import semantic as module
from avslib.metrics.classes import class_f, class_iou
from tests._golden import arrays, assert_matches, case, inputs

K = 5
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("avsbench_semantic", {}),
    ("avsbench_semantic", {"padding": "drop", "background": "drop_last"}),
    ("avsbench_semantic", {"background": "drop", "classes": "seen"}),
    ("present", {}),
    ("present", {"padding": "count", "background": "drop"}),
    ("dataset", {}),
    ("dataset", {"background": "drop"}),
    ("cavp", {}),
    ("ddeseg", {"ignore_index": 255}),
]
CASES = [
    (kind, protocol, {"num_classes": K, **options})
    for kind in (SemanticIoU, SemanticFScore)
    for protocol, options in OPTIONS
]


def clips(count: int, *, t: int = 3, size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Clips of which class 3 is never labelled and class 4 never occurs; one is short, one padding only."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (count, t, size, size), generator=generator)
    masks *= torch.rand(count, t, 1, 1, generator=generator) > 0.4
    logits = torch.randint(-2, 3, (count, t, K, size, size), generator=generator).float()  # many ties
    logits.scatter_add_(2, masks[:, :, None], torch.full_like(masks[:, :, None], 2).float())
    logits[:, :, 4] = -9
    valid = torch.ones(count, t, dtype=torch.bool)
    valid[1:2, 1:] = False
    valid[3:4] = False
    return logits, masks, valid


def literal(kind: type, protocol: str, options: dict[str, Any], *given: Tensor) -> tuple[list[float], float]:
    """Class by class and frame by frame: the score of every class, and their mean."""
    options = {"padding": None, "background": "keep", "classes": "all", "ignore_index": -1, **options}
    count_padding = options["padding"] or ("count" if protocol == "avsbench_semantic" else "drop")
    frames = []
    for logits, masks, valid in zip(*given, strict=True):
        for t in range(len(masks)):
            if valid[t]:
                frames.append((logits[t].softmax(0).argmax(0), masks[t]))
            elif valid.any() and count_padding == "count":
                frames.append((torch.zeros_like(masks[t]), torch.zeros_like(masks[t])))
    scores = []
    for c in range(K):
        total, seen, labelled, areas = 0.0, 0, 0, [0, 0, 0]
        for predicted, label in frames:
            use = label != options["ignore_index"]
            both = int(((predicted == c) & (label == c) & use).sum())
            p, m = int(((predicted == c) & use).sum()), int(((label == c) & use).sum())
            areas = [areas[0] + both, areas[1] + p, areas[2] + m]
            labelled += m > 0
            if p + m:
                seen += 1
                precision, recall = both / p if p else 0, both / m if m else 0
                f = 1.3 * precision * recall / (0.3 * precision + recall) if both else 0
                total += both / (p + m - both) if kind is SemanticIoU else f
        both, p, m = areas
        if protocol == "avsbench_semantic":
            scores.append(total / seen if seen else 0 if options["classes"] == "all" else math.nan)
        elif protocol == "present":
            scores.append(total / labelled if labelled else math.nan)
        elif not p + m:
            scores.append(0 if protocol == "cavp" and kind is SemanticIoU else math.nan)
        else:
            scores.append(both / (p + m - both) if kind is SemanticIoU else 1.3 * both / (p + 0.3 * m))
    kept = {"keep": scores, "drop": scores[1:], "drop_last": scores[:-1]}[options["background"]]
    counted = [score for score in kept if not math.isnan(score)]
    return scores, sum(counted) / len(counted)


@pytest.mark.parametrize(("kind", "protocol", "options"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_definition(kind: type, protocol: str, options: dict[str, Any], seed: int) -> None:
    logits, masks, valid = clips(6, seed=seed)
    masks[:2, 0, 0] = options.get("ignore_index", -1)
    metric = kind(protocol, **options)
    metric.update(logits, masks, valid)
    classes, mean = literal(kind, protocol, options, logits, masks, valid)
    assert metric.per_class().tolist() == pytest.approx(classes, abs=1e-9, nan_ok=True)
    assert metric.compute().item() == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(("kind", "protocol", "options"), CASES)
@given(order=st.permutations(range(7)), cuts=st.sets(st.integers(1, 6)), shards=st.integers(1, 3))
@settings(max_examples=10)
def test_neither_batching_nor_order_nor_sharding_counts(
    kind: type, protocol: str, options: dict[str, Any], order: list[int], cuts: set[int], shards: int
) -> None:
    given = clips(7)
    whole = kind(protocol, **options)
    whole.update(*given)
    parts = [kind(protocol, **options) for _ in range(shards)]
    for i, (start, stop) in enumerate(pairwise([0, *sorted(cuts), 7])):
        parts[i % shards].update(*(tensor[order[start:stop]] for tensor in given))
    for part in parts[1:]:
        if part.update_called:
            parts[0].merge_state(part)
    assert parts[0].compute().item() == pytest.approx(whole.compute().item(), abs=1e-9)


@pytest.mark.parametrize("name", ["nclass4_ignore", "nclass5_perfect", "nclass6", "nclass71"])
def test_published_implementation(name: str) -> None:
    name = f"C_avss_{name}"
    given = {key: torch.from_numpy(value) for key, value in inputs(name).items()}
    labels = given["labels"].unflatten(0, (-1, 10)).long()
    predicted = (given["logits"] if "logits" in given else given["argmax"]).unflatten(0, (-1, 10))
    num_classes = predicted.shape[2] if predicted.dim() == 5 else 71
    for kind, output in ((SemanticIoU, "miou"), (SemanticFScore, "f_score")):
        for background, suffix in (("keep", ""), ("drop_last", "_noBg")):
            metric = kind(num_classes=num_classes, background=background)
            for clip in zip(predicted.split(1), labels.split(1), strict=True):
                metric.update(*clip)
            stored = arrays(name)[f"out.{output}{suffix}"].item()
            assert metric.compute().item() == pytest.approx(stored, abs=2e-6)
        others = case(name)["sensitivity"]
        if kind is SemanticIoU:
            seen = kind(num_classes=num_classes, classes="seen")
            seen.update(predicted, labels)
            assert seen.compute().item() == pytest.approx(others["miou_over_present_classes"], abs=2e-6)
            corrected = kind(num_classes=num_classes, background="drop")
            corrected.update(predicted, labels)
            assert corrected.compute().item() == pytest.approx(others["miou_without_class0"], abs=2e-6)


def test_published_sums_of_every_batch() -> None:
    stored, given = arrays("C_avss_nclass6"), inputs("C_avss_nclass6")
    logits, labels = (torch.from_numpy(given[key]) for key in ("logits", "labels"))
    metric = SemanticIoU(num_classes=6, classes="seen")
    f = SemanticFScore(num_classes=6, classes="seen")
    start, running = 0, []
    for i, frames in enumerate(given["frames_per_batch"].tolist()):
        batch = logits[None, start : start + frames], labels[None, start : start + frames]
        alone = SemanticIoU(num_classes=6)
        alone.update(*batch)
        for found, key in ((alone.iou, "miou_pc"), (alone.f, "fscore_pc"), (alone.seen, "cls_count")):
            expected = torch.from_numpy(
                stored[f"out.{key}{'' if key == 'cls_count' else '_sum'}_per_batch"][i]
            )
            torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-5)
        metric.update(*batch)
        f.update(*batch)
        running.append([metric.compute().item(), f.compute().item()])
        start += frames
    assert_matches("C_avss_nclass6", "running_iou_fscore", torch.tensor(running, dtype=torch.float64))


def test_a_class_map_is_the_argmax_of_logits() -> None:
    logits, masks, valid = clips(4)
    maps = logits.argmax(dim=2)
    for dtype in (torch.int64, torch.uint8, torch.int32):
        one, other = SemanticIoU(num_classes=K), SemanticIoU(num_classes=K)
        one.update(logits, masks, valid)
        other.update(maps.to(dtype), masks.to(dtype), valid)
        assert torch.equal(one.compute(), other.compute())


def test_what_lies_in_padding_does_not_matter() -> None:
    logits, masks, valid = clips(4)
    for padding in ("count", "drop"):
        one, other = (SemanticIoU(num_classes=K, padding=padding) for _ in range(2))
        one.update(logits, masks, valid)
        broken = logits.masked_fill(~valid[:, :, None, None, None], torch.nan)
        other.update(broken, masks.masked_fill(~valid[:, :, None, None], 99), valid)
        assert torch.equal(one.compute(), other.compute())


def test_padding_counts_as_background_found() -> None:
    logits, masks, valid = clips(4)
    counted, dropped = (SemanticIoU(num_classes=K, padding=padding) for padding in ("count", "drop"))
    for metric in (counted, dropped):
        metric.update(logits, masks, valid)
    assert counted.seen[0] == dropped.seen[0] + 2  # of the short clip; the clip of padding is no clip
    assert counted.per_class()[0] > dropped.per_class()[0]
    assert torch.equal(counted.per_class()[1:], dropped.per_class()[1:])


def test_a_collection_sees_each_pixel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    counted = module.class_areas

    def class_areas(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return counted(*args, **kwargs)

    monkeypatch.setattr(module, "class_areas", class_areas)
    singles = {
        f"{kind.__name__} {word}": kind(word, num_classes=K, padding="drop")
        for kind in (SemanticIoU, SemanticFScore)
        for word in ("avsbench_semantic", "present", "dataset", "ddeseg")
    }
    together = MetricCollection(copy.deepcopy(singles))
    for seed in range(3):
        for metric in singles.values():
            metric.update(*clips(4, seed=seed))
    calls.clear()
    for seed in range(3):
        together.update(*clips(4, seed=seed))
    assert len(calls) == 8 + 2
    for name, value in together.compute().items():
        assert torch.equal(value, singles[name].compute())


def test_a_chunk_of_frames_is_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = SemanticFScore(num_classes=K), SemanticFScore(num_classes=K)
    one.update(*clips(5))
    monkeypatch.setattr(module, "_CHUNK", 200)
    other.update(*clips(5))
    torch.testing.assert_close(one.compute(), other.compute(), rtol=0, atol=1e-12)


def test_errors_name_the_argument() -> None:
    logits, masks, valid = clips(2)
    metric = SemanticIoU(num_classes=K)
    with pytest.raises(
        ValueError, match=r"^logits: expected shape \(b, t, 5, h, w\) with .*, got \(2, 3, 4, "
    ):
        metric.update(logits[:, :, :4], masks)
    with pytest.raises(
        ValueError, match=r"^logits: expected shape \(b, t, h, w\) with b=2, .*, got \(1, 3, "
    ):
        metric.update(masks[:1], masks)
    with pytest.raises(ValueError, match=r"^valid: expected shape \(b, t\) with b=2, t=3, got \(2,\)"):
        metric.update(logits, masks, valid[:, 0])
    for predicted, labels in ((logits, masks + 3), (logits, masks - 2), (masks + 9, masks)):
        with pytest.raises(
            ValueError, match=r"^masks: expected classes in \[0, num_classes\) or ignore_index"
        ):
            metric.update(predicted, labels)
    assert metric.clips == 0
    metric.update(logits, masks)
    metric.wrong_frames += 1  # what `update` counts where it does not look
    with pytest.raises(ValueError, match=r"^masks: expected classes"):
        metric.compute()
    with pytest.raises(ValueError, match=r"^classes: the protocol 'dataset' has 'all', got 'seen'"):
        SemanticIoU("dataset", classes="seen")
    for option in ("padding", "background", "classes"):
        with pytest.raises(ValueError, match=rf"^{option}: expected one of .*, got 'some'"):
            SemanticIoU(**{option: "some"})
    with pytest.raises(ValueError, match=r"^num_classes: expected a number above 0, got 0"):
        SemanticIoU(num_classes=0)
    for score in (class_iou, class_f):
        with pytest.raises(ValueError, match=r"^protocol: expected one of 'dataset', 'cavp', 'ddeseg', got"):
            score(torch.zeros(3, 3), "present")


def test_without_a_clip_there_is_no_score() -> None:
    for kind, protocol, options in CASES:
        metric = kind(protocol, **options)
        logits, masks, valid = clips(2)
        metric.update(logits, masks, torch.zeros_like(valid))
        assert metric.compute().isnan()


def test_forward_and_reset() -> None:
    metric, whole = SemanticIoU(num_classes=K), SemanticIoU(num_classes=K)
    given = clips(4)
    whole.update(*given)
    for i in range(4):
        alone = SemanticIoU(num_classes=K)
        clip = [tensor[i : i + 1] for tensor in given]
        alone.update(*clip)
        torch.testing.assert_close(metric(*clip), alone.compute(), equal_nan=True)
    torch.testing.assert_close(metric.compute(), whole.compute())
    metric.reset()
    metric.update(*given)
    assert torch.equal(metric.compute(), whole.compute())


def test_a_bar_for_every_class_that_has_a_score() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    metric = SemanticIoU("present", num_classes=K)
    metric.update(*clips(4))
    _, axes = metric.plot_classes(names=["background", "guitar", "violin", "piano", "drum"])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["background", "guitar", "violin"]
    assert [bar.get_height() for bar in axes.patches] == metric.per_class()[:3].tolist()
    metric.plot()
    matplotlib.pyplot.close("all")
