from __future__ import annotations

import copy
import io
import itertools
import json
import math
import os
import pickle
import random
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, distributed
from torch.utils.data import DataLoader, DistributedSampler, Subset

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, write_avsbench
from avslib.models import Segmentation, create_model
from avslib.storage.cache import CachedClips
from avslib.storage.pack import pack
from avslib.storage.shard_reader import ShardedClips, deal_out, epoch_order
from avslib.training import evaluation, fit
from tests.storage._tiny import TinyClips, assert_same

forks = pytest.mark.filterwarnings("ignore:This process", "ignore:This DataLoader")  # on few cores
COUNT = 23


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    pack(TinyClips(COUNT), folder, clips_per_shard=5)
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two shards of two clips each, to be damaged."""
    pack(TinyClips(4), tmp_path, clips_per_shard=2)
    return tmp_path


def ids(loader: DataLoader[Clip] | ShardedClips) -> list[str]:
    return [name for clip in loader for name in ([clip.id] if isinstance(clip.id, str) else clip.id)]


def all_ids(count: int = COUNT) -> list[str]:
    return sorted(f"clip.{index}" for index in range(count))


# The order


def literal_order(lengths: Sequence[int], window: int, seed: int, epoch: int) -> list[int]:
    """The same as epoch_order, clip by clip."""
    numbers = iter(range(sum(lengths)))
    shards = [[next(numbers) for _ in range(length)] for length in lengths]
    if not window:
        return [number for shard in shards for number in shard]
    generator = np.random.default_rng((seed, epoch))
    line = [number for shard in generator.permutation(len(shards)) for number in shards[shard]]
    draws = iter(generator.random(len(line)).tolist())
    order = []
    for start in range(0, len(line), window):
        drawn = [(next(draws), number) for number in line[start : start + window]]
        order += [number for _, number in sorted(drawn)]
    return order


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    window=st.integers(0, 12),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
def test_the_order_is_shards_then_windows(lengths: list[int], window: int, seed: int, epoch: int) -> None:
    order = epoch_order(lengths, window=window, seed=seed, epoch=epoch).tolist()
    assert order == literal_order(lengths, window, seed, epoch)
    assert sorted(order) == list(range(sum(lengths)))


def test_a_large_window_makes_every_order_as_likely() -> None:
    orders = [tuple(epoch_order([2, 2], window=9, seed=0, epoch=epoch).tolist()) for epoch in range(2400)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == math.factorial(4)
    assert sum((count - 100) ** 2 / 100 for count in counts) < 50  # chi-square of 23: 50 has p = 0.001


def test_the_order_of_a_million_clips_is_made_at_once() -> None:
    begun = time.process_time()
    order = epoch_order([1000] * 1000, window=10_000, seed=0, epoch=0)
    assert time.process_time() - begun < 5
    assert len(order) == 1_000_000


@given(
    count=st.integers(1, 60),
    world=st.integers(1, 5),
    batch_size=st.integers(1, 7),
    uneven=st.sampled_from(["keep", "drop", "repeat"]),
)
def test_every_clip_is_dealt_out_as_promised(count: int, world: int, batch_size: int, uneven: str) -> None:
    whole = world * batch_size
    order = np.random.default_rng(count).permutation(count)
    if uneven == "drop" and count < whole:
        with pytest.raises(ValueError, match=f"uneven: 'drop' needs {whole} clips.* got {count}"):
            deal_out(order, rank=0, world=world, batch_size=batch_size, uneven=uneven)
        return
    shares = [
        deal_out(order, rank=rank, world=world, batch_size=batch_size, uneven=uneven).tolist()
        for rank in range(world)
    ]
    lengths = {len(share) for share in shares}
    dealt = [number for round_ in itertools.zip_longest(*shares) for number in round_ if number is not None]
    if uneven == "keep":
        assert dealt == order.tolist()
        assert max(lengths) - min(lengths) <= 1
        return
    assert len(lengths) == 1
    assert lengths.pop() % batch_size == 0
    if uneven == "drop":
        assert dealt == order[: count - count % whole].tolist()
    else:
        assert dealt == list(itertools.islice(itertools.cycle(order.tolist()), len(dealt)))
        assert count <= len(dealt) < count + whole


# What a loader gives


@given(
    world=st.integers(1, 5),
    batch_size=st.none() | st.integers(1, 9),
    window=st.sampled_from([0, 1, 4, 7, 100]),
    epoch=st.integers(0, 2),
    skipped=st.integers(0, 30),
)
def test_all_ranks_together_see_every_clip_once_and_any_of_them_resumes(
    shards: Path, world: int, batch_size: int | None, window: int, epoch: int, skipped: int
) -> None:
    readers = [
        ShardedClips(shards, batch_size=batch_size, shuffle=window, rank=rank, world=world)
        for rank in range(world)
    ]
    seen = []
    for reader in readers:
        reader.set_epoch(epoch)
        whole = [[clip.id] if isinstance(clip.id, str) else list(clip.id) for clip in reader]
        assert len(reader) == len(whole) <= len(readers[0])
        assert all(len(batch) == (batch_size or 1) for batch in whole[:-1])
        seen += [name for batch in whole for name in batch]
        reader.set_epoch(epoch, skipped)
        rest = [[clip.id] if isinstance(clip.id, str) else list(clip.id) for clip in reader]
        assert rest == whole[skipped:]
    assert sorted(seen) == all_ids()


@forks
@pytest.mark.parametrize("batch_size", [None, 1, 4, 9])
@settings(max_examples=8)
@given(
    world=st.integers(1, 3),
    workers=st.integers(1, 4),
    window=st.sampled_from([0, 4, 100]),
    skipped=st.integers(0, 5),
)
def test_the_number_of_workers_does_not_change_the_stream(
    shards: Path, batch_size: int | None, world: int, workers: int, window: int, skipped: int
) -> None:
    reader = ShardedClips(shards, batch_size=batch_size, shuffle=window, rank=world - 1, world=world)
    reader.set_epoch(1, skipped)
    loader = DataLoader(reader, batch_size=None, num_workers=workers)
    for ours, alone in itertools.zip_longest(loader, reader):
        # a loader turns the tuple of a batch's names into a list
        assert_same(ours if batch_size is None else ours._replace(id=tuple(ours.id)), alone)


@forks
def test_two_ranks_with_two_workers_each_see_every_clip_once_in_both_readers(
    shards: Path, tmp_path: Path
) -> None:
    cached = CachedClips(TinyClips(COUNT), tmp_path / "cache")
    sharded = [ShardedClips(shards, batch_size=4, shuffle=8, rank=rank, world=2) for rank in range(2)]
    samplers = [DistributedSampler(range(22), num_replicas=2, rank=rank) for rank in range(2)]
    for epoch in range(2):
        streams, maps = [], []
        for rank in range(2):
            sharded[rank].set_epoch(epoch)
            samplers[rank].set_epoch(epoch)
            streams += ids(DataLoader(sharded[rank], batch_size=None, num_workers=2))
            maps += ids(DataLoader(cached, batch_size=4, sampler=samplers[rank], num_workers=2))
        assert sorted(streams) == all_ids()
        assert sorted(maps) == sorted(f"clip.{i}" for i in range(22))  # DistributedSampler repeats to even


@forks
def test_workers_that_persist_hear_of_the_epoch(shards: Path) -> None:
    reader = ShardedClips(shards, batch_size=4, shuffle=8)
    loader = DataLoader(reader, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in range(3):
        reader.set_epoch(epoch)
        assert len(loader) == 6
        epochs.append(ids(loader))
        assert sorted(epochs[-1]) == all_ids()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    for batches in itertools.chain.from_iterable([(epoch, 2), (epoch, 0)] for epoch in range(3)):
        reader.set_epoch(*batches)
        assert ids(loader) == epochs[batches[0]][4 * batches[1] :]
    del loader


@forks
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda reader: pickle.loads(pickle.dumps(reader))])
def test_the_workers_of_a_copy_hear_of_the_epoch(
    shards: Path, copied: Callable[[ShardedClips], ShardedClips]
) -> None:
    reader = copied(ShardedClips(shards, batch_size=4, shuffle=8))
    loader = DataLoader(reader, batch_size=None, num_workers=1, persistent_workers=True)
    for epoch in range(2):
        reader.set_epoch(epoch)
        assert ids(loader) == ids(reader)
    del loader


def one_that_was_sent(rank: int, sent: bytes, folder: Path) -> None:
    """Read in a process that was handed the reader before the ranks were known."""
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    reader = pickle.loads(sent)
    worker = pickle.loads(pickle.dumps(reader))
    distributed.barrier()  # else one may be gone before the other has found it
    distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(ids(worker)))


@forks
def test_ranks_share_a_reader_that_they_are_given(shards: Path, tmp_path: Path) -> None:
    sent = pickle.dumps(ShardedClips(shards))
    torch.multiprocessing.start_processes(one_that_was_sent, (sent, tmp_path), nprocs=2, start_method="fork")
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == all_ids()


@forks
def test_a_loader_may_make_the_batches(shards: Path) -> None:
    reader = ShardedClips(shards, shuffle=8)
    assert sorted(ids(DataLoader(reader, batch_size=4, num_workers=2))) == all_ids()


@forks
def test_training_goes_through_the_epochs(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"train": 5}, size=32, videos=False)
    pack(AVSBenchMS3(tmp_path, "train", size=(32, 32), normalize=False), tmp_path / "shards")
    reader = ShardedClips(tmp_path / "shards", batch_size=2, shuffle=5, normalize=False)
    model, seen = create_model("audio_blind.small"), []

    def objective(output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        seen.extend(clip.id)
        return {"loss": output.logits.square().mean()}

    loader = DataLoader(reader, batch_size=None, num_workers=2, persistent_workers=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    fit(model, objective, loader, optimizer, epochs=2, run_dir=tmp_path / "run", progress=False)
    expected = []
    for epoch in range(2):
        reader.set_epoch(epoch)
        expected += ids(reader)
    assert seen == expected
    assert seen[:5] != seen[5:]
    fit(model, objective, loader, optimizer, epochs=3, run_dir=tmp_path / "run", resume=True, progress=False)
    reader.set_epoch(2)
    assert seen[10:] == ids(reader)  # a run that is taken up goes on with the next epoch's order


TRAIN_ONE_OF_TWO = """
import json, os, torch
from torch.utils.data import DataLoader
from avslib.models import create_model
from avslib.storage import ShardedClips
from avslib.training import fit
from accelerate import Accelerator

