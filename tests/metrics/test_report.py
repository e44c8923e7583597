"""A report's numbers are those of the metrics; its tables say so."""

from __future__ import annotations

import copy
import csv
import json
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avslib.metrics import BoundaryF, FalsePositiveRate, FScore, JAndF, MaskIoU, NullScore, report_record
from avslib.metrics.measures import ROWS
from avslib.metrics.protocols import PROTOCOLS, TWO_LOGITS
from avslib.metrics.report import Prediction, report
from avslib.metrics.report_record import Report
from avslib.metrics.report_tables import difference_markdown, difference_text


def make(count: int, *, logits: int = 1, size: int = 6, seed: int = 0) -> Prediction:
    """Clips with ties and silent frames, a padded one and one of padding only."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, 3, size, size), generator=generator)
    masks *= torch.rand(count, 3, 1, 1, generator=generator) > 0.3
    scores = torch.randint(-3, 4, (count, 3, logits, size, size), generator=generator) / 2
    scores[:, :, -1] += masks * torch.rand(count, 3, 1, 1, generator=generator).round(decimals=1)
    valid = torch.ones(count, 3, dtype=torch.bool)
    valid[1:2, 1:] = False
    valid[3:4] = False
    names = [f"clip{i}" for i in range(count)]
    return Prediction(scores, masks, valid, names, [("dog", "violin")[i % 2] for i in range(count)])


def cut(prediction: Prediction, bounds: list[int]) -> list[Prediction]:
    ends = [*bounds, len(prediction.masks)]
    return [
        Prediction(*(field[start:end] for field in prediction[:5]))
        for start, end in zip([0, *bounds], ends, strict=True)
    ]


def measured(metric: Any, *tensors: Tensor) -> float:
    metric.update(*tensors)
    return metric.compute().item()


@pytest.mark.parametrize("logits", [1, 2])
@given(bounds=st.sets(st.integers(1, 10)), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_the_numbers_are_those_of_the_metrics(logits: int, bounds: set[int], seed: int) -> None:
    prediction = make(11, logits=logits, seed=seed)
    tensors = prediction[:3]
    found = report(cut(prediction, sorted(bounds)), wrong_sound=True, replicates=1)
    values = {score.measure.name: score.value for score in found.scores}
    expected = {}
    for row, protocol, options in ROWS:
        if logits == 2 and protocol not in TWO_LOGITS:
            continue
        expected[f"J, {row}"] = measured(MaskIoU(protocol, **options), *tensors)
        if protocol != "davis":
            expected[f"F, {row}"] = measured(FScore(protocol, **options), *tensors)
    if logits == 1:
        expected["contour F, davis"] = measured(BoundaryF(), *tensors)
        expected["J&F, davis"] = measured(JAndF(), *tensors)
        expected["false-positive rate, robust"] = measured(FalsePositiveRate(), *tensors)
        expected["S, refavs, 4 clips a batch"] = measured(NullScore(clips_per_batch=4), *tensors)
    assert values == pytest.approx(expected, abs=1e-9)
    assert {score.measure.protocol for score in found.scores} | set(found.left_out) == set(PROTOCOLS)


def test_a_category_is_a_report_on_its_clips() -> None:
    prediction = make(9)
    found = report([prediction], replicates=1)
    dogs = torch.arange(0, 9, 2)
    alone = Prediction(*(field[dogs] for field in prediction[:3]), *(field[::2] for field in prediction[3:5]))
    expected = {score.measure.name: score.value for score in report([alone], replicates=1).scores}
    assert found.by_category()["dog"] == pytest.approx(expected, nan_ok=True)
    assert list(found.by_category()) == ["dog", "violin"]


def test_a_clip_is_a_report_on_it() -> None:
    prediction = make(6)
    found = report([prediction], replicates=1).by_clip()
    for place, clip in enumerate((0, 1, 2, 4, 5)):
        alone = report([cut(prediction, [1, 2, 3, 4, 5])[clip]], replicates=1)
        values = {score.measure.name: score.value for score in alone.scores}
        assert {name: column[place] for name, column in found.items()} == pytest.approx(
            {name: values[name] for name in found}, nan_ok=True
        )
    assert "F, avsbench, 4 clips a batch" not in found


def test_curves_and_frames_are_those_of_the_metrics() -> None:
    prediction = make(7)
    found = report([prediction], replicates=1)
    metric = FScore()
    metric.update(*prediction[:3])
    curves = found.tensors["curves"] / found.frames[:, 1].sum()
    for curve, expected in zip(curves, metric.curves(), strict=True):
        torch.testing.assert_close(curve, expected)
    iou, has_truth = found.tensors["frame_iou"], found.tensors["frame_truth"].bool()
    metric = MaskIoU("avsbench", clips_per_batch=torch.inf, empty="skip")
    assert iou[has_truth].mean().item() == pytest.approx(measured(metric, *prediction[:3]))
    assert found.frames.tolist()[1] == [1, int(prediction.masks[1, 0].any())]


def test_clips_without_a_valid_frame_are_named() -> None:
    found = report([make(5)], replicates=1)
    assert found.unread == ("clip3",)
    assert found.tensors["place"].tolist() == [0, 1, 2, 4]
    assert "; 1 clips have no frame that counts and are in no score: clip3" in str(found)


def test_the_worst_clips_come_first() -> None:
    found = report([make(8)], replicates=1)
    scores = found.by_clip()["J, avsbench"]
    assert [scores[i] for i in found.worst(3)] == sorted(scores)[:3]


@cache
def one_report() -> Report:
    masks = torch.zeros(4, 1, 4, 4)
    masks[:3, :, :2] = 1
    logits = torch.where(masks.roll(1, dims=-2) > 0, 3.0, -3.0).unsqueeze(2)
    logits[3] = -3
    logits[0] = torch.where(masks[0] > 0, 3.0, -3.0)
    valid = torch.ones(4, 1, dtype=torch.bool)
    clips = Prediction(logits, masks, valid, list("abcd"), ["dog", "dog", "", "a_b"])
    return report([clips], provenance={"model": "none"})


def test_the_text() -> None:
    lines = str(one_report()).splitlines()
    assert lines[0] == "4 clips, 4 frames of 4 x 4, 1 of them without ground truth"
    assert lines[2:5] == [
        "protocol                         J  95 %               F  95 %",
        "avsbench                     0.667  0.333-1.000    0.533  0.141-0.891",
        "avsbench, 4 clips a batch    0.667  0.333-1.000    0.667  0.565-1.000",
    ]
    assert "J&F, davis                   0.833  0.667-1.000" in lines
    assert "J is 0.500 by 'dataset' and 0.667 by 'avsbench': 16.7 points apart" in lines
    assert "left out: robust, refavs: of predictions under a wrong sound" in lines
    assert f"cavp              {PROTOCOLS['cavp']}" in lines


def test_markdown_and_latex() -> None:
    found = one_report()
    written = found.markdown()
    assert "| `avsbench` | 0.667 | 0.333-1.000 | 0.533 | 0.141-0.891 |\n" in written
    assert "| `davis` | 0.667 | 0.333-1.000 |  |  |\n" in written
    assert "| a_b | 1 | 1.000 | 0.000 |\n| dog | 2 | 0.667 | 0.783 |\n" in written
    assert '"model": "none"' in written
    assert len({line.count("|") for line in written.splitlines() if line.startswith("| `")}) == 1
    latex = found.latex()
    assert "stepping\\_stones & 0.667 & 0.333--1.000 & 0.533 & 0.141--0.891 \\\\\n" in latex
    assert "davis, J\\&F & " in latex
    rows = [line for line in latex.splitlines() if line.endswith(r" \\")]
    assert {row.count(" & ") for row in rows} == {4}


def test_categories_of_two_logits_have_the_first_row() -> None:
    written = report([make(4, logits=2)], replicates=1).markdown()
    assert "| category | clips | J, `combo` | F, `combo` |\n" in written


def test_csv_and_json() -> None:
    found = report([make(6)], replicates=10)
    rows = list(csv.DictReader(found.csv().splitlines()))
    assert [row["id"] for row in rows] == ["clip0", "clip1", "clip2", "clip4", "clip5"]
    assert float(rows[1]["J, davis"]) == pytest.approx(found.by_clip()["J, davis"][1], abs=1e-6)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["scores"][0]["row"] == "avsbench"
    assert record["scores"][0]["value"] == found.scores[0].value


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    found = one_report()
    found.save(tmp_path / "a" / "b")
    for path in (tmp_path / "a" / "b", tmp_path / "a" / "b" / "report.json"):
        loaded = Report.load(path)
        assert str(loaded) == str(found)
        assert loaded.to_dict() == found.to_dict()
    assert {row.p_value for row in found.compare(loaded)} == {1.0}


def test_what_is_damaged_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"report.json: not there; Report.save writes it"):
        Report.load(tmp_path)
    one_report().save(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ValueError, match=r"report.json: expected a report that Report.save wrote \(KeyError"):
        Report.load(tmp_path)
    report([make(6)]).save(tmp_path / "other")
    (tmp_path / "other" / "clips.safetensors").replace(tmp_path / "clips.safetensors")
    one_report().save(tmp_path / "again")
    (tmp_path / "again" / "report.json").replace(tmp_path / "report.json")
    with pytest.raises(ValueError, match=r"expected shape .* with n=4, got"):
        Report.load(tmp_path)


def test_differences_are_differences() -> None:
    prediction = make(9)
    better = prediction._replace(logits=prediction.logits + prediction.masks.unsqueeze(2))
    first, second = (report([p], replicates=50) for p in (better, prediction))
    for difference, ours, theirs in zip(first.compare(second), first.scores, second.scores, strict=True):
        assert (difference.value, difference.other) == (ours.value, theirs.value)
        drawn = first.replicates[ours.measure.name] - second.replicates[ours.measure.name]
        assert difference.low >= drawn.min()
        assert difference.high <= drawn.max()
    differences = first.compare(second)
    assert differences[0].low > 0
    assert differences[0].p_value < 0.05
    assert difference_text(differences).count("\n") == len(differences)
    assert difference_markdown(differences).startswith("| measure | this | other | difference | 95 % | p |\n")


def test_a_report_is_pickled_also_after_it_was_printed() -> None:
    found = report([make(6)], replicates=5)
    printed = str(found)
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert str(again) == printed


def test_what_was_drawn_for_the_intervals_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, other = (report([make(6)], replicates=5) for _ in range(2))
    expected = [difference[1:] for difference in found.compare(other, permutations=5)]
    drawn = []
    bootstrap = report_record.bootstrap
    monkeypatch.setattr(
        report_record, "bootstrap", lambda *args, **options: drawn.append(1) or bootstrap(*args, **options)
    )
    assert [difference[1:] for difference in found.compare(other, permutations=5)] == expected
    assert len(drawn) == len(expected)


def test_other_clips_are_not_compared() -> None:
    found = report([make(6)], replicates=1)
    with pytest.raises(ValueError, match="other: expected a report on the same 5 clips, got 1 that only one"):
        found.compare(report([make(7)], replicates=1))
    swapped = make(6)
    swapped = swapped._replace(id=["clip1", "clip0", *swapped.id[2:]])
    with pytest.raises(ValueError, match="got them in another order"):
        found.compare(report([swapped], replicates=1))
    with pytest.raises(
        ValueError, match=r"same ground truth, got another: frames of 6 x 6 here and of 5 x 5"
    ):
        found.compare(report([make(6, size=5)], replicates=1))
    longer, other = (make(6)._replace(valid=make(6).valid.clone()) for _ in range(2))
    longer.valid[1, 1] = True
    with pytest.raises(ValueError, match="got another: of 'clip1', 1 frames count here and 2 there"):
        found.compare(report([longer], replicates=1))
    other.valid[1] = torch.tensor([False, True, False])
    with pytest.raises(ValueError, match="got another: as many frames of the same size, but other ones, or"):
        found.compare(report([other], replicates=1))


def test_wrong_predictions_are_named() -> None:
    prediction = make(3)
    with pytest.raises(ValueError, match="predictions: expected clips with frames that count, got 0 without"):
        report([])
    with pytest.raises(ValueError, match="masks: expected the values 0 and 1"):
        report([prediction._replace(masks=prediction.masks * 255)])
    with pytest.raises(ValueError, match=r"logits: expected shape \(b, t, 1, h, w\)"):
        report([prediction, make(3, logits=2)])
    with pytest.raises(ValueError, match=r"valid: expected shape \(b, t\) with b=3, t=3, got \(2, 3\)"):
        report([prediction._replace(valid=prediction.valid[:2])])
    with pytest.raises(ValueError, match="id: expected a name of its own for each clip, got 'clip0' twice"):
        report([prediction, make(1)])


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"replicates": 0}, "replicates: expected a number above 0, got 0"),
        ({}, {"num_classes": 3, "class_names": ["a", "b"]}, "class_names: expected a name for each of 3 cl"),
        ({"id": "abc"}, {}, "id: expected a list with a word for each of 3 clips, got 'abc'"),
        ({"id": ["a", "b"]}, {}, r"id: expected a list with a word for each of 3 clips, got \['a', 'b'\]"),
        ({"id": ["a", "b", "a"]}, {}, "id: expected a name of its own for each clip, got 'a' twice"),
        ({"category": []}, {}, r"category: expected a list with a word for each of 3 clips, got \[\]"),
    ],
)
def test_mistakes_are_found_before_all_is_predicted(
    changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    def predictions() -> Iterator[Prediction]:
        prediction = make(3)._replace(**changes)
        yield prediction._replace(logits=prediction.masks) if "num_classes" in options else prediction
        pytest.fail("a second prediction was asked for")

    with pytest.raises(ValueError, match=message):
        report(predictions(), **options)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from avslib.metrics.report_plots import plot_report

    plot_report(report([make(6)], replicates=20), tmp_path)
    names = {"protocols.png", "pr_curve.png", "iou_histogram.png", "categories.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
