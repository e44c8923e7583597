"""Examine the clips of a setting together: its table, and the files in its folders."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from avslib._jobs import UNFINISHED
from avslib.curation.doctor_clip import Examined, reason
from avslib.curation.doctor_report import Finding, find
from avslib.curation.prepare_folder import RECORD
from avslib.data.avss import read_class_names
from avslib.data.layout import AVSS_SECONDS, SPLITS, ClipFiles, links_out
from avslib.data.stored_log_mel import converted_path


class Place(NamedTuple):
    """Where a setting lies in its root."""

    table: str
    folders: tuple[str, ...]
    """Folders that hold nothing but its clips."""
    words: str
    published: Mapping[str, int] = {}
    """Number of clips of each split, if it is known."""


PLACES = {
    "s4": Place(
        table="Single-source/s4_meta_data.csv",
        folders=("Single-source/s4_data",),
        words="AVSBench, single source",
        published={"train": 3452, "val": 740, "test": 740},
    ),
    "ms3": Place(
        table="Multi-sources/ms3_meta_data.csv",
        folders=("Multi-sources/ms3_data",),
        words="AVSBench, multiple sources",
    ),
    "avss": Place(table="metadata.csv", folders=tuple(AVSS_SECONDS), words="AVSBench-semantic"),
    "folder": Place(table="clips.csv", folders=("clips",), words="a folder of one's own, prepared"),
}


def check_rows(setting: str, table: Path, clips: Sequence[ClipFiles]) -> Iterator[Finding]:
    """Find clips that the table lists in several splits, several times, or in an unknown split."""
    by_id: dict[str, list[ClipFiles]] = defaultdict(list)
    for clip in clips:
        by_id[clip.id].append(clip)
        if setting != "folder" and clip.split not in SPLITS:
            text = f"{clip.id!r} is in {clip.split!r}, expected train, val or test"
            yield find("unknown-split", setting, table, text, clip=clip)
    for name, rows in by_id.items():
        places = ", ".join(sorted({f"{row.split} {row.category}".rstrip() for row in rows}))
        if len({row.split for row in rows}) > 1:
            yield find("leak", setting, table, f"{name!r} is in several splits: {places}")
        elif len(rows) > 1:
            text = f"{name!r} has {len(rows)} rows: {places}"
            yield find("duplicate-clip", setting, table, text, clip=rows[0])


def check_counts(root: Path, setting: str, table: Path, clips: Sequence[ClipFiles]) -> Iterator[Finding]:
    """Find a table without clips, or with other numbers of clips than were published."""
    if not clips:
        yield find("damaged-table", setting, table, "lists no clip")
    published = PLACES[setting].published
    counts = Counter(clip.split for clip in clips)
    if published and counts != published and not (root / "synthetic.json").is_file():
        words = ", ".join(f"{counts[split]} of {count} in {split}" for split, count in published.items())
        yield find("counts", setting, table, f"lists other clips than were published: {words}")


def check_copies(setting: str, examined: Mapping[ClipFiles, Examined]) -> Iterator[Finding]:
    """Find clips with the same frames under different names in different splits."""
    by_frames: dict[str, list[ClipFiles]] = defaultdict(list)
    for clip, result in examined.items():
        if result.fingerprint:
            by_frames[result.fingerprint].append(clip)
    for first, *others in by_frames.values():
        for other in others:
            if other.split != first.split and other.id != first.id:
                text = f"{other.split} has the frames of {first.id!r} in {first.split}"
                yield find("copy-across-splits", setting, other.frames[0].parent, text, clip=other)


def check_sizes(setting: str, examined: Mapping[ClipFiles, Examined], *, shared: bool) -> Iterator[Finding]:
    """Compare sizes with the most frequent frame size, of the set if ``shared``, else of the clip."""
    of_set = _usual(chain.from_iterable(result.frame_sizes.values() for result in examined.values()))
    for clip, result in examined.items():
        usual = of_set if shared else _usual(result.frame_sizes.values())
        for kind, sizes in (("frame-size", result.frame_sizes), ("mask-size", result.mask_sizes)):
            for path, size in sizes.items():
                if usual not in (None, size):
                    whose = "of the set" if shared else "of the clip"
                    text = f"{_words(size)}, and the frames {whose} have {_words(usual)}"
                    yield find(kind, setting, path, text, clip=clip)


def check_extra(root: Path, setting: str, clips: Sequence[ClipFiles]) -> Iterator[Finding]:
    """Find files and folders in a setting's folders that belong to none of its clips."""
    expected = {path for clip in clips for path in _files_of(clip)}
    folders: set[Path] = set()
    for path in expected:
        for folder_above in path.parents:
            if folder_above in folders:
                break
            folders.add(folder_above)
    for place in PLACES[setting].folders:
        for folder, inner, files in os.walk(root / place):
            unknown = [name for name in inner if Path(folder, name) not in folders]
            unknown += [name for name in files if Path(folder, name) not in expected]
            inner[:] = [name for name in inner if Path(folder, name) in folders]
            for name in unknown:
                if not name.startswith("."):
                    yield find("extra-file", setting, Path(folder, name), "in no row of the table")


def check_links(root: Path, setting: str, clips: Sequence[ClipFiles]) -> Iterator[Finding]:
    """Find links that lead files of clips out of the folder."""
    inside, links = root.resolve(), set()
    for path in links_out((path for clip in clips for path in _files_of(clip)), root):
        steps = [path, *path.parents]
        below = reversed(steps[: steps.index(root)])
        leads_out = (s for s in below if s.is_symlink() and not s.resolve().is_relative_to(inside))
        links.add(next(leads_out, path))
    for link in links:
        yield find("link-out", setting, link, f"leads to {link.resolve()}")


def check_class_names(root: Path, setting: str) -> Iterator[Finding]:
    """Check that the class names of AVSBench-semantic can be read."""
    path = root / "label2idx.json"
    try:
        read_class_names(path)
    except (OSError, ValueError) as error:
        yield find("class-names", setting, path, reason(error, path))


def check_unfinished(root: Path) -> Iterator[Finding]:
    """Find unfinished files that killed runs left."""
    for folder, inner, files in os.walk(root):
        for name in chain(inner, files):
            if name.startswith(UNFINISHED):
                yield find("unfinished", "", Path(folder, name), "left by a killed run, or of one at work")
        inner[:] = [name for name in inner if not name.startswith(UNFINISHED)]


def _files_of(clip: ClipFiles) -> Iterator[Path]:
    yield from clip.frames
    yield from (path for path in clip.masks if path is not None)
    yield from (clip.wav, clip.log_mel, converted_path(clip), clip.video, clip.video.with_name(RECORD))


def _usual(sizes: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    counts = Counter(sizes).most_common(1)
    return counts[0][0] if counts else None


def _words(size: tuple[int, int] | None) -> str:
    return "no size" if size is None else f"{size[1]} x {size[0]} px"
