"""Export a model's inference as one fixed graph, for ``torch.export`` and for ONNX."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from avslib._checks import check_positive
from avslib.latent import LatentCondDiffusion
from avslib.latent.linear_steps import linear_steps
from avslib.models.base import AVSModel
from avslib.models.c3n import C3N

__all__ = ["export_onnx", "export_program"]

TOLERANCE = 1e-4
"""Tolerated difference between the logits of graph and model, relative to the largest logit (at least 1)."""


def export_program(
    model: AVSModel, *, seconds: int = 5, size: tuple[int, int] = (224, 224)
) -> ExportedProgram:
    """Trace a model's inference into one graph without Python, for any number of clips at a time.

    The graph is a snapshot in evaluation mode. The model stays unchanged, and later training does not affect
    the graph. The graph draws no noise: the noise of a stochastic model is an input, so that the graph is a
    function. It is run once before it is returned, to check that it gives the model's logits.

    All inputs of the graph are keywords:

    - ``frames``: ``(B, T, 3, H, W)``, uint8 RGB; they are normalised in the graph.
    - ``log_mel``: ``(B, T, 1, 96, 64)``, as computed by :class:`~avslib.media.LogMel`; not if the model is
      audio-blind.
    - ``noise``: ``(B, T, N)``, independent samples of a standard Gaussian; only if the model is stochastic. N
      is ``latent_dim``, or three times that for ECMVAE, which has three codes.

    It returns the logits ``(B, T, K, H, W)``.

    Args:
        model: any model except C3N, on the device on which the graph will run.
        seconds: T, number of frames of a clip.
        size: ``(H, W)`` of a frame, px.

    Raises:
        ValueError: if the model is C3N, or its scheduler is not DDIM without clipping.
        RuntimeError: if the graph's logits differ from the model's.

    Example:
        >>> from avslib.models import create_model
        >>> program = export_program(create_model("audio_blind.small"), seconds=1, size=(32, 32))
        >>> frames = torch.zeros(3, 1, 3, 32, 32, dtype=torch.uint8)
        >>> program.module()(frames=frames).shape
        torch.Size([3, 1, 1, 32, 32])
    """
    program, inputs, expected = _trace(_inference_copy(model), seconds, size)
    _check_logits(program.module()(**inputs), expected, "torch.export")
    return program


def export_onnx(
    model: AVSModel, path: str | Path, *, seconds: int = 5, size: tuple[int, int] = (224, 224)
) -> float:
    """Write a model's inference as a single ONNX file, which needs neither PyTorch nor avslib to run.

    The inputs have the names and shapes of :func:`export_program`; the output is ``logits``. The file is
    written only after onnxruntime has run it on the CPU and given the model's logits.

    Args:
        model: any model except C3N.
        path: the file to write, in an existing folder.
        seconds: T, number of frames of a clip.
        size: ``(H, W)`` of a frame, px.

    Returns:
        The largest difference between the logits of onnxruntime and of the model, on clips of noise.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is missing.
        FileNotFoundError: if the folder does not exist.
        ValueError: as for :func:`export_program`.
        RuntimeError: if onnxruntime's logits differ from the model's.
    """
    try:
        import onnxruntime
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError as error:
        raise ImportError(
            'exporting to ONNX needs onnx, onnxscript and onnxruntime: pip install "avslib[onnx]"'
        ) from error
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder to write {path.name} to")
    program, inputs, expected = _trace(_inference_copy(model).cpu(), seconds, size)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        output_names=["logits"],
        dynamic_shapes={key: {0: Dim.AUTO} for key in inputs} | {"frames": {0: "batch"}},  # name of the axis
        verbose=False,
    )
    assert exported is not None
    ClearMetadataAndDocStringPass()(exported.model)  # it holds each operation's place in the source
    file = exported.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
    difference = _check_logits(torch.from_numpy(logits), expected, "onnxruntime")
    path.write_bytes(file)
    return difference


class _NoiseDraws(TorchFunctionMode):
    """Record what :func:`torch.randn` draws, or make it return given numbers, one draw after another.

    Args:
        given: the numbers of all draws, ``(B, T, N)``; None to draw them.
    """

    def __init__(self, given: Tensor | None = None) -> None:
        super().__init__()
        self.given = given
        self.draws: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.randn:
            return func(*args, **kwargs)
        if self.given is None:
            draw = func(*args, **kwargs)
        else:
            size = args[0] if isinstance(args[0], Sequence) else args
            start = sum(drawn.shape[-1] for drawn in self.draws)
            draw = self.given[..., start : start + size[-1]].reshape(size)
        self.draws.append(draw)
        return draw


class _Inference(nn.Module):
    """A model that maps tensors to logits; its noise, ``(B, T, N)``, is one of the tensors."""

    def __init__(self, model: AVSModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, log_mel: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        with _NoiseDraws(noise):
            return self.model(frames, log_mel).logits


def _inference_copy(model: AVSModel) -> AVSModel:
    """Return a copy in evaluation mode, without gradients.

    Raises:
        ValueError: if the model cannot be exported as a fixed graph.
    """
    if isinstance(model, C3N):
        raise ValueError(
            "model: expected one whose inference takes no gradient, got C3N; what can be exported of it are "
            "its parts audio_encoder, neck, fusion and decoder, one by one, by torch.export.export"
        )
    for module in model.modules():
        if isinstance(module, LatentCondDiffusion) and not linear_steps(
            module.scheduler, module.num_inference_steps
        ):
            raise ValueError(
                "scheduler: expected DDIM without clipping, as cosine_ddim() makes it, "
                f"whose steps are numbers; got {type(module.scheduler).__name__}"
            )
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def _trace(
    model: AVSModel, seconds: int, size: tuple[int, int]
) -> tuple[ExportedProgram, dict[str, Tensor], Tensor]:
    """Return the graph, the inputs that it was traced with, and the model's logits for them."""
    check_positive("seconds", seconds)
    device = next(model.parameters()).device
    clips = 2  # with a single one the batch axis would be fixed at 1
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (clips, seconds, 3, *size), dtype=torch.uint8, generator=generator)
    inputs = {"frames": frames.to(device)}
    if model.audio_encoder is not None:
        inputs["log_mel"] = torch.randn(clips, seconds, 1, 96, 64, generator=generator).to(device)
    # This first pass also stores the sampler's steps as numbers, which cannot be computed while tracing.
    with _NoiseDraws() as noise:
        expected = model(**inputs, generator=torch.Generator().manual_seed(0)).logits
    if noise.draws:
        inputs["noise"] = torch.cat([x.reshape(clips, seconds, -1) for x in noise.draws], dim=-1).to(device)
    batch = Dim("batch")
    program = torch.export.export(
        _Inference(model).eval(),
        (),
        inputs,
        dynamic_shapes={name: {0: batch} for name in inputs},
        strict=False,
    )
    return program, inputs, expected


def _check_logits(actual: Tensor, expected: Tensor, where: str) -> float:
    """Return the largest difference between two tensors of logits.

    Raises:
        RuntimeError: if it is above the tolerance.
    """
    difference = (actual - expected).abs().max().item()
    if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise RuntimeError(
            f"{where}: expected the model's logits, the largest being {expected.abs().max():.3g}, got ones "
            f"that differ by up to {difference:.3g}"
        )
    return difference
