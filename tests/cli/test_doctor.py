import json
from pathlib import Path

import pytest

from avslib import curation
from avslib.cli import main
from avslib.cli._parser import FRAME_RULES
from avslib.data import AVSBenchMS3, write_avsbench


def test_doctor_names_damage_and_mends_what_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 2}, size=32, videos=False)
    assert main(["doctor", str(tmp_path)]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    log_mel = AVSBenchMS3(tmp_path, "test").clips[0].log_mel
    log_mel.write_bytes(b"damaged")
    assert main(["doctor", str(tmp_path), "--json", str(tmp_path / "findings.json")]) == 1
    assert "1 damaged-log-mel" in capsys.readouterr().out
    assert json.loads((tmp_path / "findings.json").read_text())["findings"][0]["path"] == str(log_mel)
    assert main(["doctor", str(tmp_path), "--fix"]) == 0
    assert "1 made" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "Multi-sources")]) == 1
    assert f"give {tmp_path} (ms3)" in capsys.readouterr().err


def test_a_rule_for_frames_is_for_mending_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert FRAME_RULES == curation.frame_rule.FRAME_RULES
    assert main(["doctor", str(tmp_path), "--frame-rule", "start"]) == 1
    assert "--frame-rule: expected only with --fix" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_place_for_the_findings_is_looked_at_before_the_files(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avslib.curation.doctor.examine", lambda *_, **__: pytest.fail("examined"))
    assert main(["doctor", str(tmp_path), option, str(tmp_path)]) == 1
    assert f"{option}: expected a file to write, got the folder {tmp_path}" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["doctor", str(tmp_path), option, str(tmp_path / "file" / "findings")]) == 1
    assert "File exists" in capsys.readouterr().err
