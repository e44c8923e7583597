"""A report on classes has the numbers of SemanticIoU and SemanticFScore."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avslib.metrics import SemanticFScore, SemanticIoU
from avslib.metrics.class_measures import CLASS_ROWS, ClassBatch, predicted_classes, semantic_measures
from avslib.metrics.protocols import PROTOCOLS
from avslib.metrics.report import Prediction, report
from avslib.metrics.report_record import Report
from avslib.metrics.report_tables import difference_text
from avslib.metrics.resampling import bootstrap

K = 5
NAMES = ("background", "dog", "violin", "never labelled", "never")
METRICS: dict[str, Any] = {"J": SemanticIoU, "F": SemanticFScore}


def make(count: int, *, seed: int = 0) -> Prediction:
    """Clips with ties; class 3 is never labelled and 4 never occurs; one is short, one padding only."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (count, 3, 4, 4), generator=generator)
    masks *= torch.rand(count, 3, 1, 1, generator=generator) > 0.4
    logits = torch.randint(-2, 3, (count, 3, K, 4, 4), generator=generator).float()
    logits.scatter_add_(2, masks[:, :, None], torch.full_like(masks[:, :, None], 2).float())
    logits[:, :, 4] = -9
    logits[:, 2] *= 1e-8  # float32 sees differences before the softmax that are ties after it
    valid = torch.ones(count, 3, dtype=torch.bool)
    valid[1:2, 1:] = False
    valid[3:4] = False
    names = [f"clip{i}" for i in range(count)]
    return Prediction(logits, masks, valid, names, [""] * count)


def clips_of(prediction: Prediction, places: list[int]) -> Prediction:
    logits, masks, valid, names, categories, _ = prediction
    return Prediction(
        logits[places],
        masks[places],
        valid[places],
        [names[i] for i in places],
        [categories[i] for i in places],
    )


def expected_of(*tensors: Tensor) -> dict[str, float]:
    values = {}
    for row, protocol, options in CLASS_ROWS:
        for score, kind in METRICS.items():
            metric = kind(protocol, num_classes=K, **options)
            metric.update(*tensors)
            values[f"{score}, {row}"] = metric.compute().item()
    return values


def values_of(found: Report) -> dict[str, float]:
    return {score.measure.name: score.value for score in found.scores}


