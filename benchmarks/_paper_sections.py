"""The claims of the paper and its tables, as sections of the page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from _paper_claims import CLAIMS, CLAIMS_BY_SECOND, NAMES, TABLES_BEYOND, TABLES_OF_PAPER, Claim, Table
from _paper_costs import still_learning
from _paper_results import MEASURES, MIOU, F, Measure, Study
from _paper_rows import BY_SECOND, TABLES
from _paper_statistics import FEWEST_SEEDS, FINDINGS, Comparison, compare, reach
from _paper_writing import difference, for_each, named, printed, spread, table

SURE = 0.05

Judged = Mapping[Claim, Mapping[Measure, Comparison | None]]


def judge(study: Study, claims: Sequence[Claim] = CLAIMS) -> Judged:
    """Compare the two rows of every claim."""
    return {
        claim: {measure: compare(study, claim.better, claim.worse, measure) for measure in MEASURES}
        for claim in claims
    }


def judge_by_second(study: Study) -> Judged:
    """Compare the rows of every claim where every second has its own sound; nothing if none was run."""
    judged = judge(study, CLAIMS_BY_SECOND)
    return judged if any(any(found.values()) for found in judged.values()) else {}


def finding(compared: Comparison | None) -> str:
    """Return one of ``FINDINGS``."""
    return "not run" if compared is None else compared.finding


def in_short(study: Study, judged: Judged, by_second: Judged) -> str:
    """Say in a few sentences what was found of the claims, and what brings more than any of them."""
    text = f"Of {_counted(study, judged)}"
    gains = {row: compare(study, row + BY_SECOND, row, MIOU) for row in ("e_d", "ldm")}
    run = [compared for c in judged.values() if (compared := c[MIOU]) is not None]
    known = max((c.high for c in run if len(c.by_seed) >= FEWEST_SEEDS), default=0.0)
    if all(gain and gain.low > known for gain in gains.values()):
        words = "; ".join(f"{difference(MIOU, gain)} (`{row + BY_SECOND}`)" for row, gain in gains.items())
        text += (
            " What brings more than any of them is not in the paper: that a pixel attends to the sound of "
            f"its own second alone, not to the sounds of the whole clip: {words}."
        )
    if by_second:
        text += f"\n\nAsked again where every second has its own sound, of {_counted(study, by_second)}"
    return text


def _counted(study: Study, judged: Judged) -> str:
    found = {claim: c[MIOU] for claim, c in judged.items()}
    run = {claim: compared for claim, compared in found.items() if compared is not None}
    agree, disagree, undecided = ([c.finding for c in run.values()].count(word) for word in FINDINGS[:3])
    sure = sum(map(_sure, run.values()))
    early = still_learning(study)
    found_early = sum(c.finding != "undecided" and _rests_on(claim, early) != "" for claim, c in run.items())
    text = (
        f"{len(judged)} claims {len(run)} were run: {agree} agree with what is found here, {disagree} "
        f"disagree, {undecided} are undecided; the seeds alone confirm {sure} of these findings."
    )
    if found_early:
        text += f" In {found_early} of them a row was still learning fast when its training ended."
    papers = {claim: claim.published(study.setting, MIOU.key) for claim in run}
    targets = {claim: paper / MIOU.scale for claim, paper in papers.items() if paper is not None}
    smaller = [(run[claim], paper) for claim, paper in targets.items() if run[claim].side(paper) < 0]
    if smaller:
        sure = sum(_sure(compared, paper) for compared, paper in smaller)
        text += (
            f" For {len(smaller)} of the claims a gain as large as the paper's is excluded, for {sure} by "
            "the seeds alone as well."
        )
    return text


def claims_summary(judged: Judged) -> str:
    """List the claims by what mIoU says of them."""
    lines = []
    for word in FINDINGS:
        claims = {claim: c[MIOU] for claim, c in judged.items() if finding(c[MIOU]) == word}
        texts = "; ".join(_bold(f"{claim.text} ({NAMES[claim.table]})", c) for claim, c in claims.items())
        lines.append(f"- {word}, {len(claims)} of {len(judged)}" + (f": {texts}" if claims else ""))
    return "\n".join(lines)


def _bold(text: str, compared: Comparison | None) -> str:
    """Write a finding bold if it is one and the seeds alone are sure of it."""
    return f"**{text}**" if compared is not None and _sure(compared) else text


def _sure(compared: Comparison, of: float = 0) -> bool:
    """Say whether a difference is on one side of a number, and the seeds alone are sure of it."""
    return compared.side(of) != 0 and compared.p(of) < SURE


def claims_table(study: Study, judged: Judged) -> str:
    """Write the paper's difference of every claim beside ours; nothing if there is none."""
    early = still_learning(study)
    lines = []
    for claim, compared in judged.items():
        paper = [printed(claim.published(study.setting, m.key), m, signed=True) for m in MEASURES]
        seeds = len(study.seeds(claim.better, claim.worse))
        lines.append(
            [
                NAMES[claim.table],
                f"{claim.text}<br>`{claim.better}` over `{claim.worse}`",
                " / ".join(filter(None, paper)),
                *(difference(measure, compared[measure]) for measure in MEASURES),
                str(seeds or ""),
                _findings(compared) + _rests_on(claim, early),
                _beside_paper(claim, study.setting, compared),
            ]
        )
    header = ("table", "claim", "paper: mIoU / F", "here: mIoU", "here: F", "seeds", "finding")
    return table((*header, "beside the paper's difference"), lines) if lines else ""


