"""Measure the time and memory of TPAVI, forward and backward, against the matrix of all pairs.

  python benchmarks/tpavi.py --device cuda --out benchmarks/results/cuda/tpavi.json

The reference is the published dense form with the same parameters. The library's block is measured as it is,
with channels-last input, and compiled. Two yardsticks work on the same tensor: an ``nn.LayerNorm``, which is
a few passes over it, and a copy. A row's floor is the time of copying as much data as must be moved: the
forward pass reads x and writes z; the backward pass also reads the gradient of z and writes that of x.

On a CPU, freed memory stays with the process, as it does on a GPU. By default, glibc returns blocks larger
than 32 MB to the system, and getting new pages for such a tensor then takes longer than computing it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
from _measure import Run, Timing, make_parser, peak_bytes, set_up, time_in_turn, write
from _plain import densify, fill
from _weigh import count_bytes
from torch import Tensor, nn

from avslib.fusion import TPAVI

DENSE, NORM, COPY = "dense", "nn.LayerNorm", "copy"
FORMS = (("dot", "audio"), ("embedded", "audio"), ("gaussian", "audio"), ("dot", "visual"))
"""How positions are compared, and what they attend to: the sound, or the pixels of all frames."""
PASSES = ("forward", "forward and backward")


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


class Inputs(NamedTuple):
    """The inputs of a block, and the gradient of its output."""

    x: Tensor
    audio: Tensor | None
    cotangent: Tensor


def forward(block: nn.Module, inputs: Inputs) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return (block(inputs.x, inputs.audio)[0],)


def forward_and_backward(block: nn.Module, inputs: Inputs) -> tuple[Tensor, ...]:
    """Compute all gradients; return z and the gradient of x, whose values are of order 1."""
    z = block(inputs.x, inputs.audio)[0]
    wanted = [tensor for tensor in (inputs.x, inputs.audio, *block.parameters()) if tensor is not None]
    return z, torch.autograd.grad(z, wanted, inputs.cotangent)[0]


def normalize(norm: nn.LayerNorm, pixels: Tensor, cotangent: Tensor | None) -> tuple[Tensor, ...]:
    with torch.set_grad_enabled(cotangent is not None):
        z = norm(pixels)
    return (z,) if cotangent is None else torch.autograd.grad(z, (pixels, norm.weight, norm.bias), cotangent)


def channels_last(x: Tensor) -> Tensor:
    """Return the same tensor ``(B, T, C, H, W)``, stored as ``(B, T, H, W, C)``."""
    return x.detach().permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3).requires_grad_()


def make(
    mode: str, attends: str, square: int, *, batch: int, frames: int, channels: int, device: torch.device
) -> tuple[TPAVI, Inputs]:
    """Return a block and inputs for it."""
    x, cotangent = torch.randn(2, batch, frames, channels, square, square, device=device)
    # quiet: a softmax of unscaled products enlarges the rounding errors of large products
    audio = 0.3 * torch.randn(batch, frames, 128, device=device) if attends == "audio" else None
    block = TPAVI(channels, mode=mode, audio_channels=None if audio is None else 128)
    fill(block)
    return block.to(device), Inputs(
        x.requires_grad_(), None if audio is None else audio.requires_grad_(), cotangent
    )


def measure(
    block: TPAVI,
    inputs: Inputs,
    *,
    backward: bool,
    dense: bool,
    compiled: bool,
    rounds: int,
    seconds: float,
    device: torch.device,
) -> tuple[dict[str, Timing], dict[str, int]]:
    """Return the times of all ways to run a block, measured in turn, and the bytes that they need."""
    block.train(backward)
    run: Callable[[nn.Module, Inputs], object] = forward_and_backward if backward else forward
    ways: dict[str, tuple[nn.Module, Inputs]] = {DENSE: (densify(block), inputs)} if dense else {}
    ways |= {
        "avslib": (block, inputs),
        "avslib channels last": (block, inputs._replace(x=channels_last(inputs.x))),
    }
    if compiled:
        torch.compiler.reset()
        ways["avslib compiled"] = (cast("nn.Module", torch.compile(block, dynamic=False)), inputs)
    channels = inputs.x.shape[2]
    pixels = inputs.x.detach().movedim(2, -1).contiguous().requires_grad_()
    norm = nn.LayerNorm(channels, device=device)
    normalized = (norm, pixels, pixels.detach().clone() if backward else None)
    target = torch.empty_like(pixels, requires_grad=False)
    runs: dict[str, Run] = {name: partial(run, *way) for name, way in ways.items()}
    timings = time_in_turn(
        runs,
        device=device,
        rounds=rounds,
        unchecked={NORM: partial(normalize, *normalized), COPY: partial(target.copy_, pixels.detach())},
        seconds=seconds,
        atol=2e-3,  # float32, sums over positions in another order, a softmax of unscaled products
        rtol=2e-3,
    )
    if device.type == "cuda":
        weighed = {name: peak_bytes(run, device) for name, run in runs.items()}
        return timings, weighed | {NORM: peak_bytes(partial(normalize, *normalized), device)}
    weighed = {name: count_bytes(run, *way) for name, way in ways.items() if name != "avslib compiled"}
    return timings, weighed | {NORM: count_bytes(normalize, *normalized)}


def keep_freed_memory() -> None:
    """Tell glibc not to return freed memory to the system; do nothing with other C libraries."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def main() -> None:
    parser = make_parser(__doc__, rounds=20)
    parser.add_argument("--squares", type=int, nargs="+", default=[7, 14, 28, 56, 112], help="H = W")
    parser.add_argument("--largest-dense", type=int, default=56, help="largest square of the dense form")
    parser.add_argument(
        "--compile", type=int, nargs="*", default=[56], help="squares at which the paper's form is compiled"
    )
    parser.add_argument("--batch", type=int, default=1, help="clips")
    parser.add_argument("--frames", type=int, default=5, help="T, frames a clip")
    parser.add_argument("--channels", type=int, default=256, help="C")
    parser.add_argument("--seconds", type=float, default=1, help="of timing for each row, about")
    arguments = parser.parse_args()
    device = set_up(arguments)
    keep_freed_memory()
    rows = []
    before: dict[tuple[str, ...], tuple[int, float]] = {}
    print(f"{'mode':>10}{'attends to':>11}{'square':>7}  {'pass':<22}{'implementation':<22}", end="")
    print(f"{'p50':>10}{'p10':>10}{'p90':>10}  ms{'x faster':>10}{'growth':>8}{'MB':>10}{'x floor':>9}")
    for mode, attends in FORMS:
        for square in sorted(arguments.squares):
            size = {"batch": arguments.batch, "frames": arguments.frames, "channels": arguments.channels}
            block, inputs = make(mode, attends, square, **size, device=device)
            for backward, name_of_pass in enumerate(PASSES):
                timings, weighed = measure(
                    block,
                    inputs,
                    backward=bool(backward),
                    dense=square <= arguments.largest_dense,
                    compiled=square in arguments.compile and (mode, attends) == FORMS[0],
                    rounds=arguments.rounds,
                    seconds=arguments.seconds,
                    device=device,
                )
                floor = timings.pop(COPY).ms["p50"] * (1 + backward)
                for name, (ms, speedup) in timings.items():
                    key = (mode, attends, name_of_pass, name)
                    last_square, last_ms = before.get(key, (0, 0.0))
                    growth = ms["p50"] / last_ms if square == 2 * last_square else None
                    before[key] = (square, ms["p50"])
                    rows.append(
                        {
                            "mode": mode,
                            "attends to": attends,
                            "square": square,
                            "pass": name_of_pass,
                            "implementation": name,
                            "ms": ms,
                            "speedup": speedup,
                            "bytes": weighed.get(name),
                            "growth": growth,
                            "floor ms": floor,
                        }
                    )
                    print(f"{mode:>10}{attends:>11}{square:>7}  {name_of_pass:<22}{name:<22}", end="")
                    print("".join(f"{ms[p]:10.3f}" for p in ("p50", "p10", "p90")), end="    ")
                    print(
                        f"{speedup['p50']:10.2f}{'' if growth is None else format(growth, '.2f'):>8}", end=""
                    )
                    print(f"{weighed.get(name, 0) / 1e6:10.1f}{ms['p50'] / floor:9.1f}", flush=True)
    write(arguments, "tpavi", rows)


if __name__ == "__main__":
    main()
