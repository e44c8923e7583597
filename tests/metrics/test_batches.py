"""What J and F share: processes, collections, plots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics import MetricCollection

from avslib.metrics import (
    BoundaryF,
    FalsePositiveRate,
    FrameStatistics,
    FScore,
    JAndF,
    MaskIoU,
    NullScore,
    f_curves,
    f_measure,
    frame_statistics,
    jaccard,
)
from tests.metrics.test_protocols import CASES, clips
from tests.metrics.test_semantic import CASES as SEMANTIC
from tests.metrics.test_semantic import clips as semantic_clips

KINDS = [(kind, n) for kind in (MaskIoU, FScore) for n in (1, 4)]

# Each process takes its share of the clips: every other one, and then all but none.
PROCESS = """
import sys
import torch
from torch import distributed as dist
from tests.metrics.test_batches import BINARY, SEMANTIC, clips, semantic_clips

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
found = []
for shares in ([range(0, 7, 2), range(1, 7, 2)], [range(7), range(0)]):
    for cases, given, known in ((BINARY, clips(7), True), (SEMANTIC, semantic_clips(7), False)):
        for kind, protocol, options in cases:
            metric = kind(protocol, **options)
            for i in shares[rank]:
                place = {"index": torch.tensor([i])} if known else {}
                metric.update(*(tensor[i : i + 1] for tensor in given), **place)
            found.append(metric.compute())
    metric = BINARY[-1][0]()
    for i in shares[rank]:
        metric.update(*(tensor[i : i + 1] for tensor in clips(7)))
    found += [curve.mean() for curve in metric.curves()]
