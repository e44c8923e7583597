r"""Train a model that does not listen on clips that lie on disk; evaluate it and draw what it does.

How far does vision alone get? Without that, no audio-visual number means much. The model is the AVSBench
baseline, or DiffusionAVS's decoder, without the sound: of one frame at a time or, with --temporal, with
attention over all frames of the clip. In the table the rows of the true sound, of silence and of another
clip's sound must come out identical, as nothing here reads the sound.

Without arguments, the demo: it makes a small synthetic data set in AVSBench's layout (multi-source: several
objects are seen, the sound alone decides which are ground truth) and trains a small backbone, which first
learns to name what is seen, on a CPU in minutes. The last row, the audio-blind ceiling, is computed from
how the clips are made: the expected mIoU of the best predictor that sees every object perfectly and hears
nothing. With --preset paper-pvt or paper-r50 it is trained on the real AVSBench as the audio-visual models
are:

  python examples/audio_blind.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors

A run folder, runs/audio_blind-PRESET-SETTING-seedN or what --out says, holds config.json, metrics.json,
curves.png, predictions.png, the checkpoint to resume from (--resume) and the model, which
avslib.AudioBlind.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse

from avslib.losses import CrossEntropyDice
from avslib.models import create_model
from avslib.training import (
    SMALL_PRETRAINED,
    Recipe,
    SegmentationObjective,
    add_arguments,
    format_result,
    parse_arguments,
    run,
)

RECIPES = {
    "demo": SMALL_PRETRAINED,
    "paper-pvt": Recipe("pvt_v2_b5", epochs={"s4": 15, "ms3": 30}),
    "paper-r50": Recipe("resnet50", epochs={"s4": 15, "ms3": 30}),
}


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
        # the papers' is the cross-entropy, which alone is content with "nothing" for very long
        SegmentationObjective(CrossEntropyDice() if recipe.from_scratch else None),
        name=f"audio_blind-{arguments.preset}",
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
