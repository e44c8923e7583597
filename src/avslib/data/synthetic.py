"""Synthetic audio-visual clips, in memory or written as AVSBench lies on disk."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from avslib._checks import check_one_of, check_positive
from avslib.clip import Clip
from avslib.data.synthetic_ceiling import audio_blind_ceiling
from avslib.data.synthetic_scene import FAMILIES, SyntheticClip, SyntheticConfig, name_clip, render_clip
from avslib.media.audio import write_wav
from avslib.media.frame import normalize_frames, write_frame
from avslib.media.mask import write_mask
from avslib.media.mel import fit_examples, log_mel_examples
from avslib.media.tensor_pickle import save_tensor_pickle
from avslib.media.video import write_video

__all__ = [
    "FAMILIES",
    "SPLITS",
    "SyntheticAVS",
    "SyntheticClip",
    "SyntheticConfig",
    "audio_blind_ceiling",
    "clip_indices",
    "render_clip",
    "write_avsbench",
]

SPLITS = ("train", "val", "test")
CLIPS_PER_SPLIT = 1_000_000
VERSION = 1
"""Of the clips: a change of what an index looks or sounds like raises it."""
VIDEO_FPS = 16
"""The last of 16 frames a second is the frame of that second."""


def clip_indices(split: str, count: int) -> range:
    """Return the indices of a split's clips; no two splits share one.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        count: how many clips.

    Raises:
        ValueError: if the split is unknown or the count not in 1 to 1,000,000.

    Example:
        >>> clip_indices("val", 3)
        range(1000000, 1000003)
    """
    check_one_of("split", split, SPLITS)
    if not 1 <= count <= CLIPS_PER_SPLIT:
        raise ValueError(f"count: expected 1 to {CLIPS_PER_SPLIT} clips, got {count}")
    first = SPLITS.index(split) * CLIPS_PER_SPLIT
    return range(first, first + count)


def _labelled(config: SyntheticConfig, split: str) -> list[bool]:
    """Tell which seconds have a mask: in S4's training split the first one only."""
    return [second == 0 or (config.setting, split) != ("s4", "train") for second in range(config.seconds)]


class SyntheticAVS(Dataset[Clip]):
    """Synthetic clips in memory, each rendered when first asked for.

    They are the clips that ``write_avsbench`` writes for the same configuration and split.

    Args:
        config: which kind of clip.
        count: how many clips.
        split: ``"train"``, ``"val"`` or ``"test"``; S4 labels the first second of training clips only.

    Raises:
        ValueError: if the split is unknown or the count not in 1 to 1,000,000.

    Example:
        >>> clips = SyntheticAVS(SyntheticConfig(size=64), 2, split="val")
        >>> clips[0].frames.shape, clips[0].log_mel.shape, clips[0].masks.shape
        (torch.Size([5, 3, 64, 64]), torch.Size([5, 1, 96, 64]), torch.Size([5, 64, 64]))
    """

    def __init__(self, config: SyntheticConfig, count: int, *, split: str = "train") -> None:
        self.config = config
        self.indices = clip_indices(split, count)
        self.labelled = torch.tensor(_labelled(config, split))
        self._rendered: dict[int, Clip] = {}

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Clip:
        """Return one clip; its frames are kept as bytes and normalised anew, to save memory."""
        index = self.indices[index]
        if index not in self._rendered:
            self._rendered[index] = self._render(index)
        clip = self._rendered[index]
        return clip._replace(frames=normalize_frames(clip.frames), masks=clip.masks.long())

    def _render(self, index: int) -> Clip:
        clip = render_clip(index, self.config)
        masks = torch.from_numpy(clip.masks)
        return Clip(
            frames=_channels_first(clip),
            log_mel=_log_mel(clip, self.config),
            masks=masks * self.labelled[:, None, None],
            labelled=self.labelled,
            valid=torch.ones_like(self.labelled),
            id=clip.id,
        )


def _channels_first(clip: SyntheticClip) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(clip.frames.transpose(0, 3, 1, 2)))


def _log_mel(clip: SyntheticClip, config: SyntheticConfig) -> torch.Tensor:
    return fit_examples(log_mel_examples(torch.from_numpy(clip.waveform)), config.seconds)


class _Places(NamedTuple):
    """Where AVSBench keeps the parts of a clip, relative to its root."""

    log_mel: Path
    wav: Path
    video: Path
    masks: Path
    frames: Path
    frame_stem: str


def _places(setting: str, split: str, name: str, category: str) -> _Places:
    if setting == "s4":
        data, inner, flat, stem = (
            Path("Single-source/s4_data"),
            Path(split, category),
            Path(split, category),
            name,
        )
    else:
        data, inner, flat, stem = Path("Multi-sources/ms3_data"), Path(split), Path(), f"{name}.mp4"
    return _Places(
        log_mel=data / "audio_log_mel" / inner / f"{name}.pkl",
        wav=data / "audio_wav" / inner / f"{name}.wav",
        video=data / "raw_videos" / flat / f"{name}.mp4",
        masks=data / "gt_masks" / inner / name,
        frames=data / "visual_frames" / flat / name,
        frame_stem=stem,
    )