torch.save(torch.stack(found), f"{folder}/found{rank}.pt")
dist.destroy_process_group()
"""
BINARY = [
    *CASES,
    (BoundaryF, "davis", {}),
    (JAndF, "davis", {}),
    (FalsePositiveRate, "robust", {"clips_per_batch": 2}),
    (NullScore, "refavs", {"clips_per_batch": 4}),
    (FScore, "avsbench", {}),
]


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=root) for rank in (0, 1)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    expected = []
    for cases, given in ((BINARY, clips(7)), (SEMANTIC, semantic_clips(7))):
        for kind, protocol, options in cases:
            metric = kind(protocol, **options)
            metric.update(*given)
            expected.append(metric.compute())
    metric = FScore()
    metric.update(*clips(7))
    expected += [curve.mean() for curve in metric.curves()]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"found{rank}.pt")
        torch.testing.assert_close(found, torch.stack(expected * 2), rtol=0, atol=1e-9)


def test_a_collection_keeps_their_sums_apart() -> None:
    perfect = torch.tensor([-9.0, 9.0]).expand(2, 3, 1, 4, 2)
    metrics = MetricCollection({"j": MaskIoU(), "strict": MaskIoU(threshold=0.9), "f": FScore()})
    metrics.update(perfect, perfect.squeeze(2) > 0)  # every sum is the same here
    metrics.update(torch.full((2, 3, 1, 4, 2), 1.0), torch.ones(2, 3, 4, 2))
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == pytest.approx({"j": 1.0, "strict": 0.5, "f": 1.0}, abs=1e-6)
    metrics.update(torch.full((4, 3, 1, 4, 2), -1.0), torch.ones(4, 3, 4, 2))
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == pytest.approx({"j": 0.5, "strict": 0.25, "f": 1.0}, abs=1e-6)


@pytest.mark.parametrize(("kind", "clips_per_batch"), KINDS)
def test_merging_two_metrics_is_seeing_the_clips_of_both(
    kind: type[MaskIoU | FScore], clips_per_batch: int
) -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(6, 3, 1, 4, 4), torch.randint(0, 2, (6, 3, 4, 4))
    first, second, both = (kind(clips_per_batch=clips_per_batch) for _ in range(3))
    first.update(logits[:3], masks[:3])
    second.update(logits[3:], masks[3:])
    both.update(logits, masks)
    second.merge_state(first)
    torch.testing.assert_close(second.compute(), both.compute(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "clips_per_batch"), KINDS)
def test_what_is_kept_is_small_and_float64(kind: type[MaskIoU | FScore], clips_per_batch: int) -> None:
    metric = kind(clips_per_batch=clips_per_batch)
    for _ in range(3):
        metric.update(torch.zeros(2, 5, 1, 32, 32), torch.ones(2, 5, 32, 32))
    kept = [
        tensor
        for state in metric.metric_state.values()
        for tensor in (state if isinstance(state, list) else [state])
    ]
    assert {tensor.dtype for tensor in kept} == {torch.float64, torch.int64}
    curves = 3 * 255 if kind is FScore else 50
    clips_kept = 0 if clips_per_batch == 1 else 6
    assert sum(tensor.numel() for tensor in kept) <= 5 + curves + clips_kept * 257
    assert metric.compute().dtype == torch.float64


def test_plots() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    j, f = MaskIoU(), FScore()
    logits, masks, valid = clips(7)
    for metric in (j, f):
        metric.update(logits, masks, valid)
        _, axes = metric.plot()
        low, high = axes.get_ylim()
        assert low <= 0
        assert high >= 1
    _, axes = j.plot_histogram()
    assert sum(bar.get_height() for bar in axes.patches) == valid.sum()
    figure, axes = pyplot.subplots()
    assert f.plot_curve(axes) == (figure, axes)
    precision, recall, best = f.curves()
    assert axes.lines[0].get_ydata().tolist() == pytest.approx(precision.tolist(), abs=1e-6)
    assert axes.lines[0].get_xdata().tolist() == pytest.approx(recall.tolist(), abs=1e-6)
    assert best.max() > 0
    with pytest.raises(ValueError, match=r"^protocol: 'dataset' has one threshold and no curves"):
        FScore("dataset").plot_curve()
    pyplot.close("all")


def test_curves_are_means_over_frames_with_ground_truth() -> None:
    logits, masks, valid = clips(7)
    metric = FScore(clips_per_batch=4)
    metric.update(logits, masks, valid)
    kept = valid & masks.flatten(2).any(-1)
    curves = f_curves(logits, masks)[kept].mean(dim=0)
    torch.testing.assert_close(metric.curves()[2], curves, rtol=0, atol=1e-12)
    assert metric.curves()[1][0] == 1  # everything reaches the threshold 0


@pytest.mark.parametrize("index", [[-1, -2, -3], [-2, 0, 1], [2, -1, 0]])
def test_places_below_0_are_refused(index: list[int]) -> None:
    metric = FScore(clips_per_batch=2)
    metric.update(*clips(3), index=torch.tensor(index))
    with pytest.raises(ValueError, match=f"index: expected places from 0 on, got {min(index)}"):
        metric.compute()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips_per_batch": 2.5}, "clips_per_batch: expected a whole number or infinity, got 2.5"),
        ({"clips_per_batch": 0.5}, "clips_per_batch: expected a whole number or infinity, got 0.5"),
        ({"protocol": "combo", "ranks": 1.5}, "ranks: expected an integer, got 1.5"),
        ({"protocol": "combo", "ranks": 2.0}, "ranks: expected an integer, got 2.0"),
        ({"protocol": "combo", "ranks": 0}, "ranks: expected a number above 0, got 0"),
    ],
)
def test_batches_and_ranks_are_whole(options: dict[str, Any], message: str) -> None:
    logits, masks, _ = clips(3)
    statistics = frame_statistics(logits, masks)
    counts = FrameStatistics(*(field.flatten(0, 1) for field in statistics))
    clip = torch.arange(3).repeat_interleave(3)
    for refused in (
        lambda: jaccard(counts, clip, **options),
        lambda: f_measure(counts, clip, **options),
        lambda: MaskIoU(**options),
        lambda: FScore(**options),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
