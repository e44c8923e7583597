r"""Build a model of your own, train it on clips from disk, evaluate it and plot the results.

The model is new and unpublished. Where the published systems have an attention, it has a gate: the sound of
a second weights the channels of its visual features. The gate is one block of ten lines. Encoders, neck,
head, training, evaluation, saving and loading come from the library, and this script is the whole
experiment. Replace the block with an idea of your own.

Without arguments, the demo: it makes a small synthetic data set in AVSBench's layout (multi-source: several
objects are visible, and the sound alone decides which are ground truth). It trains a small backbone and a
small audio encoder, which first learn to name what is seen and heard, on a CPU in minutes. With --preset
paper-pvt or paper-r50, the model is trained on the real AVSBench like DiffusionAVS in its paper:

  python examples/own_model.py --preset paper-pvt --setting ms3 --data-root AVSBench \
      --visual-weights pvt_v2_b5.safetensors --vggish-weights vggish.pth

The run folder, runs/own_model-PRESET-SETTING-seedN or as set by --out, holds config.json, metrics.json,
curves.png, predictions.png, the checkpoint to resume from (--resume) and the model, which
GatedSegmenter.from_pretrained(RUN/model) loads. From this script's folder, the commands find the class:

  avslib segment holiday.mp4 found --model RUN/model --model-class own_model:GatedSegmenter
"""

import argparse

from torch import Generator, Tensor, nn

from avslib.decoders import FPNHead
from avslib.encoders import AudioEncoder, Neck, VisualEncoder
from avslib.losses import CrossEntropyDice
from avslib.models import AVSModel, Segmentation
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
SMALL = {"backbone": "regnetx_002", "audio_encoder": "mel_cnn", "channels": 64}


class Gate(nn.Module):
    """Weight the channels of a second's visual features by its sound."""

    def __init__(self, channels: int, *, audio_channels: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(audio_channels, channels)

    def forward(self, x: Tensor, audio: Tensor) -> Tensor:
        """Return features ``(B, T, C, h, w)`` from x, of the same shape, and embeddings ``(B, T, A)``."""
        return x * self.weigh(audio).sigmoid()[..., None, None]


class GatedSegmenter(AVSModel):
    """Segment with a backbone, a neck, a gate at every level and the FPN head."""

    def __init__(
        self,
        backbone: str = "pvt_v2_b5",
        *,
        audio_encoder: str = "vggish",
        num_classes: int = 1,
        channels: int = 128,
        audio_channels: int = 128,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.visual_encoder = VisualEncoder(backbone)
        self.audio_encoder = AudioEncoder(audio_encoder, embedding_dim=audio_channels)
        self.neck = Neck(self.visual_encoder.channels, channels)
        self.fusion = nn.ModuleList(Gate(channels, audio_channels=audio_channels) for _ in self.neck)
        self.head = FPNHead(channels, channels=channels, num_classes=num_classes)

    def segment(
        self,
        frames: Tensor,
        audio: Tensor | None,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Segmentation:
        """Segment frames ``(B, T, 3, H, W)`` with the embedded sound ``(B, T, A)``."""
        levels = self.neck(self.visual_encoder(frames.flatten(0, 1)))
        pyramid = [
            gate(level.unflatten(0, frames.shape[:2]), audio)
            for gate, level in zip(self.fusion, levels, strict=True)
        ]
        return Segmentation(self.head(pyramid, size=(frames.shape[-2], frames.shape[-1])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser, RECIPES)
    arguments, recipe = parse_arguments(parser, RECIPES)
    sizes = SMALL if recipe.variant == "small" else {"backbone": recipe.variant}
    result = run(
        arguments,
        recipe,
        lambda: GatedSegmenter(**sizes),
        # from scratch, with the cross-entropy alone, the model predicts nothing for very long
        SegmentationObjective(CrossEntropyDice() if recipe.from_scratch else None),
        name=f"own_model-{arguments.preset}",
    )
    if result is not None:
        print("\n" + format_result(result))


if __name__ == "__main__":
    main()
