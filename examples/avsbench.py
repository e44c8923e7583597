r"""Train the AVSBench baseline on clips from disk, evaluate it and plot the results.

The baseline that came with the benchmark (Zhou et al., ECCV 2022) fuses a pyramid of frame features with
the sound at every level, by attention over all pixels and seconds of the clip, and decodes the pyramid
top-down. In the multi-source setting, a second loss makes the features of the segmented pixels resemble
those of the sound.

Without arguments, the demo: it makes a small synthetic data set in AVSBench's layout (multi-source: several
objects are visible, and the sound alone decides which are ground truth). It trains a small backbone and a
small audio encoder, which first learn to name what is seen and heard, on a CPU in minutes. With --preset
paper-pvt or paper-r50, it runs the published recipe on the real AVSBench:

  python examples/avsbench.py --preset paper-pvt --setting s4 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors --vggish-weights vggish.pth

The run folder, runs/avsbench-PRESET-SETTING-seedN or as set by --out, holds config.json, metrics.json,
curves.png, predictions.png, the checkpoint to resume from (--resume) and the model, which
avslib.AVSBenchBaseline.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse
import dataclasses

from avslib.losses import CrossEntropyDice
from avslib.models import create_model
from avslib.training import (
    PAPER_RECIPES,
    SMALL_PRETRAINED,
    AVSBenchObjective,
    add_arguments,
    format_result,
    parse_arguments,
    run,
)

RECIPES = {"demo": dataclasses.replace(SMALL_PRETRAINED, epochs={"s4": 1, "ms3": 2})} | PAPER_RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser, RECIPES)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--matching-weight",
        type=float,
        help="weight lambda of the matching loss; 0 leaves it out (default: as published, 0 for s4 and 0.5 "
        "for ms3; 0 in the demo)",
    )
    arguments, recipe = parse_arguments(parser, RECIPES)
    if arguments.matching_weight is None and recipe.from_scratch:
        arguments.matching_weight = 0.0
    result = run(
        arguments,
        recipe,
        lambda: create_model(f"avsbench.{recipe.variant}"),
        AVSBenchObjective.published(
            arguments.setting,
            matching_weight=arguments.matching_weight,
            # as published it is the cross-entropy alone, with which the model predicts nothing for very long
            segmentation=CrossEntropyDice() if recipe.from_scratch else None,
        ),
        name=f"avsbench-{arguments.preset}",
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
