"""What the runs of a study were given, what they cost, and which runs are missing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from statistics import fmean, median

import numpy as np
from _paper_claims import WINDOWS
from _paper_results import MIOU, TRUE, Report, Study
from _paper_rows import ROWS, TABLES
from _paper_statistics import interval
from _paper_writing import hours, many, minutes, named, span, spread, table

STILL_LEARNING = 0.05
"""A row that gains more mIoU than this in its last epoch is not done training."""
SEEDS = 3
"""Number of seeds that every row should have at least."""


def origin(study: Study) -> str:
    """Describe the clips, the training and the backbone of a study's models."""
    budget = study.settings
    clips, epochs = budget["clips"][study.setting], budget["epochs"][study.setting]
    seeds = [len(found) for found in study.runs.values()]
    return (
        f"- **{study.title}**: {budget['size']} x {budget['size']} pixels; {clips['train']:,} clips for "
        f"training, {clips['val']:,} for choosing the epoch, {clips['test']:,} for testing; "
        f"{many(epochs, 'epoch')} in batches of {budget['batch_size']}, learning rate "
        f"{budget['learning_rate']:g}. The backbone is `{_backbone(budget['variant'], budget['backbone'])}`, "
        f"the sizes are those of the preset `{budget['variant']}`, the audio encoder is `mel_cnn`. Both "
        f"encoders start from random weights and first learn classes from "
        f"{many(budget['pretrain_clips'], 'synthetic clip')}; nothing comes from ImageNet or AudioSet. "
        f"{many(len(study.runs), 'row')}, with {span(seeds)} {'seed' if max(seeds) == 1 else 'seeds'} each, "
        f"on {_machines(study)}."
    )


def cost(study: Study) -> str:
    """Write the parameters, the gain of the last epoch and the CPU time of every row."""
    lines = []
    for row, seeds in study.runs.items():
        reports = [seeds[seed] for seed in sorted(seeds)]
        times = [report["seconds"]["of CPU"] for report in reports if "of CPU" in report["seconds"]]
        lines.append(
            [
                named(study, row),
                f"{reports[0]['parameters'] / 1e6:.2f} M",
                spread([late_gain(report) for report in reports], MIOU, signed=True),
                minutes(fmean(times)) if times else "",
            ]
        )
    header = ["row", "trainable parameters", "gained in the last epoch", "CPU time"]
    every = list(study.reports())
    processor = sum(report["seconds"].get("of CPU", 0) for report in every)
    return f"{table(header, lines)}\n\n{many(len(every), 'run')}: {hours(processor)} of CPU time."


def ended_at_its_best(report: Report) -> bool:
    """Return whether no epoch scored higher on the validation clips than the last."""
    scores = [record["validation"] for record in report["history"]]
    return bool(scores[-1] == max(scores))


def late_gain(report: Report) -> float:
    """Return how much mIoU the last epoch added on the validation clips."""
    before, last = [0.0, *(record["validation"] for record in report["history"])][-2:]
    return float(last - before)


def still_learning(study: Study) -> dict[str, float]:
    """Return the rows that were still learning fast when training ended, with the gains of the last epoch."""
    gains = {row: fmean(map(late_gain, seeds.values())) for row, seeds in study.runs.items()}
    return {row: gain for row, gain in gains.items() if gain > STILL_LEARNING}


def unfinished(study: Study) -> str:
    """Write how much the runs gained in their last epoch, and which rows were still learning fast."""
    reports = [report for seeds in study.runs.values() for report in seeds.values()]
    gains = sorted(map(late_gain, reports))
    low, middle, high = map(MIOU.write_signed, (gains[0], median(gains), gains[-1]))
    text = (
        f"{sum(map(ended_at_its_best, reports))} of {many(len(reports), 'run')} were best in their last "
        f"epoch, which added {middle} mIoU on the validation clips (median; {low} to {high})."
    )
    fast = still_learning(study)
    rows = ", ".join(f"`{row}` ({MIOU.write_signed(gain)})" for row, gain in fast.items())
    return text + (f" More than {MIOU.write(STILL_LEARNING)}: {rows}." if rows else "")


def repeated(study: Study) -> str:
    """Write a table of repeated runs next to the originals; empty if none was repeated."""
    lines = []
    for row, seeds in study.again.items():
        for seed in study.seeds(row):
            if seed in seeds:
                first, again = (
                    np.array(report["test"][TRUE][MIOU.key])
                    for report in (study.runs[row][seed], seeds[seed])
                )
                change = " to ".join(map(MIOU.write_signed, interval((again - first)[None])))
                lines.append(
                    [
                        named(study, row),
                        str(seed),
                        *(MIOU.write(scores.mean()) for scores in (first, again)),
                        "none, clip by clip" if (again == first).all() else change,
                        study.runs[row][seed]["machine"]["commit"],
                        seeds[seed]["machine"]["commit"],
                    ]
                )
    header = ("row", "seed", "mIoU", "again", "difference", "commit", "again")
    return table(header, lines) if lines else ""


def commands(study: Study) -> str:
    """Write the command that trains a table, and how many runs of each table are finished."""
    seeds = range(max(SEEDS, 1 + max(seed for found in study.runs.values() for seed in found)))
    lines, untouched = [], []
    for key, asked in TABLES.items():
        rows = [[row + window for row in asked if row + window in ROWS] for window in WINDOWS]
        there = [sum(seed in study.runs.get(row, {}) for row, seed in product(of, seeds)) for of in rows]
        if not any(there):
            untouched.append(f"`{key}`")
            continue
        counts = [f"{n} of {len(of) * len(seeds)}" if of else "" for n, of in zip(there, rows, strict=True)]
        lines.append([f"`{key}`", *counts])
    command = (
        f"python benchmarks/paper_tables.py TABLE --budget {study.budget} --settings {study.setting} "
        f"--seeds {len(seeds)}"
    )
    told = f"`{command}` trains the missing runs of a table; add `--by-second` for the own second."
    header = ("`TABLE`", *(f"finished runs, {name}" for name in WINDOWS.values()))
    missing = f"\n\nNot begun: {', '.join(untouched)}." if untouched else ""
    return f"{told}\n\n{table(header, lines)}{missing}"


def without(studies: Sequence[Study]) -> str:
    """List the settings in which fewer than two rows were run."""
    there = {(study.budget, study.setting) for study in studies}
    lines = [
        f"- {setting.upper()} with budget `{budget}`: not run yet. The commands take `--settings {setting}`."
        for budget in dict.fromkeys(study.budget for study in studies)
        for setting in ("s4", "ms3")
        if (budget, setting) not in there
    ]
    return "\n".join(lines)


def _machines(study: Study) -> str:
    machines = [report["machine"] for report in study.reports()]
    texts = [f"{machine['device']} (torch {machine['torch']})" for machine in machines]
    return "; ".join(dict.fromkeys(texts))


@cache
def _backbone(variant: str, backbone: str | None) -> str:
    """Return the backbone of a budget, or the preset's if the budget names none."""
    if backbone is not None:
        return backbone
    config = ROWS["full"].build(variant=variant, audio_encoder="mel_cnn")._hub_mixin_config
    assert isinstance(config, dict)
    return str(config["backbone"])
