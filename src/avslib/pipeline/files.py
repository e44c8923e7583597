"""What is found in a video, as files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

from avslib._jobs import remove_unfinished, write_whole
from avslib.media.mask import read_mask, write_mask
from avslib.media.palette import class_palette, read_classes, write_classes
from avslib.pipeline.render import ORANGE, write_overlay
from avslib.pipeline.segmenter import VideoSegmenter

TABLE, MASKS, OVERLAY = "moments.csv", "masks", "overlay.mp4"


def segment_video(
    segmenter: VideoSegmenter,
    video: str | Path,
    out: str | Path,
    *,
    overlay: bool = True,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Write what is found in a video into a folder.

    - ``masks/000000.png``, ...: a picture for each moment, at the video's size; white is what sounds, or,
      of a model of classes, their colours.
    - ``moments.csv``: of each moment the picture's name, its time in s, the share of the frame that is
      found, and the uncertainty there: the mean over its pixels of the standard deviation over samples.
    - ``overlay.mp4``: the video with the masks drawn over it, with its sound.

    A file is written whole or not at all. What an earlier call left under these names is replaced.

    Args:
        segmenter: what looks at the video.
        video: a file that PyAV reads.
        out: the folder, made where there is none.
        overlay: whether ``overlay.mp4`` is written.
        progress: called with 1 after every moment, as tqdm's ``update`` likes it.

    Returns:
        How many moments there are.

    Raises:
        ImportError: if PyAV is missing.
        FileNotFoundError: if there is no such video.
        ValueError: if it is no video, or damaged.
    """
    out = Path(out)
    moments = segmenter.moments(video)
    (out / MASKS).mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)
    for old in (out / TABLE, out / OVERLAY, *(out / MASKS).glob(f"{'[0-9]' * 6}.png")):
        old.unlink(missing_ok=True)
    names = [f"{number:06}.png" for number in range(len(moments))]
    classes = segmenter.model.num_classes
    if classes == 1:
        write, read, palette = write_mask, read_mask, ORANGE
    else:
        write = partial(write_classes, num_classes=classes)
        read, palette = partial(read_classes, num_classes=classes), class_palette(classes)
    rows: list[tuple[str, ...]] = []
    for name, found in zip(names, segmenter(video), strict=True):
        mask = found.mask()
        with write_whole(out / MASKS / name) as path:
            write(path, mask)
        inside = mask > 0
        unsure = ""
        if found.uncertainty is not None and inside.any():
            unsure = f"{found.uncertainty[:, inside].mean().item():.4f}"
        rows.append((name, f"{found.time:.4f}", f"{inside.float().mean().item():.4f}", unsure))
        if progress is not None:
            progress(1)
    with write_whole(out / TABLE) as path, path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("mask", "time", "area", "uncertainty"), *rows])
    if overlay:
        with write_whole(out / OVERLAY) as path:
            write_overlay(path, video, moments, lambda number: read(out / MASKS / names[number]), palette)
    return len(moments)