def _write_clip(job: tuple[str, int], *, root: Path, config: SyntheticConfig, videos: bool) -> None:
    """Write one clip aside and move it in place, the frames last: they show that it is complete."""
    split, index = job
    places = _places(config.setting, split, *name_clip(index, config))
    if (root / places.frames).exists():
        return
    clip = render_clip(index, config)
    waveform = torch.from_numpy(clip.waveform)
    with TemporaryDirectory(prefix=".unfinished-", dir=root) as folder:
        aside = Path(folder)
        for place in places[:-1]:
            (aside / place).parent.mkdir(parents=True, exist_ok=True)
        (aside / places.frames).mkdir()
        (aside / places.masks).mkdir()
        for second, (frame, labelled) in enumerate(
            zip(_channels_first(clip), _labelled(config, split), strict=True)
        ):
            write_frame(aside / places.frames / f"{places.frame_stem}_{second + 1}.png", frame)
            if labelled:
                mask = torch.from_numpy(clip.masks[second])
                write_mask(aside / places.masks / f"{clip.id}_{second + 1}.png", mask)
        save_tensor_pickle(aside / places.log_mel, _log_mel(clip, config))
        write_wav(aside / places.wav, waveform, config.sample_rate)
        if videos:
            times = np.arange(config.seconds * VIDEO_FPS) / VIDEO_FPS
            film = _channels_first(render_clip(index, config, seconds=times))
            write_video(
                aside / places.video, film, fps=VIDEO_FPS, waveform=waveform, sample_rate=config.sample_rate
            )
        for place in places[:-1]:
            if place == places.video and not videos:
                continue
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            if (root / place).is_dir():
                shutil.rmtree(root / place)
            (aside / place).replace(root / place)


def _replace_text(path: Path, text: str) -> None:
    """Write a file in one step, so that a reader finds the old one or the new one."""
    aside = path.with_name(f".{path.name}.unfinished")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _agree_on_manifest(
    root: Path, config: SyntheticConfig, clips: Mapping[str, int], videos: bool | None
) -> dict[str, object]:
    """Return what the folder holds or shall hold; raise if it holds something else."""
    path = root / "synthetic.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = settings.get(config.setting)
    if videos is None:
        videos = known["videos"] if known else find_spec("av") is not None
    asked = {"version": VERSION, **asdict(config), "clips": dict(clips), "videos": videos}
    if known is not None and known != asked:
        key = next(key for key in asked if known.get(key) != asked[key])
        raise ValueError(
            f"root: {path} says that {config.setting!r} was written there with {key}={known.get(key)!r}, "
            f"expected {asked[key]!r}; take another folder, or delete this one"
        )
    if known is None:
        _replace_text(path, json.dumps({**settings, config.setting: asked}, indent=2) + "\n")
    return asked


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[None]]]:
    """Give ``map``, or one over several processes; they are spawned, since a forked torch may hang."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield partial(pool.map, chunksize=4)


def write_avsbench(
    root: str | Path,
    *,
    setting: str,
    clips: Mapping[str, int],
    size: int = 224,
    seed: int = 0,
    videos: bool | None = None,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write synthetic clips to disk in the layout of AVSBench, so that readers of AVSBench read them.

    A clip is written whole or not at all, and the table of clips comes last. A second call with the same
    arguments writes what is missing. ``synthetic.json`` says what the folder holds; it may hold both
    settings.

    Args:
        root: folder that is to hold ``Single-source`` or ``Multi-sources``; made if missing.
        setting: ``"s4"`` or ``"ms3"``.
        clips: number of clips by split, such as ``{"train": 500, "val": 50, "test": 100}``.
        size: side of a frame, px.
        seed: of all clips.
        videos: whether to write MP4 files, which takes PyAV and most of the time; by default if PyAV is
            there.
        workers: processes to render with. More than one needs a script with ``if __name__ == "__main__"``.
        progress: called with 1 after every clip, as tqdm's ``update`` likes it.

    Raises:
        ValueError: if the folder holds clips of this setting that were written with other arguments.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> write_avsbench(folder, setting="ms3", clips={"test": 1}, size=48, videos=False)
        >>> print((folder / "Multi-sources" / "ms3_meta_data.csv").read_text())
        video_id,split
        synthetic_2000000,test
        <BLANKLINE>
    """
    root = Path(root)
    check_positive("workers", workers)
    config = SyntheticConfig(setting=setting, size=size, seed=seed)
    jobs = [(split, index) for split, count in clips.items() for index in clip_indices(split, count)]
    root.mkdir(parents=True, exist_ok=True)
    manifest = _agree_on_manifest(root, config, clips, videos)
    write = partial(_write_clip, root=root, config=config, videos=bool(manifest["videos"]))
    with _mapper(workers) as run:
        for _ in run(write, jobs):
            if progress is not None:
                progress(1)
    _write_table(root, config, jobs)


def _write_table(root: Path, config: SyntheticConfig, jobs: Sequence[tuple[str, int]]) -> None:
    lines = []
    for split, index in jobs:
        name, category = name_clip(index, config)
        lines.append((name, "0", category, split) if config.setting == "s4" else (name, split))
    header = ("name", "start", "category", "split") if config.setting == "s4" else ("video_id", "split")
    table = (
        root
        / ("Single-source" if config.setting == "s4" else "Multi-sources")
        / f"{config.setting}_meta_data.csv"
    )
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    _replace_text(table, text.getvalue())
