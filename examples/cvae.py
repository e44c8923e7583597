r"""Train the conditional VAE on clips from disk, evaluate it and plot the results.

The model is DiffusionAVS with a conditional VAE instead of the diffusion (Mao et al., Fig. 3 and Table II).
It has the same encoders and the same decoder, but the code of the mask is drawn from a Gaussian, the prior,
that depends on frame and sound. In training a second Gaussian, the posterior, also depends on the mask, and
the prior learns to agree with it.

Without arguments, the demo: it makes a small synthetic data set in AVSBench's layout (multi-source: several
objects are visible, and the sound alone decides which are ground truth). It trains a small backbone and a
small audio encoder, which first learn to name what is seen and heard, on a CPU in minutes. With --preset
paper-pvt or paper-r50, the model is trained on the real AVSBench like DiffusionAVS in the paper:

  python examples/cvae.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors --vggish-weights vggish.pth

The run folder, runs/cvae-PRESET-SETTING-seedN or as set by --out, holds config.json, metrics.json,
curves.png, predictions.png, the checkpoint to resume from (--resume) and the model, which
avslib.CVAESegmenter.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse

from avslib.models import create_model
from avslib.training import (
    PAPER_RECIPES,
    SMALL_PRETRAINED,
    CVAEObjective,
    add_arguments,
    evaluate,
    format_result,
    parse_arguments,
    run,
)

RECIPES = {"demo": SMALL_PRETRAINED} | PAPER_RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser, RECIPES)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--latent-dim", type=int, default=24, help="latent dimensions D (default: 24, as in DiffusionAVS)"
    )
    model.add_argument(
        "--kl-weight",
        type=float,
        default=0.01,
        help="weight of the KL divergence; the paper gives none (default: 0.01, as in ECMVAE)",
    )
    model.add_argument(
        "--num-samples", type=int, default=8, help="samples per frame in the final test (default: 8)"
    )
    arguments, recipe = parse_arguments(parser, RECIPES)
    result = run(
        arguments,
        recipe,
        lambda: create_model(f"cvae.{recipe.variant}", latent_dim=arguments.latent_dim),
        CVAEObjective(kl_weight=arguments.kl_weight),
        name=f"cvae-{arguments.preset}",
        num_samples=arguments.num_samples,
        rows={"one sample": evaluate},
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