def _findings(compared: Mapping[Measure, Comparison | None]) -> str:
    """Write what mIoU says and, if it is something else, what F says."""
    words = {measure: _bold(finding(found), found) for measure, found in compared.items()}
    return words[MIOU] + ("" if words[F] == words[MIOU] else f"; F: {words[F]}")


def _rests_on(claim: Claim, early: Collection[str]) -> str:
    """Say which rows of a claim were still learning fast when their training ended; nothing if none was."""
    rows = [row for row in (claim.better, claim.worse) if row in early]
    return f"; still learning: {', '.join(f'`{row}`' for row in rows)}" if rows else ""


def _beside_paper(claim: Claim, setting: str, compared: Mapping[Measure, Comparison | None]) -> str:
    """Say where the difference found here is certainly smaller or larger than the paper's."""
    parts = []
    for measure, found in compared.items():
        paper = claim.published(setting, measure.key)
        if found is not None and paper is not None and (side := found.side(paper / measure.scale)):
            word = f"{measure.name} {'larger' if side > 0 else 'smaller'}"
            parts.append(f"**{word}**" if _sure(found, paper / measure.scale) else word)
    return "; ".join(parts)


def how_sure(studies: Sequence[Study]) -> str:
    """Say how far the seeds that were run can carry."""
    counts = {len(study.seeds(claim.better, claim.worse)) for study in studies for claim in CLAIMS} - {0}
    return (
        ", ".join(f"{reach(count):.0%} of the time with {count}" for count in sorted(counts))
        or "no claim was run yet"
    )


def tables(studies: Sequence[Study], asked: Mapping[str, Table]) -> str:
    """Write tables, ours beside the paper's numbers."""
    return "\n\n".join(_one_table(studies, key, question) for key, question in asked.items())


def _one_table(studies: Sequence[Study], key: str, asked: Table) -> str:
    found = for_each(studies, lambda study: rows_table(study, key, asked))
    return "\n\n".join(filter(None, (f"### {asked.title}", asked.question, found)))


def beyond() -> dict[str, Table]:
    """Return the tables that can be run and are not the paper's; the controls are compared elsewhere."""
    return {
        key: TABLES_BEYOND.get(key, Table(key, "", rows[0]))
        for key, rows in TABLES.items()
        if key not in (*TABLES_OF_PAPER, "controls")
    }


def rows_table(study: Study, key: str, asked: Table) -> str:
    """Write one table of one study; nothing if none of its rows was run."""
    rows = TABLES.get(key, tuple(asked.published))
    if not any(row in study.runs for row in rows):
        return ""
    compared = {row: compare(study, row, asked.reference, MIOU) for row in rows if row != asked.reference}
    papers = any(study.setting in published.scores for published in asked.published.values())
    lines = []
    for row in rows:
        paper = asked.published.get(row)
        numbers = paper.scores.get(study.setting, {}) if paper else {}
        differences = ["reference", ""]
        if row != asked.reference:
            differences = [
                difference(MIOU, compared[row]),
                difference(F, compare(study, row, asked.reference, F)),
            ]
        lines.append(
            [
                f"{paper.label} (`{row}`)" if paper else named(study, row),
                *(printed(numbers.get(measure.key), measure) for measure in MEASURES if papers),
                *(spread(study.means(row, measure), measure) or "not run" for measure in MEASURES),
                str(len(study.seeds(row)) or ""),
                *differences,
            ]
        )
    header = ["row", *(f"paper: {measure.name}" for measure in MEASURES if papers)]
    header += ["mIoU", "F", "seeds", "mIoU, difference", "F, difference"]
    return table(header, lines) + _conclusion(compared)


def _conclusion(compared: Mapping[str, Comparison | None]) -> str:
    """Say which rows are better or worse than the reference, by mIoU."""
    known = {row: found.finding for row, found in compared.items() if found}
    words = {"agrees": "better than the reference", "disagrees": "worse", "undecided": "undecided"}
    parts = [
        f"{text}: {', '.join(f'`{row}`' for row, word in known.items() if word == this) or 'none'}"
        for this, text in words.items()
    ]
    return f"\n\nBy mIoU, {'; '.join(parts)}." if known else ""
