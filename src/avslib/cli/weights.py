"""The commands that convert weights and list models."""

from __future__ import annotations

import argparse
from pathlib import Path

from avslib.cli._parser import Commands

# Written out, so that a help text does not have to import every model of avslib.models.
_LAYOUTS = (
    "tpavi, vggish, vggish_pca, audioset_head, pvt_v2_b5, resnet50, avsbench-resnet50, avsbench-pvt_v2_b5, "
    "ecmvae-resnet50, ecmvae-pvt_v2_b5 or c3n-pvt_v2_b5"
)


def add_convert(commands: Commands) -> None:
    """Add ``avslib convert``."""
    parser = commands.add_parser(
        "convert",
        help="convert weights of a published implementation to avslib's layout",
        description="Convert published weights. A model becomes a folder that from_pretrained reads; a "
        "part becomes a .safetensors file that load_weights reads.",
        allow_abbrev=False,
    )
    parser.add_argument("layout", help=f"implementation the weights come from: {_LAYOUTS}")
    parser.add_argument("source", type=Path, help="weights file (.pth, .safetensors)")
    parser.add_argument("target", type=Path, help="output: folder of a model, or .safetensors file of a part")
    parser.add_argument("--vggish", type=Path, help="weights of VGGish to include in the model")
    parser.add_argument("--vggish-pca", type=Path, help="constants of VGGish's post-processor, for C3N")
    parser.set_defaults(run=_convert)


def _convert(parsed: argparse.Namespace) -> int:
    from safetensors.torch import save

    from avslib._checks import check_one_of
    from avslib._jobs import write_whole
    from avslib.encoders import read_state_dict
    from avslib.models import C3N
    from avslib.models.layouts import LAYOUTS
    from avslib.models.weights import MODEL_LAYOUTS, build_from_reference, from_reference, left_out

    check_one_of("layout", parsed.layout, LAYOUTS)
    stored = read_state_dict(parsed.source)
    if parsed.layout in MODEL_LAYOUTS:
        extra = {
            name: None if path is None else read_state_dict(path)
            for name, path in (("vggish", parsed.vggish), ("vggish_pca", parsed.vggish_pca))
        }
        model = build_from_reference(parsed.layout, stored, **extra)
        model.save_pretrained(parsed.target)
        written = len(model.state_dict())
        if parsed.vggish is None:
            print("the audio encoder's weights are random: give VGGish's with --vggish")
        if isinstance(model, C3N):
            if parsed.vggish_pca is None:
                print("the post-processor's constants are not set: give them with --vggish-pca")
            print(
                "the audio classifier's weights are random, and the similarity of the classes is not set: "
                "avslib.C3N says how to give both"
            )
    else:
        for option in ("vggish", "vggish_pca"):
            if getattr(parsed, option) is not None:
                raise ValueError(
                    f"--{option.replace('_', '-')}: only for a whole model, got {parsed.layout!r}"
                )
        if parsed.target.suffix != ".safetensors":
            raise ValueError(f"target: expected a .safetensors file for {parsed.layout}, got {parsed.target}")
        converted = from_reference(parsed.layout, stored)
        with write_whole(parsed.target) as path:
            path.write_bytes(save({key: value.contiguous() for key, value in converted.items()}))
        written = len(converted)
    for reason, keys in left_out(parsed.layout, stored).items():
        print(f"left out {len(keys)} weights, such as {keys[0]}: {reason}")
    print(f"{parsed.target}: {written} weights")
    return 0


def add_models(commands: Commands) -> None:
    """Add ``avslib models``."""
    parser = commands.add_parser(
        "models", help="list the models that create_model can build", allow_abbrev=False
    )
    parser.add_argument("pattern", nargs="?", default="*", help="a shell-style pattern (default: all)")
    parser.set_defaults(run=_models)


def _models(parsed: argparse.Namespace) -> int:
    from avslib.models import list_models

    print("\n".join(list_models(parsed.pattern)))
    return 0
