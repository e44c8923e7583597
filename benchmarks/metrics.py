"""How long the scores take: F at 255 thresholds and the classes of AVSBench-semantic, beside plain loops.

  python benchmarks/metrics.py --device cpu --clips 4 --out benchmarks/results/cpu/metrics.json

Times one update of a metric with clips of five frames beside a loop over thresholds, and over frames and
classes, as the published scripts have them; in turn, after a warm-up and a check that both give the same
number. Prints the machine and quantiles, and writes them as JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import avslib
from avslib.metrics import FScore, MaskIoU, SemanticIoU

CLASSES = 71


def f_loop(logits: Tensor, masks: Tensor) -> Tensor:
    """F of clips one by one: for every frame, 255 comparisons."""
    thresholds = torch.linspace(0, 1 - 1e-10, 255, device=logits.device)
    scores = []
    for probabilities, truths in zip(logits.squeeze(2).sigmoid(), masks, strict=True):
        curves = []
        for probability, truth in zip(probabilities, truths.float(), strict=True):
            hit, selected = torch.zeros(2, 255, device=logits.device)
            for i, threshold in enumerate(thresholds):
                chosen = (probability >= threshold).float()
                hit[i], selected[i] = (chosen * truth).sum(), chosen.sum()
            precision, recall = hit / (selected + 1e-20), hit / (truth.sum() + 1e-20)
            f = 1.3 * precision * recall / (0.3 * precision + recall)
            curves.append(f.nan_to_num(nan=0.0))
        scores.append(torch.stack(curves).mean(dim=0).max())
    return torch.stack(scores).mean()


def classes_loop(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean IoU of classes: for every frame, three histograms."""
    total, seen = torch.zeros(2, CLASSES, device=logits.device)
    for frame, label in zip(logits.flatten(0, 1), masks.flatten(0, 1), strict=True):
        predicted = frame.softmax(dim=0).argmax(dim=0)
        both, ours, theirs = (
            torch.histc(values.float(), bins=CLASSES, min=0, max=CLASSES - 1)
            for values in (predicted[predicted == label], predicted, label)
        )
        union = ours + theirs - both
        total += (both / union).nan_to_num(nan=0.0)
        seen += union > 0
    return (total / seen).nan_to_num(nan=0.0).mean()


def timed_ms(run: Callable[[], Tensor], device: torch.device) -> float:
    """Time one call, in ms."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, default=4, help="clips of five frames")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--runs", type=int, default=20, help="timed calls of each")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()

    device = torch.device(arguments.device)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.clips, 5, arguments.size, arguments.size)
    masks = (torch.rand(shape, generator=generator) > 0.8).long().to(device)
    logits = (2 * torch.randn(shape, generator=generator)).to(device).unsqueeze(2) + masks.unsqueeze(2)
    labels = torch.randint(0, CLASSES, shape, generator=generator).to(device)
    many = torch.randn(*shape[:2], CLASSES, *shape[2:], generator=generator).to(device)
    many.scatter_add_(2, labels.unsqueeze(2), torch.full_like(labels.unsqueeze(2), 3, dtype=many.dtype))

    machine = {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "avslib": avslib.__version__,
    }
    f_score, j, semantic = (
        metric.to(device) for metric in (FScore(), MaskIoU(), SemanticIoU(num_classes=CLASSES))
    )
    runs: dict[str, dict[str, Callable[[], Tensor]]] = {
        "F": {
            "avslib": lambda: f_score(logits, masks),
            "loop over thresholds": lambda: f_loop(logits, masks),
        },
        "J": {"avslib": lambda: j(logits, masks)},
        "semantic IoU": {
            "avslib": lambda: semantic(many, labels),
            "loop over frames": lambda: classes_loop(many, labels),
        },
    }
    print(machine)
    print(f"{'metric':>14}{'implementation':>22}{'p50':>10}{'p10':>10}{'p90':>10}  ms a frame")
    rows = []
    for metric, implementations in runs.items():
        numbers = torch.stack([run().double() for run in implementations.values()])  # and a warm-up
        torch.testing.assert_close(numbers, numbers[:1].expand_as(numbers), rtol=0, atol=2e-6)
        times: dict[str, list[float]] = {name: [] for name in implementations}
        for _ in range(arguments.runs):
            for name, run in implementations.items():
                times[name].append(timed_ms(run, device) / (5 * arguments.clips))
        for name, measured in times.items():
            p10, p50, p90 = torch.tensor(measured).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
            print(f"{metric:>14}{name:>22}{p50:10.3f}{p10:10.3f}{p90:10.3f}")
            rows.append({"metric": metric, "implementation": name, "p10": p10, "p50": p50, "p90": p90})
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        setting = {"clips": arguments.clips, "size": arguments.size, "runs": arguments.runs}
        arguments.out.write_text(json.dumps({"machine": machine, **setting, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
