"""Turn any folder of videos into a folder of clips that ``ClipFolder`` reads."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from avslib._checks import check_one_of, check_positive
from avslib._jobs import remove_unfinished, run_jobs, write_whole
from avslib.curation.frame_rule import FRAME_RULES, whole_seconds
from avslib.curation.prepare import prepare_clip
from avslib.curation.report import Report, report_of
from avslib.curation.video_files import VideoFile, find_videos
from avslib.data.layout import PLAIN, folder_files, list_folder, refuse_links_out
from avslib.media.audio import MAX_SECONDS
from avslib.media.video import probe_video

RECORD = "made_from.json"


def prepare_folder(
    videos: str | Path,
    out: str | Path,
    *,
    split: str = "test",
    frame_rule: str = "end",
    size: tuple[int, int] | None = (224, 224),
    max_seconds: int | None = None,
    overwrite: bool = False,
    follow_links: bool = False,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Make a clip from every video in a folder, for :class:`~avslib.data.ClipFolder` to read.

    A clip is as long as its video in whole seconds, with a frame and a log-mel example for each second. A
    second is whole if 15/16 of it exist; the first always is. Sound is mixed to one channel, resampled to
    16 kHz, and cut or padded with silence to the length of the pictures; a video without sound gives silence.
    The log-mel example of second t starts at t s.

    Each file is written completely or not at all, and the table is written last. So if a call is killed, a
    second call makes the rest, with the same bytes as a single call.

    A clip is remade if an argument or the size of its video in bytes has changed; its masks stay. But without
    ``overwrite``, no clip with masks is remade from a different or changed video, and no clip at all from a
    different video in another folder. The table keeps clips of other videos, the split of the clips that it
    already lists, and columns that you added.

    Args:
        videos: folder to search, including the folders in it; hidden files are ignored. The path of a video's
            folder below this one becomes the category of the clip.
        out: folder for ``clips.csv`` and ``clips``.
        split: split of the new clips in the table.
        frame_rule: which frame represents a second; see :func:`~avslib.curation.frame_moments`.
        size: ``(H, W)`` of the frames, px, without keeping the aspect ratio; None for the size of the video.
        max_seconds: use only this much of the beginning of each video, s, at most 3600; None for all, where
            a video of over an hour fails.
        overwrite: remake every clip of these videos.
        follow_links: whether symbolic links may lead to videos elsewhere; linked folders are not searched.
        workers: number of processes. More than one needs a script with ``if __name__ == "__main__"``.
        progress: called with 1 after every video, for example tqdm's ``update``.

    Returns:
        How many clips were made or were already complete, why the others failed, and how many stay in another
        split.

    Raises:
        FileNotFoundError: if there is no video.
        ValueError: if an argument is wrong, a link leads out of a folder, the table in ``out`` is damaged, or
            it has a clip of the same name from another video in another split.
    """
    check_one_of("frame_rule", frame_rule, FRAME_RULES)
    if not PLAIN.pattern.fullmatch(split):
        raise ValueError(f"split: expected {PLAIN.words}, got {split!r}")
    if size is not None:
        check_positive("size", min(size))
    if max_seconds is not None:
        check_positive("max_seconds", max_seconds)
    out = Path(out)
    found = find_videos(videos, is_named=lambda name, source: _source_of(out / "clips" / name) == source)
    if not follow_links:
        refuse_links_out((video.path for video in found), Path(videos), to_allow="prepare")
        frames = (_folder_of(video, out) / "frames" / "0.png" for video in found)
        refuse_links_out(frames, out, to_allow="prepare")
    rows = _read_table(out)
    for video in found:
        row = rows.get(video.id, {"split": split})
        if row["split"] != split and not _is_made_from(video, _read_record(_folder_of(video, out))):
            raise ValueError(
                f"split: {out} has a clip {video.id!r} of another video, in the split {row['split']!r}; "
                f"prepare {split!r} into a folder of its own, or rename the video"
            )
    remove_unfinished(out)
    settings = {"frame_rule": frame_rule, "size": size and list(size), "max_seconds": max_seconds}
    root = str(Path(videos).resolve())
    job = partial(_prepare_video, root=root, out=out, settings=settings, overwrite=overwrite)
    outcomes = []
    staying: Counter[str] = Counter()
    for video, made, error in run_jobs(job, found, workers=workers, progress=progress):
        outcomes.append((video.id, made is not None and made.anew, error))
        if made is not None:
            row = rows.setdefault(video.id, {"id": video.id, "split": split, "category": video.category})
            row["seconds"] = str(made.seconds)
            if row["split"] != split:
                staying[row["split"]] += 1
        elif _is_made_from(video, _read_record(_folder_of(video, out))):  # else it is still another's clip
            rows.pop(video.id, None)
    columns = dict.fromkeys(chain(("id", "split", "seconds", "category"), *rows.values()))
    with write_whole(out / "clips.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, tuple(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for _, row in sorted(rows.items()))
    return report_of(outcomes)._replace(staying=dict(staying))


class _Made(NamedTuple):
    seconds: int
    anew: bool


def _read_table(out: Path) -> dict[str, dict[str, str]]:
    """Read the rows of clips that were made before, with all of their columns, by id."""
    table = out / "clips.csv"
    if not table.is_file():
        return {}
    list_folder(out)  # raises if the table is damaged
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, restkey="", restval=""))
    return {row["id"]: {name: cell for name, cell in row.items() if name} for row in rows}


