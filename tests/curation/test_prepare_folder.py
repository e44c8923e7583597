import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from avslib.curation.prepare_folder import prepare_folder
from avslib.curation.report import Report
from avslib.data.folder import ClipFolder
from avslib.media.audio import read_wav
from avslib.media.frame import read_frame
from avslib.media.video_writer import write_video
from tests._films import film, numbered, numbers_of, tone
from tests._kills import files_of, kill_at_random_moments


def rows(out: Path) -> list[list[str]]:
    with (out / "clips.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def frames(out: Path, name: str) -> torch.Tensor:
    count = len(list((out / "clips" / name / "frames").iterdir()))
    return torch.stack([read_frame(out / "clips" / name / "frames" / f"{i}.png") for i in range(count)])


def at_10_hz(count: int) -> list[int]:
    return [100 * i for i in range(count)]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_folder_of_videos_becomes_clips_that_are_read(videos: Path, out: Path) -> None:
    (videos / "dog").mkdir()
    write_video(videos / "my film.mp4", numbered(24), fps=8, waveform=0.1 * torch.randn(48_000))
    write_video(videos / "dog" / "1.mp4", numbered(48), fps=24)
    done: list[int] = []
    report = prepare_folder(videos, out, size=(16, 160), progress=done.append)
    assert report == Report(made=2, kept=0, failures={})
    assert done == [1, 1]
    assert rows(out) == [
        ["id", "split", "seconds", "category"],
        ["dog_1", "test", "2", "dog"],
        ["my_film", "test", "3", ""],
    ]
    dog, mine = ClipFolder(out, "test", size=None, normalize=False)
    assert numbers_of(dog.frames) == [22, 46]
    assert numbers_of(mine.frames) == [7, 15, 23]
    torch.testing.assert_close(dog.log_mel, torch.full((2, 1, 96, 64), 0.01).log())
    by_wav = ClipFolder(out, size=None, sound="wav")
    assert torch.equal(by_wav[1].log_mel, mine.log_mel)
    assert prepare_folder(videos, out, size=(16, 160)) == Report(made=0, kept=2, failures={})


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3), (34, 3)]
)
def test_a_clip_has_the_whole_seconds_of_its_video(videos: Path, out: Path, count: int, seconds: int) -> None:
    film(videos / "a.mkv", at_10_hz(count))
    assert prepare_folder(videos, out, size=None).made == 1
    assert rows(out)[1] == ["a", "test", str(seconds), ""]
    assert numbers_of(frames(out, "a")) == [min(10 * s + 9, count - 1) for s in range(seconds)]
    assert read_wav(out / "clips" / "a" / "audio.wav")[0].shape == (seconds * 16_000,)


@pytest.mark.parametrize("seconds", [0.2, 1.7, 3.0, 4.4])
def test_sound_is_cut_or_followed_by_silence(videos: Path, out: Path, seconds: float) -> None:
    film(videos / "a.mkv", at_10_hz(30), sound=tone(seconds, 16_000))
    prepare_folder(videos, out)
    waveform, rate = read_wav(out / "clips" / "a" / "audio.wav")
    assert (waveform.shape, rate) == ((48_000,), 16_000)
    heard = round(min(seconds, 3) * rate)
    assert waveform[:heard].square().mean().sqrt() == pytest.approx(0.5 / 2**0.5, rel=0.01)
    assert not waveform[heard:].any()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_any_rate_and_stereo(videos: Path, out: Path, rate: int, channels: int) -> None:
    sound = tone(2, rate, channels=channels)
    sound[:, : rate // 2] = 0  # the tone sets in at half a second
    film(videos / "a.mkv", at_10_hz(20), sound=sound, rate=rate)
    assert not prepare_folder(videos, out).failures
    waveform = read_wav(out / "clips" / "a" / "audio.wav")[0]
    assert waveform[:7_900].abs().max() < 1e-3
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(32_000) / 16_000)
    torch.testing.assert_close(waveform[8_100:31_900], expected[8_100:31_900], rtol=0, atol=2e-3)


