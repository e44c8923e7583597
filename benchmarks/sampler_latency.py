"""How long the sampler takes: ten DDIM steps over B*T latents, on the CPU or on a CUDA device.

  python benchmarks/sampler_latency.py --device cuda --frames 1 5 20 80 --samples 1 16

Times the library's sampler beside a plain loop over diffusers' scheduler, in turn, after a warm-up and a
check that both give the same latents; prints the machine and quantiles, and writes them as JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import avslib
from avslib.latent import LatentCondDiffusion, NoiseEstimator, cosine_ddim


def plain_loop(denoiser: NoiseEstimator, condition: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Sample as diffusers' own documentation does."""
    scheduler = cosine_ddim()
    scheduler.set_timesteps(steps, device=noise.device)
    latent = noise
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            predicted = denoiser(latent, timestep.expand(latent.shape[:-1]), condition)
            latent = scheduler.step(predicted, timestep, latent).prev_sample
    return latent


def timed_ms(run: Callable[[], Tensor], device: torch.device) -> float:
    """Time one call, in ms: CUDA events on a GPU, the clock elsewhere."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end)
    begun = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 5, 20, 80], help="B*T")
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 16], help="samples a frame")
    parser.add_argument("--steps", type=int, default=10, help="sampling steps")
    parser.add_argument("--runs", type=int, default=50, help="timed calls of each")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()

    device = torch.device(arguments.device)
    torch.manual_seed(0)
    denoiser = NoiseEstimator().to(device).eval()
    diffusion = LatentCondDiffusion(denoiser, num_inference_steps=arguments.steps).to(device)
    on_gpu = device.type == "cuda"
    machine = {
        "device": torch.cuda.get_device_name(device)
        if on_gpu
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "avslib": avslib.__version__,
    }
    print(machine)
    print(f"{'frames':>7}{'samples':>8}{'sampler':>10}{'p50':>8}{'p90':>8}{'p99':>8}  ms")
    rows = []
    for frames in arguments.frames:
        for samples in arguments.samples:
            condition = torch.randn(samples, frames, 24, device=device)
            noise = torch.randn_like(condition)

            def library(condition: Tensor = condition, noise: Tensor = noise) -> Tensor:
                return diffusion.sample(condition, noise=noise)

            def plain(condition: Tensor = condition, noise: Tensor = noise) -> Tensor:
                return plain_loop(denoiser, condition, noise, arguments.steps)

            torch.testing.assert_close(library(), plain(), rtol=1e-5, atol=1e-5)
            runs = {"avslib": library, "plain loop": plain}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(arguments.runs):
                for name, run in runs.items():
                    times[name].append(timed_ms(run, device))
            for name, measured in times.items():
                p50, p90, p99 = torch.tensor(measured).quantile(torch.tensor([0.5, 0.9, 0.99])).tolist()
                print(f"{frames:7}{samples:8}{name:>10}{p50:8.2f}{p90:8.2f}{p99:8.2f}")
                rows.append(
                    {
                        "frames": frames,
                        "samples": samples,
                        "sampler": name,
                        "p50": p50,
                        "p90": p90,
                        "p99": p99,
                    }
                )
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(
            json.dumps({"machine": machine, "steps": arguments.steps, "rows": rows}, indent=2)
        )


if __name__ == "__main__":
    main()
