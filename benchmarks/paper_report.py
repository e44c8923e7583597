"""Write the docs' page on the paper's tables, and its pictures, from what paper_tables.py left.

  python benchmarks/paper_report.py   # docs/paper_tables.md from benchmarks/results/paper

Every number of ours on the page comes from the JSON of a run, every one of the paper's from
``_paper_claims.py``. What was not run is said to be missing, with the command that runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from _paper_claims import TABLES_OF_PAPER
from _paper_controls import COLLAPSED, DIVERGED, information, latents, samplers, sounds, trained
from _paper_costs import commands, cost, origin, repeated, unfinished, without
from _paper_diagnosis import diagnosis
from _paper_figures import draw_claims, draw_information, draw_rows, draw_validation
from _paper_results import Study, read
from _paper_sections import (
    SURE,
    beyond,
    claims_summary,
    claims_table,
    how_sure,
    in_short,
    judge,
    judge_by_second,
    tables,
)
from _paper_statistics import LEVEL, REPLICATES
from _paper_sweeps import by_count, by_sampler, by_source
from _paper_writing import for_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
PICTURES = Path("_static", "paper")


def write(results: Path, docs: Path) -> None:
    """Write the page and its pictures into the folder of the docs.

    Raises:
        ValueError: if nothing was run, or if runs of one budget were not given the same.
    """
    studies = read(results)
    if not studies:
        raise ValueError(f"results: expected runs of paper_tables.py in {results}, found none")
    for old in (docs / PICTURES).glob("*.svg"):
        old.unlink()
    judged = {study.title: judge(study) for study in studies}
    by_second = {study.title: judge_by_second(study) for study in studies}
    every = [claims for each in (judged, by_second) for claims in each.values()]

    def pictures(name: str, alt: str, draw: Callable[[Study], Figure | None]) -> str:
        return for_each(studies, lambda study: picture(study, name, alt, draw, docs), none="")

    page = Template((HERE / "paper_tables.md.template").read_text(encoding="utf-8")).substitute(
        origins="\n".join(map(origin, studies)),
        in_short=for_each(
            studies, lambda study: in_short(study, judged[study.title], by_second[study.title])
        ),
        summary=for_each(studies, lambda study: claims_summary(judged[study.title])),
        claims_tables=for_each(studies, lambda study: claims_table(study, judged[study.title])),
        claims_pictures=pictures(
            "claims",
            "Differences between two rows, one line a claim, with intervals, beside those of the paper",
            lambda study: draw_claims(study, judged[study.title]),
        ),
        claims_by_second=for_each(studies, lambda study: claims_table(study, by_second[study.title])),
        claims_by_second_pictures=pictures(
            "claims-by-second",
            "The same picture of the rows in which every second has its own sound",
            lambda study: draw_claims(study, by_second[study.title]),
        ),
        unfinished=for_each(
            studies, unfinished, none="No row was still learning fast when the training ended."
        ),
        level=f"{LEVEL:.0%}",
        replicates=f"{REPLICATES:,}",
        sure=f"{SURE:g}",
        how_sure=how_sure(studies),
        intervals=sum(bool(c) for claims in every for pair in claims.values() for c in pair.values()),
        tables=tables(studies, TABLES_OF_PAPER),
        rows_pictures=pictures("rows", "mIoU of every seed of every row", draw_rows),
        beyond=tables(studies, beyond()),
        by_sampler=for_each(studies, by_sampler),
        diagnosis=for_each(studies, diagnosis),
        by_source=for_each(studies, by_source),
        by_count=for_each(studies, by_count),
        sounds=for_each(studies, sounds),
        trained=for_each(studies, trained),
        collapsed=f"{COLLAPSED:g}",
        diverged=f"{DIVERGED:g}",
        latents=for_each(studies, latents),
        samplers=for_each(studies, samplers),
        information=for_each(studies, information),
        information_pictures=pictures("information", "The bound over epochs, by row", draw_information),
        validation_pictures=pictures(
            "validation", "The validation score over epochs, by row", draw_validation
        ),
        cost=for_each(studies, cost),
        commands=for_each(studies, commands),
        repeated=for_each(studies, repeated),
        without=without(studies),
    )
    (docs / "paper_tables.md").write_text(page, encoding="utf-8")


def picture(study: Study, name: str, alt: str, draw: Callable[[Study], Figure | None], docs: Path) -> str:
    """Write a picture where the docs have theirs, and return what shows it; nothing if there is none."""
    from matplotlib import rc_context

    path = PICTURES / f"{study.budget}-{study.setting}-{name}.svg"
    with rc_context({"font.size": 9, "axes.titlesize": 9, "svg.fonttype": "none", "svg.hashsalt": "avslib"}):
        figure = draw(study)
        if figure is None:
            return ""
        (docs / path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(docs / path, metadata={"Date": None})
    return f"![{alt}]({path.as_posix()})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results" / "paper")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    arguments = parser.parse_args()
    write(arguments.results, arguments.docs)
    print(arguments.docs / "paper_tables.md")


if __name__ == "__main__":
    main()
