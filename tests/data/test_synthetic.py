from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avslib.data import AVSBenchMS3, AVSBenchS4, synthetic
from avslib.data.synthetic import SyntheticAVS, SyntheticConfig, clip_indices, render_clip, write_avsbench
from avslib.media.tensor_pickle import load_tensor_pickle

CLIPS = {"train": 2, "val": 1, "test": 1}


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_s4_lies_on_disk_as_avsbench_does(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="s4", clips=CLIPS, size=32, videos=False)
    with (tmp_path / "Single-source" / "s4_meta_data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
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
    write_avsbench(tmp_path, setting="ms3", clips=CLIPS, size=32, videos=False)
    with (tmp_path / "Multi-sources" / "ms3_meta_data.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["video_id", "split"]
    expected = {"synthetic.json", "Multi-sources/ms3_meta_data.csv"}
    for name, split in rows:
        expected |= {f"Multi-sources/ms3_data/visual_frames/{name}/{name}.mp4_{i}.png" for i in range(1, 6)}
        expected |= {f"Multi-sources/ms3_data/gt_masks/{split}/{name}/{name}_{i}.png" for i in range(1, 6)}
        expected |= {f"Multi-sources/ms3_data/audio_log_mel/{split}/{name}.pkl"}
        expected |= {f"Multi-sources/ms3_data/audio_wav/{split}/{name}.wav"}
    assert files_of(tmp_path) == expected


@pytest.mark.parametrize(("setting", "reader"), [("s4", AVSBenchS4), ("ms3", AVSBenchMS3)])
@pytest.mark.parametrize("sound", ["pickle", "wav"])
def test_what_is_read_back_is_what_is_in_memory(
    tmp_path: Path, setting: str, reader: type[AVSBenchS4 | AVSBenchMS3], sound: str
) -> None:
    write_avsbench(tmp_path, setting=setting, clips=CLIPS, size=32, seed=3, videos=False)
    for split, count in CLIPS.items():
        stored = reader(tmp_path, split, size=None, sound=sound)
        in_memory = SyntheticAVS(SyntheticConfig(setting=setting, size=32, seed=3), count, split=split)
        assert len(stored) == len(in_memory) == count
        for index in range(count):
            for name, expected, actual in zip(
                in_memory[index]._fields, in_memory[index], stored[index], strict=True
            ):
                if isinstance(expected, torch.Tensor):
                    torch.testing.assert_close(actual, expected, msg=name)
                else:
                    assert actual == expected


def test_masks_of_s4_training_are_known_for_the_first_second_only() -> None:
    train, test = (
        SyntheticAVS(SyntheticConfig(setting="s4", size=32), 1, split=s) for s in ("train", "test")
    )
    assert train[0].labelled.tolist() == [True, False, False, False, False]
    assert train[0].masks.any(dim=-1).any(dim=-1).tolist() == [True, False, False, False, False]
    assert test[0].labelled.all()
    assert train[0].masks.dtype == torch.int64


def test_an_access_leaves_the_dataset_as_it_was() -> None:
    clips = SyntheticAVS(SyntheticConfig(size=32), 2)
    first = clips[1]
    first.frames.zero_()
    assert clips[1].frames.any()
    assert clips[-1].id == clips[1].id
    with pytest.raises(IndexError):
        clips[2]


def test_splits_share_no_clip() -> None:
    ranges = [set(clip_indices(split, 1000)) for split in synthetic.SPLITS]
    assert len(set.union(*ranges)) == 3000


def test_a_second_call_writes_what_is_missing(tmp_path: Path) -> None:
    def write() -> list[int]:
        done: list[int] = []
        write_avsbench(tmp_path, setting="ms3", clips=CLIPS, size=32, videos=False, progress=done.append)
        return done

    assert write() == [1, 1, 1, 1]
    before = files_of(tmp_path)
    kept, lost = (
        tmp_path / "Multi-sources" / "ms3_data" / "visual_frames" / f"synthetic_000000{i}" for i in (0, 1)
    )
    (kept / "synthetic_0000000.mp4_1.png").write_text("mine")
    lost.rename(tmp_path / "elsewhere")
    assert write() == [1, 1, 1, 1]
    assert files_of(lost) == files_of(tmp_path / "elsewhere")
    assert before <= files_of(tmp_path)
    assert (kept / "synthetic_0000000.mp4_1.png").read_text() == "mine"


def test_an_interrupted_clip_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "write_wav", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_avsbench(tmp_path, setting="s4", clips=CLIPS, size=32, videos=False)
    assert files_of(tmp_path) == {"synthetic.json"}
    write_avsbench(tmp_path, setting="s4", clips=CLIPS, size=32, videos=False)
    assert len(AVSBenchS4(tmp_path, "train")) == 2


def test_a_folder_holds_one_configuration_of_each_setting(tmp_path: Path) -> None:
    for setting in ("s4", "ms3"):
        write_avsbench(tmp_path, setting=setting, clips={"test": 1}, size=32, videos=False)
    assert set(json.loads((tmp_path / "synthetic.json").read_text())) == {"s4", "ms3"}
    with pytest.raises(ValueError, match=r"synthetic\.json says that 'ms3' .* size=32, expected 48"):
        write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, size=48, videos=False)
    with pytest.raises(ValueError, match=r"clips=\{'test': 1\}, expected \{'test': 2\}"):
        write_avsbench(tmp_path, setting="s4", clips={"test": 2}, size=32, videos=False)
    write_avsbench(tmp_path, setting="s4", clips={"test": 1}, size=32)  # videos: as the folder has it


def test_video_shows_the_frames_and_carries_the_sound(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, size=64, videos=True)
    clip = render_clip(2_000_000, SyntheticConfig(size=64))
    with av.open(str(tmp_path / "Multi-sources" / "ms3_data" / "raw_videos" / f"{clip.id}.mp4")) as container:
        film = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(container.streams.audio) == 1
    assert len(film) == 80
    shown = np.stack(film[15::16]).astype(float)
    assert np.abs(shown - clip.frames).mean() < 12  # lossy, and colour has half the resolution


def test_frames_on_disk_are_the_rendered_ones(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, size=32, videos=False)
    clip = render_clip(2_000_000, SyntheticConfig(size=32))
    folder = tmp_path / "Multi-sources" / "ms3_data" / "visual_frames" / clip.id
    for second in range(5):
        with Image.open(folder / f"{clip.id}.mp4_{second + 1}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), clip.frames[second])


@pytest.mark.slow  # a spawned process imports torch anew
def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    for workers in (1, 2):
        write_avsbench(
            tmp_path / str(workers), setting="ms3", clips=CLIPS, size=32, videos=False, workers=workers
        )
    one, two = tmp_path / "1", tmp_path / "2"
    assert files_of(one) == files_of(two)
    for name in files_of(one):
        if name.endswith(".pkl"):  # a pickled tensor holds its address; and threads may sum in another order
            torch.testing.assert_close(load_tensor_pickle(one / name), load_tensor_pickle(two / name))
        else:
            assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_errors_name_the_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split: expected one of 'train', 'val', 'test', got 'validation'"):
        write_avsbench(tmp_path, setting="ms3", clips={"validation": 1})
    with pytest.raises(ValueError, match="count: expected 1 to 1000000 clips, got 0"):
        SyntheticAVS(SyntheticConfig(), 0)
    with pytest.raises(ValueError, match="workers: expected a number above 0, got 0"):
        write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, workers=0)
    assert not files_of(tmp_path)
