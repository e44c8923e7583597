r"""Train C3N on clips from disk, evaluate it and plot the results.

C3N (Shi et al., "Cross-modal Cognitive Consensus guided Audio-Visual Segmentation") has two classifiers, one
of what is seen and one of what is heard. The consensus is the pair of classes that are both likely and whose
names mean nearly the same. The gradient of its visual score tells which channels of the backbone support
it, and an attention weights them before the pyramid is fused with the sound and decoded top-down.

Without arguments, the demo: it first trains two small classifiers on synthetic clips in which one object
sounds, and prints how often they are right on held-out clips. Two class names are similar only if they are
equal. Then it makes a small data set in AVSBench's layout (multi-source: several objects are visible, and
the sound alone decides which are ground truth) and trains C3N on it, on a CPU in minutes. The audio
classifier is frozen by then. The visual one keeps changing with the backbone, and the last row of the table
says how often it is right in the end. With --preset paper-pvt, it runs the published recipe on the real
AVSBench, with the classes of ImageNet and AudioSet and any text encoder to compare their names:

  python examples/c3n.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors --visual-labels imagenet.txt \
      --vggish-weights vggish.pth --vggish-pca vggish_pca.pth \
      --audioset-weights audioset.pth --audio-labels audioset.txt \
      --similarity similarity.safetensors --text-encoder all-mpnet-base-v2

The run folder, runs/c3n-PRESET-SETTING-seedN or as set by --out, holds config.json, metrics.json, curves.png,
predictions.png, the checkpoint to resume from (--resume) and the model, which
avslib.C3N.from_pretrained(RUN/model) loads.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from avslib.encoders import read_state_dict
from avslib.fusion import label_similarity
from avslib.models import C3N, create_model
from avslib.models.weights import from_reference
from avslib.training import (
    CLASSES,
    SMALL_PRETRAINED,
    C3NObjective,
    LabelledSeconds,
    Recipe,
    Right,
    add_arguments,
    format_result,
    measure_classifiers,
    parse_arguments,
    pretrain_classifiers,
    pretrain_encoders,
    render_labelled,
    run,
)

RECIPES = {
    "demo": SMALL_PRETRAINED,
    "paper-pvt": Recipe("pvt_v2_b5", epochs={"s4": 20, "ms3": 60}),
}
PUBLISHED = ("visual_labels", "audio_labels", "similarity", "audioset_weights", "vggish_pca")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    published = parser.add_argument_group("classifiers of the published recipe")
    published.add_argument("--visual-labels", type=Path, help="names of the visual classes, one per line")
    published.add_argument("--audio-labels", type=Path, help="names of the audio classes, one per line")
    published.add_argument(
        "--similarity",
        type=Path,
        help="similarity of the names, .safetensors; computed if the file does not exist",
    )
    published.add_argument(
        "--audioset-weights", type=Path, help="weights of the audio classifier, in the published naming"
    )
    published.add_argument(
        "--vggish-pca", type=Path, help="constants of VGGish's post-processor, in torchvggish's naming"
    )
    published.add_argument("--text-encoder", help="sentence-transformers model that computes --similarity")


def new_model(
    recipe: Recipe, visual_classes: Sequence[str], audio_classes: Sequence[str], **arguments: Any
) -> C3N:
    model = create_model(
        f"c3n.{recipe.variant}",
        num_visual_classes=len(visual_classes),
        num_audio_classes=len(audio_classes),
        **arguments,
    )
    assert isinstance(model, C3N)
    return model


def measure(model: C3N, held_out: LabelledSeconds) -> Right:
    """Return how often the two classifiers are right."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    right = measure_classifiers(
        lambda frames: model.visual_encoder(frames).scores,
        lambda log_mel: model.score_sound(model.audio_encoder(log_mel)),
        LabelledSeconds(*(tensor.to(device) for tensor in held_out)),
    )
    model.train(was_training)
    return right


def build_demo(recipe: Recipe) -> C3N:
    """Build the demo's C3N: its audio side is frozen, and two classes are similar only if they are equal."""
    model = new_model(recipe, CLASSES, CLASSES, freeze_audio=True)
    model.consensus.set_similarity(torch.eye(len(CLASSES)))
    return model


def pretrain(held_out: LabelledSeconds, model: C3N, seconds: LabelledSeconds) -> None:
    """Train the classifiers, and print how often they are right."""
    pretrain_classifiers(model, seconds)
    right = measure(model, held_out)
    PartialState().print(f"classifiers right: {right.seen:.3f} seen, {right.heard:.3f} heard")


def build_published(arguments: argparse.Namespace, recipe: Recipe) -> C3N:
    """Build C3N with the published classifiers; the weights of the encoders are loaded as for any model."""
    visual, audio = (
        path.read_text(encoding="utf-8").splitlines()
        for path in (arguments.visual_labels, arguments.audio_labels)
    )
    model = new_model(recipe, visual, audio)
    model.consensus.set_similarity(
        label_similarity(
            visual,
            audio,
            lambda texts: load_text_encoder(arguments.text_encoder)(texts),
            cache=arguments.similarity,
        )
    )
    model.audio_classifier.load_state_dict(
        from_reference("audioset_head", read_state_dict(arguments.audioset_weights))
    )
    assert model.quantizer is not None  # it comes with VGGish
    model.quantizer.load_state_dict(from_reference("vggish_pca", read_state_dict(arguments.vggish_pca)))
    return model


@functools.cache
def load_text_encoder(name: str) -> Callable[[list[str]], Tensor]:
    try:
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise SystemExit("--text-encoder needs another package: pip install sentence-transformers") from error
    return functools.partial(SentenceTransformer(name).encode, convert_to_tensor=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser, RECIPES)
    add_model_arguments(parser)
    arguments, recipe = parse_arguments(parser, RECIPES)
    learn: Callable[[Any, LabelledSeconds], None] = pretrain_encoders
    numbers: Callable[[Any, Any], dict[str, float]] | None = None
    if recipe.from_scratch:
        held_out = render_labelled("test", 100, recipe.size)
        build_model = functools.partial(build_demo, recipe)
        learn = functools.partial(pretrain, held_out)

        def numbers(model: Any, _: Any) -> dict[str, float]:
            return {"seen class is in view": measure(model, held_out).seen}

    else:
        missing = [f"--{name.replace('_', '-')}" for name in PUBLISHED if getattr(arguments, name) is None]
        if missing:
            parser.error(f"--preset {arguments.preset} needs also {', '.join(missing)}")
        if arguments.text_encoder is None and not arguments.similarity.is_file():
            parser.error(f"--similarity: no {arguments.similarity}; make it with --text-encoder")
        build_model = functools.partial(build_published, arguments, recipe)
    result = run(
        arguments,
        recipe,
        build_model,
        C3NObjective(),
        name=f"c3n-{arguments.preset}",
        pretrain=learn,
        numbers=numbers,
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