def test_an_example_starts_with_its_second_however_long_the_clip(videos: Path, out: Path) -> None:
    sound = np.zeros((1, 30 * 16_000), np.int16)
    sound[:, 27 * 16_000 :] = tone(3, 16_000)
    film(videos / "a.mkv", at_10_hz(300), sound=sound)
    prepare_folder(videos, out)
    log_mel = ClipFolder(out)[0].log_mel
    silence = torch.tensor(0.01).log()
    assert [bool((example > silence + 1).any()) for example in log_mel] == [False] * 27 + [True] * 3
    assert (log_mel[27, 0, 1] > silence + 1).any()


def test_variable_frame_rate_keeps_time(videos: Path, out: Path) -> None:
    times = [0, 30, 60, 700, 1_900, 1_930, 1_960, 3_100, 3_200, 3_990]
    film(videos / "a.mkv", times)
    prepare_folder(videos, out, size=None)
    assert numbers_of(frames(out, "a")) == [3, 5, 6, 8]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "webm", "mpg"])
def test_any_container(videos: Path, out: Path, suffix: str) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx", "mpg": "mpeg2video"}.get(suffix, "libx264")
    with av.open(str(videos / f"a.{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=25, bit_rate=2_000_000)
        stream.height, stream.width, stream.pix_fmt = 16, 160, "yuv420p"
        for frame in numbered(75):
            pixels = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert prepare_folder(videos, out, size=None) == Report(1, 0, {})
    assert numbers_of(frames(out, "a")) == [23, 48, 73]


@pytest.mark.parametrize(("h", "w"), [(2, 2), (33, 47), (120, 2), (18, 1000)])
def test_odd_sizes(videos: Path, out: Path, h: int, w: int) -> None:
    write_video(videos / "a.mp4", torch.full((10, 3, h, w), 200, dtype=torch.uint8), fps=10)
    prepare_folder(videos, out, size=(20, 30))
    assert frames(out, "a").shape == (1, 3, 20, 30)
    assert (frames(out, "a").float() - 200).abs().max() < 12
    prepare_folder(videos, out, size=None)
    assert frames(out, "a").shape == (1, 3, h + h % 2, w + w % 2)


def test_a_film_that_a_telephone_took_upright_is_turned(videos: Path, out: Path) -> None:
    write_video(videos / "a.mp4", numbered(10), fps=10)
    content = (videos / "a.mp4").read_bytes()
    matrices = [
        b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 2**30))
        for a, b, c, d in ((2**16, 0, 0, 2**16), (0, 2**16, -(2**16), 0))
    ]
    at = content.index(matrices[0], content.index(b"tkhd"))
    (videos / "turned.mp4").write_bytes(content[:at] + matrices[1] + content[at + len(matrices[1]) :])
    prepare_folder(videos, out, size=None)
    assert torch.equal(frames(out, "turned"), torch.rot90(frames(out, "a"), -1, (2, 3)))


