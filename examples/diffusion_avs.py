r"""Train the paper's model, DiffusionAVS, on clips that lie on disk; evaluate it and draw what it does.

Without arguments it makes a small synthetic data set in AVSBench's layout (multi-source: several objects are
seen, the sound alone decides which are ground truth), trains a small backbone and a small audio encoder from
scratch and is done in about ten minutes on two CPU cores. With --preset paper-pvt or paper-r50 it is the
paper's recipe on the real AVSBench:

  python examples/diffusion_avs.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors --vggish-weights vggish.pth

A run folder holds config.json, metrics.json, curves.png, predictions.png, the checkpoint to resume from
(--resume) and the model, which avslib.DiffusionAVS.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm

import avslib
from avslib.data import (
    AVSBenchMS3,
    AVSBenchS4,
    SilentSound,
    SwappedSound,
    SyntheticConfig,
    audio_blind_ceiling,
    clip_indices,
    write_avsbench,
)
from avslib.latent import cosine_ddim
from avslib.models import MOSTLY_SAMPLED, DiffusionAVS
from avslib.training import (
    DiffusionAVSObjective,
    evaluate,
    fit,
    latent_std,
    plot_history,
    plot_predictions,
    warmup_cosine,
)
from avslib.training.checkpoint import load_weights

READERS: dict[str, type[AVSBenchS4] | type[AVSBenchMS3]] = {"s4": AVSBenchS4, "ms3": AVSBenchMS3}


@dataclass(frozen=True)
class Recipe:
    """What a preset decides and an argument may change."""

    backbone: str
    audio_encoder: str
    channels: int
    size: int
    learning_rate: float
    epochs: dict[str, int]
    anneal: bool = False
    batch_size: int = 4


PRESETS = {
    "demo": Recipe("regnetx_002", "mel_cnn", 64, 112, 1e-3, {"s4": 2, "ms3": 2}, anneal=True),
    "paper-pvt": Recipe("pvt_v2_b5", "vggish", 128, 224, 1e-4, {"s4": 15, "ms3": 30}),
    "paper-r50": Recipe("resnet50", "vggish", 128, 224, 1e-4, {"s4": 15, "ms3": 30}),
}


def parse_sources(text: str) -> str | dict[str, float]:
    """Read ``name`` or ``name=weight,name=weight``."""
    if "=" not in text:
        return text
    return {name: float(weight) for name, weight in (part.split("=") for part in text.split(","))}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--preset", choices=PRESETS, default="demo", help="sizes and schedule (default: demo)"
    )
    recipe.add_argument(
        "--setting", choices=READERS, default="ms3", help="s4: one object sounds; ms3: one to three"
    )
    recipe.add_argument("--epochs", type=int, help="passes over the training clips (default: the preset's)")
    recipe.add_argument("--batch-size", type=int, help="clips a batch (default: the preset's)")
    recipe.add_argument(
        "--learning-rate", type=float, help="peak learning rate of Adam (default: the preset's)"
    )
    recipe.add_argument("--seed", type=int, default=0, help="of weights, data order and noise (default: 0)")

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-root",
        type=Path,
        help="folder with AVSBench's Single-source and Multi-sources (default: make a synthetic one)",
    )
    data.add_argument("--clips", type=int, default=2300, help="synthetic training clips (default: 2300)")
    data.add_argument("--size", type=int, help="side of a frame, px (default: the preset's)")
    data.add_argument(
        "--sound", choices=("pickle", "wav"), default="pickle", help="log-mels from .pkl or from .wav"
    )
    data.add_argument("--workers", type=int, default=0, help="loader processes (default: 0)")

    weights = parser.add_argument_group("weights to start from")
    weights.add_argument(
        "--visual-weights", type=Path, help="the backbone's, in timm's naming (.safetensors, .pth)"
    )
    weights.add_argument("--vggish-weights", type=Path, help="VGGish's, in torchvggish's naming")
    weights.add_argument(
        "--init-from", type=Path, help="best.safetensors of another run, such as S4's for MS3"
    )

    model = parser.add_argument_group("model (the rows of the paper's ablations)")
    model.add_argument(
        "--condition", choices=("none", "audio", "visual", "audio_visual"), default="audio_visual"
    )
    model.add_argument(
        "--decode-from",
        type=parse_sources,
        default=MOSTLY_SAMPLED,
        help="the latent that the head decodes in training: ground_truth, noised, one_step or sampled, or "
        "several with weights, such as the default, ground_truth=0.25,sampled=0.75",
    )
    model.add_argument(
        "--timestep-spacing",
        choices=("leading", "linspace", "trailing"),
        default="trailing",
        help="which of the 20 noise levels the 10 sampling steps visit (default: trailing)",
    )
    model.add_argument("--latent-dim", type=int, default=24, help="D (default: 24)")
    model.add_argument(
        "--contrastive-weight", type=float, default=0.1, help="lambda 2; 0 leaves the loss out"
    )
    model.add_argument(
        "--num-samples", type=int, default=8, help="samples a frame in the final test (default: 8)"
    )

    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, help="run folder (default: runs/PRESET-SETTING-seedN)")
    run.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    arguments = parser.parse_args()
    if arguments.preset != "demo":
        if arguments.data_root is None:
            parser.error(
                f"--preset {arguments.preset} trains on the real set: say where it is with --data-root"
            )
        for name in ("visual_weights", "vggish_weights"):
            if getattr(arguments, name) is None:
                option = "--" + name.replace("_", "-")
                print(
                    f"warning: without {option} the {name.split('_')[0]} encoder starts from random weights"
                )
    return arguments


def open_data(arguments: argparse.Namespace, size: int) -> dict[str, AVSBenchS4 | AVSBenchMS3]:
    """Open the three splits, after making them where no root is given."""
    root = arguments.data_root
    if root is None:
        clips = {
            "train": arguments.clips,
            "val": max(arguments.clips // 20, 2),
            "test": max(arguments.clips // 10, 2),
        }
        root = Path("runs", "data", f"synthetic-{arguments.setting}-{size}px-{arguments.clips}")
        with tqdm(total=sum(clips.values()), desc="making clips", unit="clip") as bar:
            write_avsbench(
                root,
                setting=arguments.setting,
                clips=clips,
                size=size,
                videos=False,
                workers=os.cpu_count() or 1,
                progress=bar.update,
            )
    reader = READERS[arguments.setting]
    return {
        split: reader(root, split, size=(size, size), sound=arguments.sound)
        for split in ("train", "val", "test")
    }


def build_model(arguments: argparse.Namespace, recipe: Recipe) -> DiffusionAVS:
    """Build the paper's model, from local weights where they are given."""
    model = DiffusionAVS(
        recipe.backbone,
        audio_encoder=recipe.audio_encoder,
        channels=recipe.channels,
        condition=arguments.condition,
        latent_dim=arguments.latent_dim,
        scheduler=cosine_ddim(timestep_spacing=arguments.timestep_spacing),
        decode_from=arguments.decode_from,
    )
    if arguments.visual_weights is not None:
        model.visual_encoder.load_weights(arguments.visual_weights)
    if arguments.vggish_weights is not None:
        model.audio_encoder.load_weights(arguments.vggish_weights)
    if arguments.init_from is not None:
        load_weights(model, arguments.init_from)
    return model


