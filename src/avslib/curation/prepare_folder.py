"""Any folder of videos -> a folder of clips that ``ClipFolder`` reads."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from functools import partial
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
    """Make clips out of every video below a folder, for :class:`~avslib.data.ClipFolder` to read.

    A clip is as long as its video, in whole seconds, with a frame and a log-mel example for each. A second is
    whole if 15/16 of it are there; the first always is. Sound is mixed to one channel, brought to 16 kHz, and
    cut or followed by silence where it does not end with the pictures; a video without sound is silent. The
    log-mel example of second t starts at t s.

    Every file is written whole or not at all, and the table comes last; so after a kill a second call makes
    the rest, and the result is the same to the byte. A clip is made anew if its video has another length in
    bytes than before or an argument has changed; masks drawn for it stay. Clips that the table has in other
    splits stay there.

    Args:
        videos: folder to search, with the folders in it; hidden files are passed over. The folder that holds
            a video, below this one, becomes the category of the clip.
        out: folder that is to hold ``clips.csv`` and ``clips``.
        split: what the table says of these clips.
        frame_rule: which frame stands for a second, see :func:`~avslib.curation.frame_moments`.
        size: ``(H, W)`` of the frames, px, without keeping the aspect ratio; None for the size of the video.
        max_seconds: take no more of each video than its beginning.
        overwrite: make every clip of these videos anew.
        follow_links: whether videos may lie elsewhere behind symbolic links; linked folders are not searched.
        workers: processes. More than one needs a script with ``if __name__ == "__main__"``.
        progress: called with 1 after every video, as tqdm's ``update`` likes it.

    Returns:
        How many clips were made or whole already, and why the others failed.

    Raises:
        FileNotFoundError: if there is no video.
        ValueError: if an argument is wrong, a video lies behind a link, or the table has, in another split, a
            clip of the same name but of another video.
    """
    check_one_of("frame_rule", frame_rule, FRAME_RULES)
    if not PLAIN.pattern.fullmatch(split):
        raise ValueError(f"split: expected {PLAIN.words}, got {split!r}")
    if size is not None:
        check_positive("size", min(size))
    if max_seconds is not None:
        check_positive("max_seconds", max_seconds)
    out, found = Path(out), find_videos(videos)
    if not follow_links:
        refuse_links_out((video.path for video in found), Path(videos), to_allow="prepare")
        frames = (_folder_of(video, out) / "frames" / "0.png" for video in found)
        refuse_links_out(frames, out, to_allow="prepare")
    rows = {name: row for name, row in _read_table(out).items() if row.split != split}
    for video in found:
        if video.id in rows and not _origin(video).items() <= _read_record(_folder_of(video, out)).items():
            raise ValueError(
                f"split: {out} has a clip {video.id!r} of another video, in the split "
                f"{rows[video.id].split!r}; prepare {split!r} into a folder of its own, or rename the video"
            )
    remove_unfinished(out)
    settings = {"frame_rule": frame_rule, "size": size and list(size), "max_seconds": max_seconds}
    job = partial(_prepare_video, out=out, settings=settings, overwrite=overwrite)
    outcomes = []
    for video, made, error in run_jobs(job, found, workers=workers, progress=progress):
        outcomes.append((video.id, made is not None and made.anew, error))
        row = rows.pop(video.id, _Row(video.id, split, 0, video.category))
        if made is not None:
            rows[video.id] = row._replace(seconds=made.seconds)
    with write_whole(out / "clips.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([_Row._fields, *sorted(rows.values())])
    return report_of(outcomes)


class _Row(NamedTuple):
    id: str
    split: str
    seconds: int
    category: str


class _Made(NamedTuple):
    seconds: int
    anew: bool


def _read_table(out: Path) -> dict[str, _Row]:
    clips = list_folder(out) if (out / "clips.csv").is_file() else []
    return {clip.id: _Row(clip.id, clip.split, len(clip.frames), clip.category) for clip in clips}


def _prepare_video(video: VideoFile, *, out: Path, settings: dict[str, Any], overwrite: bool) -> _Made:
    """Make a clip, after a note of what it is made from and how."""
    folder = _folder_of(video, out)
    wanted = {**_origin(video), **settings}
    record = _read_record(folder)
    seconds = record.pop("seconds", 0)
    anew = overwrite or record != wanted
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
        with write_whole(folder / RECORD) as path:  # from now on what is there belongs to this video
            path.write_text(json.dumps({**wanted, "seconds": seconds}, indent=2) + "\n", encoding="utf-8")
    anew |= prepare_clip(
        files,
        size=settings["size"],
        frame_rule=settings["frame_rule"],
        hop_steps=100,  # one a second
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


def _folder_of(video: VideoFile, out: Path) -> Path:
    return out / "clips" / video.id


def _read_record(folder: Path) -> dict[str, Any]:
    """Read of what a clip was made, and how; empty where that is not known."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
