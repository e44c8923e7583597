"""The page on the paper's tables: the statistics, what is found of a claim, and the page from JSON."""

import importlib
import itertools
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from avslib.data import SyntheticConfig, clip_indices
from avslib.data.synthetic import render_clip
from avslib.losses import InfoNCE

ROOT = Path(__file__).parents[1]
with pytest.MonkeyPatch.context() as patch:  # the scripts import each other by bare names
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    paper_report, claims, controls, costs, results, rows, sections, statistics, sweeps, takeaways = map(
        importlib.import_module,
        (
            "paper_report",
            *(
                f"_paper_{name}"
                for name in (
                    *("claims", "controls", "costs", "results", "rows"),
                    *("sections", "statistics", "sweeps", "takeaways"),
                )
            ),
        ),
    )

CLIPS = 40
RESULTS = ROOT / "benchmarks" / "results" / "paper"
PAGE = ROOT / "docs" / "paper_tables.md"
MIOU, F = results.MEASURES


def scores(seed: int, mean: float, spread: float = 0.02) -> NDArray[np.float64]:
    return np.round(np.random.default_rng(seed).normal(mean, spread, CLIPS), 5)


def write_run(
    folder: Path,
    row: str,
    seed: int,
    miou: NDArray[np.float64],
    *,
    f_score: NDArray[np.float64] | None = None,
    setting: str = "ms3",
    place: str = "",
    size: int = 32,
    std: float = 1.0,
    drawn: float = 0.3,
) -> None:
    """Write what ``paper_tables.py`` writes of a run, with these scores."""
    clips = {"train": 8, "val": 2, "test": len(miou)}
    heard = {"miou": miou.tolist(), "f_score": (miou if f_score is None else f_score).tolist()}
    other = {key: [value / 2 for value in values] for key, values in heard.items()}
    test: dict[str, Any] = {"true sound": heard, "silence": other, "another clip's sound": other}
    objective = rows.ROWS[row].objective()
    if row not in ("e_d", "cvae", "regressor", "avsbench", "ecmvae") and not row.startswith("audio_blind"):
        test |= {"latent: one sample": heard, "std of z0": std}
        test |= {"std of samples": drawn, "told of z0": 0.25, "spread of samples": 0.75}
        test |= {key: {"miou": 0.3, "f_score": 0.4} for key in ("latent: noise", "latent: true z0")}
    terms = {"contrastive": 2.5} if getattr(objective, "contrastive_weight", 0) else {}
    report = {
        "budget": {
            "name": "tiny",
            "variant": "small",
            "size": size,
            "clips": {"s4": clips, "ms3": clips},
            "epochs": {"s4": 2, "ms3": 2},
            "learning_rate": 0.001,
            "pretrain_clips": 4,
            "batch_size": 4,
            "num_samples": 8,
            "backbone": None,
        },
        "setting": setting,
        "row": row,
        "seed": seed,
        "title": rows.ROWS[row].title,
        "machine": {"device": "a processor", "torch": "2", "commit": "abc"},
        "parameters": 7_000_000,
        "history": [{"epoch": e, "validation": 0.04 * e - 0.01 * seed, **terms} for e in (1, 2)],
        "seconds": {"training": 60.0, "all": 90.0, "of CPU": 120.0},
        "test": test,
    }
    path = folder / "tiny" / setting / place / f"{row}-seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return results in which the CVAE wins, the LDM loses to it, E-D is as good as the LDM, and more."""
    for seed in range(3):
        write_run(tmp_path, "cvae", seed, scores(seed, 0.7))
        write_run(tmp_path, "e_d", seed, scores(10 + seed, 0.5 + 0.02 * (-1) ** seed))
        write_run(tmp_path, "ldm", seed, scores(20 + seed, 0.5 - 0.02 * (-1) ** seed))
        write_run(tmp_path, "full", seed, scores(30 + seed, 0.5), std=0.2 if seed == 1 else 1.0)
        write_run(tmp_path, "masked", seed, scores(40 + seed, 0.6), drawn=3.0 if seed == 2 else 1.0)
        write_run(tmp_path, "audio_blind", seed, scores(50 + seed, 0.3))
    write_run(tmp_path, "ldm_audio", 0, scores(3, 0.9))
    write_run(tmp_path, "ldm_none", 0, scores(4, 0.1))
    return tmp_path


