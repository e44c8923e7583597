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


def test_pictures_of_their_own_size_are_packed(tmp_path: Path) -> None:
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 1}, size=40, videos=False)
    command = ["pack", "ms3", str(tmp_path / "set"), str(tmp_path / "shards"), "--split", "test"]
    assert main([*command, "--size", "own"]) == 0
    (clip,) = ShardedClips(tmp_path / "shards")
    assert clip.frames.shape[-2:] == (40, 40)


def test_pictures_with_a_sound_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "vpo-ms", str(tmp_path), str(tmp_path / "shards"), "--split", "test"]) == 1
    assert "VPO-MS/vpo_ms_data_stereo.csv: no such table" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pack", "evaluate"])
def test_a_size_is_a_number_or_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([command, "ms3", "root", "--size", "abc"])
    assert "--size: expected a number of px or 'own', got 'abc'" in capsys.readouterr().err


def test_a_split_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avsbench(tmp_path / "set", setting="ms3", clips={"test": 1}, size=32, videos=False)
    assert main(["pack", "ms3", str(tmp_path / "set"), str(tmp_path / "shards")]) == 1
    assert "--split: expected one of ms3, such as 'train' or 'test', got none" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
