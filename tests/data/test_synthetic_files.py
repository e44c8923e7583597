from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from avslib.data import AVSBenchMS3, AVSBenchS4, AVSBenchSemantic, synthetic_files
from avslib.data.synthetic import SyntheticAVS
from avslib.data.synthetic_families import FAMILIES
from avslib.data.synthetic_files import write_avsbench
from avslib.data.synthetic_scene import SyntheticConfig, clip_indices, render_clip
from avslib.media.palette import class_palette
from avslib.media.tensor_pickle import load_tensor_pickle

CLIPS = {"train": 2, "val": 1, "test": 1}
AVSS_CLIPS = {"train": 3, "val": 1, "test": 2}
AVSS_PARTS = ["v1s", "v1m", "v2", "v1m", "v2", "v1s"]  # of indices 0, 1, 2, 1000000, 2000000 and 2000001
READERS: dict[str, Any] = {"s4": AVSBenchS4, "ms3": AVSBenchMS3, "avss": AVSBenchSemantic}
TABLES = {
    "s4": Path("Single-source", "s4_meta_data.csv"),
    "ms3": Path("Multi-sources", "ms3_meta_data.csv"),
    "avss": Path("metadata.csv"),
}


def write(root: Path, setting: str, *, size: int = 32, **options: Any) -> None:
    clips = options.pop("clips", AVSS_CLIPS if setting == "avss" else CLIPS)
    write_avsbench(root, setting=setting, clips=clips, size=size, videos=False, **options)


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def rows_of(root: Path, setting: str) -> list[dict[str, str]]:
    with (root / TABLES[setting]).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def avss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("avss")
    write(root, "avss", size=64)
    return root


def test_s4_lies_on_disk_as_avsbench_does(tmp_path: Path) -> None:
    write(tmp_path, "s4")
    rows = rows_of(tmp_path, "s4")
    assert list(rows[0]) == ["name", "start", "category", "split"]
    assert [row["split"] for row in rows] == ["train", "train", "val", "test"]
    expected = {"synthetic.json", "Single-source/s4_meta_data.csv"}
    for row in rows:
        name, inner = row["name"], f"{row['split']}/{row['category']}"
        seconds = range(1, 6)
        expected |= {f"Single-source/s4_data/visual_frames/{inner}/{name}/{name}_{i}.png" for i in seconds}
        labelled = [1] if row["split"] == "train" else seconds
        expected |= {f"Single-source/s4_data/gt_masks/{inner}/{name}/{name}_{i}.png" for i in labelled}
        expected |= {f"Single-source/s4_data/audio_log_mel/{inner}/{name}.pkl"}
        expected |= {f"Single-source/s4_data/audio_wav/{inner}/{name}.wav"}
    assert files_of(tmp_path) == expected


def test_ms3_lies_on_disk_as_avsbench_does(tmp_path: Path) -> None:
    write(tmp_path, "ms3")
    rows = rows_of(tmp_path, "ms3")
    assert list(rows[0]) == ["video_id", "split"]
    expected = {"synthetic.json", "Multi-sources/ms3_meta_data.csv"}
    for name, split in (row.values() for row in rows):
        expected |= {f"Multi-sources/ms3_data/visual_frames/{name}/{name}.mp4_{i}.png" for i in range(1, 6)}
        expected |= {f"Multi-sources/ms3_data/gt_masks/{split}/{name}/{name}_{i}.png" for i in range(1, 6)}
        expected |= {f"Multi-sources/ms3_data/audio_log_mel/{split}/{name}.pkl"}
        expected |= {f"Multi-sources/ms3_data/audio_wav/{split}/{name}.wav"}
    assert files_of(tmp_path) == expected