def test_what_is_no_video_has_a_reason_and_stops_nobody(videos: Path, out: Path) -> None:
    noise = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8)
    write_video(videos / "whole.mp4", noise, fps=8, waveform=0.1 * torch.randn(80_000))
    content = (videos / "whole.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(content[: len(content) // 2])
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("hello " * 100)
    (videos / "list.mp4").write_text("ffconcat version 1.0\nfile whole.mp4\n")  # FFmpeg would play it
    film(videos / "sound.mkv", [0], sound=tone(1, 8_000))
    (videos / "sound.mkv").unlink()
    with av.open(str(videos / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8_000, layout="mono")
        block = av.AudioFrame.from_ndarray(tone(1, 8_000), format="s16", layout="mono")
        block.sample_rate = 8_000
        container.mux(stream.encode(block))
    report = prepare_folder(videos, out)
    assert report[:2] == (1, 0)
    assert set(report.failures) == {"cut", "empty", "text", "list", "sound"}
    for name, reason in report.failures.items():
        assert f"{name}.m" in reason
    assert "ends after" in report.failures["cut"]
    assert "found no stream of pictures" in report.failures["sound"]
    assert [row[0] for row in rows(out)] == ["id", "whole"]
    assert len(ClipFolder(out)) == 1
    assert "5 failed" in report.summary()


def test_a_beginning_is_enough(videos: Path, out: Path) -> None:
    film(videos / "a.mkv", at_10_hz(50), sound=tone(5, 16_000))
    prepare_folder(videos, out, size=None, max_seconds=2)
    whole = numbers_of(frames(out, "a"))
    assert (whole, rows(out)[1][2]) == ([9, 19], "2")
    film(videos / "b.mkv", [0, 3_600_000])
    report = prepare_folder(videos, out, size=None)
    assert "b.mkv: expected a video of at most 3600 s, got 7200; cut it" in report.failures["b"]
    assert rows(out)[1:] == [["a", "test", "5", ""]]


def test_a_clip_is_made_anew_when_its_video_or_an_argument_changes(videos: Path, out: Path) -> None:
    film(videos / "a.mkv", at_10_hz(30))
    film(videos / "b.mkv", at_10_hz(20))
    prepare_folder(videos, out, size=None)
    mask = out / "clips" / "a" / "masks" / "0.png"
    mask.parent.mkdir()
    mask.touch()
    (out / "clips" / "a" / "frames" / "1.png").write_bytes(b"damaged")
    assert prepare_folder(videos, out, size=None) == Report(made=1, kept=1, failures={})
    assert prepare_folder(videos, out, size=None, frame_rule="start") == Report(2, 0, {})
    assert numbers_of(frames(out, "a")) == [0, 10, 20]
    film(videos / "b.mkv", at_10_hz(10))
    assert prepare_folder(videos, out, size=None, frame_rule="start") == Report(made=1, kept=1, failures={})
    assert numbers_of(frames(out, "b")) == [0]
    assert [row[2] for row in rows(out)[1:]] == ["3", "1"]
    assert mask.is_file()
    assert prepare_folder(videos, out, size=None, frame_rule="start", overwrite=True).made == 2


def test_masks_are_not_taken_for_those_of_another_video(videos: Path, out: Path) -> None:
    film(videos / "a.mkv", at_10_hz(30))
    prepare_folder(videos, out, size=None)
    mask = out / "clips" / "a" / "masks" / "0.png"
    mask.parent.mkdir()
    mask.touch()
    before = files_of(out)
    film(videos / "a.mkv", at_10_hz(10))
    report = prepare_folder(videos, out, size=None)
    assert report[:2] == (0, 0)
    assert "has masks that were drawn for another video, 'a.mkv' of" in report.failures["a"]
    assert files_of(out) == before  # the old clip is whole, and still in the table
    assert prepare_folder(videos, out, size=None, overwrite=True).made == 1
    assert rows(out)[1:] == [["a", "test", "1", ""]]
    assert mask.is_file()


def test_clips_of_other_folders_and_columns_of_ones_own_stay(videos: Path, out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "dog").mkdir(parents=True)
    film(videos / "cat.mkv", at_10_hz(10))
    film(other / "dog" / "1.mkv", at_10_hz(10))
    prepare_folder(videos, out)
    prepare_folder(other, out)
    assert rows(out)[1:] == [["cat", "test", "1", ""], ["dog_1", "test", "1", "dog"]]
    table = out / "clips.csv"
    table.write_text("note,id,split,seconds\nmine,cat,test,1\n")
    prepare_folder(other, out)
    assert rows(out) == [
        ["id", "split", "seconds", "category", "note"],
        ["cat", "test", "1", "", "mine"],
        ["dog_1", "test", "1", "dog", ""],
    ]


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_a_video_of_another_folder_does_not_take_the_place_of_its_namesake(
    videos: Path, out: Path, tmp_path: Path, name: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    film(videos / "a.mkv", at_10_hz(30))
    film(other / name, at_10_hz(10))
    film(other / "b.mkv", at_10_hz(10))
    prepare_folder(videos, out, size=None)
    before = files_of(out / "clips" / "a")
    report = prepare_folder(other, out, size=None)
    assert report[:2] == (1, 0)
    assert f"a: holds a clip of another video, 'a.mkv' in {videos.resolve()}; rename" in report.failures["a"]
    assert files_of(out / "clips" / "a") == before
    assert [row[0] for row in rows(out)[1:]] == ["a", "b"]
    assert prepare_folder(videos, out, size=None).kept == 1
    assert prepare_folder(tmp_path, tmp_path / "both", size=None).made == 3
    assert prepare_folder(other, out, size=None, overwrite=True).made == 2
    assert [row[:3] for row in rows(out)[1:]] == [["a", "test", "1"], ["b", "test", "1"]]


def test_a_folder_that_was_moved_keeps_its_clips(videos: Path, out: Path, tmp_path: Path) -> None:
    film(videos / "a.mkv", at_10_hz(30))
    prepare_folder(videos, out, size=None)
    moved = videos.rename(tmp_path / "moved")
    assert prepare_folder(moved, out, size=None) == Report(made=0, kept=1, failures={})
    film(moved / "a.mkv", at_10_hz(10))
    assert prepare_folder(moved, out, size=None).made == 1


def test_a_video_that_comes_later_renames_no_clip(videos: Path, out: Path) -> None:
    film(videos / "cat.mkv", at_10_hz(10))
    prepare_folder(videos, out)
    shutil.copy(videos / "cat.mkv", videos / "cat.mov")
    assert prepare_folder(videos, out) == Report(made=1, kept=1, failures={})
    cat, new = sorted(path.name for path in (out / "clips").iterdir())
    assert (cat, new[:4]) == ("cat", "cat-")
    assert [row[0] for row in rows(out)[1:]] == [cat, new]
    (videos / "cat.mkv").unlink()
    assert prepare_folder(videos, out) == Report(made=0, kept=1, failures={})
    assert len(list((out / "clips").iterdir())) == 2


def test_a_clip_that_cannot_be_made_anew_leaves_the_table_once_it_is_gone(videos: Path, out: Path) -> None:
    film(videos / "a.mkv", at_10_hz(10))
    prepare_folder(videos, out)
    whole = (videos / "a.mkv").read_bytes()
    (videos / "a.mkv").write_text("no video")  # found out before the clip is touched
    assert prepare_folder(videos, out).failures
    assert rows(out)[1:] == [["a", "test", "1", ""]]
    (videos / "a.mkv").write_bytes(whole)
    assert prepare_folder(videos, out).kept == 1
    (videos / "a.mkv").write_bytes(bytes(len(whole)))  # what lacks cannot be made of it
    (out / "clips" / "a" / "frames" / "0.png").unlink()
    assert prepare_folder(videos, out).failures
    assert rows(out)[1:] == []


def test_splits_share_a_table(videos: Path, out: Path, tmp_path: Path) -> None:
    film(videos / "a.mkv", at_10_hz(10))
    prepare_folder(videos, out, split="train")
    other = tmp_path / "other"
    other.mkdir()
    film(other / "b.mkv", at_10_hz(10))
    prepare_folder(other, out, split="val")
    assert rows(out)[1:] == [["a", "train", "1", ""], ["b", "val", "1", ""]]
    shutil.copy(videos / "a.mkv", other / "a.mkv")  # the same video: it stays where it is
    report = prepare_folder(other, out, split="val")
    assert report == Report(0, 2, {}, {"train": 1})
    assert "     1 stay in split 'train'\n" in report.summary() + "\n"
    assert rows(out)[1:] == [["a", "train", "1", ""], ["b", "val", "1", ""]]
    film(other / "a.mkv", at_10_hz(20))
    before = files_of(out)
    with pytest.raises(ValueError, match=r"split: .* has a clip 'a' of another video, in the split 'train'"):
        prepare_folder(other, out, split="val")
    assert files_of(out) == before


def test_a_clip_made_by_hand_is_not_replaced_unasked(videos: Path, out: Path) -> None:
    film(videos / "a.mkv", at_10_hz(10))
    mine = out / "clips" / "a" / "frames" / "0.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    assert "a: holds a clip, but not how it was made" in prepare_folder(videos, out).failures["a"]
    assert mine.read_bytes() == b"mine"
    assert prepare_folder(videos, out, overwrite=True).made == 1
    record = json.loads((out / "clips" / "a" / "made_from.json").read_text())
    assert record.pop("bytes") == (videos / "a.mkv").stat().st_size
    assert record == {
        "video": "a.mkv",
        "folder": str(videos.resolve()),
        "frame_rule": "end",
        "size": [224, 224],
        "max_seconds": None,
        "seconds": 1,
    }


def test_links_that_lead_out_need_leave(videos: Path, out: Path, tmp_path: Path) -> None:
    film(tmp_path / "elsewhere.mkv", at_10_hz(10))
    (videos / "a.mkv").symlink_to(tmp_path / "elsewhere.mkv")
    with pytest.raises(ValueError, match=r"a\.mkv: leads out of .* prepare with follow_links=True"):
        prepare_folder(videos, out)
    (out / "clips").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    (out / "clips" / "a").symlink_to(tmp_path / "target")
    (videos / "a.mkv").unlink()
    film(videos / "a.mkv", at_10_hz(10))
    with pytest.raises(ValueError, match=r"leads out of .*out through a link"):
        prepare_folder(videos, out)
    assert not list((tmp_path / "target").iterdir())
    assert prepare_folder(videos, out, follow_links=True).made == 1


def test_wrong_arguments_are_named(videos: Path, out: Path) -> None:
    film(videos / "a.mkv", [0])
    for argument, message in (
        ({"split": "../a"}, r"split: expected a plain name, got '\.\./a'"),
        ({"size": (1, -1)}, "size: expected a number above 0, got -1"),
        ({"max_seconds": 0}, "max_seconds: expected a number above 0, got 0"),
        ({"frame_rule": "last"}, "frame_rule: expected one of 'avsbench', 'end', 'middle', 'start'"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare_folder(videos, out, **argument)
    assert not out.exists()


@pytest.fixture
def several(videos: Path) -> Path:
    for i in range(4):
        film(
            videos / f"{i}.mkv",
            at_10_hz(25 + 5 * i),
            sound=tone(2 + i, 44_100, hertz=200 + 100 * i),
            rate=44_100,
        )
    return videos


def test_a_killed_run_is_finished_by_the_next(several: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    kill_at_random_moments(lambda root: prepare_folder(several, root), out, tmp_path, times=3)


@pytest.mark.slow
def test_a_run_killed_at_20_moments_is_finished_by_the_next(several: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    kill_at_random_moments(lambda root: prepare_folder(several, root), out, tmp_path, times=20)


def test_a_clip_that_is_made_anew_survives_kills_too(several: Path, out: Path, tmp_path: Path) -> None:
    prepare_folder(several, out, frame_rule="start")
    kill_at_random_moments(lambda root: prepare_folder(several, root), out, tmp_path, times=3)


_SCRIPT = """
import sys
from avslib.curation.prepare_folder import prepare_folder
if __name__ == "__main__":
    def told(_):
        print("one", flush=True)
    prepare_folder(sys.argv[1], sys.argv[2], workers=2, progress=told)
"""


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0, 1, 2, 3])
def test_a_killed_run_of_several_processes_is_finished_by_the_next(
    several: Path, tmp_path: Path, finished: int
) -> None:
    prepare_folder(several, tmp_path / "whole")
    (tmp_path / "script.py").write_text(_SCRIPT)
    command = [sys.executable, tmp_path / "script.py", several, tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        while not (tmp_path / "out").exists():
            time.sleep(0.01)
        for _ in range(finished):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert files_of(tmp_path / "out") != files_of(tmp_path / "whole")
    prepare_folder(several, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
