from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import random
import signal
import tarfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, AVSBenchS4, write_avsbench
from avslib.storage.pack import pack
from avslib.storage.shard_index import index_shard, read_index
from avslib.storage.shard_reader import ShardedClips
from tests.storage._tiny import TinyClips, assert_same

ENCODINGS = ("npy", "png")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("setting", ["s4", "ms3"])
def test_what_is_read_back_is_what_was_packed(tmp_path: Path, setting: str, encoding: str) -> None:
    write_avsbench(tmp_path, setting=setting, clips={"train": 5}, size=32, videos=False)
    reader = {"s4": AVSBenchS4, "ms3": AVSBenchMS3}[setting]
    raw, normalised = (reader(tmp_path, "train", size=(32, 32), normalize=flag) for flag in (False, True))
    pack(raw, tmp_path / "shards", clips_per_shard=2, encoding=encoding)
    for clips, flag in ((raw, False), (normalised, True)):
        stored = list(ShardedClips(tmp_path / "shards", normalize=flag))
        assert len(stored) == len(clips) == 5
        for index, clip in enumerate(stored):
            assert_same(clip, clips[index])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_webdataset_library_reads_the_shards(tmp_path: Path, encoding: str) -> None:
    webdataset = pytest.importorskip("webdataset")
    clips = TinyClips(5)
    pack(clips, tmp_path, clips_per_shard=2, encoding=encoding)
    shards = str(tmp_path / "shard-{000000..000002}.tar")
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves files open
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
        gc.collect()
    assert [sample["__key__"] for sample in samples] == [f"{index:09}" for index in range(5)]
    for index, sample in enumerate(samples):
        clip = clips[index]
        assert torch.equal(torch.tensor(sample["log_mel.npy"]), clip.log_mel)
        assert sample["json"] == {
            "id": f"clip.{index}",
            "labelled": clip.labelled.tolist(),
            "valid": clip.valid.tolist(),
        }
        if encoding == "npy":
            frames, masks = (torch.tensor(sample[f"{name}.npy"]) for name in ("frames", "masks"))
        else:
            frames = torch.stack([torch.tensor(sample[f"frame_{i}.png"]) for i in (0, 1)])
            frames = frames.permute(0, 3, 1, 2)
            masks = torch.stack([torch.tensor(sample[f"mask_{i}.png"][..., 0]) for i in (0, 1)])
        assert torch.equal(frames, clip.frames)
        assert torch.equal(masks.long(), clip.masks)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_shard_tells_nothing_of_who_made_it(tmp_path: Path, encoding: str) -> None:
    pack(TinyClips(3), tmp_path, encoding=encoding)
    with tarfile.open(tmp_path / "shard-000000.tar") as shard:
        members = shard.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert {name.split(".")[0] for name in names} == {f"{index:09}" for index in range(3)}
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert member.isreg()
        assert member.mode == 0o644


def test_the_index_says_where_each_clip_lies(tmp_path: Path) -> None:
    pack(TinyClips(5), tmp_path, clips_per_shard=2)
    for shard in read_index(tmp_path):
        path = tmp_path / shard.file
        assert shard.bytes == path.stat().st_size
        with tarfile.open(path) as file:
            members = file.getmembers()
        firsts = [next(group).offset for _, group in itertools.groupby(members, lambda m: m.name[:9])]
        assert shard.begins[:-1] == firsts
        assert shard.begins[-1] == members[-1].offset_data + members[-1].size
        assert index_shard(path) == shard


def test_classes_beyond_a_byte_are_kept_in_arrays_only(tmp_path: Path) -> None:
    clips = TinyClips(2, classes=1000)
    pack(clips, tmp_path / "npy")
    for index, clip in enumerate(ShardedClips(tmp_path / "npy", normalize=False)):
        assert_same(clip, clips[index])
    with pytest.raises(ValueError, match="masks: expected classes 0 to 255 for PNG"):
        pack(clips, tmp_path / "png", encoding="png")
    with pytest.raises(ValueError, match="masks: expected classes within int16"):
        pack(TinyClips(2, classes=10**6), tmp_path / "large")


