import json
from pathlib import Path

import pytest

from avslib.cli import main
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
