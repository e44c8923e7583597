from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, AVSBenchS4, ClipDataset, MixedClips, SilentSound, write_avsbench
from avslib.storage.cache import CachedClips
from tests.storage._tiny import TinyClips, assert_same

forks = pytest.mark.filterwarnings("ignore:This process", "ignore:This DataLoader")  # on few cores


class Counted(TinyClips):
    """Notes how often each clip was asked for."""

    def __init__(self, count: int, **options: int) -> None:
        super().__init__(count, **options)
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> Clip:
        self.asked.append(index)
        return super().__getitem__(index)


class Noisy(TinyClips):
    """Gives another sound each time."""

    def __getitem__(self, index: int) -> Clip:
        clip = super().__getitem__(index)
        return clip._replace(log_mel=torch.randn_like(clip.log_mel))


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("setting", ["s4", "ms3"])
def test_what_is_cached_is_what_is_decoded(tmp_path: Path, setting: str) -> None:
    write_avsbench(tmp_path, setting=setting, clips={"train": 3}, size=32, videos=False)
    reader = {"s4": AVSBenchS4, "ms3": AVSBenchMS3}[setting]
    raw, normalised = (reader(tmp_path, "train", size=(32, 32), normalize=flag) for flag in (False, True))
    for clips, flag in ((raw, False), (normalised, True)):
        cached = CachedClips(raw, tmp_path / "cache", normalize=flag)
        assert len(cached) == len(clips) == 3
        for _ in range(2):
            for index in range(3):
                assert_same(cached[index], clips[index])


def test_a_clip_is_decoded_once(tmp_path: Path) -> None:
    clips = Counted(5)
    cached = CachedClips(clips, tmp_path)
    clips.asked.clear()
    for index in (3, 1, 3, -1, 4, 1):
        assert cached[index].id == f"clip.{index % 5}"
    assert clips.asked == [3, 1, 4]
    again = CachedClips(clips, tmp_path)
    clips.asked.clear()
    assert [clip.id for clip in again] == [f"clip.{index}" for index in range(5)]
    assert clips.asked == [0, 2]
    with pytest.raises(IndexError):
        again[5]


def test_random_changes_come_after_the_cache(tmp_path: Path) -> None:
    def shuffled(clip: Clip) -> Clip:
        assert clip.frames.dtype == torch.uint8
        return clip._replace(frames=clip.frames[torch.randperm(len(clip.frames))])

    plain = CachedClips(TinyClips(1, seconds=9), tmp_path, normalize=False)
    cached = CachedClips(TinyClips(1, seconds=9), tmp_path, normalize=False, transform=shuffled)
    draws = [cached[0].frames for _ in range(2)]
    assert not torch.equal(*draws)
    assert_same(plain[0], TinyClips(1, seconds=9)[0])


def test_what_is_read_may_be_changed_in_place(tmp_path: Path) -> None:
    cached = CachedClips(TinyClips(1), tmp_path, normalize=False)
    for _ in range(3):
        clip = cached[0]
        assert_same(clip, TinyClips(1)[0])
        for tensor in clip[:5]:
            tensor.zero_()


def test_classes_beyond_a_byte_are_kept(tmp_path: Path) -> None:
    clips = TinyClips(2, classes=1000)
    cached = CachedClips(clips, tmp_path, normalize=False)
    for index in (0, 1, 0, 1):
        assert_same(cached[index], clips[index])


def test_what_would_be_stored_for_ever_is_refused(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 1}, size=32, videos=False)
    with pytest.raises(
        ValueError, match=r"clips: expected a dataset without transform, .* the reader of the stored"
    ):
        CachedClips(
            AVSBenchMS3(tmp_path, "test", normalize=False, transform=lambda clip: clip), tmp_path / "c"
        )
    louder = AVSBenchMS3(
        tmp_path, "test", normalize=False, sound="wav", sound_transform=lambda wave: 2 * wave
    )
    with pytest.raises(ValueError, match="clips: expected a dataset without sound_transform"):
        CachedClips(louder, tmp_path / "c")
    with pytest.raises(ValueError, match=r"frames: expected uint8, got torch.float32; .* normalize=False"):
        CachedClips(AVSBenchMS3(tmp_path, "test"), tmp_path / "c")
    with pytest.raises(ValueError, match="clips: expected the same clip each time"):
        CachedClips(Noisy(3), tmp_path / "c")
    with pytest.raises(ValueError, match="clips: expected at least one, got none"):
        CachedClips(Noisy(0), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_cache_of_something_else_is_refused(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"train": 2, "test": 2}, size=32, videos=False)
    CachedClips(AVSBenchMS3(tmp_path, "test", size=(32, 32), normalize=False), tmp_path / "cache")
    for split, size, message in (
        ("test", (32, 48), r"size=\[32, 32\], expected \[32, 48\]"),
        ("train", (32, 32), "split='test', expected 'train'"),
    ):
        other = AVSBenchMS3(tmp_path, split, size=size, normalize=False)
        with pytest.raises(ValueError, match=f"folder: .*cache.json says that it was made with {message}"):
            CachedClips(other, tmp_path / "cache")
    CachedClips(TinyClips(3), tmp_path / "tiny")
    with pytest.raises(ValueError, match="first and last clip="):
        CachedClips(TinyClips(3, seconds=4), tmp_path / "tiny")
    (tmp_path / "tiny" / "cache.json").write_text("{")
    with pytest.raises(ValueError, match=r"cache.json: expected JSON"):
        CachedClips(TinyClips(3), tmp_path / "tiny")


