"""What J and F share: processes, collections, plots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchmetrics import MetricCollection

from avslib.metrics import FScore, MaskIoU

KINDS = [(kind, n) for kind in (MaskIoU, FScore) for n in (1, 4)]

# Each process takes its share of the clips; the last scenario leaves the second process without a clip.
PROCESS = """
import sys
import torch
from torch import distributed as dist
from avslib.metrics import FScore, MaskIoU

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
logits, masks = torch.load(f"{folder}/clips.pt")
found = []
for share in ([0, 5, 7], [0, 7, 7]):
    mine = slice(share[rank], share[rank + 1])
    for kind in (MaskIoU, FScore):
        for n in (1, 4):
            metric = kind(clips_per_batch=n)
            for clip in zip(logits[mine].split(2), masks[mine].split(2)):
                if len(clip[0]):
                    metric.update(*clip)
            found.append(metric.compute())
            metric.reset()
torch.save(torch.stack(found), f"{folder}/found{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(7, 3, 1, 6, 6), torch.randint(0, 2, (7, 3, 6, 6))
    torch.save((logits, masks), tmp_path / "clips.pt")
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    expected = []
    for kind, clips_per_batch in KINDS:
        metric = kind(clips_per_batch=clips_per_batch)
        metric.update(logits, masks)
        expected.append(metric.compute())
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
    clips_kept = 0 if clips_per_batch == 1 else 6
    assert sum(tensor.numel() for tensor in kept) <= 5 + clips_kept * 257
    assert metric.compute().dtype == torch.float64


def test_plots_run_from_0_to_1() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    metric = FScore()
    metric.update(torch.zeros(1, 1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    figure, axes = metric.plot()
    low, high = axes.get_ylim()
    assert low <= 0
    assert high >= 1
    matplotlib.pyplot.close(figure)
