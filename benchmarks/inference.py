"""Measure how many clips per second the models segment, and how much memory that takes.

  python benchmarks/inference.py --device cuda --batch 1 --out benchmarks/results/cuda/inference.json

The reference is the same model in float32 with the dense TPAVI of the published code. The library's model is
measured unchanged, with channels-last weights, compiled, under bfloat16 autocast, and with combinations of
these. The weights are random. For latent diffusion, two more things are measured: the share of the time that
the diffusion takes, and the cost of 16 samples compared with one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from _measure import Run, make_parser, peak_bytes, set_up, time_in_turn, write
from _models import DENSE, build, compiler_problem, find, make_clip, make_model, rates, show, ways_of
from _weigh import count_bytes
from torch import Tensor, nn

from avslib.clip import Clip
from avslib.models import AVSModel, DiffusionAVS

WAYS = {
    "cpu": (DENSE, "avslib", "avslib bf16 channels last"),
    "cuda": (
        DENSE,
        "avslib",
        "avslib channels last",
        "avslib compiled",
        "avslib bf16",
        "avslib bf16 channels last",
        "avslib bf16 channels last compiled",
    ),
}
MODELS = {
    "cpu": ("avsbench.pvt_v2_b5", "diffusion_avs.pvt_v2_b5", "avsbench.resnet50", "[cde]*.resnet50"),
    "cuda": ("*.pvt_v2_b5", "*.resnet50"),
}
ROUNDS = {"cpu": 2, "cuda": 20}
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}
"""Tolerance in float32, in units of the logits' standard deviation. Some cuDNN algorithms round more."""
TF32_TOLERANCE = 0.1
"""The same during timing on CUDA, where PyTorch's convolutions use TF32 by default, which keeps 10 bits."""
BF16_TOLERANCE = 0.1
"""Bound on :func:`difference`: bfloat16 keeps 8 bits, and rounds after each of 100 layers."""


def predict(model: nn.Module, clip: Clip, bf16: bool, num_samples: int = 1) -> Tensor:
    """Return the logits, with the same noise in every call."""
    torch.manual_seed(0)
    with torch.no_grad(), torch.autocast(clip.frames.device.type, torch.bfloat16, enabled=bf16):
        return model(clip.frames, clip.log_mel, num_samples=num_samples).logits


def difference(logits: Tensor, expected: Tensor) -> float:
    """Return the root mean square of the difference, divided by the standard deviation of ``expected``."""
    return float((logits.float() - expected).square().mean().sqrt() / expected.std())


def check_without_tf32(runs: Mapping[str, Callable[[], Tensor]], *, atol: float) -> None:
    """Raise ``AssertionError`` unless all runs give the result of the first in float32 without TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        outputs = {name: run() for name, run in runs.items()}
    expected = next(iter(outputs.values()))
    for name, logits in outputs.items():
        off = float((logits - expected).abs().max())
        assert off <= atol, f"{name}: off by {off:.1e}, more than {atol:.1e}"


def measure(
    model: AVSModel, clip: Clip, ways: Sequence[str], *, device: torch.device, **turns: Any
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a row for each way to segment clips, and the error if a way could not be compiled."""
    expected = predict(model, clip, False)
    torch.compiler.reset()
    problem = None
    runs: dict[str, Callable[[], Tensor]] = {}
    narrow: dict[str, Run] = {}
    weighed: dict[str, int | None] = {}
    differences: dict[str, float] = {}
    for way in ways_of(model, ways):
        built, bf16 = build(model, way), "bf16" in way
        run = partial(predict, built, clip, bf16)
        if "compiled" in way and (found := compiler_problem(run)):
            problem = found
            continue
        if bf16:
            differences[way] = difference(run(), expected)
            assert differences[way] < BF16_TOLERANCE, f"{way}: off by {differences[way]:.2f}"
        (narrow if bf16 else runs)[way] = run
        if device.type == "cuda":
            weighed[way] = peak_bytes(run, device)
        else:
            weighed[way] = None if "compiled" in way else count_bytes(predict, built, clip, bf16)
    spread = float(expected.std())
    atol = TOLERANCE[device.type] * spread
    if device.type == "cuda":
        check_without_tf32(runs, atol=atol)
        atol = TF32_TOLERANCE * spread
    timings = time_in_turn(runs, unchecked=narrow, device=device, atol=atol, rtol=0, **turns)
    rows: list[dict[str, Any]] = [
        {
            "implementation": way,
            "ms": timing.ms,
            "clips/s": rates(timing, len(clip.frames)),
            "speedup": timing.speedup,
            "bytes": weighed[way],
            "difference": differences.get(way),
        }
        for way, timing in timings.items()
    ]
    return rows, problem