def test_avss_lies_on_disk_as_avsbench_semantic_does(avss: Path) -> None:
    rows = rows_of(avss, "avss")
    assert list(rows[0]) == ["vid", "uid", "s_min", "s_sec", "a_obj", "split", "label"]
    assert [row["split"] for row in rows] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert [row["label"] for row in rows] == AVSS_PARTS
    expected = {"synthetic.json", "metadata.csv", "label2idx.json"}
    for row in rows:
        folder, seconds = f"{row['label']}/{row['uid']}", 10 if row["label"] == "v2" else 5
        labelled = 1 if (row["label"], row["split"]) == ("v1s", "train") else seconds
        expected |= {f"{folder}/audio.wav", *(f"{folder}/frames/{i}.jpg" for i in range(seconds))}
        expected |= {f"{folder}/labels_rgb/{i}.png" for i in range(labelled)}
    assert files_of(avss) == expected


@pytest.mark.parametrize("setting", ["s4", "ms3"])
@pytest.mark.parametrize("sound", ["log_mel", "wav"])
@pytest.mark.parametrize("negative", [None, "offscreen"])
def test_what_is_read_back_is_what_is_in_memory(
    tmp_path: Path, setting: str, sound: str, negative: str | None
) -> None:
    write(tmp_path, setting, seed=3, negative=negative)
    config = SyntheticConfig(setting=setting, size=32, seed=3, negative=negative)
    for split, count in CLIPS.items():
        stored = READERS[setting](tmp_path, split, size=None, sound=sound)
        in_memory = SyntheticAVS(config, count, split=split)
        assert len(stored) == len(in_memory) == count
        for index in range(count):
            for name, expected, actual in zip(
                in_memory[index]._fields, in_memory[index], stored[index], strict=True
            ):
                if isinstance(expected, torch.Tensor):
                    torch.testing.assert_close(actual, expected, msg=name)
                else:
                    assert actual == expected


def assert_avss_agrees(root: Path, config: SyntheticConfig) -> None:
    for split, count in AVSS_CLIPS.items():
        stored = AVSBenchSemantic(root, split, size=None)
        in_memory = SyntheticAVS(config, count, split=split)
        assert len(stored) == count
        for read, made in zip(
            (stored[i] for i in range(count)), (in_memory[i] for i in range(count)), strict=True
        ):
            assert read.id == made.id
            for name in ("masks", "labelled", "valid"):
                assert torch.equal(getattr(read, name), getattr(made, name)), name
            torch.testing.assert_close(read.log_mel, made.log_mel)  # the WAV holds the waveform exactly
            error = (read.frames - made.frames).abs()
            assert error.mean() < 0.06  # JPEG; 1 is the spread of ImageNet, 58 grey levels
            assert error.max() < 1.2
            assert not error[~made.valid].any()


def test_avss_read_back_is_what_is_in_memory(avss: Path) -> None:
    assert_avss_agrees(avss, SyntheticConfig(setting="avss", size=64))


def test_pixels_have_the_colour_and_the_name_of_what_sounds(avss: Path) -> None:
    clips = AVSBenchSemantic(avss, "test")
    assert clips.classes[:13] == ("background", *(family.name for family in FAMILIES))
    palette = class_palette()
    for index, files in zip(clip_indices("test", 2), clips.clips, strict=True):
        clip = render_clip(index, SyntheticConfig(setting="avss", size=64))
        assert files.category in clip.classes
        for second, path in enumerate(files.masks):
            assert path is not None
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            picture = np.zeros((64, 64, 3), dtype=np.uint8)
            for i in np.flatnonzero(clip.sounding[second]):
                picture[clip.objects[second, i]] = palette[clips.classes.index(clip.classes[i])]
            np.testing.assert_array_equal(pixels, picture)


@pytest.mark.parametrize("part", ["v1s", "v1m", "v2"])
def test_a_part_can_be_read_alone(avss: Path, part: str) -> None:
    assert [files.id for files in AVSBenchSemantic(avss, "train", parts=(part,)).clips] == [
        f"synthetic_000000{AVSS_PARTS.index(part)}"
    ]