def tabulate(
    model: DiffusionAVS, clips: AVSBenchS4 | AVSBenchMS3, *, num_samples: int, ceiling: float | None
) -> dict[str, dict[str, float]]:
    """Score the model as it is, then with what it should need taken away."""
    table = {
        "true sound": evaluate(model, clips, num_samples=num_samples),
        "silence": evaluate(model, SilentSound(clips), num_samples=num_samples),
        "another clip's sound": evaluate(model, SwappedSound(clips), num_samples=num_samples),
        "latent: one sample": evaluate(model, clips),
        "latent: noise": evaluate(model, clips, latent="noise"),
        "latent: true z0": evaluate(model, clips, latent="ground_truth"),
    }
    if ceiling is not None:
        table["audio-blind ceiling"] = {"miou": ceiling}
    return table


def main() -> None:
    arguments = parse_arguments()
    torch.set_flush_denormal(True)  # on a CPU, denormal numbers in the state of Adam slow a step down
    recipe = PRESETS[arguments.preset]
    epochs = arguments.epochs or recipe.epochs[arguments.setting]
    size = arguments.size or recipe.size
    batch_size = arguments.batch_size or recipe.batch_size
    learning_rate = arguments.learning_rate or recipe.learning_rate
    run = arguments.out or Path("runs", f"{arguments.preset}-{arguments.setting}-seed{arguments.seed}")
    run.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    # without a GPU several processes are one group only if Accelerate is told that the CPU is meant
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), step_scheduler_with_optimizer=False)
    with accelerator.main_process_first():
        data = open_data(arguments, size)
    set_seed(arguments.seed)
    model = build_model(arguments, recipe)
    set_seed(arguments.seed, device_specific=True)  # from here on every process draws noise of its own
    record = {
        "avslib": avslib.__version__,
        "torch": torch.__version__,
        "arguments": {name: str(value) for name, value in vars(arguments).items() if value is not None},
        "recipe": dataclasses.asdict(recipe),
    }
    (run / "config.json").write_text(json.dumps(record, indent=2))

    loader = DataLoader(
        data["train"],
        batch_size,
        shuffle=True,
        drop_last=len(data["train"]) >= batch_size,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
    )
    optimizer = torch.optim.Adam(
        (p for p in model.parameters() if p.requires_grad), learning_rate, fused=True
    )
    steps = epochs * math.ceil(len(loader) / accelerator.num_processes)
    history = fit(
        model,
        DiffusionAVSObjective(contrastive_weight=arguments.contrastive_weight),
        loader,
        optimizer,
        epochs=epochs,
        run_dir=run,
        lr_scheduler=warmup_cosine(optimizer, steps=steps, warmup_steps=steps // 20)
        if recipe.anneal
        else None,
        validate=lambda trained: evaluate(trained, data["val"])["miou"],
        accelerator=accelerator,
        resume=arguments.resume,
    )
    trained_s = time.monotonic() - started

    ceiling = None
    if arguments.data_root is None:
        config = SyntheticConfig(setting=arguments.setting, size=size)
        ceiling = audio_blind_ceiling(config, clip_indices("test", len(data["test"])))
    table = tabulate(model, data["test"], num_samples=arguments.num_samples, ceiling=ceiling)
    spread = latent_std(model, data["test"])
    if not accelerator.is_main_process:
        return
    model.save_pretrained(run / "model")
    plot_history(history, run / "curves.png")
    plot_predictions(model, data["test"], run / "predictions.png", indices=range(min(3, len(data["test"]))))
    metrics = {
        "test": table,
        "std of z0 over clips": spread,
        "best epoch": max(history, key=lambda record: record["validation"])["epoch"],
        "history": history,
        "seconds": {"data and training": trained_s, "all": time.monotonic() - started},
    }
    (run / "metrics.json").write_text(json.dumps(metrics, indent=2))

    print(f"\n{'test split':24}{'mIoU':>8}{'F':>8}")
    for name, scores in table.items():
        f_score = f"{scores['f_score']:8.3f}" if "f_score" in scores else ""
        print(f"{name:24}{scores['miou']:8.3f}{f_score}")
    print(f"{'std of z0 over clips':24}{spread:8.3f}")
    print(f"\n{time.monotonic() - started:.0f} s; the model, its scores and its pictures are in {run}/")


if __name__ == "__main__":
    main()