def test_a_subset_is_known_by_which_clips_of_what_it_has(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"train": 6}, size=32, videos=False)
    reader = AVSBenchMS3(tmp_path, "train", size=(32, 32), normalize=False)
    for clips, name in ((reader, "reader"), (TinyClips(6), "tiny")):
        CachedClips(Subset(clips, [0, 1, 2, 5]), tmp_path / name)
        again = CachedClips(Subset(Subset(clips, range(6)), torch.tensor([0, 1, 2, 5])), tmp_path / name)
        assert [clip.id for clip in again] == [clips[index].id for index in (0, 1, 2, 5)]
        with pytest.raises(ValueError, match="says that it was made with indices="):
            CachedClips(Subset(clips, [0, 3, 4, 5]), tmp_path / name)
    other = AVSBenchMS3(tmp_path, "train", size=(32, 32), normalize=False, sound="wav")
    with pytest.raises(ValueError, match="made with sound='log_mel', expected 'wav'"):
        CachedClips(Subset(other, [0, 1, 2, 5]), tmp_path / "reader")


def test_a_concatenation_is_known_by_its_parts(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"train": 3, "test": 3}, size=32, videos=False)
    train, test = (
        AVSBenchMS3(tmp_path, split, size=(32, 32), normalize=False) for split in ("train", "test")
    )
    parts = [train, test, train]
    for _ in range(2):
        cached = CachedClips(ConcatDataset(parts), tmp_path / "cache", normalize=False)
    for clip, expected in zip(cached, ConcatDataset(parts), strict=True):
        assert_same(clip, expected)
    with pytest.raises(ValueError, match=r"says that it was made with parts=\[.*'split': 'test'"):
        CachedClips(ConcatDataset([train, train, train]), tmp_path / "cache")
    with pytest.raises(ValueError, match="clips: expected the same clip each time"):
        CachedClips(ConcatDataset([train, Noisy(3), train]), tmp_path / "other")


@pytest.mark.parametrize(
    "around",
    [
        lambda clips: Subset(clips, range(3)),
        lambda clips: ConcatDataset([TinyClips(2), clips, TinyClips(2)]),
        SilentSound,
    ],
)
def test_what_would_be_stored_for_ever_is_refused_behind_another_dataset(
    around: Callable[[ClipDataset], ClipDataset], tmp_path: Path
) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 3}, size=32, videos=False)
    options = {"size": (32, 32), "normalize": False, "sound": "wav"}
    changed = AVSBenchMS3(tmp_path, "test", **options, transform=lambda clip: clip)
    with pytest.raises(ValueError, match="clips: expected a dataset without transform"):
        CachedClips(around(changed), tmp_path / "c")
    mixed = MixedClips(AVSBenchMS3(tmp_path, "test", **options), probability=0.01)
    for clips in (mixed, around(mixed)):
        with pytest.raises(ValueError, match="clips: expected a dataset that does not mix its clips"):
            CachedClips(clips, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_damaged_file_is_made_anew(tmp_path: Path, kept: int) -> None:
    cached = CachedClips(TinyClips(2), tmp_path, normalize=False)
    expected = cached[1]
    (path,) = tmp_path.rglob("*1.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.warns(UserWarning, match=r"000000001.safetensors: is damaged and will be replaced"):
        assert_same(cached[1], expected)
    assert_same(cached[1], expected)


def test_a_clip_that_could_not_be_read_is_not_stored(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 3}, size=32, videos=False)
    clips = AVSBenchMS3(tmp_path, "test", size=(32, 32), normalize=False, on_error="skip")
    cached = CachedClips(clips, tmp_path / "cache")
    frame = clips.clips[1].frames[0]
    whole = frame.read_bytes()
    frame.write_bytes(whole[:40])
    for _ in range(2):
        with pytest.warns(UserWarning, match="is left out"):
            assert not cached[1].valid.any()
    frame.write_bytes(whole)
    assert cached[1].valid.all()


@forks
def test_workers_may_store_the_same_clips_at_once(tmp_path: Path) -> None:
    cached = CachedClips(TinyClips(3), tmp_path, normalize=False)
    for index, clip in enumerate(DataLoader(cached, batch_size=None, sampler=[0, 1, 2] * 8, num_workers=3)):
        assert_same(clip, TinyClips(3)[index % 3])
    assert names(tmp_path) == [*(f"000000/00000000{i}.safetensors" for i in range(3)), "cache.json"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="makes processes that start at once")
@forks
def test_processes_may_make_and_use_a_cache_at_once(tmp_path: Path) -> None:
    def look() -> None:
        cached = CachedClips(TinyClips(20), tmp_path / "cache", normalize=False)
        for index in range(20):
            assert_same(cached[index], TinyClips(20)[index])

    processes = [multiprocessing.get_context("fork").Process(target=look) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(names(tmp_path / "cache")) == 21
    assert "version" in json.loads((tmp_path / "cache" / "cache.json").read_text())
