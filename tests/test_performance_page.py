"""The docs' page on performance says what the JSON says, and nothing that it does not say."""

import importlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SUBJECTS = ("tpavi", "sampler_latency", "metrics", "inference", "training_step", "loading", "import_time")
BASELINE, PAPER = "avsbench.pvt_v2_b5", "diffusion_avs.pvt_v2_b5"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("report")


def spread(value: float) -> dict[str, float]:
    return {"p10": 0.9 * value, "p50": value, "p90": 1.1 * value, "p99": 1.2 * value}


def turns(ms: dict[str, float], **variables: Any) -> list[dict[str, Any]]:
    """Rows of implementations that took turns; the first is the reference."""
    first = next(iter(ms.values()))
    one = {"p10": 1.0, "p50": 1.0, "p90": 1.0}
    return [
        {
            **variables,
            "implementation": name,
            "ms": spread(time),
            "speedup": spread(first / time) if i else one,
            "bytes": int(1e5 * time),
            **({"clips/s": spread(1e3 / time)} if {"model", "workers"} & {*variables} else {}),
        }
        for i, (name, time) in enumerate(ms.items())
    ]


def tpavi_rows() -> Iterable[dict[str, Any]]:
    for square in (28, 56, 112):
        ours = square**2 / 100
        ms = {"avslib": ours, "nn.LayerNorm": ours / 2}
        if square <= 56:
            ms = {"dense": square**4 / 7000, **ms}
        for name in ("forward", "forward and backward"):
            for row in turns(ms, **{"mode": "dot", "attends to": "audio", "square": square, "pass": name}):
                growth = None if square == 28 else 16.0 if row["implementation"] == "dense" else 4.0
                yield {**row, "growth": growth, "floor ms": ours / 4}


def measurements(device: str = "cpu") -> dict[str, dict[str, Any]]:
    """JSON of all subjects, in which the CPU targets are met, except those for memory and imports."""
    rows: dict[str, Any] = {
        "tpavi": list(tpavi_rows()),
        "sampler_latency": [
            {**row, "times the weights": row["ms"]["p50"] / 0.5}
            for frames in (1, 5, 20)
            for row in turns(
                {"diffusers loop": 8.0, "avslib": 2.5, "read the weights": 0.5}, frames=frames, samples=1
            )
        ],
        "metrics": turns({"loop": 100.0, "avslib": 4.0}, score="F", clips=1),
        "inference": turns(
            {"dense": 18300.0, "avslib": 15100.0, **{f"avslib {i}": 14000.0 - i for i in range(7)}},
            model=BASELINE,
            batch=1,
            size=224,
        ),
        "training_step": turns({"dense": 900.0, "avslib": 800.0}, model="avsbench.small", batch=1, size=224),
        "loading": [
            {**row, "bytes a clip": 474314.4}
            for workers in (0, 1)
            for row in turns({"Pillow, plain": 10.0, "cache, uint8": 2.0}, workers=workers)
        ],
        "import_time": [
            {**row, "ms beyond the first": row["ms"]["p50"] - 2000, "loads": ["torch"]}
            for row in turns({"import torch": 2000.0, "import torch, avslib": 2630.0})
        ],
    }
    one_sample = {"model": PAPER, "size": 224, "implementation": "avslib"}
    more: dict[str, dict[str, Any]] = {
        "inference": {
            "diffusion": [
                {**one_sample, "what": what, "ms": spread(1e4 * times), "times one sample": spread(times)}
                for what, times in (("condition, sampler and injection", 0.02), ("16 samples", 1.2))
            ]
        },
        "training_step": {
            "counted": [
                {
                    "model": model,
                    "batch": 4,
                    "size": 224,
                    "implementation": name,
                    "bytes": size,
                    "times dense": size / 8_000_000_000,
                }
                for model, name, size in (
                    (BASELINE, "dense", 8_000_000_000),
                    (BASELINE, "avslib", 4_400_000_000),
                    ("audio_blind.pvt_v2_b5", "avslib", 4_200_000_000),
                )
            ]
        },
        "loading": {
            "a million clips": [
                {"implementation": "cache, uint8", "TB": 0.474, "hours an epoch takes one worker": 0.56}
            ]
        },
    }
    machine = {"device": "a processor", "threads": 2, "torch": "2.11.0", "commit": "0123456789ab"}
    settings = {"device": device, "rounds": 20, "frames": 5, "channels": 256}
    return {
        subject: {"subject": subject, "machine": machine, "settings": settings, "rows": rows[subject]}
        | more.get(subject, {})
        for subject in SUBJECTS
    }


