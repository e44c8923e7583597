"""Find the numbers that targets judge among the measurements; None for what was not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from _performance_results import Device, Row, is_ours, number, span


class Measured(NamedTuple):
    """A number, and how to write it."""

    value: float
    text: str


def tpavi_speed(name_of_pass: str, device: Device) -> Measured | None:
    """Return the speedup of TPAVI over the dense one."""
    rows = _tpavi(name_of_pass, device)
    return _fastest(rows.values()) if "dense" in rows else None


def tpavi_memory(name_of_pass: str, device: Device) -> Measured | None:
    """Return how many times less memory TPAVI needs than the dense one."""
    rows = _tpavi(name_of_pass, device)
    weighed = {name: row["bytes"] for name, row in rows.items() if row["bytes"]}
    if "dense" not in weighed:
        return None
    return _named({name: weighed["dense"] / size for name, size in _ours(weighed).items()}, max)


def tpavi_growth(device: Device) -> Measured | None:
    """Return how many times longer TPAVI takes with four times the positions, in the form that grows most."""
    rows = [row for row in device.rows("tpavi", implementation="avslib") if row["growth"] is not None]
    largest = max((row["square"] for row in rows), default=0)
    growth = {
        f"{row['mode']} to {row['attends to']}, {row['pass']}": row["growth"]
        for row in rows
        if row["square"] == largest
    }
    return _named(growth, max)


def tpavi_beside_norm(name_of_pass: str, device: Device) -> Measured | None:
    """Return the time of TPAVI divided by that of one LayerNorm."""
    times = {name: row["ms"]["p50"] for name, row in _tpavi(name_of_pass, device).items()}
    if "nn.LayerNorm" not in times:
        return None
    return _named({name: time / times["nn.LayerNorm"] for name, time in _ours(times).items()}, min)


def sampler_speed(frames: int, device: Device) -> Measured | None:
    """Return the speedup of the sampler over the loop of diffusers, for one sample."""
    return _fastest(device.rows("sampler_latency", frames=frames, samples=1))


def sampler_weights(frames: int, device: Device) -> Measured | None:
    """Return the time of the sampler divided by that of reading the weights, for one sample."""
    rows = device.rows("sampler_latency", frames=frames, samples=1)
    return _named({row["implementation"]: row["times the weights"] for row in rows if is_ours(row)}, min)


def f_score(device: Device) -> Measured | None:
    """Return the speedup of the F-score over a loop, at the number of clips where it is smallest."""
    rows = device.rows("metrics", score="F", implementation="avslib")
    if not rows:
        return None
    row = min(rows, key=_speedup)
    return Measured(_speedup(row), f"clips {row['clips']}: {span(row['speedup'])}")


def inference(model: str, way: str, device: Device) -> Measured | None:
    """Return the speedup of inference over dense TPAVI in float32."""
    return _fastest(device.rows("inference", model=model, size=224, implementation=way))


def diffusion(model: str, what: str, device: Device) -> Measured | None:
    """Return the time of a part of inference, or of several samples, divided by that of one sample."""
    for row in device.rows("inference", "diffusion", model=model, size=224, what=what):
        return Measured(row["times one sample"]["p50"], span(row["times one sample"]))
    return None


def step_memory(model: str, device: Device) -> Measured | None:
    """Return the memory of a step of 4 clips divided by that with dense TPAVI, measured or else counted.

    The text also gives the ratio of the audio-blind model, which no TPAVI could go below.
    """
    blind = f"audio_blind.{model.partition('.')[2]}"
    for part, how in (("rows", "measured"), ("counted", "counted")):
        rows = device.rows("training_step", part, size=224, batch=4)
        size = {(row["model"], row["implementation"]): row["bytes"] for row in rows if row["bytes"]}
        if (model, "dense") in size and (model, "avslib") in size:
            dense = size[model, "dense"]
            ratio = size[model, "avslib"] / dense
            without = (blind, "avslib") in size and f"; `{blind}`: {number(size[blind, 'avslib'] / dense)}"
            return Measured(ratio, f"{how}: {number(ratio)}{without or ''}")
    return None


def loading(device: Device) -> Measured | None:
    """Return the speedup of the fastest way to read clips over the first way, with one worker."""
    row = max(device.rows("loading", workers=1)[1:], key=_speedup, default=None)
    return (
        None if row is None else Measured(_speedup(row), f"{row['implementation']}: {span(row['speedup'])}")
    )


def import_time(device: Device) -> Measured | None:
    """Return how many seconds longer importing avslib takes than importing torch alone."""
    for row in device.rows("import_time", implementation="import torch, avslib"):
        return Measured(row["ms beyond the first"] / 1e3, number(row["ms beyond the first"] / 1e3))
    return None


def _tpavi(name_of_pass: str, device: Device) -> dict[str, Row]:
    """Return the rows of the paper's form at C = 256, T = 5, 56 x 56, by implementation."""
    form = {"mode": "dot", "attends to": "audio", "square": 56, "pass": name_of_pass}
    rows = device.rows("tpavi", "rows", **form)
    settings = device.reports["tpavi"]["settings"] if rows else {}
    if (settings.get("channels"), settings.get("frames")) != (256, 5):
        return {}
    return {row["implementation"]: row for row in rows}


def _ours(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith("avslib")}


def _fastest(rows: Iterable[Row]) -> Measured | None:
    """Return the speedup of our fastest implementation, with its name."""
    row = max((row for row in rows if is_ours(row)), key=_speedup, default=None)
    return (
        None if row is None else Measured(_speedup(row), f"{row['implementation']}: {span(row['speedup'])}")
    )


def _named(values: Mapping[str, float], pick: Callable[..., str]) -> Measured | None:
    """Return the largest or the smallest value, with its name."""
    if not values:
        return None
    name = pick(values, key=values.__getitem__)
    return Measured(values[name], f"{name}: {number(values[name])}")


def _speedup(row: Row) -> float:
    return row["speedup"]["p50"]
