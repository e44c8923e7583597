"""Measure how long sampling takes: ten DDIM steps from noise to latents, for B*T frames and several samples.

  python benchmarks/sampler_latency.py --device cuda --out benchmarks/results/cuda/sampler_latency.json

The reference is the loop from the documentation of diffusers, around the same denoiser. The library's sampler
is timed eagerly, compiled, and on a GPU also replayed as a CUDA graph. As a bound that no sampler of small
batches beats by much, the script also times reading all weights of the denoiser from the cache once per step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from _measure import Run, make_parser, set_up, time_in_turn, write
from torch import Tensor

from avslib.latent import LatentCondDiffusion, NoiseEstimator, cosine_ddim

LOOP, WEIGHTS = "diffusers loop", "read the weights"
FRAMES = {"cpu": (1, 5, 20, 80), "cuda": (1, 5, 20, 80, 320, 1024, 4096)}
SAMPLES = {"cpu": (1, 16), "cuda": (1, 4, 16, 64)}
COMPILED = {"cpu": (5,), "cuda": (5, 80)}
"""B*T at which the compiled sampler is timed: compiling takes 10 s to a minute per shape."""


def diffusers_loop(diffusion: LatentCondDiffusion, condition: Tensor, noise: Tensor) -> Tensor:
    """Sample as in the documentation of diffusers."""
    scheduler = cosine_ddim()
    scheduler.set_timesteps(diffusion.num_inference_steps, device=noise.device)
    latent = noise
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            predicted = diffusion.denoiser(latent, timestep.expand(latent.shape[:-1]), condition)
            latent = scheduler.step(predicted, timestep, latent).prev_sample
    return latent


def compiled(diffusion: LatentCondDiffusion, condition: Tensor, noise: Tensor) -> Run:
    """Compile the sampler for one shape, with CUDA graphs on a GPU."""
    torch.compiler.reset()  # code compiled for other shapes is of no use and counts as recompilation
    mode = "reduce-overhead" if condition.is_cuda else None
    sample = torch.compile(diffusion.sample, dynamic=False, mode=mode)
    run = partial(sample, condition, noise=noise)
    for _ in range(3):  # compiles, then captures the graph, then replays it
        run()
    return run


def graphed(diffusion: LatentCondDiffusion, condition: Tensor, noise: Tensor) -> Run:
    """Capture the sampler in a CUDA graph; a call copies the inputs into it and replays it.

    The output is the graph's own memory, which :func:`_measure.time_in_turn` overwrites between calls.
    """
    inputs = condition.clone(), noise.clone()
    graph, output = capture(lambda: diffusion.sample(inputs[0], noise=inputs[1]))

    def run() -> Tensor:
        inputs[0].copy_(condition)
        inputs[1].copy_(noise)
        graph.replay()
        return output

    return run


def weight_reader(denoiser: NoiseEstimator, steps: int) -> Run:
    """Return a function that reads all parameters, as one flat buffer, once per step."""
    weights = torch.cat([parameter.detach().flatten() for parameter in denoiser.parameters()])

    def read() -> Tensor:
        return torch.stack([weights.sum() for _ in range(steps)])

    if not weights.is_cuda:
        return read
    graph, output = capture(read)

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def capture(run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Warm up a call on another stream; return its CUDA graph and the tensor that the graph writes to."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()
    return graph, output


def compiler_problem(device: torch.device) -> str | None:
    """Return the error if nothing can be compiled for a device, else None."""
    try:
        torch.compile(torch.nn.Softplus().to(device))(torch.ones(8, device=device))
    except Exception as error:  # no C++ compiler, no Triton, too new a Python: each raises another
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def main() -> None:
    parser = make_parser(__doc__, rounds=50)
    parser.add_argument("--frames", type=int, nargs="+", help=f"B*T (default: {FRAMES})")
    parser.add_argument("--samples", type=int, nargs="+", help=f"samples a frame (default: {SAMPLES})")
    parser.add_argument("--compile", type=int, nargs="*", help=f"B*T to compile for (default: {COMPILED})")
    parser.add_argument("--steps", type=int, default=10, help="sampling steps")
    parser.add_argument("--seconds", type=float, default=2, help="of timing for each shape, about")
    arguments = parser.parse_args()
    device = set_up(arguments)
    arguments.frames = arguments.frames or FRAMES[device.type]
    arguments.samples = arguments.samples or SAMPLES[device.type]
    if arguments.compile is None:
        arguments.compile = COMPILED[device.type]
    problem = compiler_problem(device) if arguments.compile else None
    if problem is not None:
        print(f"nothing is compiled: {problem}")

    denoiser = NoiseEstimator().to(device).eval()
    diffusion = LatentCondDiffusion(denoiser, num_inference_steps=arguments.steps).to(device).eval()
    floor = weight_reader(denoiser, arguments.steps)
    rows = []
    print(
        f"{'frames':>7}{'samples':>8}{'implementation':>20}{'p50':>9}{'p10':>9}{'p90':>9}{'p99':>9}  ms",
        end="",
    )
    print(f"{'x faster':>10}{'x weights':>10}")
    for frames in arguments.frames:
        for samples in arguments.samples:
            condition = torch.randn(samples, frames, denoiser.condition_dim, device=device)
            noise = torch.randn(samples, frames, denoiser.latent_dim, device=device)
            runs: dict[str, Run] = {
                LOOP: partial(diffusers_loop, diffusion, condition, noise),
                "avslib": partial(diffusion.sample, condition, noise=noise),
            }
            if frames in arguments.compile and problem is None:
                runs["avslib compiled"] = compiled(diffusion, condition, noise)
            if device.type == "cuda":
                runs["avslib CUDA graph"] = graphed(diffusion, condition, noise)
            # the first step divides by a signal of 0.0025, so an untrained denoiser gives large latents
            scale = diffusers_loop(diffusion, condition, noise).abs().max().item()
            timings = time_in_turn(
                runs,
                device=device,
                rounds=arguments.rounds,
                unchecked={WEIGHTS: floor},
                seconds=arguments.seconds,
                atol=1e-5 * scale,
            )
            for name, (ms, speedup) in timings.items():
                above = ms["p50"] / timings[WEIGHTS].ms["p50"]
                print(f"{frames:7}{samples:8}{name:>20}", end="")
                print("".join(f"{ms[p]:9.3f}" for p in ("p50", "p10", "p90", "p99")), end="    ")
                print(f"{speedup['p50']:10.2f}{above:10.1f}")
                rows.append(
                    {
                        "frames": frames,
                        "samples": samples,
                        "implementation": name,
                        "ms": ms,
                        "speedup": speedup,
                        "times the weights": above,
                    }
                )
    weights = {"parameters": sum(parameter.numel() for parameter in denoiser.parameters())}
    write(arguments, "sampler_latency", rows, **weights, not_compiled_because=problem)


if __name__ == "__main__":
    main()
