"""Measure the time and memory of a training step: forward pass, objective, backward pass, optimiser.

  python benchmarks/training_step.py --device cuda --out benchmarks/results/cuda/training_step.json

The reference is the same model in float32 with the dense TPAVI of the published code. The weights are random,
every frame is labelled, and the learning rate is 0, so that each step does the same work and has the same
loss. The memory is the peak of all that is alive: weights, optimiser state, gradients and activations.

For the presets in ``--count``, memory is also counted without computing, for a batch too large for a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from _measure import LiveBytes, Run, make_parser, peak_bytes, set_up, time_in_turn, write
from _models import (
    DENSE,
    build,
    compiler_problem,
    find,
    make_clip,
    make_model,
    rates,
    show,
    ways_of,
)
from _weigh import faked, size_of
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from avslib.clip import Clip
from avslib.latent.ground_truth import LatentNorm
from avslib.models import AVSModel
from avslib.training import published_objective

WAYS = {
    "cpu": (DENSE, "avslib"),
    "cuda": (
        DENSE,
        "avslib",
        "avslib bf16",
        "avslib bf16 channels last",
        "avslib bf16 channels last compiled",
    ),
}
MODELS = {
    "cpu": ("avsbench.small", "[cde]*.small", "diffusion_avs.resnet50"),
    "cuda": ("*.pvt_v2_b5", "*.resnet50"),
}
COUNTED = ("audio_blind.pvt_v2_b5", "avsbench.pvt_v2_b5", "diffusion_avs.pvt_v2_b5")
COUNTED_WAYS = (DENSE, "avslib", "avslib checkpointed")
BATCH = {"cpu": 1, "cuda": 4}
ROUNDS = {"cpu": 2, "cuda": 20}
TOLERANCE = {"cpu": 5e-3, "cuda": 3e-2}
"""Tolerance of the gradient in float32. TPAVI's batch norm divides by a small deviation, 1/80 of the mean in
untrained weights, which enlarges rounding errors. On CUDA, PyTorch's convolutions use TF32 by default, which
keeps 10 bits."""
BF16_TOLERANCE = 0.05
"""Relative tolerance of the loss: bfloat16 keeps 8 bits, and rounds after each of 100 layers."""


class Trained(NamedTuple):
    """A model with everything that a training step needs."""

    model: nn.Module
    objective: nn.Module
    optimizer: Optimizer
    clip: Clip
    bf16: bool
    norms: Sequence[LatentNorm]
    """What depends on the batches before, which differ in number: reset before each step."""

    def step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Take a step; return the loss, and the length and direction of the first weight's gradient.

        The first weight is the last one that the backward pass reaches.
        """
        torch.manual_seed(0)
        for norm in self.norms:
            norm.reset_running_stats()
        frames, log_mel, masks, labelled, valid, _ = self.clip
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.model(frames, log_mel, masks, labelled, valid)
        loss = self.objective(output, self.clip)["loss"]
        loss.backward()
        self.optimizer.step()
        gradient = next(p for p in self.model.parameters() if p.grad is not None).grad
        assert gradient is not None
        self.optimizer.zero_grad()
        length = gradient.norm()
        return loss.detach(), length, gradient / length

    def held(self) -> int:
        """Return the bytes of the weights and the optimiser state."""
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        return size_of([*self.model.parameters(), *self.model.buffers()]) + size_of(
            value for value in state if isinstance(value, Tensor)
        )


