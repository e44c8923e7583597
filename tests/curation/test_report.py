import csv
import os
from pathlib import Path

from avslib.curation.report import Report, report_of


def test_outcomes_are_counted() -> None:
    report = report_of([("b", True, ""), ("d", False, "gone"), ("a", False, ""), ("c", False, "gone")])
    assert report == Report(made=1, kept=1, failures={"c": "gone", "d": "gone"})
    assert list(report.failures) == ["c", "d"]


def test_reasons_that_differ_in_names_and_numbers_are_one() -> None:
    failures = {
        **{f"v{i}": f"/data/v{i}.mp4: ends after {i}.2 s of video" for i in range(12)},
        "w": "/data/w.wav: no such sound file",
        **{f"x{i}": f"C:\\data\\x{i}.mp4: cannot be read as a video ([Errno {i}])" for i in range(3)},
    }
    lines = Report(20, 0, failures).summary(reasons=2).splitlines()
    assert lines == [
        "    20 made",
        "     0 were whole already",
        "    16 failed",
        "12 such as 'v0': /data/v0.mp4: ends after 0.2 s of video",
        "3 such as 'x0': C:\\data\\x0.mp4: cannot be read as a video ([Errno 0])",
        "and 1 for other reasons",
    ]
    assert Report(0, 3, {"w": "no such file"}).summary().splitlines()[3:] == ["'w': no such file"]


def test_paths_with_spaces_are_one_reason_too() -> None:
    failures = {
        f"v{i}": f"/data/my films/{name} {i}.mp4: ends after {i}.1 s of video; fetch it again"
        for i, name in enumerate(("a dog", "the big cat", "owls"))
    }
    assert "\n3 such as 'v0'" in Report(0, 0, failures).summary()


def test_a_name_that_is_no_unicode_is_borne_and_says_nothing_to_a_terminal(tmp_path: Path) -> None:
    report = Report(0, 0, {"bad": f"{os.fsdecode(bytes([255]))}\x1b[31m.mp4: cannot be read"})
    assert report.summary().endswith("'bad': ??[31m.mp4: cannot be read")
    report.write(tmp_path / "report.csv")
    assert "\\udcff" in (tmp_path / "report.csv").read_text(encoding="utf-8")


def test_the_table_holds_every_failure(tmp_path: Path) -> None:
    failures = {"a": 'quoted "so"', "b": "two\nlines, and a comma", "c": "größer"}
    Report(0, 0, failures).write(tmp_path / "new" / "report.csv")
    with (tmp_path / "new" / "report.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "reason"], *map(list, failures.items())]
