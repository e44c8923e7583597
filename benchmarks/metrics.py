"""Measure how long the scores take: J, F at 255 thresholds, and the class IoU of AVSBench-semantic.

  python benchmarks/metrics.py --device cpu --out benchmarks/results/cpu/metrics.json

Scores clips of five frames with the library's metrics. The reference is the published scripts' loops over
frames, thresholds and classes. On a GPU it also checks that no update waits for it.
"""

from __future__ import annotations

from functools import partial

import torch
from _measure import make_parser, peak_bytes, set_up, time_in_turn, write
from torch import Tensor
from torchmetrics import Metric

from avslib.metrics import FScore, MaskIoU, SemanticIoU

CLASSES, SECONDS = 71, 5
CLIPS = {"cpu": (1, 4), "cuda": (1, 4, 16, 64)}


def j_loop(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute J frame by frame; a frame without ground truth scores the share predicted as background."""
    scores = []
    for frame, mask in zip(logits.flatten(0, 2), masks.flatten(0, 1), strict=True):
        predicted, truth = frame.sigmoid() > 0.5, mask > 0
        if truth.any():
            scores.append((predicted & truth).sum() / (predicted | truth).sum())
        else:
            scores.append((~predicted).float().mean())
    return torch.stack(scores).mean()


def f_loop(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute F clip by clip, with 255 comparisons for every frame."""
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
    """Compute the mean IoU of classes, with three histograms for every frame."""
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


def score(metric: Metric, logits: Tensor, masks: Tensor) -> Tensor:
    """Reset a metric and score the given clips."""
    metric.reset()
    metric.update(logits, masks)
    return metric.compute()


def update_without_waiting(metric: Metric, logits: Tensor, masks: Tensor) -> None:
    """Update a metric, and raise an error if torch notices that it waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(logits, masks)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def clips_to_score(clips: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make logits ``(clips, 5, 1, size, size)`` that lean towards masks, and these masks."""
    masks = (torch.rand(clips, SECONDS, size, size, device=device) > 0.8).long()
    logits = 2 * torch.randn(masks.shape, device=device) + masks
    return logits.unsqueeze(2), masks


def classes_to_score(clips: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make logits ``(clips, 5, classes, size, size)`` that lean towards labels, and these labels."""
    labels = torch.randint(CLASSES, (clips, SECONDS, size, size), device=device)
    logits = torch.randn(clips, SECONDS, CLASSES, size, size, device=device)
    return logits.scatter_(2, labels.unsqueeze(2), 3), labels


SCORES = {
    "J": (MaskIoU(), j_loop, clips_to_score),
    "F": (FScore(), f_loop, clips_to_score),
    "semantic IoU": (SemanticIoU(num_classes=CLASSES), classes_loop, classes_to_score),
}


def main() -> None:
    parser = make_parser(__doc__, rounds=20)
    parser.add_argument("--clips", type=int, nargs="+", help=f"clips of five frames (default: {CLIPS})")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--seconds", type=float, default=2, help="of timing for each score, about")
    arguments = parser.parse_args()
    device = set_up(arguments)
    arguments.clips = arguments.clips or CLIPS[device.type]

    print(f"{'score':>14}{'clips':>7}{'implementation':>16}{'p50':>10}{'p10':>10}{'p90':>10}  ms", end="")
    print(f"{'x faster':>10}{'MB':>9}")
    rows = []
    for name, (metric, loop, make) in SCORES.items():
        metric.to(device)
        for clips in arguments.clips:
            inputs = make(clips, arguments.size, device)
            runs = {"loop": partial(loop, *inputs), "avslib": partial(score, metric, *inputs)}
            timings = time_in_turn(
                runs, device=device, rounds=arguments.rounds, seconds=arguments.seconds, atol=2e-6, rtol=0
            )
            if device.type == "cuda":
                update_without_waiting(metric, *inputs)
            for implementation, (ms, speedup) in timings.items():
                memory = peak_bytes(runs[implementation], device)
                print(f"{name:>14}{clips:7}{implementation:>16}", end="")
                print("".join(f"{ms[p]:10.2f}" for p in ("p50", "p10", "p90")), end="    ")
                print(f"{speedup['p50']:10.1f}{memory / 1e6:9.1f}")
                rows.append(
                    {
                        "score": name,
                        "clips": clips,
                        "implementation": implementation,
                        "ms": ms,
                        "speedup": speedup,
                        "bytes": memory,
                    }
                )
    if device.type == "cuda":
        print("no update waited for the GPU")
    write(arguments, "metrics", rows, no_update_waits=device.type == "cuda" or None)


if __name__ == "__main__":
    main()