def measure_diffusion(
    model: DiffusionAVS, clip: Clip, *, samples: int, device: torch.device, **turns: Any
) -> list[dict[str, Any]]:
    """Time one sample, the diffusion part of it, and several samples; return a row for each."""
    with torch.no_grad():
        audio = model.audio_encoder(clip.log_mel)
        coarsest = model.encode(clip.frames, audio).pyramid[-1]
    timings = time_in_turn(
        {"one sample": partial(predict, model, clip, False)},
        unchecked={
            "condition, sampler and injection": partial(diffusion_part, model, clip, audio, coarsest),
            f"{samples} samples": partial(predict, model, clip, False, samples),
        },
        device=device,
        **turns,
    )
    rows: list[dict[str, Any]] = []
    for name, (ms, speedup) in timings.items():
        times = {p: 1 / speedup[q] for p, q in (("p10", "p90"), ("p50", "p50"), ("p90", "p10"))}
        rows.append({"implementation": "avslib", "what": name, "ms": ms, "times one sample": times})
    return rows


def diffusion_part(model: DiffusionAVS, clip: Clip, audio: Tensor, coarsest: Tensor) -> Tensor:
    """Compute only what a model without diffusion would not."""
    with torch.no_grad():
        condition = model.condition_encoder(clip.frames, audio)
        return model.inject(coarsest, model.diffusion.sample(condition))


def main() -> None:
    parser = make_parser(__doc__, rounds=ROUNDS["cuda"])
    parser.set_defaults(rounds=None)
    parser.add_argument("--models", nargs="+", help=f"patterns of presets (default: {MODELS})")
    parser.add_argument("--ways", nargs="+", help=f"what is measured (default: {WAYS})")
    parser.add_argument("--batch", type=int, default=1, help="clips a call")
    parser.add_argument("--frames", type=int, default=5, help="T, frames a clip")
    parser.add_argument("--size", type=int, default=224, help="side of a frame, px")
    parser.add_argument("--samples", type=int, default=16, help="samples beside one, where there is noise")
    parser.add_argument("--seconds", type=float, default=10, help="of timing for each model, about")
    arguments = parser.parse_args()
    device = set_up(arguments)
    for name, defaults in (("models", MODELS), ("ways", WAYS), ("rounds", ROUNDS)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, defaults[device.type])
    turns = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    size = {"batch": arguments.batch, "frames": arguments.frames, "size": arguments.size}
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    not_compiled = {}
    for name in find(arguments.models):
        print(f"{name}: ms p50 (p10 to p90), times faster, clips/s, MB")
        model = make_model(name, device).eval()
        clip = make_clip(model, **size, device=device)
        measured, problem = measure(model, clip, arguments.ways, device=device, **turns)
        for row in measured:
            show(row)
            rows.append({"model": name, **size, **row})
        if problem is not None:
            not_compiled[name] = problem
            print(f"  not compiled: {problem}")
        if isinstance(model, DiffusionAVS):
            found = measure_diffusion(model, clip, samples=arguments.samples, device=device, **turns)
            for row in found:
                print(f"  {row['what']:<36}{row['ms']['p50']:9.1f}{row['times one sample']['p50']:9.3f}")
                parts.append({"model": name, **size, **row})
    write(arguments, "inference", rows, diffusion=parts, not_compiled_because=not_compiled)


if __name__ == "__main__":
    main()