def _prepare_video(
    video: VideoFile, *, root: str, out: Path, settings: dict[str, Any], overwrite: bool
) -> _Made:
    """Make a clip, after recording what it is made from and how."""
    folder = _folder_of(video, out)
    wanted = {**_origin(video), **settings}
    record = _read_record(folder)
    seconds, old_root = record.pop("seconds", 0), record.pop("folder", None)
    anew = overwrite or record != wanted
    is_another = bool(record) and not (overwrite or _is_made_from(video, record))
    if is_another and old_root not in (None, root):
        raise ValueError(
            f"{folder}: holds a clip of another video, {record.get('video')!r} in {old_root}; rename one "
            "of them, or prepare the folder that holds both into a new one, where each gets its own name; to "
            "replace the clip, overwrite"
        )
    if is_another and (folder / "masks").is_dir():
        raise ValueError(
            f"{folder}: has masks that were drawn for another video, {record.get('video')!r} of "
            f"{record.get('bytes')} bytes; move the folder away, or, if they fit this one too, overwrite"
        )
    if anew:
        seconds = _seconds_of(video.path, settings["max_seconds"])
    files = folder_files(out, "", "", video.id, seconds=seconds)._replace(video=video.path)
    if anew:
        made = (files.frames[0].parent, files.wav, files.log_mel)
        if not (record or overwrite) and any(path.exists() for path in made):
            raise ValueError(f"{folder}: holds a clip, but not how it was made; to replace it, overwrite")
        shutil.rmtree(made[0], ignore_errors=True)
        for path in made[1:]:
            path.unlink(missing_ok=True)
    if anew or old_root != root:  # the videos may have been moved
        with write_whole(folder / RECORD) as path:  # from now on the folder belongs to this video
            note = {**wanted, "folder": root, "seconds": seconds}
            path.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    anew |= prepare_clip(
        files,
        size=settings["size"],
        frame_rule=settings["frame_rule"],
        hop_steps=100,  # one example per second
        fill_sound=True,
    )
    return _Made(seconds, anew)


def _seconds_of(path: Path, most: int | None) -> int:
    seconds = min(whole_seconds(probe_video(path)), most or 10**6)
    if seconds > MAX_SECONDS:
        raise ValueError(
            f"{path}: expected a video of at most {MAX_SECONDS:g} s, got {seconds}; cut it, or take only its "
            f"beginning with max_seconds={MAX_SECONDS:.0f}"
        )
    return seconds


def _origin(video: VideoFile) -> dict[str, Any]:
    return {"video": video.source, "bytes": video.path.stat().st_size}


def _is_made_from(video: VideoFile, record: Mapping[str, Any]) -> bool:
    return video.path.is_file() and _origin(video).items() <= record.items()


def _source_of(folder: Path) -> object:
    return _read_record(folder).get("video")


def _folder_of(video: VideoFile, out: Path) -> Path:
    return out / "clips" / video.id


def _read_record(folder: Path) -> dict[str, Any]:
    """Read what a clip was made from, and how; empty if that is not known."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