def the_study(folder: Path) -> Any:
    (study,) = results.read(folder)
    return study


# The bootstrap


def test_the_bootstrap_is_the_slow_literal_one() -> None:
    differences = np.random.default_rng(0).normal(size=(3, 7))
    generator = np.random.default_rng(5)
    trainings = generator.integers(3, size=(50, 3))
    tests = generator.integers(7, size=(50, 7))
    literal = []
    for drawn_seeds, drawn_clips in zip(trainings, tests, strict=True):
        drawn = [differences[seed, clip] for seed in drawn_seeds for clip in drawn_clips]
        literal.append(sum(drawn) / len(drawn))
    means = statistics.bootstrap(differences, replicates=50, seed=5)
    np.testing.assert_allclose(means, literal, rtol=0, atol=1e-12)
    low, high = statistics.interval(differences)
    every = sorted(statistics.bootstrap(differences))
    assert sum(mean < low for mean in every) == pytest.approx(0.025 * len(every), abs=1)
    assert sum(mean > high for mean in every) == pytest.approx(0.025 * len(every), abs=1)


def test_the_bootstrap_draws_from_all_draws_that_there_are() -> None:
    differences = np.array([[0.0, 1.0, 5.0], [2.0, -1.0, 0.0]])
    every = [
        differences[list(seeds)][:, list(clips)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for clips in itertools.product(range(3), repeat=3)
    ]
    means = statistics.bootstrap(differences, replicates=20_000)
    assert set(np.round(means, 9)) == set(np.round(every, 9))
    assert means.mean() == pytest.approx(np.mean(every), abs=0.03)  # four standard errors
    assert means.std() == pytest.approx(np.std(every), rel=0.03)


@given(st.integers(1, 4), st.integers(1, 6), st.floats(-2, 2), st.integers(0, 100))
def test_the_bootstrap_moves_and_turns_with_the_differences(s: int, n: int, shift: float, seed: int) -> None:
    differences = np.random.default_rng(seed).normal(size=(s, n))
    means = statistics.bootstrap(differences, replicates=20)
    moved = statistics.bootstrap(shift - differences, replicates=20)
    np.testing.assert_allclose(moved, shift - means, atol=1e-12)


def test_where_only_seeds_vary_the_interval_does_not_reach_beyond_them() -> None:
    differences = np.array([[0.1], [0.2], [0.6]]) + np.zeros((3, CLIPS))
    assert statistics.interval(differences) == pytest.approx((0.1, 0.6))


def test_the_p_of_seeds_is_that_of_a_t_test() -> None:
    differences = np.array([0.3, 0.1, 0.25, -0.05])
    assert statistics.p_of_seeds(differences) == pytest.approx(ttest_1samp(differences, 0).pvalue)
    assert math.isnan(statistics.p_of_seeds(differences[:1]))
    assert statistics.p_of_seeds(np.zeros(3)) == 1
    assert statistics.p_of_seeds(np.full(3, 0.25)) == 0


def test_what_is_found_is_seldom_wrong_even_where_seeds_vary_most() -> None:
    generator = np.random.default_rng(0)
    by_bootstrap, found, trials = 0, 0, 300
    for _ in range(trials):
        differences = generator.normal(scale=0.03, size=(3, 1)) + generator.normal(
            scale=0.02, size=(1, CLIPS)
        )
        low, high = np.quantile(statistics.bootstrap(differences, replicates=200), [0.025, 0.975])
        compared = statistics.Comparison(
            differences.mean().item(), low, high, tuple(differences.mean(axis=1).tolist())
        )
        by_bootstrap += not low <= 0 <= high
        found += compared.finding != "undecided"
    assert found / trials < 0.09  # 0.05, and four standard errors
    assert by_bootstrap / trials > 0.09  # which is why it is not asked alone


def test_the_resolution_is_what_a_t_test_of_the_seeds_would_find() -> None:
    shape = np.array([-0.01, 0.0, 0.01])
    size = statistics.Comparison(0, 0, 0, tuple(shape)).resolution
    for factor, sure in ((0.99, False), (1.01, True)):
        assert (ttest_1samp(shape + factor * size, 0).pvalue < 0.05) == sure


# Findings


def findings(study: Any, window: str = "") -> dict[tuple[str, str], str]:
    judged, early = sections.judge(study), costs.still_learning(study)
    return {
        (claim.better, claim.worse): sections.finding(claim, window, found[MIOU], early)
        for claim, found in judged[window].items()
    }


def test_findings_are_what_the_scores_are(folder: Path) -> None:
    found = findings(the_study(folder))
    assert found["cvae", "e_d"] == "agrees"
    assert found["ldm", "cvae"] == "disagrees"
    assert found["ldm", "e_d"] == "undecided"
    assert ("full", "d8") not in found
    assert found["ldm_audio", "ldm_none"] == "one seed"  # however large


def test_a_difference_that_the_seeds_alone_do_not_confirm_is_not_found(tmp_path: Path) -> None:
    for seed, gain in enumerate((0.01, 0.02, 0.09)):
        write_run(tmp_path, "e_d", seed, scores(seed, 0.5, 0.001))
        write_run(tmp_path, "cvae", seed, scores(seed, 0.5 + gain, 0.001))
    study = the_study(tmp_path)
    compared = statistics.compare(study, "cvae", "e_d", MIOU)
    assert compared.low > 0
    assert compared.finding == findings(study)["cvae", "e_d"] == "undecided"


def test_windows_are_judged_apart(folder: Path) -> None:
    assert set(sections.judge(the_study(folder))) == {""}
    for seed, (row, mean) in itertools.product(range(3), {"e_d": 0.6, "ldm": 0.9}.items()):
        write_run(folder, f"{row}_by_second", seed, scores(60 + seed, mean))
    study = the_study(folder)
    assert findings(study, "_by_second")["ldm", "e_d"] == "agrees"
    assert findings(study)["ldm", "e_d"] == "undecided"
    assert findings(study, "_by_second")["cvae", "e_d"] == "not run"
    assert "| not run |" in sections.claims_table(study, sections.judge(study))
    whole, own = sections.counted(study, sections.judge(study)).splitlines()
    assert whole.startswith(
        "- **Whole clip**: 6 of 14 claims were run: 1 agree, 1 disagree, 2 undecided, 2 with one seed. "
        "In 1 of them a gain as large as the paper's is ruled out. The seeds can detect"
    )
    assert own.startswith("- **Own second**: 1 of 14 claims were run: 1 agree, 0 disagree, 0 undecided. In 0")


def test_a_window_is_worth_what_it_is_where_sounds_start_or_stop(tmp_path: Path) -> None:
    clips = [render_clip(i, SyntheticConfig(size=32)) for i in clip_indices("test", CLIPS)]
    changing = np.array([(clip.sounding != clip.sounding[0]).any() for clip in clips])
    assert 0.2 < changing.mean() < 0.8
    for seed in range(2):
        write_run(tmp_path, "e_d", seed, scores(seed, 0.5))
        gained = np.where(changing, 0.3, 0.1)
        write_run(tmp_path, "e_d_by_second", seed, scores(seed, 0.5) + gained)
    study = the_study(tmp_path)
    assert controls.window_gain(study, "e_d", "changing").mean == pytest.approx(0.3)
    assert controls.window_gain(study, "e_d", "steady").mean == pytest.approx(0.1)
    assert controls.window_gain(study, "e_d").mean == pytest.approx(np.mean(np.where(changing, 0.3, 0.1)))
    assert f"the {changing.sum()} where a sound starts or stops" in controls.windows(study)


def test_a_difference_is_the_mean_over_common_seeds_and_clips_with_a_score(tmp_path: Path) -> None:
    ours, theirs = {}, {}
    for seed in (0, 1, 2):
        ours[seed] = scores(seed, 0.6)
        ours[seed][3] = np.nan
        write_run(tmp_path, "full", seed, scores(seed, 0.1), f_score=ours[seed])
    for seed in (1, 2, 3):
        theirs[seed] = scores(seed + 50, 0.5)
        theirs[seed][3] = np.nan
        write_run(tmp_path, "ldm", seed, scores(seed, 0.1), f_score=theirs[seed])
    compared = statistics.compare(the_study(tmp_path), "full", "ldm", F)
    by_seed = [np.nanmean(ours[seed]) - np.nanmean(theirs[seed]) for seed in (1, 2)]
    assert compared.by_seed == pytest.approx(by_seed)
    assert compared.mean == pytest.approx(np.mean(by_seed))
    for of in (0, 0.05):
        assert compared.p(of) == pytest.approx(ttest_1samp(by_seed, of).pvalue)
    assert compared.low < compared.mean < compared.high


def test_a_row_may_be_compared_with_itself_under_another_sound(folder: Path) -> None:
    compared = statistics.compare(the_study(folder), "cvae", "cvae", MIOU, theirs_given=results.OTHER)
    assert compared.mean == pytest.approx(the_study(folder).means("cvae", MIOU, results.OTHER)[0], abs=0.01)


@pytest.mark.parametrize("place", ["", "again"])
def test_runs_of_other_budgets_are_not_mixed(folder: Path, place: str) -> None:
    write_run(folder, "d8", 0, scores(0, 0.5), size=64, place=place)
    with pytest.raises(ValueError, match=r"d8-seed0\.json: expected the budget and the test clips of"):
        results.read(folder)


def test_a_difference_is_held_against_the_papers(tmp_path: Path) -> None:
    """The paper's: LDM over E-D +3.39, CVAE over E-D +0.93, LDM over CVAE +2.46."""
    for seed in range(3):
        write_run(tmp_path, "e_d", seed, scores(seed, 0.5, 0.001))
        write_run(tmp_path, "ldm", seed, scores(10 + seed, 0.501, 0.001))
        write_run(tmp_path, "cvae", seed, scores(20 + seed, 0.55 + 0.01 * seed, 0.001))
    study = the_study(tmp_path)
    page = sections.claims_table(study, sections.judge(study))
    last = {
        line.split("<br>")[1].split(" |")[0]: line.split("|")[-2].strip() for line in page.splitlines()[2:]
    }
    assert last["`ldm` over `e_d`"].endswith("; below the paper's")
    assert last["`cvae` over `e_d`"] == "**agrees**"
    assert last["`ldm` over `cvae`"] == "**disagrees**; below the paper's"
    assert set(last) == {f"`{ours}` over `{theirs}`" for ours, theirs in findings(study)}
    assert len(last) == 3
    compared = statistics.compare(study, "cvae", "e_d", MIOU)
    assert [compared.side(of) for of in (-1, 0, 0.06, 1)] == [1, 1, 0, -1]


def test_a_run_that_was_repeated_is_set_beside_the_first(folder: Path) -> None:
    first = scores(0, 0.7)
    write_run(folder, "cvae", 0, first, place="again")
    write_run(folder, "e_d", 1, np.round(scores(11, 0.48) + 0.1, 5), place="again")
    study = the_study(folder)
    assert study.seeds("cvae") == [0, 1, 2]
    assert study.means("e_d", MIOU)[1] == pytest.approx(0.48, abs=0.01)
    e_d, cvae = costs.repeated(study).splitlines()[2:]
    assert f"| 0 | {100 * first.mean():.1f} | {100 * first.mean():.1f} | none, clip by clip |" in cvae
    assert "| 1 | 47.8 | 57.8 | +10.0 to +10.0 |" in e_d
    assert "22 runs" in costs.cost(study)


def test_rows_that_were_still_learning_fast_are_named(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        report = json.loads(path.read_text())
        last = 0.18 if report["row"] == "cvae" and report["seed"] > 0 else 0.11
        report["history"][-1]["validation"] = report["history"][0]["validation"] - 0.1 + last
        path.write_text(json.dumps(report))
    study = the_study(folder)
    assert costs.unfinished(study) == (
        "20 of 20 runs were best in their last epoch, which added +1.0 mIoU on the validation clips (median; "
        "+1.0 to +8.0). More than 5.0: `cvae` (+5.7)."
    )
    assert findings(study)["cvae", "e_d"] == findings(study)["ldm", "cvae"] == "too early"
    assert ", 2 too early, " in sections.counted(study, sections.judge(study))
    assert "| +5.7 ± 4.0 |" in costs.cost(study)
    report["history"] = report["history"][:1]
    assert costs.late_gain(report) == report["history"][0]["validation"]
    (folder / "tiny" / "ms3" / "cvae-seed1.json").unlink()
    assert "More than" not in costs.unfinished(the_study(folder))


# The paper


def test_every_claim_has_the_direction_of_the_papers_numbers() -> None:
    for claim in claims.CLAIMS:
        for setting in ("s4", "ms3"):
            miou, f_score = (claim.published(setting, measure.key) for measure in results.MEASURES)
            assert miou is None or miou > 0, claim
            assert f_score is None or f_score >= 0, claim  # Table III prints .892 twice


def test_rows_of_claims_and_tables_can_be_run() -> None:
    known = set(rows.ROWS)
    assert {row for claim in claims.CLAIMS for row in claim.rows()} <= known
    assert all(rows.ROWS[row].arguments["window"] == 1 for row in known if row.endswith("_by_second"))
    assert {row for table in claims.TABLES_OF_PAPER.values() for row in table.published} <= known
    for key, asked in {**claims.TABLES_OF_PAPER, **claims.TABLES_BEYOND}.items():
        assert asked.reference in rows.TABLES.get(key, asked.published)
    for key, table in claims.TABLES_OF_PAPER.items():
        assert set(table.published) <= {*rows.TABLES.get(key, table.published)}


# Sweeps


def test_a_report_may_have_other_numbers_of_steps_too(folder: Path) -> None:
    for seed, steps in enumerate(((1, 2, 3, 5), (1, 2, 5))):
        tried = [
            {"scheduler": "DDIMScheduler", "steps": n, "miou": n / 10, "error over variance": n + seed}
            for n in steps
        ]
        path = folder / "tiny" / "ms3" / results.SWEEPS / f"ldm-seed{seed}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"row": "ldm", "seed": seed, "samplers": tried}))
    *_, line = sweeps.by_sampler(the_study(folder)).splitlines()
    assert line == "| `ldm` | DDIM | 10.0, 1.50 | 20.0, 2.50 | 50.0, 5.50 | 2 |"


# The bound on mutual information


@pytest.mark.parametrize(("row", "setting"), [("full", "ms3"), ("masked", "ms3"), ("masked", "s4")])
def test_the_bound_is_that_of_the_loss(row: str, setting: str, tmp_path: Path) -> None:
    write_run(tmp_path, row, 0, scores(0, 0.5), setting=setting)
    frames = 5 if setting == "ms3" else 1
    condition, latent = torch.randn(2, 4 * frames, 24, dtype=torch.float64)
    clip = torch.arange(4).repeat_interleave(frames)
    loss = InfoNCE(same_clip_negatives=row != "masked")
    bound = loss.mutual_information_bound(condition, latent, clip).item()
    study = the_study(tmp_path)
    ours = math.log(controls.candidates(study, row)) - loss(condition, latent, clip).item()
    assert ours == pytest.approx(bound, abs=1e-6)
    assert controls.bounds_by_seed(study, row)[0] == pytest.approx(
        2 * [math.log(controls.candidates(study, row)) - 2.5]
    )


# The page


def test_a_sentence_that_is_no_longer_true_is_not_written(tmp_path: Path) -> None:
    kept = RESULTS / "cpu" / "ms3"
    for path in (*kept.glob("*-seed*.json"), *kept.glob("sweeps/*.json")):
        place = tmp_path / path.relative_to(RESULTS)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    assert takeaways.takeaways(the_study(tmp_path)).count("\n") == 7
    for path in tmp_path.rglob("regressor_by_second-seed?.json"):
        if path.parent.name == "ms3":
            report = json.loads(path.read_text())
            report["test"]["true sound"]["miou"] = [1.0] * 240
            path.write_text(json.dumps(report))
    with pytest.raises(ValueError, match="takeaway latent: expected numbers that it is true of"):
        takeaways.takeaways(the_study(tmp_path))


def cells(line: str) -> int:
    return line.count("|")


def test_the_page_says_what_was_found_and_what_is_missing(folder: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    paper_report.write(folder, docs)
    page = (docs / "paper_tables.md").read_text()
    assert re.search(r"a CVAE beats E-D<br>.*\*\*agrees\*\*", page)
    assert re.search(r"the LDM beats the CVAE<br>.*\*\*disagrees\*\*", page)
    assert "synthetic clips" in page
    assert "32 x 32 pixels; 8 clips for training, 2 for choosing the epoch, 40 for testing" in page
    assert "`regnetx_002`" in page
    assert "`python benchmarks/paper_tables.py TABLE --budget tiny --settings ms3 --seeds 3`" in page
    assert "| `2` | 9 of 12 | 0 of 12 |" in page
    assert "| `controls` | 3 of 9 | 0 of 9 |" in page
    assert "Not begun: `frozen`, `in_silence`." in page
    assert "S4 with budget `tiny`: not run yet" in page
    (collapsed,) = re.findall(r"\n\| ([^\n]*)\*\*collapsed\*\*", page)
    assert "(`full`)" in collapsed
    (diverged,) = re.findall(r"\n\| ([^\n]*)\*\*diverged\*\*", page)
    assert "(`masked`)" in diverged
    assert "$" not in page
    assert "nan" not in page
    for block in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE):
        assert len(set(map(cells, block.splitlines()))) == 1, block
    pictures = re.findall(r"!\[.+\]\((.+)\)", page)
    assert sorted(pictures) == sorted(f"_static/paper/{path.name}" for path in docs.glob("_static/paper/*"))
    assert len(pictures) == 4
    for picture in pictures:
        assert ElementTree.parse(docs / picture).getroot().tag.endswith("svg")

    before = {path: path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    paper_report.write(folder, docs)
    assert {path: path.read_bytes() for path in docs.rglob("*") if path.is_file()} == before


def test_a_table_that_was_begun_has_no_count_where_there_are_no_rows(folder: Path) -> None:
    write_run(folder, "e_d_in_silence", 0, scores(0, 0.5))
    assert "| `in_silence` | 1 of 9 |  |" in costs.commands(the_study(folder))


def test_a_table_without_a_picture_is_not_said_to_be_missing(tmp_path: Path) -> None:
    for row in ("e_d", "full"):  # the bound of one row makes no picture
        write_run(tmp_path, row, 0, scores(0, 0.5))
    paper_report.write(tmp_path, tmp_path)
    assert "|\n\nNot run yet." not in (tmp_path / "paper_tables.md").read_text()


def test_several_studies_are_told_apart(folder: Path, tmp_path: Path) -> None:
    for seed in range(2):
        for row in ("full", "ldm"):
            write_run(folder, row, seed, scores(seed, 0.4), setting="s4")
    docs = tmp_path / "docs"
    docs.mkdir()
    paper_report.write(folder, docs)
    page = (docs / "paper_tables.md").read_text()
    assert "**S4, budget `tiny`**" in page
    assert "**MS3, budget `tiny`**" in page
    assert "81.38" in page  # the paper's number of S4


def test_a_row_that_others_begin_with_is_no_study(folder: Path, tmp_path: Path) -> None:
    write_run(folder, "full", 0, scores(0, 0.4), setting="s4")
    paper_report.write(folder, tmp_path)
    page = (tmp_path / "paper_tables.md").read_text()
    assert "**S4, budget `tiny`**" not in page
    assert "S4 with budget `tiny`: not run yet" in page


def test_without_results_there_is_no_page(tmp_path: Path) -> None:
    write_run(tmp_path, "full", 0, scores(0, 0.4))
    with pytest.raises(ValueError, match="results: expected runs of two rows of paper_tables"):
        paper_report.write(tmp_path, tmp_path)


@pytest.mark.skipif(not PAGE.exists(), reason="no results of paper_tables.py are here, so there is no page")
def test_the_page_in_the_docs_is_that_of_the_results(tmp_path: Path) -> None:
    paper_report.write(RESULTS, tmp_path)
    assert (tmp_path / PAGE.name).read_text() == PAGE.read_text(), "run python benchmarks/paper_report.py"
    drawn, kept = (
        {path.name for path in (d / "_static" / "paper").iterdir()} for d in (tmp_path, PAGE.parent)
    )
    assert drawn == kept
