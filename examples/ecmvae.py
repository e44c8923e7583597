r"""Train ECMVAE on clips from disk, evaluate it and plot the results.

ECMVAE (Mao et al., ICCV 2023) is a multimodal VAE with separate codes: one of the frame alone, one of the
sound alone and one that both share, each in a version that has seen the mask and one that has not. Losses
keep the shared code unlike the others, and make the frame's code informative about the sound's. The codes
are injected into the coarsest level of the pyramid, which is fused with the sound and decoded top-down.
Every prediction is a sample.

Without arguments, the demo: it makes a small synthetic data set in AVSBench's layout (multi-source: several
objects are visible, and the sound alone decides which are ground truth). It trains a small backbone and a
small audio encoder, which first learn to name what is seen and heard, on a CPU in minutes. With --preset
paper-pvt or paper-r50, it runs the published recipe on the real AVSBench:

  python examples/ecmvae.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors --vggish-weights vggish.pth

The run folder, runs/ecmvae-PRESET-SETTING-seedN or as set by --out, holds config.json, metrics.json,
curves.png, predictions.png, the checkpoint to resume from (--resume) and the model, which
avslib.ECMVAE.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse

from avslib.models import create_model
from avslib.training import (
    PAPER_RECIPES,
    SMALL_PRETRAINED,
    ECMVAEObjective,
    add_arguments,
    evaluate,
    format_result,
    parse_arguments,
    run,
)

RECIPES = {"demo": SMALL_PRETRAINED} | PAPER_RECIPES
WEIGHTS = {  # as published
    "kl": (0.01, "weight of the divergence of posteriors from priors"),
    "information": (0.001, "weight of the mutual information of frame and sound, which is maximised"),
    "difference": (0.001, "weight of the similarity of specific and shared codes"),
    "matching": (0.5, "weight of the audio-visual matching loss"),
}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--neck",
        choices=("reduction", "dilated"),
        default="reduction",
        help='neck between backbone and fusion; "dilated" is aspp in the published code (default: reduction)',
    )
    for term, (weight, meaning) in WEIGHTS.items():
        model.add_argument(
            f"--{term}-weight", type=float, default=weight, help=f"{meaning} (default: {weight})"
        )
    model.add_argument(
        "--num-samples", type=int, default=8, help="samples per frame in the final test (default: 8)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser, RECIPES)
    add_model_arguments(parser)
    arguments, recipe = parse_arguments(parser, RECIPES)
    result = run(
        arguments,
        recipe,
        lambda: create_model(f"ecmvae.{recipe.variant}", neck=arguments.neck),
        ECMVAEObjective(
            kl_weight=arguments.kl_weight,
            information_weight=arguments.information_weight,
            difference_weight=arguments.difference_weight,
            matching_weight=arguments.matching_weight,
        ),
        name=f"ecmvae-{arguments.preset}",
        num_samples=arguments.num_samples,
        rows={"one sample": evaluate},  # as published
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
