"""Why the latent adds what it adds, as sentences with the numbers that they rest on."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

import numpy as np
from _paper_results import DRAWN, MIOU, NOISE, ONE, STD, TOLD, TRUE, TRUTH, Study
from _paper_rows import BY_SECOND
from _paper_sweeps import ENERGY, ONSETS, TOLD_BY
from _paper_writing import many


def diagnosis(study: Study) -> str:
    """Follow the latent from the sampler to the head; a step whose runs are missing is left out."""
    steps = (step(study) for step in (_sampler, _worth, _condition, _conditions, _window, _samples))
    return "\n".join(f"{i}. {step}" for i, step in enumerate(filter(None, steps), start=1))


def _sampler(study: Study) -> str:
    rows = ("epsilon_trailing", "epsilon_leading", "ldm")
    seeds = _seeds(study, *rows)
    if not seeds:
        return ""
    width = {row: _mean(study, row, DRAWN, seeds) / _mean(study, row, STD, seeds) for row in rows}
    return (
        "**The sampler.** If the estimator puts out the noise itself, and sampling starts at the noisiest "
        f"level, samples are {width['epsilon_trailing']:.1f} times as wide as z0; from the level below, "
        f"{width['epsilon_leading']:.1f} times; if it puts out the velocity, {width['ldm']:.1f} times. The "
        f"score hardly shows it, since the head learns to read all three: mIoU {_scores(study, rows, seeds)} "
        f"({many(len(seeds), 'seed')})."
    )


def _worth(study: Study) -> str:
    seeds = _seeds(study, "ldm")
    if not seeds:
        return ""
    text = (
        "**What a latent can be worth.** With the true z0, the head of `ldm` scores "
        f"{_over(study, 'ldm', TRUTH, ONE, seeds)} over a sample: that much, a condition that knew all of z0 "
        f"would bring. A sample scores {_over(study, 'ldm', ONE, NOISE, seeds)} over noise "
        f"({many(len(seeds), 'seed')})."
    )
    row = "ldm" + BY_SECOND
    if seeds := _seeds(study, row):
        text += (
            f" Of `{row}` these are {_over(study, row, TRUTH, ONE, seeds)} and "
            f"{_over(study, row, ONE, NOISE, seeds)} ({many(len(seeds), 'seed')})."
        )
    return text


def _condition(study: Study) -> str:
    sweeps = study.sweeps.get("ldm", {})
    if not sweeps:
        return ""
    told = {
        source: f"{fmean(report[TOLD_BY][source] for report in sweeps.values()):.0%}"
        for source in ("condition", "fused pyramid", "own mask")
    }
    return (
        f"**What the condition knows.** A linear regression tells {told['condition']} of z0's variance from "
        f"the condition of `ldm`, {told['fused pyramid']} from the means of the fused pyramid, and "
        f"{told['own mask']} from the code of the mask that the model makes itself "
        f"({many(len(sweeps), 'seed')}). Where the mask tells more of z0 than the condition, a latent drawn "
        "from the condition has nothing to add to it."
    )


def _conditions(study: Study) -> str:
    parts = []
    for row, text in (("fused", "the fused pyramid"), ("clip", "the whole clip")):
        seeds = _seeds(study, "ldm", row)
        if seeds:
            told = [_mean(study, name, TOLD, seeds) for name in ("ldm", row)]
            worth = [_over(study, name, ONE, NOISE, seeds) for name in ("ldm", row)]
            parts.append(
                f"With a condition from {text} (`{row}`), samples tell {told[1]:.0%} of z0's variance, not "
                f"{told[0]:.0%}, and one scores {worth[1]} over noise, not {worth[0]}: mIoU "
                f"{_scores(study, ('ldm', row), seeds)} ({many(len(seeds), 'seed')})."
            )
    return f"**Conditions that know more.** {' '.join(parts)}" if parts else ""


def _window(study: Study) -> str:
    rows = ("e_d", "e_d" + BY_SECOND, "ldm", "ldm" + BY_SECOND)
    seeds = study.seeds(*rows)
    if not seeds:
        return ""
    text = (
        "**Where there is more to gain.** TPAVI hands every second the sounds of the whole clip. "
        "With a window of one second each has its own: "
        f"mIoU {_scores(study, rows, seeds)} ({many(len(seeds), 'seed')})."
    )
    heard = {
        row: fmean(values)
        for row, sweeps in study.sweeps.items()
        if (values := [r["samples"][-1][ONSETS] for r in sweeps.values() if ONSETS in r["samples"][-1]])
    }
    if heard:
        accuracies = ", ".join(f"{value:.2f} (`{row}`)" for row, value in heard.items())
        text += f" Onset accuracy, where 0.5 is a mask that is always there: {accuracies}."
    return text


def _samples(study: Study) -> str:
    diffusing, plain = (study.sweeps.get(row + BY_SECOND, {}) for row in ("ldm", "e_d"))
    seeds = sorted(set(diffusing) & set(plain))
    if not seeds:
        return ""
    samples = [diffusing[seed]["samples"] for seed in seeds]
    one, last = (fmean(found[place][ENERGY] for found in samples) for place in (0, -1))
    mask = fmean(plain[seed]["samples"][0][ENERGY] for seed in seeds)
    return (
        "**What samples are worth apart.** The energy distance to the truth, of which less is better, is "
        f"{mask:.3f} for the one mask of `e_d{BY_SECOND}`, {one:.3f} for one sample of `ldm{BY_SECOND}`, and "
        f"{last:.3f} for {samples[0][-1]['samples']} ({many(len(seeds), 'seed')}). For one it is twice the "
        "distance from the truth; what more samples take off is how far they are from each other."
    )


def _seeds(study: Study, *rows: str) -> list[int]:
    """Return the seeds of which all rows have the statistics of the sampler."""
    return [s for s in study.seeds(*rows) if all(DRAWN in study.runs[row][s]["test"] for row in rows)]


def _mean(study: Study, row: str, key: str, seeds: Iterable[int]) -> float:
    return fmean(study.runs[row][seed]["test"][key] for seed in seeds)


def _score(study: Study, row: str, given: str, seeds: Iterable[int]) -> float:
    return fmean(float(np.nanmean(study.runs[row][seed]["test"][given]["miou"])) for seed in seeds)


def _over(study: Study, row: str, given: str, other: str, seeds: list[int]) -> str:
    return MIOU.write_signed(_score(study, row, given, seeds) - _score(study, row, other, seeds))


def _scores(study: Study, rows: Iterable[str], seeds: list[int]) -> str:
    return ", ".join(f"{MIOU.write(_score(study, row, TRUE, seeds))} (`{row}`)" for row in rows)
