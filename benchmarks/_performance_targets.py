"""The targets for the library's speed and memory, and whether they are met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from _performance_numbers import (
    Measured,
    diffusion,
    f_score,
    import_time,
    inference,
    loading,
    sampler_speed,
    sampler_weights,
    step_memory,
    tpavi_beside_norm,
    tpavi_growth,
    tpavi_memory,
    tpavi_speed,
)
from _performance_results import Device, number, table


class Target(NamedTuple):
    """A target on CPUs or on GPUs: a number must be at least (≥) or at most (≤) a limit."""

    kind: str
    what: str
    bound: str
    limit: float
    measure: Callable[[Device], Measured | None]

    def judge(self, device: Device) -> tuple[str, str]:
        """Write the measurement, and whether and by how much the target is met; if missed, also why."""
        measured = self.measure(device)
        if measured is None:
            return "", "not measured: `make bench` does"
        ratio = measured.value / self.limit
        if ratio >= 1 if self.bound == "≥" else ratio <= 1:
            spare = f", with a factor of {number(max(ratio, 1 / ratio))} to spare" if ratio > 0 else ""
            return measured.text, f"met{spare}"
        why = device.reasons.get(self.what)
        return measured.text, f"**missed** by {number(100 * abs(ratio - 1))} %" + (f": {why}" if why else "")


_FORWARD, _BOTH = "forward", "forward and backward"
_ONE, _TWO = (f"TPAVI {passes}, C = 256, T = 5, 56 x 56: times" for passes in (_FORWARD, _BOTH))
_GROWTH = "TPAVI, four times the positions, at the largest: times longer, in the form that grows most"
_BASE, _PAPER = "avsbench.pvt_v2_b5", "diffusion_avs.pvt_v2_b5"
_DENSE = f"`{_BASE}`, inference in float32: times faster than with dense TPAVI"
_ALL = f"`{_BASE}`, inference in bfloat16, channels last, compiled: times faster than dense in float32"
_STEP = f"`{_BASE}`, a training step of 4 clips: memory over that with dense TPAVI"
_PART = f"`{_PAPER}`: time of the diffusion over that of inference"
_SAMPLES = f"`{_PAPER}`: time of 16 samples over that of one"
_part = partial(diffusion, _PAPER, "condition, sampler and injection")
_samples = partial(diffusion, _PAPER, "16 samples")

TARGETS = (
    Target("CPU", f"{_ONE} faster than dense", "≥", 100, partial(tpavi_speed, _FORWARD)),
    Target("CPU", f"{_TWO} faster than dense", "≥", 50, partial(tpavi_speed, _BOTH)),
    Target("CPU", f"{_ONE} less memory than dense", "≥", 50, partial(tpavi_memory, _FORWARD)),
    Target("CPU", f"{_TWO} less memory than dense", "≥", 50, partial(tpavi_memory, _BOTH)),
    Target("CPU", _GROWTH, "≤", 4.8, tpavi_growth),
    Target("CPU", "sampler, B·T = 5: times faster than the loop", "≥", 2, partial(sampler_speed, 5)),
    Target("CPU", "F-score: times faster than a loop, with the clips that suit it least", "≥", 10, f_score),
    Target("CPU", _DENSE, "≥", 1.15, partial(inference, _BASE, "avslib")),
    Target("CPU", _STEP, "≤", 0.5, partial(step_memory, _BASE)),
    Target("CPU", _PART, "≤", 0.05, _part),
    Target("CPU", _SAMPLES, "≤", 1.5, _samples),
    Target("CPU", "loading, one worker: times faster than picture after picture", "≥", 3, loading),
    Target("CPU", "`import avslib` beyond `import torch`, s", "≤", 0.3, import_time),
    Target("GPU", f"{_ONE} one LayerNorm", "≤", 3, partial(tpavi_beside_norm, _FORWARD)),
    Target("GPU", f"{_TWO} one LayerNorm", "≤", 3, partial(tpavi_beside_norm, _BOTH)),
    Target("GPU", _GROWTH, "≤", 4.8, tpavi_growth),
    Target("GPU", "sampler, B·T = 5: times faster than the loop", "≥", 20, partial(sampler_speed, 5)),
    Target("GPU", "sampler, B·T = 20: times faster than the loop", "≥", 20, partial(sampler_speed, 20)),
    Target("GPU", "sampler, B·T = 5: times reading the weights", "≤", 3, partial(sampler_weights, 5)),
    Target("GPU", "sampler, B·T = 20: times reading the weights", "≤", 3, partial(sampler_weights, 20)),
    Target("GPU", _DENSE, "≥", 1.4, partial(inference, _BASE, "avslib")),
    Target("GPU", _ALL, "≥", 4, partial(inference, _BASE, "avslib bf16 channels last compiled")),
    Target("GPU", _STEP, "≤", 0.5, partial(step_memory, _BASE)),
    Target("GPU", _PART, "≤", 0.05, _part),
    Target("GPU", _SAMPLES, "≤", 1.5, _samples),
)


def write_targets(devices: Sequence[Device]) -> str:
    """Write a table of all targets, for every device of their kind."""
    names = {target.what for target in TARGETS}
    for device in devices:
        if unknown := sorted({*device.reasons} - names):
            raise ValueError(f"{device.folder}/reasons.json: expected names of targets, got {unknown}")
    lines = []
    for target in TARGETS:
        asked = target.what, f"{target.bound}&nbsp;{target.limit:g}"
        here = [device for device in devices if device.is_gpu == (target.kind == "GPU")]
        lines += [[f"`{device.folder}`", *asked, *target.judge(device)] for device in here]
        if not here:
            lines.append([target.kind, *asked, "", f"not measured: no {target.kind} results here"])
    return table(["on", "target", "asked", "measured", ""], lines)