def test_s4_and_ms3_can_be_read_out_of_avss(avss: Path) -> None:
    s4, ms3 = AVSBenchS4(avss, "train", sound="wav"), AVSBenchMS3(avss, "train", sound="wav")
    assert [clip.id for clip in s4.clips] == ["synthetic_0000000"]
    assert [clip.id for clip in ms3.clips] == ["synthetic_0000001"]
    assert s4[0].labelled.tolist() == [True] + [False] * 4
    assert ms3[0].masks.max() == 1


@pytest.mark.parametrize("negative", ["silence", "noise", "offscreen"])
def test_negatives_of_avss_share_all_pictures(avss: Path, tmp_path: Path, negative: str) -> None:
    write(tmp_path, "avss", size=64, negative=negative)
    assert files_of(tmp_path) == files_of(avss)
    for name in files_of(avss):
        if name.endswith((".jpg", ".csv", "label2idx.json")):
            assert (tmp_path / name).read_bytes() == (avss / name).read_bytes(), name
    assert json.loads((tmp_path / "synthetic.json").read_text())["avss"]["negative"] == negative
    assert_avss_agrees(tmp_path, SyntheticConfig(setting="avss", size=64, negative=negative))
    assert not any(AVSBenchSemantic(tmp_path, "train")[i].masks.any() for i in range(3))


