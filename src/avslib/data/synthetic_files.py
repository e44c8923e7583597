"""Write synthetic clips to disk in the layout of AVSBench."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from avslib._checks import check_positive
from avslib._jobs import UNFINISHED, remove_unfinished, run_jobs, write_whole
from avslib.data.layout import ClipFiles, avss_files, ms3_files, s4_files
from avslib.data.synthetic_families import CLASS_NAMES
from avslib.data.synthetic_scene import SyntheticConfig, clip_indices, name_clip, part_of, render_clip
from avslib.media.audio import write_wav
from avslib.media.mask import write_mask
from avslib.media.mel import fit_examples, log_mel_examples
from avslib.media.palette import write_classes
from avslib.media.tensor_pickle import save_tensor_pickle
from avslib.media.video_writer import write_video

VERSION = 1
"""Version of the clips; it is raised when the clip of an index comes to look or sound different."""
VIDEO_FPS = 16
"""Frames per second of a video; the last of each 16 is the frame of that second."""
_TABLES = {
    "s4": ("Single-source/s4_meta_data.csv", ("name", "start", "category", "split")),
    "ms3": ("Multi-sources/ms3_meta_data.csv", ("video_id", "split")),
    "avss": ("metadata.csv", ("vid", "uid", "s_min", "s_sec", "a_obj", "split", "label")),
}
"""Path of the table of clips and its columns, by setting."""


def write_avsbench(
    root: str | Path,
    *,
    setting: str,
    clips: Mapping[str, int],
    size: int = 224,
    seed: int = 0,
    negative: str | None = None,
    videos: bool | None = None,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write synthetic clips to disk in the layout of AVSBench, so that its readers can read them.

    A clip is written whole or not at all, its folder of frames last, and the table of clips after all of
    them. A second call with the same arguments writes the clips that have no such folder.
    ``synthetic.json`` records what the folder holds; a folder may hold all three settings.

    Args:
        root: folder that will hold ``Single-source``, ``Multi-sources`` or ``metadata.csv``; created if
            missing. Only one call at a time may write to it.
        setting: ``"s4"``, ``"ms3"`` or ``"avss"``, whose clips are of ``v1s``, ``v1m`` and ``v2`` in turn.
        clips: number of clips by split, such as ``{"train": 500, "val": 50, "test": 100}``.
        size: side of a frame, px.
        seed: seed of all clips, 0 or more.
        negative: None, ``"silence"``, ``"noise"`` or ``"offscreen"``, see
            :class:`~avslib.data.SyntheticConfig`. Negatives need a folder of their own, since they have the
            names of the clips that they are made from.
        videos: whether to write MP4 files, which needs PyAV and takes most of the time; by default as in an
            earlier call for this folder, or else if PyAV is installed.
        workers: number of processes that render. More than one needs a script with
            ``if __name__ == "__main__"``.
        progress: called with 1 after every clip, like tqdm's ``update``.

    Raises:
        ValueError: if an argument is not one of the words above, a number is out of its range, or the folder
            holds clips of this setting that were written with other arguments.
        RuntimeError: if a clip could not be written.

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
    config = SyntheticConfig(setting=setting, size=size, seed=seed, negative=negative)
    jobs = [(split, index) for split, count in clips.items() for index in clip_indices(split, count)]
    root.mkdir(parents=True, exist_ok=True)
    manifest = _agree_on_manifest(root, config, clips, videos)
    remove_unfinished(root)
    write = partial(_write_clip, root=root, config=config, videos=bool(manifest["videos"]))
    for (split, index), _, error in run_jobs(write, jobs, workers=workers, progress=progress):
        if error:
            raise RuntimeError(f"clip {index} of {split!r} could not be written: {error}")
    if setting == "avss":
        numbers = {name: number for number, name in enumerate(CLASS_NAMES)}
        _write_text(root / "label2idx.json", json.dumps(numbers, indent=2) + "\n")
    _write_table(root, config, jobs)


def _agree_on_manifest(
    root: Path, config: SyntheticConfig, clips: Mapping[str, int], videos: bool | None
) -> dict[str, object]:
    """Return what the folder holds or will hold; raise ``ValueError`` if it holds something else."""
    path = root / "synthetic.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = settings.get(config.setting)
    if known is not None:
        known = {"negative": None, **known}  # manifests from before there were negatives
    if videos is None:
        videos = known["videos"] if known else find_spec("av") is not None
    asked = {"version": VERSION, **asdict(config), "clips": dict(clips), "videos": videos}
    if known is not None and known != asked:
        key = next(key for key in {**asked, **known} if known.get(key) != asked.get(key))
        raise ValueError(
            f"root: {path} says that {config.setting!r} was written there with {key}={known.get(key)!r}, "
            f"expected {asked.get(key)!r}; choose another folder, or delete this one"
        )
    if known is None:
        _write_text(path, json.dumps({**settings, config.setting: asked}, indent=2) + "\n")
    return asked


def _files(root: Path, config: SyntheticConfig, split: str, index: int) -> ClipFiles:
    name, category = name_clip(index, config)
    if config.setting == "s4":
        return s4_files(root, split, category, name)
    if config.setting == "ms3":
        return ms3_files(root, split, name)
    return avss_files(root, part_of(index), split, category, name)


def _places(files: ClipFiles) -> list[Path]:
    """List the files and folders of one clip, the frames last: they show that it is complete."""
    masks = next(path for path in files.masks if path is not None)
    return [files.log_mel, files.wav, files.video, masks.parent, files.frames[0].parent]


def _write_clip(job: tuple[str, int], *, root: Path, config: SyntheticConfig, videos: bool) -> None:
    """Write one clip to a temporary folder and move it into place."""
    split, index = job
    places = _places(_files(root, config, split, index))
    if places[-1].exists():
        return
    with TemporaryDirectory(prefix=UNFINISHED, dir=root) as folder:
        aside = _files(Path(folder), config, split, index)
        _render_files(aside, index, config, videos=videos)
        for made, place in zip(_places(aside), places, strict=True):
            if not made.exists():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                shutil.rmtree(place)
            made.replace(place)


def _render_files(files: ClipFiles, index: int, config: SyntheticConfig, *, videos: bool) -> None:
    """Render one clip into an empty folder; AVSS has no stored log-mels."""
    for place in _places(files):
        place.parent.mkdir(parents=True, exist_ok=True)
    *_, masks, frames = _places(files)
    masks.mkdir()
    frames.mkdir()
    clip = render_clip(index, config)
    waveform = torch.from_numpy(clip.waveform)
    for path, frame in zip(files.frames, clip.frames, strict=True):
        Image.fromarray(frame).save(path, quality=95, subsampling=0)  # PNG has neither
    for mask_path, classes in zip(files.masks, torch.from_numpy(clip.masks), strict=True):
        if mask_path is not None:
            (write_classes if config.setting == "avss" else write_mask)(mask_path, classes)
    write_wav(files.wav, waveform, config.sample_rate)
    if config.setting != "avss":
        log_mel = fit_examples(log_mel_examples(waveform), len(clip.frames))
        save_tensor_pickle(files.log_mel, log_mel)
    if videos:
        times = np.arange(len(clip.frames) * VIDEO_FPS) / VIDEO_FPS
        film = torch.from_numpy(render_clip(index, config, seconds=times).frames).permute(0, 3, 1, 2)
        write_video(files.video, film, fps=VIDEO_FPS, waveform=waveform, sample_rate=config.sample_rate)


def _write_table(root: Path, config: SyntheticConfig, jobs: Sequence[tuple[str, int]]) -> None:
    place, header = _TABLES[config.setting]
    lines = []
    for split, index in jobs:
        name, category = name_clip(index, config)
        known = {"name": name, "start": "0", "category": category, "split": split, "video_id": name}
        known |= {
            "vid": name,
            "uid": name,
            "s_min": "0",
            "s_sec": "0",
            "a_obj": category,
            "label": part_of(index),
        }
        lines.append([known[column] for column in header])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    _write_text(root / place, text.getvalue())


def _write_text(path: Path, text: str) -> None:
    with write_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
