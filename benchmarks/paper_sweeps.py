"""Sample from models that paper_tables.py trained, in other ways than they were tested: nothing is trained.

  python benchmarks/paper_sweeps.py ldm full --seeds 3   # what is not there yet, of runs whose weights are

Every scheduler with every number of steps draws one latent a frame, which the head decodes; the scheduler of
training draws up to 32, and the mean mask of the first 1, 2, 4, ... of them is scored. Frame and sound are
encoded once for all of this. Linear regressions then ask what could be told of the code of a mask, from the
condition and from what else the model knows of a frame. A sweep leaves one JSON file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from _measure import describe
from _paper_probe import collect, share, told
from _paper_rows import ROWS
from _paper_sweeps import TOLD_BY
from paper_tables import BUDGETS, Run, keep, open_splits
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Subset

from avslib.clip import Clip
from avslib.latent import LatentCondDiffusion
from avslib.metrics import FScore, MaskIoU
from avslib.models import DiffusionAVS, Segmentation
from avslib.training.checkpoint import load_weights

SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler")
STEPS = (1, 2, 3, 5, 10, 20)
SAMPLES = (1, 2, 4, 8, 16, 32)
PROBED = 500
"""Training clips that the regressions learn from."""


class Drawn(NamedTuple):
    """What a sampler did, over all clips."""

    miou: MaskIoU
    f_score: FScore
    latents: list[Tensor]

    @classmethod
    def none(cls, device: torch.device) -> Drawn:
        """Begin."""
        return cls(MaskIoU().to(device), FScore().to(device), [])

    def update(self, logits: Tensor, masks: Tensor, valid: Tensor) -> None:
        """Add a batch."""
        self.miou.update(logits, masks, valid)
        self.f_score.update(logits, masks, valid)

    def scores(self) -> dict[str, float]:
        """Return mIoU and F by protocol ``avsbench``."""
        return {"miou": self.miou.compute().item(), "f_score": self.f_score.compute().item()}


def samplers(diffusion: LatentCondDiffusion) -> Iterator[tuple[str, int, LatentCondDiffusion]]:
    """Yield samplers that share one noise estimator: scheduler, steps, sampler."""
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
def sweep(model: DiffusionAVS, clips: DataLoader[Clip]) -> dict[str, list[dict[str, Any]]]:
    """Return what every sampler scores, and every number of samples; on the device of the model."""
    device = next(model.parameters()).device
    model.eval()
    ways = list(samplers(model.diffusion))
    by_sampler = [Drawn.none(device) for _ in ways]
    by_count = [Drawn.none(device) for _ in SAMPLES]
    truths = []
    for number, clip in enumerate(clips):
        frames, audio = model.embed(clip.frames.to(device), clip.log_mel.to(device))
        assert audio is not None
        masks, labelled, valid = (x.to(device) for x in (clip.masks, clip.labelled, clip.valid))
        pyramid, condition = model.encode(frames, audio, valid)
        size = (frames.shape[-2], frames.shape[-1])
        truths.append(model.ground_truth_encoder(masks[labelled]))
        for (*_, sampler), drawn in zip(ways, by_sampler, strict=True):
            latent = sampler.sample(condition, generator=Generator(device).manual_seed(number))
            drawn.update(model.decode(pyramid, latent, size=size), masks, valid)
            drawn.latents.append(latent[labelled])
        several = condition.expand(max(SAMPLES), *condition.shape)
        samples = model.diffusion.sample(several, generator=Generator(device).manual_seed(number))
        decoded = torch.stack([model.decode(pyramid, latent, size=size) for latent in samples])
        for count, drawn in zip(SAMPLES, by_count, strict=True):
            drawn.update(Segmentation.of_samples(decoded[:count]).logits, masks, valid)
    truth = torch.cat(truths)
    return {
        "samplers": [
            {
                "scheduler": name,
                "steps": steps,
                **drawn.scores(),
                "std of samples": latents.std(dim=0).mean().item(),
                "error over variance": 1 - share(latents, truth),
            }
            for (name, steps, _), drawn in zip(ways, by_sampler, strict=True)
            for latents in [torch.cat(drawn.latents)]
        ],
        "samples": [
            {"samples": count, **drawn.scores()} for count, drawn in zip(SAMPLES, by_count, strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", choices=[key for key, row in ROWS.items() if row.diffuses])
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
            out = arguments.out / run.budget / run.setting / "sweeps" / f"{run.name}.json"
            if out.exists() or not run.weights.exists():
                print(f"{run.name}: {'there' if out.exists() else f'no weights in {run.weights}'}")
                continue
            model = ROWS[row].build(**BUDGETS[run.budget].sizes())
            load_weights(model, run.weights)
            assert isinstance(model, DiffusionAVS)
            model.to(device)
            splits: Any = open_splits(run)
            few = Subset(splits["train"], range(min(PROBED, len(splits["train"]))))
            loaders = {
                split: DataLoader(clips, BUDGETS[run.budget].batch_size)
                for split, clips in {**splits, "train": few}.items()
            }
            found: dict[str, Any] = dict(sweep(model, loaders["test"]))
            found[TOLD_BY] = told(*(collect(model, loaders[s]) for s in ("train", "val", "test")))
            keep({"row": row, "seed": seed, "machine": describe(device), **found}, out)


if __name__ == "__main__":
    main()
