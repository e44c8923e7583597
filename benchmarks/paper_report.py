"""Write the docs' page on the paper's tables, and its pictures, from the results of paper_tables.py.

  python benchmarks/paper_report.py   # docs/paper_tables.md from benchmarks/results/paper

All our numbers on the page come from the JSON files of the runs, and all the paper's numbers come from
``_paper_claims.py``. The page lists what was not run, with the command that runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from _paper_controls import COLLAPSED, DIVERGED, information, latents, sounds, windows
from _paper_costs import commands, cost, origin, repeated, without
from _paper_figures import draw_claims, draw_information, draw_rows, draw_validation
from _paper_results import Study, read
from _paper_sections import claims_table, counted, judge, tables_beyond, tables_of_paper
from _paper_statistics import LEVEL, REPLICATES, SURE
from _paper_sweeps import by_count, by_sampler, by_source
from _paper_takeaways import takeaways
from _paper_writing import for_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
PICTURES = Path("_static", "paper")


def write(results: Path, docs: Path) -> None:
    """Write the page and its pictures into the folder of the docs.

    Raises:
        ValueError: if fewer than two rows were run, if runs of one study differ in their budget or in their
            number of test clips, or if the numbers no longer support a takeaway.
    """
    studies = [study for study in read(results) if len(study.runs) > 1]  # a lone row only starts others
    if not studies:
        raise ValueError(f"results: expected runs of two rows of paper_tables.py in {results}, found none")
    told = for_each(studies, takeaways, none="Nobody has read these runs yet.")  # first, as it may raise
    for old in (docs / PICTURES).glob("*.svg"):
        old.unlink()
    judged = {study.title: judge(study) for study in studies}

    def pictures(name: str, alt: str, draw: Callable[[Study], Figure | None]) -> str:
        return for_each(studies, lambda study: picture(study, name, alt, draw, docs), none="")

    page = Template((HERE / "paper_tables.md.template").read_text(encoding="utf-8")).substitute(
        origins="\n".join(map(origin, studies)),
        takeaways=told,
        counted=for_each(studies, lambda study: counted(study, judged[study.title])),
        claims_tables=for_each(studies, lambda study: claims_table(study, judged[study.title])),
        claims_pictures=pictures(
            "claims",
            "Differences between two rows, two lines a claim, with intervals, beside those of the paper",
            lambda study: draw_claims(study, judged[study.title]),
        ),
        level=f"{LEVEL:.0%}",
        replicates=f"{REPLICATES:,}",
        sure=f"{SURE:g}",
        tables=tables_of_paper(studies),
        rows_pictures=pictures("rows", "mIoU of every seed of every row", draw_rows),
        windows=for_each(studies, windows),
        beyond=tables_beyond(studies),
        by_sampler=for_each(studies, by_sampler),
        by_source=for_each(studies, by_source),
        by_count=for_each(studies, by_count),
        sounds=for_each(studies, sounds),
        collapsed=f"{COLLAPSED:g}",
        diverged=f"{DIVERGED:g}",
        latents=for_each(studies, latents),
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
    """Save a picture in the docs, and return the Markdown that shows it; empty if there is none."""
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