def make_trained(model: nn.Module, objective: nn.Module, clip: Clip, *, bf16: bool = False) -> Trained:
    """Return a training whose optimiser has already taken a first step, with gradients of 0."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = Adam(weights, lr=0.0)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    norms = [module for module in model.modules() if isinstance(module, LatentNorm)]
    return Trained(model, objective, optimizer, clip, bf16, norms)


def count(model: nn.Module, objective: nn.Module, clip: Clip, *, bf16: bool = False) -> int:
    """Return the bytes that a training step needs, without computing it."""
    with faked((model, objective, clip)) as copies:
        trained = make_trained(*copies, bf16=bf16)
        with LiveBytes() as memory:
            trained.step()
        return trained.held() + memory.peak


def measure(
    model: AVSModel,
    objective: nn.Module,
    clip: Clip,
    ways: Sequence[str],
    *,
    device: torch.device,
    **turns: Any,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a row for each way to take a step, and the error if a way could not be compiled."""
    torch.compiler.reset()
    plain = make_trained(build(model, "avslib"), objective, clip)
    problem = None
    runs: dict[str, Run] = {}
    narrow: dict[str, Run] = {}
    weighed: dict[str, int | None] = {}
    for way in ways_of(model, ways):
        bf16 = "bf16" in way
        trained = plain if way == "avslib" else make_trained(build(model, way), objective, clip, bf16=bf16)
        if "compiled" in way and (found := compiler_problem(trained.step)):
            problem = found
            continue
        if bf16:
            loss, expected = float(trained.step()[0]), float(plain.step()[0])
            assert abs(loss / expected - 1) < BF16_TOLERANCE, f"{way}: a loss of {loss}, not {expected}"
        (narrow if bf16 else runs)[way] = trained.step
        if device.type == "cuda":
            weighed[way] = trained.held() + peak_bytes(trained.step, device)
        else:
            weighed[way] = None if "compiled" in way else count(trained.model, objective, clip, bf16=bf16)
    tolerance = TOLERANCE[device.type]
    timings = time_in_turn(runs, unchecked=narrow, device=device, atol=tolerance, rtol=tolerance, **turns)
    rows: list[dict[str, Any]] = [
        {
            "implementation": way,
            "ms": timing.ms,
            "clips/s": rates(timing, len(clip.frames)),
            "speedup": timing.speedup,
            "bytes": weighed[way],
        }
        for way, timing in timings.items()
    ]
    return rows, problem


def main() -> None:
    parser = make_parser(__doc__, rounds=ROUNDS["cuda"])
    parser.set_defaults(rounds=None)
    parser.add_argument("--models", nargs="*", help=f"patterns of presets to time (default: {MODELS})")
    parser.add_argument("--ways", nargs="+", help=f"what is measured (default: {WAYS})")
    parser.add_argument("--batch", type=int, help=f"clips a step (default: {BATCH})")
    parser.add_argument("--frames", type=int, default=5, help="T, frames a clip")
    parser.add_argument("--size", type=int, default=224, help="side of a frame, px")
    parser.add_argument("--seconds", type=float, default=10, help="of timing for each model, about")
    parser.add_argument(
        "--count", nargs="*", default=COUNTED, help=f"patterns of presets to count (default: {COUNTED})"
    )
    parser.add_argument("--count-batch", type=int, default=4, help="clips a step that is only counted")
    arguments = parser.parse_args()
    device = set_up(arguments)
    for name, defaults in (("models", MODELS), ("ways", WAYS), ("batch", BATCH), ("rounds", ROUNDS)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, defaults[device.type])
    turns = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    size = {"frames": arguments.frames, "size": arguments.size}
    rows: list[dict[str, Any]] = []
    counted: list[dict[str, Any]] = []
    not_compiled = {}
    for name in find(arguments.models):
        print(f"{name}: ms p50 (p10 to p90), times faster, clips/s, MB")
        model = make_model(name, device)
        clip = make_clip(model, batch=arguments.batch, **size, device=device)
        objective = published_objective(model)
        measured, problem = measure(model, objective, clip, arguments.ways, device=device, **turns)
        for row in measured:
            show(row)
            rows.append({"model": name, "batch": arguments.batch, **size, **row})
        if problem is not None:
            not_compiled[name] = problem
            print(f"  not compiled: {problem}")
    if arguments.count:
        print(f"bytes of a step, counted, batch {arguments.count_batch}; times dense")
    for name in find(arguments.count):
        model = make_model(name, torch.device("cpu"))
        clip = make_clip(model, batch=arguments.count_batch, **size, device=torch.device("cpu"))
        objective = published_objective(model)
        weighed = {way: count(build(model, way), objective, clip) for way in COUNTED_WAYS}
        for way, size_of_step in weighed.items():
            row = {"implementation": way, "bytes": size_of_step, "times dense": size_of_step / weighed[DENSE]}
            counted.append({"model": name, "batch": arguments.count_batch, **size, **row})
            print(f"{name:<24}{way:<24}{size_of_step / 1e9:7.2f} GB{row['times dense']:7.2f}", flush=True)
    write(arguments, "training_step", rows, counted=counted, not_compiled_because=not_compiled)


if __name__ == "__main__":
    main()