model, seen = create_model("audio_blind.small"), []

def objective(output, clip):
    seen.extend(clip.id)
    return {"loss": output.logits.square().mean()}

clips = ShardedClips("shards", batch_size=1, shuffle=5, uneven="drop", normalize=False)
accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=False)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
loader = DataLoader(clips, batch_size=None)
fit(model, objective, loader, optimizer, epochs=2, run_dir="run", accelerator=accelerator, progress=False)
open(f"{accelerator.process_index}.json", "w").write(json.dumps(seen))
"""


@pytest.mark.slow
def test_two_processes_train_on_shards_without_sharing_them_twice(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"train": 4}, size=32, videos=False)
    pack(AVSBenchMS3(tmp_path, "train", size=(32, 32), normalize=False), tmp_path / "shards")
    (tmp_path / "train.py").write_text(TRAIN_ONE_OF_TWO)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(
        [sys.executable, *launcher], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert len(one) == len(other) == 4
    for epoch in (slice(0, 2), slice(2, 4)):
        assert len({*one[epoch], *other[epoch]}) == 4


def test_a_seed_tells_the_order(shards: Path) -> None:
    first, again, other = (ids(ShardedClips(shards, shuffle=8, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert ids(ShardedClips(shards)) == [f"clip.{index}" for index in range(COUNT)]


def test_a_batch_is_its_clips(shards: Path) -> None:
    batch = next(iter(ShardedClips(shards, batch_size=3, normalize=False)))
    for index in range(3):
        one = Clip(*(field[index] for field in batch[:5]), batch.id[index])
        assert_same(one, TinyClips(COUNT)[index])


def test_a_transform_sees_bytes_before_they_are_normalised(shards: Path) -> None:
    def black(clip: Clip) -> Clip:
        assert clip.frames.dtype == torch.uint8
        return clip._replace(frames=torch.zeros_like(clip.frames))

    (clip, *_) = ShardedClips(shards, transform=black)
    assert clip.frames.dtype == torch.float32
    assert clip.frames[0, :, 0, 0].tolist() == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-4)


def test_what_is_read_may_be_changed_in_place(shards: Path) -> None:
    reader = ShardedClips(shards, normalize=False)
    clip = next(iter(reader))
    for tensor in clip[:5]:
        tensor.zero_()
    assert_same(next(iter(reader)), TinyClips(COUNT)[0])


def test_without_an_index_the_headers_tell(damaged: Path) -> None:
    (damaged / "index.json").unlink()
    (damaged / ".unfinished-0123.tar").write_bytes(b"half")
    assert ids(ShardedClips(damaged, shuffle=2)) != []
    assert ids(ShardedClips(damaged)) == [f"clip.{index}" for index in range(4)]


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_shards_that_others_wrote_are_read(damaged: Path, format_: int) -> None:
    with (
        tarfile.open(damaged / "shard-000000.tar") as ours,
        tarfile.open(damaged / "other.tar", "w", format=format_) as theirs,
    ):
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        theirs.addfile(folder)
        for member in ours:
            data = ours.extractfile(member)
            member.name = f"train/of.none/{member.name}"
            member.mtime = 1.5 if format_ == tarfile.PAX_FORMAT else 1  # an extended header a file
            member.uname = "someone"
            theirs.addfile(member, data)
        theirs.addfile(tarfile.TarInfo("train/README"))
    for path in damaged.glob("[is]*"):
        path.unlink()
    for index, clip in enumerate(ShardedClips(damaged, normalize=False)):
        assert_same(clip, TinyClips(4)[index])
    assert index == 1


def test_what_the_webdataset_library_writes_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    clips = TinyClips(3)
    with webdataset.TarWriter(str(tmp_path / "theirs.tar")) as writer:
        for index, clip in enumerate(clips):
            writer.write(
                {
                    "__key__": f"clips/{index}",
                    "frames.npy": clip.frames.numpy(),
                    "masks.npy": clip.masks.to(torch.uint8).numpy(),
                    "log_mel.npy": clip.log_mel.numpy(),
                    "json": {
                        "id": clip.id,
                        "labelled": clip.labelled.tolist(),
                        "valid": clip.valid.tolist(),
                    },
                }
            )
    for index, clip in enumerate(ShardedClips(tmp_path, normalize=False)):
        assert_same(clip, clips[index])
    assert index == 2


# Damage and malice


def flip(path: Path, begin: int) -> None:
    data = bytearray(path.read_bytes())
    data[begin] ^= 0xFF
    path.write_bytes(data)


def test_a_shard_that_lacks_its_end_is_named(damaged: Path) -> None:
    path = damaged / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-10_000])
    with pytest.raises(ValueError, match=r"shard-000001.tar: expected \d+ bytes, got \d+; copy it again"):
        ShardedClips(damaged)
    with pytest.warns(UserWarning, match=r"shard-000001.tar: expected \d+ bytes"):
        reader = ShardedClips(damaged, on_error="skip")
    with pytest.warns(UserWarning, match=r"a clip is left out: .*shard-000001.tar, sample 1"):
        clips = list(reader)
    assert [clip.id for clip in clips] == ["clip.0", "clip.1", "clip.2", "shard-000001.tar:1"]
    assert [bool(clip.valid.any()) for clip in clips] == [True, True, True, False]
    (damaged / "index.json").unlink()
    with pytest.raises(ValueError, match=r"shard-000001.tar: byte \d+: .*; the shard is damaged"):
        ShardedClips(damaged)


def test_a_missing_shard_is_named(damaged: Path) -> None:
    (damaged / "shard-000000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-000000.tar: expected \d+ bytes, got no file"):
        ShardedClips(damaged)
    with pytest.warns(UserWarning, match=r"shard-000000.tar|left out"):
        clips = list(ShardedClips(damaged, on_error="skip"))
    assert [bool(clip.valid.any()) for clip in clips] == [False, False, True, True]
    for blank in clips[:2]:
        for tensor, like in zip(blank[:5], clips[2][:5], strict=True):
            assert tensor.shape == like.shape
            assert tensor.dtype == like.dtype
        assert not blank.labelled.any()


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected index.json or tar files, found neither"):
        ShardedClips(tmp_path)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_damaged_header_is_named(damaged: Path, scanned: bool) -> None:
    with tarfile.open(damaged / "shard-000001.tar") as shard:
        begin = shard.getmember("000000003.log_mel.npy").offset
    flip(damaged / "shard-000001.tar", begin)
    if scanned:
        (damaged / "index.json").unlink()
        with pytest.raises(ValueError, match=f"shard-000001.tar: byte {begin}: .*bad checksum"):
            ShardedClips(damaged)
        return
    with pytest.raises(ValueError, match=r"shard-000001.tar, sample 1 from byte \d+: .*bad checksum"):
        list(ShardedClips(damaged))
    with pytest.warns(UserWarning, match=r"shard-000001.tar, sample 1 from byte"):
        clips = list(ShardedClips(damaged, on_error="skip", batch_size=4))
    assert clips[0].valid.any(dim=1).tolist() == [True, True, True, False]


def test_with_nothing_left_skipping_is_refused(tmp_path: Path) -> None:
    pack(TinyClips(1), tmp_path)
    flip(tmp_path / "shard-000000.tar", 0)
    with pytest.raises(ValueError, match="expected a clip that can be read, found none"):
        ShardedClips(tmp_path, on_error="skip")


def npy(array: np.ndarray, **header: object) -> bytes:
    """An array as NumPy saves it, with some of its header replaced by lies."""
    file = io.BytesIO()
    told = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | header
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue() + array.tobytes()


FRAMES = np.zeros((2, 3, 4, 6), np.uint8)
FILES = {
    "frames.npy": npy(FRAMES),
    "masks.npy": npy(FRAMES[:, 0]),
    "log_mel.npy": npy(np.zeros((2, 1, 96, 64), np.float32)),
    "json": b'{"id": "a", "labelled": [true, true], "valid": [true, true]}',
}


def write_sample(folder: Path, files: dict[str, bytes | None]) -> None:
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for extension, data in (FILES | files).items():
            if data is not None:
                member = tarfile.TarInfo(f"a.{extension}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch bomb",)


def png(mode: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"frames.npy": None}, r"expected a file .frame_0.png, got only .masks.npy"),
        ({"masks.npy": None}, r"expected a file .masks.npy"),
        ({"json": None}, r"expected a file .json|.json: expected"),
        ({"json": b'{"id": "a", "labelled": [true, true]}'}, r".json: expected .*KeyError\('valid'\)"),
        (
            {"json": b'{"id": 1, "labelled": [true], "valid": [true]}'},
            r".json: expected a text and two lists",
        ),
        ({"json": b'{"id": "a", "labelled": [1], "valid": [1]}'}, r".json: expected a text and two lists"),
        ({"json": b'{"id": "a", "labelled": [true], "valid": [true]}'}, r"labelled: expected shape \(t\)"),
        ({"json": b"[" * 100_000}, r".json: expected 'id'"),
        ({"json": b"\xff"}, r".json: expected 'id'"),
        ({"frames.npy": b""}, r".frames.npy: expected an array as NumPy saves it"),
        (
            {"frames.npy": FILES["frames.npy"][:-1]},
            r".frames.npy: expected .* numbers of uint8, got 143 bytes",
        ),
        ({"frames.npy": npy(FRAMES, shape=(2**31, 2**31))}, r".frames.npy: expected .* got 144 bytes"),
        ({"frames.npy": npy(FRAMES, shape=(-2, -3, 4, 6))}, r".frames.npy: expected .* got 144 bytes"),
        ({"frames.npy": npy(FRAMES, shape=())}, r".frames.npy: expected .* got 144 bytes"),
        ({"frames.npy": npy(FRAMES, fortran_order=True)}, r".frames.npy: expected torch.uint8 in C order"),
        ({"frames.npy": npy(FRAMES.astype(np.float32))}, r".frames.npy: expected torch.uint8 in C order"),
        (
            {"frames.npy": npy(FRAMES, descr="|O") + pickle.dumps(Bomb())},
            r".frames.npy: expected torch.uint8",
        ),
        ({"frames.npy": b"\x93NUMPY\x01\x00\x0e\x00__import__('os')"}, r".frames.npy: expected an array"),
        ({"masks.npy": npy(FRAMES[:, 0, :, :5])}, r"masks: expected shape \(t, h, w\)"),
        ({"log_mel.npy": npy(np.zeros((2, 1, 96, 63), np.float32))}, r"log_mel: expected shape"),
        ({"frames.npy": None, "frame_0.png": b"no picture"}, r".frame_0.png: expected a PNG picture of RGB"),
        ({"frames.npy": None, "frame_0.png": png("L", (6, 4))}, r".frame_0.png: .*6 x 4 pixels of L"),
        ({"frames.npy": None, "frame_0.png": png("RGB", (6, 4))[:48]}, r".frame_0.png: expected a PNG"),
        (
            {"frames.npy": None, "frame_0.png": png("RGB", (6, 4)), "frame_1.png": png("RGB", (5, 4))},
            r".frame_0.png: expected pictures of one size",
        ),
    ],
)
def test_a_damaged_or_hostile_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes | None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path, files)
    with pytest.raises(ValueError, match=f"shard.tar, sample 0 from byte 0: .*{message}"):
        list(ShardedClips(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["shard.tar"]


def test_a_picture_too_large_is_not_decoded(tmp_path: Path) -> None:
    header = bytearray(png("RGB", (1, 1)))
    header[16:24] = (2**17).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    write_sample(tmp_path, {"frames.npy": None, "frame_0.png": bytes(header)})
    with pytest.raises(ValueError, match=r".frame_0.png: .*131072 x 131072 pixels of RGB"):
        list(ShardedClips(tmp_path))


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_files_are_admitted(tmp_path: Path, type_: bytes) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        member = tarfile.TarInfo("a.frames.npy")
        member.type, member.linkname = type_, "/etc/passwd"
        shard.addfile(member)
    with pytest.raises(ValueError, match=r"byte 0: expected a file, got 'a.frames.npy' of type"):
        ShardedClips(tmp_path)


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_too_long_are_refused_rather_than_misread(tmp_path: Path, format_: int) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w", format=format_) as shard:
        shard.addfile(tarfile.TarInfo(f"{'a' * 300}.frames.npy"))
    with pytest.raises(ValueError, match=r"expected names of at most 256 bytes|got '././@LongLink' of type"):
        ShardedClips(tmp_path)


def test_an_empty_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"shard.tar: expected a tar file, got 0 bytes"):
        ShardedClips(tmp_path)
    (tmp_path / "shard.tar").write_bytes(bytes(1024))
    with pytest.raises(ValueError, match=r"shard.tar: expected samples, got none"):
        ShardedClips(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../shard-000000.tar"},
        {"file": "/etc/passwd"},
        {"file": 3},
        {"bytes": "many"},
        {"begins": [0]},
        {"begins": [0, 5, 5]},
        {"begins": [-512, 512]},
        {"begins": [0, 2**62]},
        {"begins": [0, 1.5]},
    ],
)
def test_a_damaged_or_hostile_index_is_named(damaged: Path, change: dict[str, object]) -> None:
    path = damaged / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0] |= change
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json: damaged; without it the index is made"):
        ShardedClips(damaged)


@pytest.mark.parametrize("text", ["", "[]", '{"shards": []}', '{"shards": 3}', "[" * 100_000])
def test_an_index_that_is_none_is_named(damaged: Path, text: str) -> None:
    (damaged / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index.json: (damaged|expected)"):
        ShardedClips(damaged)


def test_whatever_byte_is_changed_an_error_names_the_shard_or_a_clip_comes(damaged: Path) -> None:
    path = damaged / "shard-000000.tar"
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        begin = draw.choice([draw.randrange(len(data)), draw.randrange(2048)])
        data[begin] = draw.randrange(256)
        path.write_bytes(data)
        try:
            assert len(list(ShardedClips(damaged))) == 4
        except ValueError as error:
            assert "shard-000000.tar, sample" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"uneven": "pad"}, "uneven: expected one of 'keep', 'drop', 'repeat', got 'pad'"),
        ({"on_error": "hide"}, "on_error: expected one of"),
        ({"batch_size": 0}, "batch_size: expected a number above 0"),
        ({"shuffle": -1}, "shuffle: expected 0 or more, got -1"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
        ({"rank": 1}, "rank: expected both or neither of rank and world, got 1 and None"),
        ({"rank": 2, "world": 2}, "rank: expected 0 to 1, got 2"),
    ],
)
def test_senseless_arguments_are_named(shards: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardedClips(shards, **arguments)
    with pytest.raises(ValueError, match="epoch, skip_batches: expected 0 or more, got 0 and -1"):
        ShardedClips(shards).set_epoch(0, -1)


# Processes


@pytest.mark.slow  # a spawned process imports torch anew
def test_spawned_workers_hear_of_rank_and_epoch(shards: Path) -> None:
    reader = ShardedClips(shards, batch_size=4, shuffle=8, rank=1, world=2)
    loader = DataLoader(
        reader, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="spawn"
    )
    for epoch in range(2):
        reader.set_epoch(epoch)
        assert ids(loader) == ids(reader)


def one_of_two(rank: int, shards: Path, folder: Path) -> None:
    """Look at two epochs in a process that does not say its rank to the reader; note what was seen."""
    torch.set_num_threads(1)
    early = ShardedClips(shards, batch_size=4, shuffle=8)  # made before the ranks are known
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    seen = {"early": [], "late": [], "spawned": [], "map": [], "evaluated": []}
    late = ShardedClips(shards, batch_size=4, shuffle=8)
    cached = CachedClips(TinyClips(COUNT), folder / "cache")
    sampler = DistributedSampler(cached, drop_last=True)
    for epoch in range(2):
        for dataset in (early, late):
            dataset.set_epoch(epoch)
        sampler.set_epoch(epoch)
        seen["early"].append(ids(DataLoader(early, batch_size=None, num_workers=2)))
        seen["late"].append(ids(DataLoader(late, batch_size=None, num_workers=2)))
        seen["map"].append(ids(DataLoader(cached, batch_size=4, sampler=sampler, num_workers=2)))
        seen["evaluated"].append(ids(DataLoader(Subset(cached, evaluation._share(COUNT)), 4, num_workers=2)))
    spawned = DataLoader(early, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    seen["spawned"].append(ids(spawned))
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    distributed.destroy_process_group()


@pytest.mark.slow
@forks
def test_two_processes_see_every_clip_once_in_all_readers(shards: Path, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(one_of_two, (shards, tmp_path), nprocs=2, start_method="fork")
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name in ranks[0]:
        for shares in zip(*(rank[name] for rank in ranks), strict=True):
            seen = sorted(shares[0] + shares[1])
            if name == "map":  # DistributedSampler drops the last of 23
                assert len(set(seen)) == len(seen) == 22
            else:
                assert seen == all_ids(), name
    assert ranks[0]["late"][0] != ranks[0]["late"][1]
