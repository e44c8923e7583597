"""Segmenting a video and writing the results to files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from avslib._jobs import UNFINISHED, remove_unfinished
from avslib.media.mask import read_mask, write_mask
from avslib.media.palette import class_palette, read_classes, write_classes
from avslib.pipeline.render import ORANGE, write_overlay
from avslib.pipeline.segmenter import VideoSegmenter

TABLE, MASKS, OVERLAY = "moments.csv", "masks", "overlay.mp4"
COLUMNS = ("mask", "time", "area", "uncertainty")


def segment_video(
    segmenter: VideoSegmenter,
    video: str | Path,
    out: str | Path,
    *,
    overlay: bool = True,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Segment a video and write the results to a folder.

    - ``masks/000000.png``, ...: a picture for each moment, at the video's size; what sounds is white, or has
      the colours of its classes if the model is multi-class.
    - ``moments.csv``: for each moment, the name of its picture, its time in s, the fraction of the frame that
      the mask covers, and the uncertainty: the standard deviation over samples, averaged over the mask.
    - ``overlay.mp4``: the video and its sound, with the masks drawn over the frames.

    The files appear only when all of them are complete. They replace the files of an earlier call, but no
    other files with these names.

    Args:
        segmenter: the segmenter to run on the video.
        video: a file that PyAV can read.
        out: the folder, created if missing.
        overlay: whether to write ``overlay.mp4``.
        progress: called with 1 after every moment, like the ``update`` of a tqdm bar.

    Returns:
        The number of moments.

    Raises:
        ImportError: if PyAV is missing.
        FileExistsError: if the folder has files with these names that no earlier call wrote.
        FileNotFoundError: if the video does not exist.
        ValueError: if the file is not a video, is damaged, or is one of the files that would be replaced.
    """
    out = Path(out)
    moments = segmenter.moments(video)
    replaced = _earlier_files(out, Path(video))
    out.mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)
    with TemporaryDirectory(prefix=UNFINISHED, dir=out) as unfinished:
        folder = Path(unfinished)
        _write(segmenter, video, moments, folder, overlay=overlay, progress=progress)
        (out / MASKS).mkdir(exist_ok=True)
        (folder / TABLE).replace(out / TABLE)  # first, since it tells the next call that these are ours
        for old in replaced:
            if old != out / TABLE:
                old.unlink()
        for path in (path for path in folder.rglob("*") if path.is_file()):
            path.replace(out / path.relative_to(folder))
    return len(moments)


def _earlier_files(out: Path, video: Path) -> list[Path]:
    """Return the files that an earlier call left in a folder.

    Raises:
        FileExistsError: if there are such files but no table that shows that an earlier call wrote them.
        ValueError: if the video is one of them.
    """
    table = out / TABLE
    files = [*sorted((out / MASKS).glob(f"{'[0-9]' * 6}.png")), out / OVERLAY, table]
    there = [path for path in files if path.exists()]
    if video.resolve() in {path.resolve() for path in there}:
        raise ValueError(f"out: expected a folder in which the video is not replaced, got {out} for {video}")
    if there and not (table.is_file() and table.read_bytes().startswith(",".join(COLUMNS).encode())):
        raise FileExistsError(
            f"{there[0]}: not from an earlier call, which would have written {table}; choose another folder"
        )
    return there


def _write(
    segmenter: VideoSegmenter,
    video: str | Path,
    moments: Sequence[float],
    out: Path,
    *,
    overlay: bool,
    progress: Callable[[int], object] | None,
) -> None:
    """Write everything into an empty folder."""
    (out / MASKS).mkdir()
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
        write(out / MASKS / name, mask)
        inside = mask > 0
        unsure = ""
        if found.uncertainty is not None and inside.any():
            unsure = f"{found.uncertainty[:, inside].mean().item():.4f}"
        rows.append((name, f"{found.time:.4f}", f"{inside.float().mean().item():.4f}", unsure))
        if progress is not None:
            progress(1)
    with (out / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    if overlay:
        write_overlay(
            out / OVERLAY, video, moments, lambda number: read(out / MASKS / names[number]), palette
        )
