from pathlib import Path

import pytest
import torch

from avslib.cli import main
from avslib.data.folder import ClipFolder
from avslib.data.synthetic import write_avsbench
from avslib.media.video_writer import write_video


def test_a_folder_is_prepared_and_what_failed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_video(videos / "a.mp4", torch.zeros(24, 3, 32, 32, dtype=torch.uint8), fps=8)
    command = ["prepare", "folder", str(videos), str(out), "--size", "32", "48", "--split", "val"]
    assert main([*command, "--max-seconds", "2"]) == 0
    assert "1 made" in capsys.readouterr().out
    assert ClipFolder(out, "val", size=None)[0].frames.shape == (2, 3, 32, 48)
    (videos / "b.mp4").write_text("no video")
    assert main([*command, "--report", str(tmp_path / "report.csv")]) == 1
    assert "b.mp4: cannot be read" in capsys.readouterr().out
    assert "b.mp4: cannot be read" in (tmp_path / "report.csv").read_text()


def test_a_dataset_is_prepared_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, size=32, videos=False)
    assert main(["prepare", "ms3", str(tmp_path)]) == 0
    assert "1 were whole already" in capsys.readouterr().out
    assert main(["prepare", "ms3", str(tmp_path), "--from-pickles", "--delete-pickles"]) == 0
    assert [path.suffix for path in tmp_path.rglob("audio_log_mel/*/*")] == [".safetensors"]


def test_a_place_for_the_report_is_looked_at_before_the_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", torch.zeros(8, 3, 32, 32, dtype=torch.uint8), fps=8)
    command = ["prepare", "folder", str(tmp_path / "videos"), str(tmp_path / "out")]
    assert main([*command, "--report", str(tmp_path)]) == 1
    assert f"--report: expected a file to write, got the folder {tmp_path}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s4", "a", "b"], "out: expected a folder to write after `folder VIDEOS`, and only there"),
        (["folder", "a"], "out: expected a folder to write"),
        (["folder", "a", "b", "--from-pickles"], "--from-pickles: expected s4, ms3 or avss, got folder"),
        (["s4", "a", "--split", "train"], "--split: expected only after `folder`"),
        (["s4", "a", "--max-seconds", "3"], "--max-seconds: expected only after `folder`"),
        (["s4", "a", "--delete-pickles"], "--delete-pickles: expected only with --from-pickles"),
        (["s4", "a", "--from-pickles", "--size", "8", "8"], "--size: expected only without --from-pickles"),
        (["folder", "a", "b"], "a: expected a folder with videos"),
        (["s4", "a"], "s4_meta_data.csv: no such table"),
    ],
)
def test_mistakes_end_with_a_line_and_status_1(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_frames_have_one_size(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "folder", "a", "b", "--size", "224", "224", "--own-size"])
    assert "argument --own-size: not allowed with argument --size" in capsys.readouterr().err
