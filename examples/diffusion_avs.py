r"""Train DiffusionAVS on clips from disk, evaluate it and plot the results.

DiffusionAVS (Mao et al., "Contrastive Conditional Latent Diffusion for Audio-visual Segmentation") fuses a
pyramid of frame features with the sound. A diffusion model, conditioned on frame and sound, samples a code
of the mask, and the decoder turns pyramid and code into the mask. A contrastive loss makes the condition
informative about the code.

Without arguments, the demo: it makes a small synthetic data set in AVSBench's layout (multi-source: several
objects are visible, and the sound alone decides which are ground truth). It trains a small backbone and a
small audio encoder from scratch, in about ten minutes on two CPU cores. With --preset paper-pvt or
paper-r50, it runs the paper's recipe on the real AVSBench:

  python examples/diffusion_avs.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors --vggish-weights vggish.pth

The run folder, runs/diffusion_avs-PRESET-SETTING-seedN or as set by --out, holds config.json, metrics.json,
curves.png, predictions.png, the checkpoint to resume from (--resume) and the model, which
avslib.DiffusionAVS.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse
from functools import partial

from avslib.latent import cosine_ddim
from avslib.models import MOSTLY_SAMPLED, DiffusionAVS, create_model
from avslib.training import (
    PAPER_RECIPES,
    SMALL,
    DiffusionAVSObjective,
    Recipe,
    add_arguments,
    evaluate,
    format_result,
    latent_statistics,
    parse_arguments,
    run,
)

RECIPES = {"demo": SMALL} | PAPER_RECIPES


def parse_sources(text: str) -> str | dict[str, float]:
    """Read ``name`` or ``name=weight,name=weight``."""
    if "=" not in text:
        return text
    try:
        return {name: float(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected NAME=WEIGHT,NAME=WEIGHT, got {text!r}") from error


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model (the rows of the paper's ablations)")
    model.add_argument(
        "--condition",
        choices=("none", "audio", "visual", "audio_visual", "fused", "clip"),
        default="audio_visual",
        help="condition of the diffusion (default: audio_visual); fused and clip are not in the paper",
    )
    model.add_argument(
        "--window",
        type=int,
        help="seconds that attend to each other in the fusion (default: the whole clip); 1, which is not in "
        "the paper, gives each second only its own sound",
    )
    model.add_argument(
        "--fusion",
        choices=("tpavi", "film"),
        default="tpavi",
        help="fusion of sound and frames (default: tpavi); film, which treats each second alone, is not in "
        "the paper",
    )
    model.add_argument(
        "--decode-from",
        type=parse_sources,
        default=MOSTLY_SAMPLED,
        help="latent that the head decodes in training: ground_truth, noised, one_step, sampled, or a "
        "weighted mixture such as the default, ground_truth=0.25,sampled=0.75",
    )
    model.add_argument(
        "--timestep-spacing",
        choices=("leading", "linspace", "trailing"),
        default="trailing",
        help="how the 10 sampling steps are spaced over the 20 noise levels (default: trailing)",
    )
    model.add_argument(
        "--prediction-type",
        choices=("epsilon", "sample", "v_prediction"),
        default="v_prediction",
        help="what the noise estimator predicts (default: v_prediction)",
    )
    model.add_argument(
        "--diffusion-loss",
        choices=("noise", "velocity"),
        default="noise",
        help="error that the diffusion loss squares (default: noise); velocity is not in the paper",
    )
    model.add_argument("--latent-dim", type=int, default=24, help="latent dimensions D (default: 24)")
    model.add_argument(
        "--contrastive-weight",
        type=float,
        default=0.1,
        help="weight lambda 2 of the contrastive loss; 0 leaves it out (default: 0.1)",
    )
    model.add_argument(
        "--num-samples", type=int, default=8, help="samples per frame in the final test (default: 8)"
    )


def build_model(arguments: argparse.Namespace, recipe: Recipe) -> DiffusionAVS:
    model = create_model(
        f"diffusion_avs.{recipe.variant}",
        condition=arguments.condition,
        window=arguments.window,
        fusion=arguments.fusion,
        latent_dim=arguments.latent_dim,
        scheduler=cosine_ddim(
            prediction_type=arguments.prediction_type, timestep_spacing=arguments.timestep_spacing
        ),
        decode_from=arguments.decode_from,
    )
    assert isinstance(model, DiffusionAVS)
    return model


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
        lambda: build_model(arguments, recipe),
        DiffusionAVSObjective(
            contrastive_weight=arguments.contrastive_weight, diffusion=arguments.diffusion_loss
        ),
        name=f"diffusion_avs-{arguments.preset}",
        num_samples=arguments.num_samples,
        rows={
            "latent: one sample": evaluate,
            "latent: noise": partial(evaluate, latent="noise"),
            "latent: true z0": partial(evaluate, latent="ground_truth"),
        },
        numbers=latent_statistics,
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
