"""The command that writes a model as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from avslib.cli._parser import Commands
from avslib.cli._sources import add_model_class, load_saved


def add_export(commands: Commands) -> None:
    """Add ``avslib export``."""
    parser = commands.add_parser(
        "export",
        help="export a model to ONNX, to run it without PyTorch",
        description="Export a model's inference to one ONNX file. Frames are uint8 RGB, noise is an input, "
        "and the number of clips is free. The file is written only if onnxruntime reproduces the model's "
        "logits.",
        allow_abbrev=False,
    )
    parser.add_argument("model", help="folder written by save_pretrained, or repository on the hub")
    parser.add_argument("target", type=Path, help="output file, .onnx")
    parser.add_argument("--seconds", type=int, default=5, metavar="T", help="length of a clip (default: 5)")
    parser.add_argument("--size", type=int, help="side of a frame in px (default: as in training)")
    add_model_class(parser)
    parser.set_defaults(run=_export)


def _export(parsed: argparse.Namespace) -> int:
    from avslib.models.export import export_onnx

    model = load_saved(parsed)
    size = model.frame_size if parsed.size is None else (parsed.size, parsed.size)
    difference = export_onnx(model, parsed.target, seconds=parsed.seconds, size=size)

    import onnxruntime

    session = onnxruntime.InferenceSession(parsed.target, providers=["CPUExecutionProvider"])
    for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for tensor in tensors:
            shape = ", ".join(map(str, tensor.shape))
            print(f"{kind:6}  {tensor.name:7}  {tensor.type}  ({shape})")
    print(f"onnxruntime's logits differ from PyTorch's by up to {difference:.1e}")
    print(f"{parsed.target}: {parsed.target.stat().st_size / 1e6:.1f} MB")
    return 0
