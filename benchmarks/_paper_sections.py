"""The paper's claims and tables, as sections of the page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from statistics import median

from _paper_claims import CLAIMS, NAMES, TABLES_BEYOND, TABLES_OF_PAPER, WINDOWS, Claim, Table
from _paper_costs import still_learning
from _paper_results import MEASURES, MIOU, F, Measure, Study
from _paper_rows import TABLES
from _paper_statistics import FINDINGS, Comparison, compare
from _paper_writing import difference, for_each, named, printed, spread, table

TOO_EARLY, NOT_RUN = "too early", "not run"
"""Findings for a claim whose rows were still learning fast, and for a claim without runs."""

Judged = Mapping[str, Mapping[Claim, Mapping[Measure, Comparison | None]]]
"""By window, then by claim and measure. Windows without runs and claims without runs are left out."""


def judge(study: Study) -> Judged:
    """Compare the two rows of every claim, in every window."""
    run = {window: [claim for claim in CLAIMS if study.seeds(*claim.rows(window))] for window in WINDOWS}
    claims = [claim for claim in CLAIMS if any(claim in found for found in run.values())]
    return {
        window: {
            claim: {measure: compare(study, *claim.rows(window), measure) for measure in MEASURES}
            for claim in claims
        }
        for window, found in run.items()
        if found
    }


def claims_of(judged: Judged) -> list[Claim]:
    """Return the claims that were run in at least one window."""
    return list(next(iter(judged.values()), {}))


def finding(claim: Claim, window: str, compared: Comparison | None, early: Collection[str]) -> str:
    """Return the finding for a claim: one of ``FINDINGS``, ``TOO_EARLY`` or ``NOT_RUN``."""
    if compared is None:
        return NOT_RUN
    return TOO_EARLY if set(claim.rows(window)) & set(early) else compared.finding


def counted(study: Study, judged: Judged) -> str:
    """Count the findings, and write how small a difference the seeds can detect."""
    early = still_learning(study)
    texts = []
    for window, claims in judged.items():
        words = [finding(claim, window, found[MIOU], early) for claim, found in claims.items()]
        agree, disagree, undecided = (words.count(word) for word in FINDINGS[:3])
        run = len(words) - words.count(NOT_RUN)
        others_told = {TOO_EARLY: "too early", FINDINGS[3]: "with one seed"}
        others = [f"{words.count(word)} {text}" for word, text in others_told.items() if word in words]
        smaller = sum(_below_the_papers(study, claim, found) for claim, found in claims.items())
        counts = ", ".join([f"{agree} agree", f"{disagree} disagree", f"{undecided} undecided", *others])
        texts.append(
            f"- **{WINDOWS[window].capitalize()}**: {run} of {len(CLAIMS)} claims were run: {counts}. "
            f"In {smaller} of them a gain as large as the paper's is ruled out.{_resolution(claims)}"
        )
    return "\n".join(texts)


def _resolution(claims: Mapping[Claim, Mapping[Measure, Comparison | None]]) -> str:
    """Write how small a difference several seeds can detect; empty without them."""
    found = [c for pair in claims.values() if (c := pair[MIOU]) is not None and len(c.by_seed) > 1]
    if not found:
        return ""
    sizes = sorted(compared.resolution for compared in found)
    low, middle, high = (MIOU.write(size) for size in (sizes[0], median(sizes), sizes[-1]))
    return (
        f" The seeds can detect differences from {middle} points of mIoU (median; {low} to {high} by claim)."
    )


def claims_table(study: Study, judged: Judged) -> str:
    """Write the paper's difference for every claim next to ours; empty if no claim was run."""
    early = still_learning(study)
    lines = []
    for claim in claims_of(judged):
        line = [
            NAMES[claim.table],
            f"{claim.text}<br>`{claim.better}` over `{claim.worse}`",
            printed(claim.published(study.setting, MIOU.key), MIOU, signed=True),
        ]
        for window, claims in judged.items():
            found = claims[claim]
            line += [difference(MIOU, found[MIOU]), _found(study, claim, window, found, early)]
        lines.append(line)
    header = ["table", "claim", "paper"]
    for window in judged:
        header += [WINDOWS[window], "finding"]
    return table(header, lines) if judged else ""


def _found(
    study: Study,
    claim: Claim,
    window: str,
    found: Mapping[Measure, Comparison | None],
    early: Collection[str],
) -> str:
    """Write the finding for mIoU, that for F if it differs, and whether the gain is below the paper's."""
    words = {measure: finding(claim, window, compared, early) for measure, compared in found.items()}
    text = _emphasised(words[MIOU]) + ("" if words[F] == words[MIOU] else f"; F {_emphasised(words[F])}")
    return text + ("; below the paper's" if _below_the_papers(study, claim, found) else "")


def _emphasised(word: str) -> str:
    return f"**{word}**" if word in FINDINGS[:2] else word


def _below_the_papers(study: Study, claim: Claim, found: Mapping[Measure, Comparison | None]) -> bool:
    """Return whether the difference in mIoU is certainly smaller than the paper's."""
    paper, compared = claim.published(study.setting, MIOU.key), found[MIOU]
    return paper is not None and compared is not None and compared.side(paper / MIOU.scale) < 0


def tables_of_paper(studies: Sequence[Study]) -> str:
    """Write the scores of the paper's tables next to ours."""
    return _tables(studies, TABLES_OF_PAPER, compared=False)


def tables_beyond(studies: Sequence[Study]) -> str:
    """Write the tables that the paper does not have, with differences from a reference."""
    return _tables(studies, TABLES_BEYOND, compared=True)


def _tables(studies: Sequence[Study], asked: Mapping[str, Table], *, compared: bool) -> str:
    parts = []
    for key, one in asked.items():
        found = for_each(studies, partial(rows_table, key=key, asked=one, compared=compared), none="")
        parts += [f"### {one.title}", one.question, found] if found else []
    return "\n\n".join(parts)


def rows_table(study: Study, key: str, asked: Table, *, compared: bool) -> str:
    """Write one table of one study with the rows that were run; empty if fewer than two were."""
    windows = {
        window: rows
        for window in WINDOWS
        if len(rows := [row for row in TABLES[key] if row + window in study.runs]) > 1
    }
    numbers = {row: paper.scores.get(study.setting, {}) for row, paper in asked.published.items()}
    papers = any(numbers.values())
    header = ["row", *(f"paper: {measure.name}" for measure in MEASURES if papers)]
    for window in windows:
        header += [f"{WINDOWS[window]}: mIoU", "F", "seeds", *(["mIoU, difference"] if compared else [])]
    lines = []
    for row in TABLES[key]:
        if not any(row in rows for rows in windows.values()):
            continue
        label = f"{asked.published[row].label} (`{row}`)" if row in asked.published else named(study, row)
        line = [label, *(printed(numbers.get(row, {}).get(m.key), m) for m in MEASURES if papers)]
        for window in windows:
            line += [spread(study.means(row + window, measure), measure) for measure in MEASURES]
            line.append(str(len(study.seeds(row + window)) or ""))
            if compared:
                line.append(_to_reference(study, row + window, asked.reference + window))
        lines.append(line)
    return table(header, lines) if lines else ""


def _to_reference(study: Study, row: str, reference: str) -> str:
    if row == reference:
        return "reference"
    found = compare(study, row, reference, MIOU)
    return "" if found is None else f"{difference(MIOU, found)}<br>{_WORDS[found.finding]}"


_WORDS = {"agrees": "**better**", "disagrees": "**worse**", "undecided": "undecided", "one seed": "one seed"}