def test_the_description_says_what_was_packed(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 2}, size=32, videos=False)
    pack(AVSBenchMS3(tmp_path, "test", size=(32, 48), normalize=False), tmp_path / "shards")
    index = json.loads((tmp_path / "shards" / "index.json").read_text())
    expected = {"dataset": "AVSBenchMS3", "clips": 2, "split": "test", "size": [32, 48], "encoding": "npy"}
    assert expected.items() <= index.items()


def test_progress_counts_the_clips(tmp_path: Path) -> None:
    counts: list[int] = []
    pack(TinyClips(5), tmp_path, clips_per_shard=2, progress=counts.append)
    assert counts == [2, 2, 1]


def test_a_second_call_changes_nothing_and_mends_what_is_missing(tmp_path: Path) -> None:
    pack(TinyClips(5), tmp_path, clips_per_shard=2)
    before = contents(tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    (tmp_path / "shard-000001.tar").unlink()
    (tmp_path / ".unfinished-0123.tar").write_bytes(b"half of a shard")
    pack(TinyClips(5), tmp_path, clips_per_shard=2)
    assert contents(tmp_path) == before
    assert (tmp_path / "shard-000000.tar").stat().st_mtime_ns == times["shard-000000.tar"]


@pytest.mark.parametrize(
    ("clips", "settings", "message"),
    [
        (TinyClips(4), {"encoding": "png"}, "encoding='npy', expected 'png'"),
        (TinyClips(4), {"clips_per_shard": 3}, "clips_per_shard=2, expected 3"),
        (TinyClips(5), {}, "clips=4, expected 5"),
        (TinyClips(4, seconds=3), {}, "first and last clip="),
    ],
)
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, clips: TinyClips, settings: dict[str, Any], message: str
) -> None:
    pack(TinyClips(4), tmp_path, clips_per_shard=2)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"folder: .*{message}"):
        pack(clips, tmp_path, **({"clips_per_shard": 2} | settings))
    assert contents(tmp_path) == before


def test_other_clips_between_the_same_first_and_last_are_noticed(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 4}, size=32, videos=False)
    table = tmp_path / "Multi-sources" / "ms3_meta_data.csv"
    pack(AVSBenchMS3(tmp_path, "test", normalize=False), tmp_path / "shards")
    header, first, second, third, last = table.read_text().splitlines()
    table.write_text("\n".join([header, first, third, second, last]))
    with pytest.raises(ValueError, match="ids="):
        pack(AVSBenchMS3(tmp_path, "test", normalize=False), tmp_path / "shards")


def test_shards_of_others_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "shard-000000.tar").write_bytes(b"of others")
    with pytest.raises(ValueError, match=r"folder: expected .*index.json beside its shards, or no shards"):
        pack(TinyClips(1), tmp_path)
    assert contents(tmp_path) == {"shard-000000.tar": b"of others"}


