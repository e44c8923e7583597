"""Sample in other ways from models that paper_tables.py has trained, without training anything.

  python benchmarks/paper_sweeps.py ldm full --seeds 3   # missing sweeps of the runs that have weights

A stochastic model draws 32 samples. The mean mask of the first 1, 2, 4, ... of them is scored, and so are the
single samples. For a diffusion model, every scheduler with every number of steps draws one latent per frame,
which the head decodes. Linear regressions measure how well the code of a mask can be predicted from the
condition, and from what else the model knows about a frame. A sweep writes one JSON file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from _measure import describe
from _paper_probe import collect, share, told
from _paper_results import SWEEPS
from _paper_rows import ROWS
from _paper_runs import BUDGETS, Run, keep, open_splits
from _paper_sweeps import BEST, CALIBRATION, ENERGY, ONSETS, STEPS, TOLD_BY
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Subset
from torchmetrics import Metric, MetricCollection

from avslib.clip import Clip
from avslib.latent import LatentCondDiffusion
from avslib.metrics import CalibrationError, EnergyDistance, FScore, MaskIoU, OnsetAccuracy, SampleIoU
from avslib.models import AVSModel, DiffusionAVS, Segmentation
from avslib.training.checkpoint import load_weights

SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler")
SAMPLES = (1, 2, 4, 8, 16, 32)
PROBED = 500
"""Number of training clips for the regressions."""


def samplers(diffusion: LatentCondDiffusion) -> Iterator[tuple[str, int, LatentCondDiffusion]]:
    """Yield scheduler name, number of steps and sampler; all samplers share one noise estimator."""
    for name in SCHEDULERS:
        scheduler = getattr(diffusers, name).from_config(diffusion.scheduler.config)
        for steps in STEPS:
            yield (
                name,
                steps,
                LatentCondDiffusion(
                    diffusion.denoiser,
                    latent_dim=diffusion.latent_dim,
                    scheduler=scheduler,
                    num_inference_steps=steps,
                ),
            )


@torch.no_grad()
def sweep_samplers(model: DiffusionAVS, clips: DataLoader[Clip]) -> list[dict[str, Any]]:
    """Score one sample per frame, by scheduler and number of steps, on the device of the model."""
    device = next(model.parameters()).device
    model.eval()
    ways = list(samplers(model.diffusion))
    scores = [_scores(device) for _ in ways]
    drawn: list[list[Tensor]] = [[] for _ in ways]
    truths = []
    for number, clip in enumerate(clips):
        frames, audio = model.embed(clip.frames.to(device), clip.log_mel.to(device))
        assert audio is not None
        masks, labelled, valid = (x.to(device) for x in (clip.masks, clip.labelled, clip.valid))
        pyramid, condition = model.encode(frames, audio, valid)
        truths.append(model.ground_truth_encoder(masks[labelled]))
        for (*_, sampler), metrics, latents in zip(ways, scores, drawn, strict=True):
            latent = sampler.sample(condition, generator=Generator(device).manual_seed(number))
            logits = model.decode(pyramid, latent, size=(frames.shape[-2], frames.shape[-1]))
            metrics.update(logits, masks, valid)
            latents.append(latent[labelled])
    truth = torch.cat(truths)
    return [
        {
            "scheduler": name,
            "steps": steps,
            **_values(metrics),
            "std of samples": torch.cat(latents).std(dim=0).mean().item(),
            "error over variance": 1 - share(torch.cat(latents), truth),
        }
        for (name, steps, _), metrics, latents in zip(ways, scores, drawn, strict=True)
    ]


@torch.no_grad()
def sweep_samples(model: AVSModel, clips: DataLoader[Clip]) -> list[dict[str, float]]:
    """Score the first 1, 2, 4, ... samples; a deterministic model has one."""
    device = next(model.parameters()).device
    model.eval()
    counts = SAMPLES if model.stochastic else SAMPLES[:1]
    means = [_scores(device) for _ in counts]
    each = [
        MetricCollection({BEST: SampleIoU("best_frame"), ENERGY: EnergyDistance()}, compute_groups=False).to(
            device
        )
        for _ in counts
    ]
    for number, clip in enumerate(clips):
        frames, log_mel, masks, valid = (
            x.to(device) for x in (clip.frames, clip.log_mel, clip.masks, clip.valid)
        )
        noise = {"num_samples": counts[-1], "generator": Generator(device).manual_seed(number)}
        output = model(frames, log_mel, valid=valid, **(noise if model.stochastic else {}))
        samples = output.logits[None] if output.samples is None else output.samples
        for count, mean, apart in zip(counts, means, each, strict=True):
            mean.update(Segmentation.of_samples(samples[:count]).logits, masks, valid)
            apart.update(samples[:count], masks, valid)
    return [
        {"samples": count, **_values(mean), **_values(apart)}
        for count, mean, apart in zip(counts, means, each, strict=True)
    ]


def _scores(device: torch.device) -> MetricCollection:
    """Make the metrics of masks, by protocol ``avsbench``, and of their probabilities."""
    return _collect(
        device,
        {
            "miou": MaskIoU(),
            "f_score": FScore(),
            ONSETS: OnsetAccuracy(),
            CALIBRATION: CalibrationError(),
        },
    )


def _collect(device: torch.device, metrics: dict[str, Metric | MetricCollection]) -> MetricCollection:
    return MetricCollection(metrics, compute_groups=False).to(device)


def _values(metrics: MetricCollection) -> dict[str, float]:
    return {name: value.item() for name, value in metrics.compute().items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", choices=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--setting", choices=("s4", "ms3"), default="ms3")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", choices=BUDGETS, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks", "results", "paper"))
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for seed in range(arguments.seeds):
        for row in arguments.rows:
            run = Run(arguments.budget, arguments.setting, row, seed)
            out = arguments.out / run.budget / run.setting / SWEEPS / f"{run.name}.json"
            if out.exists() or not run.weights.exists():
                print(f"{run.name}: {'there' if out.exists() else f'no weights in {run.weights}'}")
                continue
            model = ROWS[row].build(**BUDGETS[run.budget].sizes())
            load_weights(model, run.weights)
            model.to(device)
            splits: Any = open_splits(run)
            few = Subset(splits["train"], range(min(PROBED, len(splits["train"]))))
            loaders = {
                split: DataLoader(clips, BUDGETS[run.budget].batch_size)
                for split, clips in {**splits, "train": few}.items()
            }
            found: dict[str, Any] = {"samples": sweep_samples(model, loaders["test"])}
            if ROWS[row].diffuses:
                assert isinstance(model, DiffusionAVS)
                found["samplers"] = sweep_samplers(model, loaders["test"])
                found[TOLD_BY] = told(*(collect(model, loaders[s]) for s in ("train", "val", "test")))
            keep({"row": row, "seed": seed, "machine": describe(device), **found}, out)


if __name__ == "__main__":
    main()