@pytest.mark.parametrize(
    ("setting", "frames"),
    [
        ("ms3", "Multi-sources/ms3_data/visual_frames/synthetic_000000{}/synthetic_000000{}.mp4_1.png"),
        ("avss", "{part}/synthetic_000000{}/frames/0.jpg"),
    ],
)
def test_a_second_call_writes_what_is_missing(tmp_path: Path, setting: str, frames: str) -> None:
    done: list[int] = []
    count = sum((AVSS_CLIPS if setting == "avss" else CLIPS).values())
    write(tmp_path, setting, progress=done.append)
    before = files_of(tmp_path)
    kept, lost = (tmp_path / frames.format(i, i, part=AVSS_PARTS[i]) for i in (0, 1))
    kept.write_text("mine")
    was = {path.name: path.read_bytes() for path in lost.parent.iterdir()}
    shutil.rmtree(lost.parent)
    (tmp_path / TABLES[setting]).unlink()  # the table comes last
    write(tmp_path, setting, progress=done.append)
    assert done == [1] * (2 * count)
    assert files_of(tmp_path) == before
    assert {path.name: path.read_bytes() for path in lost.parent.iterdir()} == was
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("setting", ["s4", "avss"])
def test_an_interrupted_clip_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(synthetic_files, "write_wav", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(RuntimeError, match=r"clip 0 of .train. could not be written: disk full"):
            write(tmp_path, setting)
    assert files_of(tmp_path) == {"synthetic.json"}
    assert list(tmp_path.iterdir()) == [tmp_path / "synthetic.json"]
    write(tmp_path, setting)
    assert len(READERS[setting](tmp_path, "train")) == (3 if setting == "avss" else 2)


def test_what_moved_before_a_kill_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound and masks of the first clip are in place, its frames are not yet: they go last."""
    replace = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path.name == "frames":
            raise KeyboardInterrupt
        return replace(path, target)

    root, whole = tmp_path / "root", tmp_path / "whole"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(root, "avss")
    torn = root / "v1s" / "synthetic_0000000"
    assert {path.name for path in torn.iterdir()} == {"audio.wav", "labels_rgb"}
    (torn / "labels_rgb" / "0.png").write_text("torn")
    left = root / ".unfinished-0123" / "v1s" / "audio.wav"  # by a kill that runs no clean-up
    left.parent.mkdir(parents=True)
    left.touch()
    write(root, "avss")
    write(whole, "avss")
    assert files_of(root) == files_of(whole)
    for name in files_of(root):
        assert (root / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_folder_holds_one_configuration_of_each_setting(tmp_path: Path) -> None:
    one = {"test": 1}
    for setting in ("s4", "ms3", "avss"):
        write(tmp_path, setting, clips=one)
    assert set(json.loads((tmp_path / "synthetic.json").read_text())) == {"s4", "ms3", "avss"}
    with pytest.raises(ValueError, match=r"synthetic\.json says that 'ms3' .* size=32, expected 48"):
        write(tmp_path, "ms3", clips=one, size=48)
    with pytest.raises(ValueError, match=r"clips=\{'test': 1\}, expected \{'test': 2\}"):
        write(tmp_path, "s4", clips={"test": 2})
    with pytest.raises(ValueError, match=r"'avss' .* negative=None, expected 'noise'; choose another folder"):
        write(tmp_path, "avss", clips=one, negative="noise")
    write_avsbench(tmp_path, setting="s4", clips=one, size=32)  # videos: as the folder has it


def test_a_folder_written_before_there_were_negatives_is_known(tmp_path: Path) -> None:
    write(tmp_path, "s4")
    manifest = tmp_path / "synthetic.json"
    settings = json.loads(manifest.read_text())
    assert settings["s4"].pop("negative") is None
    assert list(settings["s4"]) == ["version", "setting", "size", "seconds", "seed", "clips", "videos"]
    manifest.write_text(json.dumps(settings))
    write(tmp_path, "s4")
    with pytest.raises(ValueError, match="negative=None, expected 'silence'"):
        write(tmp_path, "s4", negative="silence")
    settings["s4"]["colour"] = "red"
    manifest.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="colour='red', expected None"):
        write(tmp_path, "s4")


@pytest.mark.parametrize(
    ("setting", "index", "video"),
    [
        ("ms3", 2_000_000, "Multi-sources/ms3_data/raw_videos/synthetic_2000000.mp4"),
        ("avss", 2_000_000, "v2/synthetic_2000000/video.mp4"),
    ],
)
def test_video_shows_the_frames_and_carries_the_sound(
    tmp_path: Path, setting: str, index: int, video: str
) -> None:
    av = pytest.importorskip("av")
    write_avsbench(tmp_path, setting=setting, clips={"test": 1}, size=64, videos=True)
    clip = render_clip(index, SyntheticConfig(setting=setting, size=64))
    with av.open(str(tmp_path / video)) as container:
        film = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(container.streams.audio) == 1
    assert len(film) == 16 * len(clip.frames)
    shown = np.stack(film[15::16]).astype(float)
    assert np.abs(shown - clip.frames).mean() < 12  # lossy, and colour has half the resolution


def test_frames_on_disk_are_the_rendered_ones(tmp_path: Path) -> None:
    write(tmp_path, "ms3", clips={"test": 1})
    clip = render_clip(2_000_000, SyntheticConfig(size=32))
    folder = tmp_path / "Multi-sources" / "ms3_data" / "visual_frames" / clip.id
    for second in range(5):
        with Image.open(folder / f"{clip.id}.mp4_{second + 1}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), clip.frames[second])


@pytest.mark.slow  # a spawned process imports torch anew
@pytest.mark.parametrize("setting", ["ms3", "avss"])
def test_several_processes_write_what_one_writes(tmp_path: Path, setting: str) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    write(one, setting)
    write(two, setting, workers=2)
    assert files_of(one) == files_of(two)
    for name in files_of(one):
        if name.endswith(".pkl"):  # a pickled tensor holds its address; and threads may sum in another order
            torch.testing.assert_close(load_tensor_pickle(one / name), load_tensor_pickle(two / name))
        else:
            assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_errors_name_the_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split: expected one of 'train', 'val', 'test', got 'validation'"):
        write_avsbench(tmp_path, setting="ms3", clips={"validation": 1})
    with pytest.raises(ValueError, match="workers: expected a number above 0, got 0"):
        write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, workers=0)
    with pytest.raises(ValueError, match="negative: expected one of 'silence', 'noise', 'offscreen', got ''"):
        write_avsbench(tmp_path, setting="avss", clips={"test": 1}, negative="")
    assert not files_of(tmp_path)
