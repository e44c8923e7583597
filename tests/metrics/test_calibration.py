from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from avslib.metrics.calibration import CalibrationError, calibration_error
from avslib.metrics.statistics import CHUNK
from tests.metrics.test_protocols import clips

KINDS = ("foreground", "prediction")


def literal(logits: Tensor, masks: Tensor, valid: Tensor, bins: int, kind: str) -> float:
    """Pixel by pixel."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    kept = valid[..., None, None].expand_as(masks)
    probabilities = logits.squeeze(2).sigmoid()[kept]
    for p, label in zip(probabilities, masks[kept].tolist(), strict=True):
        said, so = p, label == 1
        if kind == "prediction":
            said, so = (p, label == 1) if p > 0.5 else (1 - p, label == 0)
        place = min(int(said * bins), bins - 1)
        members[place].append((said.item(), so))
    total = sum(map(len, members))
    error = 0.0
    for bin_ in filter(None, members):
        confidence = sum(p for p, _ in bin_) / len(bin_)
        accuracy = sum(so for _, so in bin_) / len(bin_)
        error += len(bin_) / total * abs(confidence - accuracy)
    return error


@pytest.mark.parametrize("kind", KINDS)
@given(bins=st.integers(1, 20), seed=st.integers(0, 99), cut=st.integers(0, 4))
def test_literal_version_in_any_batching_and_sharding(kind: str, bins: int, seed: int, cut: int) -> None:
    logits, masks, valid = clips(5, seed=seed)
    first, second = (CalibrationError(bins=bins, kind=kind) for _ in range(2))
    for metric, part in ((second, slice(0, cut)), (first, slice(cut, 5))):
        for i in range(5)[part]:
            metric.update(logits[i : i + 1], masks[i : i + 1], valid[i : i + 1])
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(literal(logits, masks, valid, bins, kind), abs=1e-9)
    every = torch.ones_like(valid)
    expected = literal(logits, masks, every, bins, kind)
    assert calibration_error(logits, masks, bins=bins, kind=kind).item() == pytest.approx(expected, abs=1e-9)


def test_worked_example() -> None:
    logits = torch.tensor([0.1, 0.3, 0.3, 0.8]).logit().view(1, 1, 1, 2, 2)
    masks = torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2)
    assert calibration_error(logits, masks, bins=5).item() == pytest.approx((0.1 + 2 * 0.2 + 0.2) / 4)
    # said of the prediction are 0.9 right, 0.7 right, 0.7 wrong, 0.8 right
    expected = (abs(2 - 0.9 - 0.8) + abs(1 - 1.4)) / 4
    assert calibration_error(logits, masks, bins=5, kind="prediction").item() == pytest.approx(expected)


def test_probabilities_that_are_right_have_no_error_and_sure_ones_have() -> None:
    torch.manual_seed(0)
    probability = torch.rand(1, 10, 1, 100, 100)
    masks = (torch.rand(1, 10, 100, 100) < probability.squeeze(2)).long()
    for kind in KINDS:
        assert calibration_error(probability.logit(), masks, kind=kind).item() < 0.01
        assert calibration_error(5 * probability.logit(), masks, kind=kind).item() > 0.1
    assert calibration_error(torch.full((1, 1, 1, 4, 4), 99.0), torch.ones(1, 1, 4, 4)) == 0
    assert calibration_error(torch.full((1, 1, 1, 4, 4), -99.0), torch.ones(1, 1, 4, 4)) == 1


def test_bins_say_what_is_in_them() -> None:
    logits = torch.tensor([0.0, 0.3, 0.3, 1.0]).logit().view(1, 1, 1, 2, 2)
    metric = CalibrationError(bins=4)
    metric.update(logits, torch.tensor([0, 0, 1, 1]).view(1, 1, 2, 2))
    pixels, confidence, accuracy = metric.reliability()
    assert pixels.tolist() == [1, 2, 0, 1]
    assert confidence.tolist() == pytest.approx([0, 0.3, float("nan"), 1], nan_ok=True)
    assert accuracy.tolist() == pytest.approx([0, 0.5, float("nan"), 1], nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_logit_that_is_no_number_is_background(kind: str) -> None:
    nan, masks = torch.full((1, 1, 1, 2, 2), torch.nan), torch.tensor([0, 0, 0, 1]).view(1, 1, 2, 2)
    assert calibration_error(nan, masks, kind=kind).item() == pytest.approx(0.25)
    metric = CalibrationError(kind=kind)
    valid = torch.tensor([[True, False]])
    metric.update(torch.cat([torch.full_like(nan, -99.0), nan], dim=1), masks.expand(1, 2, 2, 2), valid)
    assert metric.compute().item() == pytest.approx(0.25)


def test_frames_are_counted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, masks, valid = clips(7)
    found = []
    for pixels in (1, 60, 10**6):
        monkeypatch.setitem(CHUNK, "cpu", pixels)
        metric = CalibrationError()
        metric.update(logits, masks, valid)
        found.append(metric.compute())
    torch.testing.assert_close(torch.stack(found), found[0].expand(3))


def test_both_kinds_go_into_a_collection_and_a_set_without_pixels_has_none() -> None:
    logits, masks, valid = clips(5)
    metrics = MetricCollection({kind: CalibrationError(kind=kind) for kind in KINDS})
    for part in (slice(0, 2), slice(2, 5)):
        metrics.update(logits[part], masks[part], valid[part])
    for kind, value in metrics.compute().items():
        assert value.item() == pytest.approx(literal(logits, masks, valid, 15, kind), abs=1e-9)
    metric = CalibrationError()
    metric.update(logits, masks, torch.zeros_like(valid))
    assert metric.compute().isnan()


def test_the_plot_shows_the_bins(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    logits, masks, valid = clips(7)
    for kind in KINDS:
        metric = CalibrationError(bins=10, kind=kind)
        metric.update(logits, masks, valid)
        figure, axes = metric.plot_reliability()
        points = axes.lines[1]
        _, confidence, accuracy = metric.reliability()
        assert points.get_xdata().tolist() == pytest.approx(confidence[~confidence.isnan()].tolist())
        assert points.get_ydata().tolist() == pytest.approx(accuracy[~accuracy.isnan()].tolist())
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1)
        assert f"ECE = {metric.compute():.4f}" in axes.get_legend_handles_labels()[1]
        figure.savefig(tmp_path / f"{kind}.png")
        figure, axes = pyplot.subplots()
        assert metric.plot_reliability(axes) == (figure, axes)
        metric.plot()
    pyplot.close("all")


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="bins: expected a number above 0, got 0"):
        CalibrationError(bins=0)
    with pytest.raises(ValueError, match=r"bins: expected an integer, got 10\.0"):
        CalibrationError(bins=10.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind: expected one of 'foreground', 'prediction', got 'pixel'"):
        CalibrationError(kind="pixel")
    with pytest.raises(ValueError, match=r"logits: expected shape \(b, t, 1, h, w\)"):
        calibration_error(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    for refused in (calibration_error, CalibrationError().update):
        with pytest.raises(ValueError, match="masks: expected the values 0 and 1"):
            refused(torch.zeros(1, 2, 1, 4, 4), torch.full((1, 2, 4, 4), 255))