@pytest.mark.parametrize("as_classes", [False, True])
@given(bounds=st.sets(st.integers(1, 10)), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_the_numbers_are_those_of_the_metrics(as_classes: bool, bounds: set[int], seed: int) -> None:
    prediction = make(11, seed=seed)
    if as_classes:
        prediction = prediction._replace(logits=predicted_classes(prediction.logits))
    ends = [0, *sorted(bounds), 11]
    parts = [clips_of(prediction, list(range(*pair))) for pair in pairwise(ends)]
    found = report(parts, num_classes=K, replicates=1)
    assert values_of(found) == pytest.approx(expected_of(*prediction[:3]), abs=1e-9)
    assert found.unread == ("clip3",)
    assert {score.measure.protocol for score in found.scores} | set(found.left_out) == set(PROTOCOLS)


def test_by_hand() -> None:
    classes = torch.tensor([[[[0, 1, 1, 2]], [[0, 0, 0, 0]]]])
    labels = torch.tensor([[[[0, 0, 1, 1]], [[0, 0, 0, 0]]]])
    clips = Prediction(classes, labels, torch.tensor([[True, False]]), ["a"], [""])
    values = values_of(report([clips], num_classes=3, replicates=1))
    by_hand = {
        "avsbench_semantic": (3 / 4 + 1 / 3 + 0) / 3,
        "avsbench_semantic, no padding": (1 / 2 + 1 / 3 + 0) / 3,
        "avsbench_semantic, noBg": (3 / 4 + 1 / 3) / 2,
        "avsbench_semantic, no background": (1 / 3 + 0) / 2,
        "present": (1 / 2 + 1 / 3) / 2,
        "dataset": (1 / 2 + 1 / 3 + 0) / 3,
    }
    for row, value in by_hand.items():
        assert values[f"J, {row}"] == pytest.approx(value), row


def test_the_score_of_each_class() -> None:
    prediction = make(9)
    found = report([prediction], class_names=NAMES, replicates=1)
    for row, protocol, options in CLASS_ROWS:
        for score, kind in METRICS.items():
            metric = kind(protocol, num_classes=K, **options)
            metric.update(*prediction[:3])
            values = [scores[f"{score}, {row}"] for scores in found.by_class().values()]
            assert values == pytest.approx(metric.per_class().tolist(), abs=1e-9, nan_ok=True)
    frames = prediction.masks[prediction.valid]
    assert found.labelled == {
        name: int((frames == i).flatten(1).any(dim=1).sum()) for i, name in enumerate(NAMES)
    }
    assert found.frames[:, 1].sum() == (frames > 0).flatten(1).any(dim=1).sum()
    assert list(report([prediction], replicates=1).by_class()) == ["0", "1", "2", "3", "4"]


def test_a_clip_is_a_report_on_it() -> None:
    prediction = make(6)
    found = report([prediction], replicates=1)
    for place, clip in enumerate((0, 1, 2, 4, 5)):
        alone = values_of(report([clips_of(prediction, [clip])], replicates=1))
        for name, column in found.by_clip().items():
            assert column[place] == pytest.approx(alone[name], nan_ok=True)
    assert set(found.by_clip()) == {
        name for name in alone if name.split(", ")[1] in ("present", "dataset", "ddeseg")
    }
    scores = found.by_clip()["J, present"]
    assert [scores[i] for i in found.worst(3)] == sorted(scores)[:3]


def test_replicates_are_scores_of_drawn_clips() -> None:
    tensors = clips_of(make(6), [0, 1, 2, 4, 5])[:3]
    batch = ClassBatch(*tensors, num_classes=K)
    drawn = torch.randint(5, (4, 5), generator=torch.Generator().manual_seed(3))
    expected = [expected_of(*(tensor[row] for tensor in tensors)) for row in drawn]
    for measure in semantic_measures(num_classes=K)[0]:
        found = bootstrap(measure, measure.clip_sums(batch), replicates=4, seed=3)
        values = [scores[measure.name] for scores in expected]
        assert found.tolist() == pytest.approx(values, abs=1e-9, nan_ok=True), measure.name


def test_a_clip_leaves_a_few_kilobytes() -> None:
    classes = torch.randint(0, 71, (2, 10, 8, 8))
    clips = Prediction(classes, classes, torch.ones(2, 10, dtype=torch.bool), ["a", "b"], ["", ""])
    found = report([clips], num_classes=71, replicates=1)
    assert sum(value.nbytes for value in found.tensors.values()) / 2 < 10_000
    assert values_of(found)["J, ddeseg"] == pytest.approx(1)


def test_tables(tmp_path: Path) -> None:
    prediction = make(6)
    found = report([prediction], class_names=NAMES, replicates=20)
    lines = str(found).splitlines()
    assert lines[0].startswith("5 clips, 13 frames of 4 x 4, ")
    assert len({line.index(" 0.") for line in lines[3 : 3 + len(CLASS_ROWS)]}) == 1
    assert any(line.endswith("of binary masks") for line in lines)
    written = found.markdown()
    header = (
        "| class | frames | J, `avsbench_semantic` | F, `avsbench_semantic` | J, `dataset` | F, `dataset` |"
    )
    assert header in written
    assert "| never | 0 | 0.000 | 0.000 |  |  |\n" in written
    assert "## Categories" not in written
    assert "avsbench\\_semantic, noBg & " in found.latex()
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["by_class"]["dog"]["frames"] == found.labelled["dog"]
    assert record["by_class"]["never"]["J, dataset"] is None

    found.save(tmp_path)
    loaded = Report.load(tmp_path)
    assert loaded.to_dict() == found.to_dict()
    better = prediction.logits.scatter_add(2, prediction.masks[:, :, None], torch.full((6, 3, 1, 4, 4), 3.0))
    differences = report([prediction._replace(logits=better)]).compare(loaded, permutations=50)
    assert len(differences) == len(found.scores)
    assert differences[0].value > differences[0].other
    assert len({len(line) for line in difference_text(differences).splitlines()}) == 1
    binary = Prediction(
        torch.zeros(6, 3, 1, 4, 4), (prediction.masks > 0).long(), prediction.valid, prediction.id, [""] * 6
    )
    with pytest.raises(ValueError, match="expected a report against the same ground truth"):
        report([binary], replicates=1).compare(loaded)


def test_two_logits_are_classes_if_one_says_so() -> None:
    clips = clips_of(make(3), [0, 1, 2])
    clips = clips._replace(logits=clips.logits[:, :, :2], masks=(clips.masks > 0).long())
    assert "J, dataset, with background" in values_of(report([clips], replicates=1))
    found = report([clips], num_classes=2, replicates=1)
    assert found.classes == ("0", "1")
    assert math.isclose(values_of(found)["J, cavp"], values_of(report([clips], replicates=1))["J, cavp"])


def test_wrong_predictions_are_named() -> None:
    prediction = make(3)
    with pytest.raises(ValueError, match="class_names: expected a name for each of 5 classes, got 2"):
        report([prediction], class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"masks: expected classes in \[0, num_classes\)"):
        report([prediction._replace(masks=prediction.masks + 4)])
    with pytest.raises(ValueError, match=r"logits: expected shape \(b, t, 5, h, w\)"):
        report([prediction, prediction._replace(logits=prediction.logits[:, :, :4])])
    with pytest.raises(ValueError, match="logits: expected 1 or 2 a pixel for binary masks, got 5"):
        report([prediction], num_classes=1)
    with pytest.raises(ValueError, match=r"valid: expected shape \(b, t\) with b=3, t=3, got \(2, 3\)"):
        report([prediction._replace(valid=prediction.valid[:2])])


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from avslib.metrics.report_plots import plot_report

    plot_report(report([make(6)], class_names=NAMES, replicates=20), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"protocols.png", "classes.png"}
