"""The takeaways of the page: hand-written sentences, each with a check that the numbers still support it."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from _paper_claims import WINDOWS
from _paper_controls import ceiling, window_gain
from _paper_costs import unfinished
from _paper_results import MIOU, NOISE, ONE, OTHER, TOLD, TRUE, Study
from _paper_rows import BY_SECOND, IN_SILENCE, ROWS
from _paper_statistics import Comparison, compare
from _paper_sweeps import BEST, ENERGY
from _paper_writing import difference, many

OF = ("cpu", "ms3")
"""The budget and setting that the sentences are about."""


def takeaways(study: Study) -> str:
    """Write the takeaways of a study; empty for a study without any.

    Raises:
        ValueError: if the numbers no longer support a sentence, which must then be rewritten.
    """
    if (study.budget, study.setting) != OF:
        return ""
    sentences = (_window, _fusion, _latent, _doubt, _samples, _contrast, _sound, _early)
    return "\n".join(f"{place}. {write(study)}" for place, write in enumerate(sentences, start=1))


def _window(study: Study) -> str:
    gains = {
        among: [_known(window_gain(study, row, among)) for row in ("e_d", "ldm")]
        for among in ("all", "changing", "steady")
    }
    _stand("window", all(gain.finding == "agrees" for gain in gains["all"] + gains["changing"]))
    everywhere, changing, steady = (_means(found) for found in gains.values())
    return (
        "**Where sounds start and stop, let every second hear only its own sound** (`window=1`, for every "
        "model with sound). In the paper every pixel attends to the sounds of all seconds of a clip, and its "
        f'failure analysis names the "timing discontinuity" that follows. E-D and the LDM gain '
        f"{everywhere} mIoU; in clips in which a sound starts or stops {changing}, in the others {steady}."
    )


def _fusion(study: Study) -> str:
    gains = [_own_second(study, f"{row}_film", row) for row in ("e_d", "ldm")]
    steps = _own_second(study, "full_twice", "full")
    _stand("fusion", all(gain.finding == "agrees" for gain in (*gains, steps)))
    seeds = min(len(gain.by_seed) for gain in gains)
    return (
        '**Let the sound scale and shift the channels** (`fusion="film"`; preset `encoder_decoder_film`). '
        f"FiLM instead of TPAVI, both with the own second, adds {_means(gains)} to the mIoU of E-D and of "
        f"the LDM after equally many steps ({many(seeds, 'seed')}). TPAVI gains as much by training twice as "
        f"long: {MIOU.write_signed(steps.mean)}."
    )


def _latent(study: Study) -> str:
    texts = []
    for window, name in WINDOWS.items():
        found = [_known(compare(study, "ldm" + window, row + window, MIOU)) for row in ("e_d", "regressor")]
        _stand("latent", all(compared.finding == "undecided" for compared in found))
        worth = _mean(study, "ldm" + window, ONE) - _mean(study, "ldm" + window, NOISE)
        texts.append(f"{name} {_means(found)}, and a sample over noise {MIOU.write_signed(worth)}")
    return (
        "**The latent brings no measurable gain**, neither over a decoder without one (the paper has +3.39) "
        f"nor over the same networks without diffusion. In that order: {'; '.join(texts)}."
    )


def _doubt(study: Study) -> str:
    rows = [row + IN_SILENCE for row in ("e_d", "ldm", "fused_from_truth")]
    seeds = sorted(set.intersection(*(set(study.sweeps[row]) for row in rows)))
    mask, chosen, chosen_more = (
        {key: fmean(study.sweeps[row][seed]["samples"][-1][key] for seed in seeds) for key in (BEST, ENERGY)}
        for row in rows
    )
    one, one_more = (_mean(study, row, ONE, seeds) for row in rows[1:])
    costs = _own_second(study, "from_truth", "full")
    energies = [found[ENERGY] for found in (chosen_more, chosen, mask)]
    _stand("doubt", energies == sorted(energies) and mask[BEST] < one < one_more and costs.high < -0.05)
    return (
        "**A latent helps where the mask is ambiguous.** Trained and tested without sound, E-D's single mask "
        f"is nearly empty (mIoU {MIOU.write(mask[BEST])}), while a sample of the LDM picks some objects: "
        f"{MIOU.write(one)}, and {MIOU.write(chosen[BEST])} for the best of 32; the energy distance to the "
        f"truth falls from {mask[ENERGY]:.2f} to {chosen[ENERGY]:.2f}. With a head that decodes only z0, and "
        f"the fused pyramid as condition, these numbers are {MIOU.write(one_more)}, "
        f"{MIOU.write(chosen_more[BEST])} and {chosen_more[ENERGY]:.2f} ({many(len(seeds), 'seed')}); but "
        f"where the mask is not ambiguous, decoding only z0 costs {MIOU.write(-costs.mean)} points "
        f"({many(len(costs.by_seed), 'seed')})."
    )


def _samples(study: Study) -> str:
    row = "ldm" + BY_SECOND
    more = _mean(study, row, TRUE) - _mean(study, row, ONE)
    sweeps = study.sweeps[row].values()
    ways = list(zip(*(report["samplers"] for report in sweeps), strict=True))
    scores = [fmean(one["miou"] for one in way) for way in ways]
    _stand("samples", abs(more) < 0.005 and max(scores) - min(scores) < 0.005)
    return (
        "**For a mask, one sample in one step is enough.** Own second: the mean of 8 samples scores "
        f"{MIOU.write_signed(more)} over a single one, which scores {MIOU.write(min(scores))} to "
        f"{MIOU.write(max(scores))} with any of three schedulers in 1 to 20 steps. Draw more samples to "
        "estimate the uncertainty."
    )


def _contrast(study: Study) -> str:
    texts = []
    for window, name in WINDOWS.items():
        rows = ["ldm" + window, "full" + window]
        told = [fmean(run["test"][TOLD] for run in study.runs[row].values()) for row in rows]
        found = _known(compare(study, rows[1], rows[0], MIOU))
        _stand("contrast", told[1] > told[0] + 0.05 and found.finding == "undecided")
        texts.append(f"{name} {told[0]:.0%} and {told[1]:.0%}, mIoU {difference(MIOU, found)}")
    cost = _own_second(study, "weight_1", "ldm")
    frozen_cost, frozen = (
        _own_second(study, row, "ldm_frozen") for row in ("weight_1_frozen", "full_frozen")
    )
    _stand("contrast", cost.high < -0.02 and min(frozen_cost.low, frozen.low) > -0.01)
    gains = [_own_second(study, f"{row}_frozen", row) for row in ("e_d", "ldm")]
    _stand("contrast", all(gain.mean > 0.005 and gain.finding == "undecided" for gain in gains))
    return (
        "**The contrastive loss makes the condition more informative, as the paper says, but the masks no "
        "better.** The share of z0's variance that samples explain without and with it, and the difference "
        f"in mIoU: {'; '.join(texts)}. What it costs, it costs through the audio encoder, which most rows "
        f"train with this loss too: at lambda 2 = 1, ten times the paper's, {difference(MIOU, cost)}. With a "
        f"frozen audio encoder, like the paper's, lambda 2 = 1 gives {difference(MIOU, frozen_cost)} "
        f"({many(len(frozen_cost.by_seed), 'seed')}), and 0.1 gives {difference(MIOU, frozen)}. Freezing it "
        f"adds {_means(gains)} to E-D and the LDM, which is undecided."
    )


def _sound(study: Study) -> str:
    rows = [row for row in study.runs if study.means(row, MIOU)]
    lost = [_mean(study, row, TRUE) - _mean(study, row, OTHER) for row in rows if _hears(row)]
    _stand("sound", min(lost) > 0.2)
    return (
        f"**Every row that has sound uses it**: with the sound of another clip they lose "
        f"{MIOU.write(min(lost))} to {MIOU.write(max(lost))} points of mIoU, and a predictor that does not "
        f"hear cannot expect more than {MIOU.write(ceiling(study))}."
    )


def _early(study: Study) -> str:
    gained = [_own_second(study, row, "full") for row in ("full_from_s4", "full_twice")]
    between = _own_second(study, "full_from_s4", "full_twice")
    _stand("early", all(gain.mean > 0.03 for gain in gained) and between.finding == "undecided")
    return (
        "**The trainings are short, and the seeds few.** The rows are ranked by how far they come in a few "
        f"epochs: {unfinished(study)} Starting from weights trained on S4 (table V) or on MS3 itself, which "
        f"both mean twice the steps, adds {_means(gained)} ({many(len(between.by_seed), 'seed')}, own "
        f"second); that S4 adds more than the steps do is not found: {difference(MIOU, between)}."
    )


def _hears(row: str) -> bool:
    known = ROWS[row]
    return known.hears and not known.silent and not known.shuffled


def _stand(name: str, condition: bool) -> None:
    if not condition:
        raise ValueError(f"takeaway {name}: expected numbers that it is true of; write it anew")


def _known(compared: Comparison | None) -> Comparison:
    if compared is None:
        raise ValueError("takeaways: expected the runs that they rest on, got no comparison")
    return compared


def _own_second(study: Study, better: str, worse: str) -> Comparison:
    return _known(compare(study, better + BY_SECOND, worse + BY_SECOND, MIOU))


def _means(found: Iterable[Comparison]) -> str:
    return " and ".join(MIOU.write_signed(compared.mean) for compared in found)


def _mean(study: Study, row: str, given: str, seeds: Iterable[int] | None = None) -> float:
    """Return the mIoU of a row, averaged over the given seeds, or over all of them."""
    runs = study.runs[row]
    tests = [runs[seed]["test"][given]["miou"] for seed in (runs if seeds is None else seeds)]
    return fmean(fmean(scores) if isinstance(scores, list) else scores for scores in tests)