def test_what_would_be_stored_for_ever_is_refused(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, size=32, videos=False)
    random_clips = AVSBenchMS3(tmp_path, "test", normalize=False, transform=lambda clip: clip)
    with pytest.raises(ValueError, match="clips: expected a dataset without transform"):
        pack(random_clips, tmp_path / "shards")
    with pytest.raises(ValueError, match=r"frames: expected uint8, got torch.float32; .* normalize=False"):
        pack(AVSBenchMS3(tmp_path, "test"), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("clips", "settings", "message"),
    [
        (TinyClips(1), {"encoding": "jpeg"}, "encoding: expected one of 'npy', 'png', got 'jpeg'"),
        (TinyClips(1), {"clips_per_shard": 0}, "clips_per_shard: expected a number above 0"),
        (TinyClips(1), {"workers": 0}, "workers: expected a number above 0"),
        (TinyClips(0), {}, "clips: expected at least one"),
    ],
)
def test_senseless_arguments_are_named(
    tmp_path: Path, clips: TinyClips, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pack(clips, tmp_path, **settings)


class OneDamaged(TinyClips):
    damaged = 2

    def __getitem__(self, index: int) -> Clip:
        if index == self.damaged:
            raise ValueError("clip.2 is damaged")
        return super().__getitem__(index)


def test_a_damaged_clip_costs_its_shard_until_it_is_repaired(tmp_path: Path) -> None:
    clips = OneDamaged(6)
    with pytest.raises(ValueError, match=r"1 of 3 shards could not be written; the first: clip.2 is damaged"):
        pack(clips, tmp_path / "shards", clips_per_shard=2)
    assert sorted(contents(tmp_path / "shards")) == ["index.json", "shard-000000.tar", "shard-000002.tar"]
    with pytest.raises(ValueError, match="pack did not finish"):
        ShardedClips(tmp_path / "shards")
    clips.damaged = 99
    pack(clips, tmp_path / "shards", clips_per_shard=2)
    assert [clip.id for clip in ShardedClips(tmp_path / "shards")] == [f"clip.{i}" for i in range(6)]


def test_nothing_is_written_if_the_first_or_the_last_clip_is_damaged(tmp_path: Path) -> None:
    for damaged in (0, 5):
        clips = OneDamaged(6)
        clips.damaged = damaged
        with pytest.raises(ValueError, match=r"clip.2 is damaged"):
            pack(clips, tmp_path / "shards", clips_per_shard=2)
        assert not (tmp_path / "shards").exists()


def test_a_damaged_shard_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    pack(TinyClips(4), tmp_path, clips_per_shard=2)
    shard = tmp_path / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"1 of 2 shards .*shard-000000.tar: byte \d+: expected the"):
        pack(TinyClips(4), tmp_path, clips_per_shard=2)


def kill_and_resume(clips: TinyClips, folder: Path, moment: float, workers: int) -> bool:
    """Pack in a process that is killed after some seconds, then here; tell whether it was still at work."""
    context = multiprocessing.get_context("fork")
    process = context.Process(
        target=pack, args=(clips, folder), kwargs={"clips_per_shard": 3, "workers": workers}
    )
    process.start()
    time.sleep(moment)
    process.kill()
    process.join()
    pack(clips, folder, clips_per_shard=3)
    return process.exitcode == -signal.SIGKILL


class SlowClips(TinyClips):
    def __getitem__(self, index: int) -> Clip:
        time.sleep(0.002)
        return super().__getitem__(index)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it forks
@pytest.mark.parametrize(
    ("kills", "workers", "longest"),
    [
        (3, 1, None),
        pytest.param(20, 1, None, marks=pytest.mark.slow),
        pytest.param(5, 2, 8.0, marks=pytest.mark.slow),  # spawned workers begin after some seconds
    ],
)
def test_after_a_kill_the_outcome_is_the_same(
    tmp_path: Path, kills: int, workers: int, longest: float | None
) -> None:
    clips = SlowClips(40)
    begun = time.perf_counter()
    pack(clips, tmp_path / "whole", clips_per_shard=3)
    whole_time = time.perf_counter() - begun
    expected = contents(tmp_path / "whole")
    moments = random.Random(0)
    killed_at_work = [
        kill_and_resume(clips, tmp_path / f"{i}", moments.uniform(0, longest or whole_time), workers)
        for i in range(kills)
    ]
    assert any(killed_at_work)
    for i in range(kills):
        assert contents(tmp_path / f"{i}") == expected


@pytest.mark.slow  # spawned processes import torch anew
def test_the_number_of_workers_changes_no_bit(tmp_path: Path) -> None:
    for workers in (1, 2):
        pack(TinyClips(20), tmp_path / f"{workers}", clips_per_shard=3, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
