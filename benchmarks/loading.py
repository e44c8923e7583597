"""How many clips a second one worker reads: from pictures, from the cache, from shards.

  python benchmarks/loading.py --clips 64 --runs 9 --out benchmarks/results/cpu/loading.json

Writes synthetic clips, caches and packs them, checks that every way gives what a plain loop over Pillow
gives, then times all in turn: reading batches in this process, and through a DataLoader with one worker,
which hands them over in shared memory. Prints the machine, quantiles, and what follows for a million clips.
Files come from the page cache: the speed of a disk is another limit, for which MB/clip and MB/s are told.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import avslib
from avslib.clip import Clip
from avslib.data import AVSBenchMS3, write_avsbench
from avslib.data.layout import ClipFiles, list_ms3
from avslib.media import normalize_frames
from avslib.media.frame import IMAGENET_MEAN, IMAGENET_STD
from avslib.storage.cache import CachedClips
from avslib.storage.pack import pack
from avslib.storage.shard_reader import ShardedClips

PLAIN = "Pillow, plain"
GPU_RATES = (20, 100, 500)
"""Clips a second that one GPU may take while it trains."""


class PlainClips(Dataset[Clip]):
    """What one writes first: every picture by itself to a normalised tensor, and a pickle."""

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
    """One way to read the clips, and how large they are on disk."""

    clips: Dataset[Clip]
    paths: Iterable[Path]
    batches_itself: bool = False

    def loader(self, batch_size: int, workers: int) -> DataLoader[Clip]:
        """Return what reads all clips, in batches."""
        return DataLoader(
            self.clips,
            batch_size=None if self.batches_itself else batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
        )


def prepare(root: Path, count: int, size: int, batch_size: int) -> dict[str, Way]:
    """Write, cache and pack the clips; return the ways to read them."""
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
    """Raise unless every way gives the same clips."""
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


def clips_per_second(loader: DataLoader[Clip]) -> float:
    """Read all clips once."""
    begun, count = time.perf_counter(), 0
    for batch in loader:
        count += len(batch.id)
    return count / (time.perf_counter() - begun)


def commit() -> str:
    """Tell which commit is measured; with a plus if files were changed since."""
    git = partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    changed = "+" if git(["git", "status", "--porcelain"]).stdout.strip() else ""
    return git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip() + changed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--size", type=int, default=224, help="side of a frame, px")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--runs", type=int, default=9, help="times that all clips are read each way")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "avslib": avslib.__version__,
        "commit": commit(),
    }
    print(machine)
    with TemporaryDirectory() as folder:
        ways = prepare(Path(folder), arguments.clips, arguments.size, arguments.batch_size)
        check(ways, arguments.clips)
        loaders = {
            (name, workers): way.loader(arguments.batch_size, workers)
            for name, way in ways.items()
            for workers in (0, 1)
        }
        for loader in loaders.values():
            clips_per_second(loader)  # a worker starts once
        rates: dict[tuple[str, int], list[float]] = {key: [] for key in loaders}
        for _ in range(arguments.runs):
            for key, loader in loaders.items():
                rates[key].append(clips_per_second(loader))
        del loaders
        sizes = {
            name: sum(path.stat().st_size for path in way.paths) / arguments.clips
            for name, way in ways.items()
        }

    rows = []
    print(f"\n{'clips/s of one process':26}{'p10':>8}{'p50':>8}{'p90':>8}{'x plain':>9}", end="")
    print(f"{'one worker':>14}{'p10':>8}{'p90':>8}{'x plain':>9}{'MB/clip':>10}")
    for name in ways:
        row: dict[str, object] = {"way": name, "bytes per clip": sizes[name]}
        print(f"{name:26}", end="")
        for workers, place in ((0, "one process"), (1, "one worker")):
            measured = torch.tensor(rates[name, workers])
            p10, p50, p90 = measured.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
            ratio = (measured / torch.tensor(rates[PLAIN, workers])).median().item()
            row[place] = {"p10": p10, "p50": p50, "p90": p90, "ratio to plain": ratio}
            if workers:
                print(f"{p50:14.0f}{p10:8.0f}{p90:8.0f}{ratio:9.1f}", end="")
            else:
                print(f"{p10:8.0f}{p50:8.0f}{p90:8.0f}{ratio:9.1f}", end="")
        print(f"{sizes[name] / 1e6:10.3f}")
        rows.append(row)

    print(f"\n{'a million clips':26}{'TB':>8}{'h/worker':>9}", end="")
    print("".join(f"{f'workers, MB/s at {rate}/s':>28}" for rate in GPU_RATES))
    million = []
    for name in ways:
        rate_of_worker = torch.tensor(rates[name, 1]).median().item()
        hours, terabytes = 1e6 / rate_of_worker / 3600, sizes[name] / 1e6
        needs = {rate: (math.ceil(rate / rate_of_worker), rate * sizes[name] / 1e6) for rate in GPU_RATES}
        print(f"{name:26}{terabytes:8.2f}{hours:9.1f}", end="")
        print("".join(f"{f'{workers}, {megabytes:.0f}':>28}" for workers, megabytes in needs.values()))
        million.append(
            {
                "way": name,
                "TB": terabytes,
                "hours an epoch takes one worker": hours,
                "workers and MB/s by clips/s of a GPU": needs,
            }
        )
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {key: getattr(arguments, key) for key in ("clips", "size", "batch_size", "runs")}
        report = {"machine": machine, "settings": settings, "rows": rows, "a million clips": million}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
