"""The tables of the page on performance: one function per subject, which returns Markdown in parts."""

from __future__ import annotations

from collections.abc import Callable

from _performance_results import (
    Device,
    Row,
    distinct,
    duration,
    implementations,
    is_ours,
    memory,
    number,
    pivot,
    span,
    table,
)


def tpavi(device: Device) -> list[str]:
    """Write the time and memory of every form, and how the time grows."""
    rows = device.rows("tpavi")
    form = {"mode": "mode", "attends to": "attends to"}
    parts = []
    for name in distinct(rows, "pass"):
        lines = [row for row in rows if row["pass"] == name]
        parts += [f"*{name.capitalize()}*", pivot(lines, {**form, "square": "H = W"}, _cell)]
    steps = [
        {**row, "step": f"{row['square'] // 2} to {row['square']}"}
        for row in rows
        if row["growth"] is not None and row["implementation"] in implementations(rows)[:2]
    ]
    if steps:
        variables = {**form, "pass": "pass", "implementation": "implementation"}
        parts += ["How many times longer it takes with twice H and W, four times the positions:"]
        parts += [pivot(steps, variables, lambda row: number(row["growth"]), across="step")]
    return parts


def sampler_latency(device: Device) -> list[str]:
    """Write the latency of sampling, including its tail."""
    variables = {"frames": "B·T", "samples": "samples a frame"}
    lines = pivot(device.rows("sampler_latency"), variables, _tail_cell)
    return [lines, *_not_compiled(device, "sampler_latency")]


def metrics(device: Device) -> list[str]:
    """Write the time and memory of scoring."""
    lines = pivot(device.rows("metrics"), {"score": "score", "clips": "clips"}, _cell)
    waits = device.reports["metrics"].get("no_update_waits")
    return [lines, *(["No update of a score waited for the GPU."] if waits else [])]


def inference(device: Device) -> list[str]:
    """Write the speed of whole models, and the time of their diffusion."""
    lines = pivot(device.rows("inference"), {"model": "model", "batch": "clips a call"}, _cell)
    parts = [lines, *_not_compiled(device, "inference")]
    cells = [
        [f"{row['model']}, {row['what']}", duration(row["ms"]), span(row["times one sample"])]
        for row in device.rows("inference", "diffusion")
    ]
    if cells:
        parts += ["Beside the time of one sample:", table(["", "time", "times one sample"], cells)]
    return parts


def training_step(device: Device) -> list[str]:
    """Write the time and memory of a training step, and the memory that was counted without computing."""
    variables = {"model": "model", "batch": "clips a step"}
    parts = [pivot(device.rows("training_step"), variables, _cell), *_not_compiled(device, "training_step")]
    counted = device.rows("training_step", "counted")
    if counted:
        parts += ["Memory, counted without computing, and its ratio to the first column:"]
        parts += [pivot(counted, variables, _counted)]
    return parts


def loading(device: Device) -> list[str]:
    """Write how many clips are read per second, and the size and time of a million clips."""
    rows, million = device.rows("loading"), device.rows("loading", "a million clips")
    workers = distinct(rows, "workers")
    lines: list[list[str]] = []
    for name in distinct(rows, "implementation"):
        mine = [row for row in rows if row["implementation"] == name]
        rates = {
            row["workers"]: "<br>".join(filter(None, (span(row["clips/s"]), _times(row) if lines else "")))
            for row in mine
        }
        lines.append([name, memory(mine[0]["bytes a clip"]), *(rates.get(count, "") for count in workers)])
    header = ["read from", "a clip", *(f"clips/s, workers: {count}" for count in workers)]
    header_of_million = ["read from", "size", "hours of one worker"]
    lines_of_million = [
        [row["implementation"], f"{number(row['TB'])} TB", number(row["hours an epoch takes one worker"])]
        for row in million
    ]
    return [table(header, lines), "A million clips:", table(header_of_million, lines_of_million)]


def import_time(device: Device) -> list[str]:
    """Write how long imports take, and which large packages they load."""
    header = ["statement", "time", "beyond the first", "large packages loaded"]
    lines = [
        [
            f"`{row['implementation']}`",
            duration(row["ms"]),
            f"{number(row['ms beyond the first'])} ms",
            ", ".join(row["loads"]),
        ]
        for row in device.rows("import_time")
    ]
    return [table(header, lines)]


TABLES: dict[str, Callable[[Device], list[str]]] = {
    function.__name__: function
    for function in (tpavi, sampler_latency, metrics, inference, training_step, loading, import_time)
}


def _cell(row: Row) -> str:
    """Write the time and, where known, the speedup, clips per second, memory and difference in the output."""
    rate = [f"{number(row['clips/s']['p50'])} clips/s"] if "clips/s" in row else []
    weight = [memory(row["bytes"])] if row.get("bytes") else []
    rounded = [f"{number(100 * row['difference'])} % off"] if row.get("difference") else []
    return "<br>".join([duration(row["ms"]), *_faster(row), *rate, *weight, *rounded])


def _tail_cell(row: Row) -> str:
    times = " / ".join(number(row["ms"][p]) for p in ("p50", "p90", "p99"))
    return "<br>".join([f"{times} ms", *_faster(row)])


def _counted(row: Row) -> str:
    return memory(row["bytes"]) + (f"<br>{number(row['times dense'])}" if is_ours(row) else "")


def _faster(row: Row) -> list[str]:
    return [_times(row)] if is_ours(row) and row["speedup"] else []


def _times(row: Row) -> str:
    return span(row["speedup"], "x")


def _not_compiled(device: Device, subject: str) -> list[str]:
    """Write why something was not compiled; empty if everything was."""
    why = device.reports[subject].get("not_compiled_because")
    reasons = {"": why} if isinstance(why, str) else why or {}
    return [f"Not compiled{name and f', {name}'}: `{reason}`." for name, reason in reasons.items()]
