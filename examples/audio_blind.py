r"""Train an audio-blind model on clips from disk, evaluate it and plot the results.

How far does vision alone get? Without the answer, no audio-visual number means much. The model is the
AVSBench baseline, or one with DiffusionAVS's decoder, without the sound. It sees one frame at a time or, with
--temporal, attends over all frames of the clip. In the table, the rows of the true sound, of silence and of
another clip's sound must be identical, because nothing here reads the sound.

Without arguments, the demo: it makes a small synthetic data set in AVSBench's layout (multi-source: several
objects are visible, and the sound alone decides which are ground truth). It trains a small backbone, which
first learns to name what is seen, on a CPU in minutes. The last row of the table, the audio-blind ceiling,
is computed from how the clips are made: it is the expected mIoU of the best predictor that sees every object
perfectly and hears nothing. With --preset paper-pvt or paper-r50, the model is trained on the real AVSBench
like the audio-visual models:

  python examples/audio_blind.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors

The run folder, runs/audio_blind-PRESET-SETTING-seedN or as set by --out, holds config.json, metrics.json,
curves.png, predictions.png, the checkpoint to resume from (--resume) and the model, which
avslib.AudioBlind.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse

from avslib.losses import CrossEntropyDice
from avslib.models import create_model
from avslib.training import (
    PAPER_RECIPES,
    SMALL_PRETRAINED,
    SegmentationObjective,
    add_arguments,
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
    model.add_argument("--temporal", action="store_true", help="attend over all frames of the clip")
    model.add_argument(
        "--decoder",
        choices=("top_down", "fpn"),
        default="top_down",
        help="top_down, of AVSBench and C3N, or fpn, of DiffusionAVS (default: top_down)",
    )
    arguments, recipe = parse_arguments(parser, RECIPES)
    result = run(
        arguments,
        recipe,
        lambda: create_model(
            f"audio_blind.{recipe.variant}", temporal=arguments.temporal, decoder=arguments.decoder
        ),
        # the papers use the cross-entropy alone, with which the model predicts nothing for very long
        SegmentationObjective(CrossEntropyDice() if recipe.from_scratch else None),
        name=f"audio_blind-{arguments.preset}",
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
