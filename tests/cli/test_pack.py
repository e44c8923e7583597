from pathlib import Path

import pytest

from avslib.cli import main
from avslib.data import AVSBenchMS3, write_avsbench
from avslib.storage import ShardedClips


def test_a_split_is_packed_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 3}, size=32, videos=False)
    command = ["pack", "ms3", str(tmp_path / "set"), str(tmp_path / "shards"), "--size", "32"]
    assert main([*command, "--split", "test", "--clips-per-shard", "2"]) == 0
    assert "3 clips" in capsys.readouterr().out
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 2
    expected = AVSBenchMS3(tmp_path / "set", "test", size=(32, 32))
    packed = list(ShardedClips(tmp_path / "shards"))
    assert [clip.id for clip in packed] == [files.id for files in expected.clips]
    assert all((clip.frames == expected[i].frames).all() for i, clip in enumerate(packed))


def test_a_split_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 1}, size=32, videos=False)
    assert main(["pack", "ms3", str(tmp_path / "set"), str(tmp_path / "shards")]) == 1
    assert "split: expected one of 'train', 'val', 'test'" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
