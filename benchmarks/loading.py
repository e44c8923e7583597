"""Measure how many clips per second one worker reads from pictures, from the cache and from shards.

  python benchmarks/loading.py --clips 64 --rounds 9 --out benchmarks/results/cpu/loading.json

Writes synthetic clips, caches and packs them, and checks that every way gives the same clips as a plain loop
with Pillow. Then it times all ways in turn: reading batches in this process (no workers), and through a
DataLoader with one worker, which hands them over in shared memory. With a GPU, the copy to it counts too.
Prints clips per second, and the resulting size and time for a million clips. Files come from the page cache.
The speed of a disk is another limit, for which MB/clip and MB/s are printed.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import PIL
import torch
from _measure import make_parser, set_up, time_in_turn, write
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, write_avsbench
from avslib.data.layout import ClipFiles, list_ms3
from avslib.media import normalize_frames
from avslib.media.frame import IMAGENET_MEAN, IMAGENET_STD
from avslib.storage.cache import CachedClips
from avslib.storage.pack import pack
from avslib.storage.shard_reader import ShardedClips

PLAIN = "Pillow, plain"
WORKERS = (0, 1)
GPU_RATES = (20, 100, 500)
"""Clips per second that one GPU may need during training."""


class PlainClips(Dataset[Clip]):
    """A first implementation: it turns each picture into a normalised tensor and unpickles the sound."""

    def __init__(self, files: list[ClipFiles]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Clip:
        files = self.files[index]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        frames, masks = [], []
        for path in files.frames:
            array = np.array(Image.open(path).convert("RGB"))
            frames.append((torch.from_numpy(array).permute(2, 0, 1).float() / 255 - mean) / std)
        for mask in files.masks:
            assert mask is not None
            masks.append(torch.from_numpy(np.array(Image.open(mask).convert("L")) > 0).long())
        log_mel = pickle.loads(files.log_mel.read_bytes())
        there = torch.ones(len(frames), dtype=torch.bool)
        return Clip(torch.stack(frames), log_mel, torch.stack(masks), there, there.clone(), files.id)


class Way(NamedTuple):
    """One way to read the clips, and the files that it reads."""

    clips: Dataset[Clip]
    paths: Iterable[Path]
    batches_itself: bool = False

    def loader(self, batch_size: int, workers: int, *, pin: bool = False) -> DataLoader[Clip]:
        """Return a loader that reads all clips in batches, into pinned memory if asked."""
        return DataLoader(
            self.clips,
            batch_size=None if self.batches_itself else batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
        )


def prepare(root: Path, count: int, size: int, batch_size: int) -> dict[str, Way]:
    """Write, cache and pack the clips, and return the ways to read them."""
    write_avsbench(
        root, setting="ms3", clips={"test": count}, size=size, videos=False, workers=os.cpu_count() or 1
    )
    files = list_ms3(root)
    pictures = [path for clip in files for path in (*clip.frames, *clip.masks) if path is not None]
    pickled, waves = ([*pictures, *(getattr(clip, kind) for clip in files)] for kind in ("log_mel", "wav"))
    reader = partial(AVSBenchMS3, root, "test", size=(size, size))
    raw = reader(normalize=False)
    ways = {
        PLAIN: Way(PlainClips(files), pickled),
        "pictures, float": Way(reader(), pickled),
        "pictures, uint8": Way(raw, pickled),
        "pictures and WAV, uint8": Way(reader(normalize=False, sound="wav"), waves),
    }
    for normalize in (True, False):
        cached = CachedClips(raw, root / "cache", normalize=normalize)
        for index in range(count):
            cached[index]
        stored = (root / "cache").rglob("*.safetensors")
        ways[f"cache, {'float' if normalize else 'uint8'}"] = Way(cached, stored)
    for encoding, normalize in (("npy", True), ("npy", False), ("png", False)):
        folder = root / encoding
        pack(raw, folder, encoding=encoding)
        sharded = ShardedClips(folder, batch_size=batch_size, shuffle=count, normalize=normalize)
        name = f"shards of {encoding}, {'float' if normalize else 'uint8'}"
        ways[name] = Way(sharded, folder.glob("*.tar"), batches_itself=True)
    return {name: way._replace(paths=list(way.paths)) for name, way in ways.items()}


def check(ways: Mapping[str, Way], count: int) -> None:
    """Raise ``AssertionError`` unless every way gives the same clips."""
    expected = {clip.id: clip for clip in (ways[PLAIN].clips[index] for index in range(count))}
    for name, way in ways.items():
        precision = 1e-2 if "WAV" in name else 1e-6  # a WAV file has 16 bits a sample
        seen = []
        for batch in way.loader(1, 0):
            if batch.frames.dtype == torch.uint8:
                batch = batch._replace(frames=normalize_frames(batch.frames))
            for i, clip_id in enumerate(batch.id):
                seen.append(clip_id)
                for ours, theirs in zip(batch[:5], expected[clip_id][:5], strict=True):
                    torch.testing.assert_close(ours[i], theirs, rtol=0, atol=precision)
        assert sorted(seen) == sorted(expected)


def read_all(loader: DataLoader[Clip], count: int, device: torch.device) -> None:
    """Read all clips once and copy them to a device."""
    seen = 0
    for batch in loader:
        for field in batch[:5]:
            field.to(device, non_blocking=True)
        seen += len(batch.id)
    assert seen == count


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.set_defaults(threads=1)
    parser.add_argument("--clips", type=int, default=32, help="clips of five frames, read once a round")
    parser.add_argument("--size", type=int, default=224, help="side of a frame, px")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20, help="of timing with and without worker, about")
    arguments = parser.parse_args()
    device, count = set_up(arguments), arguments.clips

    with TemporaryDirectory() as folder:
        ways = prepare(Path(folder), count, arguments.size, arguments.batch_size)
        check(ways, count)
        timings = {}
        for workers in WORKERS:
            loaders = {
                name: way.loader(arguments.batch_size, workers, pin=device.type == "cuda")
                for name, way in ways.items()
            }
            runs = {name: partial(read_all, loader, count, device) for name, loader in loaders.items()}
            timings[workers] = time_in_turn(
                runs, device=device, rounds=arguments.rounds, seconds=arguments.seconds
            )
            del loaders, runs  # ends the workers
        sizes = {name: sum(path.stat().st_size for path in way.paths) / count for name, way in ways.items()}

    rows = []
    print(f"{'clips/s':26}{'workers':>8}{'p50':>8}{'p10':>8}{'p90':>8}{'x plain':>9}{'MB/clip':>10}")
    for workers, name in product(WORKERS, ways):
        ms, speedup = timings[workers][name]
        rates = {p: 1e3 * count / ms[q] for p, q in (("p10", "p90"), ("p50", "p50"), ("p90", "p10"))}
        print(f"{name:26}{workers:8}", end="")
        print("".join(f"{rates[p]:8.0f}" for p in ("p50", "p10", "p90")), end="")
        print(f"{speedup['p50']:9.1f}{sizes[name] / 1e6:10.3f}")
        rows.append(
            {
                "implementation": name,
                "workers": workers,
                "clips/s": rates,
                "speedup": speedup,
                "bytes a clip": sizes[name],
            }
        )

    print(f"\n{'a million clips':26}{'TB':>8}{'h/worker':>9}", end="")
    print("".join(f"{f'workers, MB/s at {rate}/s':>28}" for rate in GPU_RATES))
    million = []
    for name in ways:
        rate_of_worker = 1e3 * count / timings[1][name].ms["p50"]
        hours, terabytes = 1e6 / rate_of_worker / 3600, sizes[name] / 1e6
        needs = {rate: (math.ceil(rate / rate_of_worker), rate * sizes[name] / 1e6) for rate in GPU_RATES}
        print(f"{name:26}{terabytes:8.2f}{hours:9.1f}", end="")
        print("".join(f"{f'{workers}, {megabytes:.0f}':>28}" for workers, megabytes in needs.values()))
        million.append(
            {
                "implementation": name,
                "TB": terabytes,
                "hours an epoch takes one worker": hours,
                "workers and MB/s by clips/s of a GPU": needs,
            }
        )
    versions = {"numpy": np.__version__, "pillow": PIL.__version__}
    write(arguments, "loading", rows, **versions, **{"a million clips": million})


if __name__ == "__main__":
    main()