def page_of(report: ModuleType, tmp_path: Path, *, pictures: bool = False, **devices: dict[str, Any]) -> str:
    """Write the measurements of devices, and read the page that is made of them; drawing takes long."""
    for device, files in devices.items():
        (tmp_path / "results" / device).mkdir(parents=True)
        for name, content in files.items():
            (tmp_path / "results" / device / f"{name}.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr(report, "draw", lambda device, folder: {})
        report.write(tmp_path / "results", tmp_path / "docs")
    return (tmp_path / "docs" / "performance.md").read_text(encoding="utf-8")


def line_with(page: str, *parts: str) -> str:
    (line,) = (line for line in page.splitlines() if all(part in line for part in parts))
    return line


def test_every_subject_is_on_the_page_with_its_pictures(report: ModuleType, tmp_path: Path) -> None:
    page = page_of(report, tmp_path, cpu=measurements(), pictures=True)
    assert "Not measured" not in page
    assert "No picture" not in page
    pictures = re.findall(r"!\[.+\]\((.+)\)", page)
    assert len(pictures) == 4
    assert all((tmp_path / "docs" / picture).read_text().startswith("<?xml") for picture in pictures)
    assert re.search(r"dot . audio . 112 .  . 125 ms \([^)]*\)<br>12.5 MB ", page)  # no dense, no speedup
    assert "8.00 / 8.80 / 9.60 ms" in page
    assert "| dot | audio | forward | dense | 16.0 |  |" in page
    assert "4.00 ms (3.60" in page
    assert "25.0x (22.5" in page
    assert "4.40 GB<br>0.55" in page
    assert page.count("**On `cpu`** (rounds 20, frames 5, channels 256)") == len(SUBJECTS)
    assert line_with(page, "commit |") == "| commit | 0123456789ab |"


def test_a_target_is_met_or_missed_by_so_much(report: ModuleType, tmp_path: Path) -> None:
    page = page_of(report, tmp_path, cpu=measurements())
    assert "met, with a factor of 1.60 to spare" in line_with(page, "sampler, B·T = 5", "`cpu`")
    assert "**missed** by 110 %" in line_with(page, "beyond `import torch`")
    step = line_with(page, "training step of 4 clips", "`cpu`")
    assert "counted: 0.55; `audio_blind.pvt_v2_b5`: 0.53 | **missed** by 10.0 %" in step
    gpu = [line for line in page.splitlines() if line.startswith("| GPU |")]
    assert len(gpu) > 5
    assert all("not measured: no GPU results here" in line for line in gpu)


def test_no_time_at_all_is_at_most_any_time(report: ModuleType, tmp_path: Path) -> None:
    some = measurements()
    some["import_time"]["rows"][1]["ms beyond the first"] = -50.0  # a difference of two medians may be that
    page = page_of(report, tmp_path, cpu=some)
    assert line_with(page, "beyond `import torch`").endswith("| -0.05 | met |")


def test_somebody_may_tell_why_a_target_is_missed(report: ModuleType, tmp_path: Path) -> None:
    why = {
        "`import avslib` beyond `import torch`, s": "SciPy is slow to load",
        "sampler, B·T = 5: times faster than the loop": "it is not",
    }
    page = page_of(report, tmp_path, cpu={**measurements(), "reasons": why})
    assert "**missed** by 110 %: SciPy is slow to load" in page
    assert "it is not" not in page


def test_a_reason_for_no_target_is_an_error(report: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cpu/reasons.json: expected names of targets, got \['speed'\]"):
        page_of(report, tmp_path, cpu={**measurements(), "reasons": {"speed": "it is slow"}})


def test_a_subject_that_is_missing_is_named_with_its_command(report: ModuleType, tmp_path: Path) -> None:
    some = measurements()
    del some["metrics"], some["tpavi"], some["inference"], some["training_step"]
    page = page_of(report, tmp_path, cpu={**some, "training_step": {"rows": []}})  # of another form
    for subject in ("metrics", "tpavi", "inference", "training_step"):
        assert f"*Not measured here: `make bench-{subject}` does.*" in page
    assert "not measured: `make bench` does" in line_with(page, "F-score")


def test_a_row_that_is_missing_is_no_number(report: ModuleType, tmp_path: Path) -> None:
    some = measurements()
    some["tpavi"]["rows"] = [row for row in some["tpavi"]["rows"] if row["implementation"] != "dense"]
    some["sampler_latency"]["rows"] = [row for row in some["sampler_latency"]["rows"] if row["frames"] != 5]
    some["inference"]["rows"] = []
    del some["training_step"]["counted"]
    page = page_of(report, tmp_path, cpu=some)
    for what in ("TPAVI forward,", "sampler, B·T = 5", "inference in float32", "training step of 4 clips"):
        assert all("not measured" in line for line in page.splitlines() if what in line)


def test_a_gpu_has_its_own_targets_tables_and_pictures(report: ModuleType, tmp_path: Path) -> None:
    page = page_of(report, tmp_path, cpu=measurements(), h200=measurements("cuda"))
    assert "no GPU results" not in page
    assert "**missed** by 84.0 %" in line_with(page, "`h200`", "sampler, B·T = 20", "faster")
    assert "avslib: 5.00 | **missed** by 66.7 %" in line_with(page, "`h200`", "B·T = 5", "weights")
    assert "avslib: 2.00 | met" in line_with(page, "`h200`", "TPAVI forward, ", "LayerNorm")
    assert page.count("**On `h200`**") == len(SUBJECTS)


def test_nothing_measured_is_said(report: ModuleType, tmp_path: Path) -> None:
    page = page_of(report, tmp_path)
    assert "*Nothing was measured here: `make bench` does.*" in page
    assert page.count("Not measured here") == len(SUBJECTS)
    assert all(
        "not measured: no" in line for line in page.splitlines() if line.startswith(("| CPU", "| GPU"))
    )


def test_the_text_around_the_tables_has_no_number() -> None:
    template = (ROOT / "benchmarks" / "performance.md.template").read_text(encoding="utf-8")
    assert re.findall(r"\b\d", template) == []


def test_there_are_pictures_of_what_there_is(report: ModuleType, tmp_path: Path) -> None:
    old = tmp_path / "docs/_static/performance/cpu-models.svg"
    old.parent.mkdir(parents=True)
    old.touch()
    some = {subject: measurements()[subject] for subject in ("sampler_latency", "loading")}
    page = page_of(report, tmp_path, cpu=some, pictures=True)
    assert {path.name for path in old.parent.iterdir()} == {"cpu-sampler.svg", "cpu-roofline.svg"}
    assert page.count("No picture") == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (0.5, "0.50"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (12345.6, "12,346"),
        (0, "0"),
    ],
)
def test_numbers_have_three_digits(report: ModuleType, value: float, text: str) -> None:
    assert importlib.import_module("_performance_results").number(value) == text


def test_the_committed_page_is_what_the_committed_numbers_give(report: ModuleType, tmp_path: Path) -> None:
    if not importlib.import_module("_performance_results").read(ROOT / "benchmarks" / "results"):
        pytest.skip("nothing was measured yet")
    report.write(ROOT / "benchmarks" / "results", tmp_path)
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == page
    for picture in re.findall(r"!\[.+\]\((.+)\)", page):
        assert (ROOT / "docs" / picture).is_file()
