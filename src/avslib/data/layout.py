"""Paths of the files of a clip; only this module knows the folders and tables of the datasets."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "val", "test")
AVSBENCH_SECONDS = 5
"""Number of frames of a clip in S4 and MS3."""
AVSS_SECONDS = {"v1s": 5, "v1m": 5, "v2": 10}
"""Number of frames of a clip in each part of AVSBench-semantic."""
MAX_TABLE_BYTES = 256 * 2**20
"""Largest table of clips that is read; AVSBench's have less than 1 MB."""


class ClipFiles(NamedTuple):
    """Paths of the files of one clip, which need not exist."""

    id: str
    split: str
    category: str
    """What sounds; empty where the dataset does not say."""
    frames: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    """One per frame; None where a frame has no ground truth."""
    wav: Path
    log_mel: Path
    """The published pickle; if there is a ``.safetensors`` file of the same name, it is read instead."""
    video: Path
    more_wavs: tuple[Path, ...] = ()
    """Sounds that are added to the first."""


class Kind(NamedTuple):
    """What a value in a table must match, as a pattern and in words."""

    pattern: re.Pattern[str]
    words: str


PLAIN = Kind(re.compile(r"(?!\.{1,2}$)[^/\\:\x00-\x1f]{1,200}"), "a plain name")
"""One step in a path, on any system: no separator, no drive, no ``..``."""
SPLIT = Kind(re.compile("|".join(SPLITS)), "train, val or test")
"""The splits that readers accept; a clip of another split could never be read."""
_PART = Kind(re.compile("|".join(AVSS_SECONDS)), "v1s, v1m or v2")
_SECONDS = Kind(re.compile("[1-9][0-9]{0,5}"), "a whole number from 1 to 999999")
_OWN_FOLDERS = {"s4": "Single-source", "ms3": "Multi-sources"}

Lister = Callable[[Path], list[ClipFiles]]


def s4_files(root: Path, split: str, category: str, name: str) -> ClipFiles:
    """Locate a clip of AVSBench's single-source setting; in training only the first second has a mask."""
    data, inner = root / "Single-source" / "s4_data", Path(split, category)
    masks = data / "gt_masks" / inner / name
    labelled = 1 if split == "train" else AVSBENCH_SECONDS
    return ClipFiles(
        id=name,
        split=split,
        category=category,
        frames=_numbered(data / "visual_frames" / inner / name, f"{name}_", AVSBENCH_SECONDS),
        masks=_numbered(masks, f"{name}_", labelled) + (None,) * (AVSBENCH_SECONDS - labelled),
        wav=data / "audio_wav" / inner / f"{name}.wav",
        log_mel=data / "audio_log_mel" / inner / f"{name}.pkl",
        video=data / "raw_videos" / inner / f"{name}.mp4",
    )


def ms3_files(root: Path, split: str, name: str) -> ClipFiles:
    """Locate a clip of AVSBench's multi-source setting; the splits share folders of frames and of videos."""
    data = root / "Multi-sources" / "ms3_data"
    return ClipFiles(
        id=name,
        split=split,
        category="",
        frames=_numbered(data / "visual_frames" / name, f"{name}.mp4_", AVSBENCH_SECONDS),
        masks=_numbered(data / "gt_masks" / split / name, f"{name}_", AVSBENCH_SECONDS),
        wav=data / "audio_wav" / split / f"{name}.wav",
        log_mel=data / "audio_log_mel" / split / f"{name}.pkl",
        video=data / "raw_videos" / f"{name}.mp4",
    )


def avss_files(root: Path, part: str, split: str, category: str, name: str) -> ClipFiles:
    """Locate a clip of AVSBench-semantic: ``v1s`` is S4, ``v1m`` is MS3, ``v2`` has clips of ten seconds."""
    folder, seconds = root / part / name, AVSS_SECONDS[part]
    labelled = 1 if (part, split) == ("v1s", "train") else seconds
    masks = tuple(folder / "labels_rgb" / f"{second}.png" for second in range(labelled))
    return ClipFiles(
        id=name,
        split=split,
        category=category,
        frames=tuple(folder / "frames" / f"{second}.jpg" for second in range(seconds)),
        masks=masks + (None,) * (seconds - labelled),
        wav=folder / "audio.wav",
        log_mel=folder / "audio_log_mel.pkl",
        video=folder / "video.mp4",
    )


def folder_files(
    root: Path, split: str, category: str, name: str, *, seconds: int, masked: bool = False
) -> ClipFiles:
    """Locate a clip in a folder that ``avslib prepare folder`` wrote."""
    folder = root / "clips" / name
    masks: tuple[Path | None, ...] = tuple(folder / "masks" / f"{i}.png" for i in range(seconds))
    return ClipFiles(
        id=name,
        split=split,
        category=category,
        frames=tuple(folder / "frames" / f"{i}.png" for i in range(seconds)),
        masks=masks if masked else (None,) * seconds,
        wav=folder / "audio.wav",
        log_mel=folder / "audio_log_mel.safetensors",
        video=folder / "video.mp4",
    )


def list_s4(root: str | Path, *, split: Kind = PLAIN) -> list[ClipFiles]:
    """List the clips of S4, of all splits, from AVSBench-object or from ``v1s`` of AVSBench-semantic.

    Args:
        root: the folder that holds ``Single-source`` or ``metadata.csv``.
        split: what the name of a split must match.

    Raises:
        FileNotFoundError: if there is neither table.
        ValueError: if the table is damaged, lacks a column, or holds a name that leads out of its folder.
    """
    root = Path(root)
    if holds_classes(root, "s4"):
        return list_avss(root, parts=("v1s",), split=split)
    table = root / "Single-source" / "s4_meta_data.csv"
    return [
        s4_files(root, row["split"], row["category"], row["name"])
        for row in read_table(table, {"name": PLAIN, "category": PLAIN, "split": split})
    ]


def list_ms3(root: str | Path, *, split: Kind = PLAIN) -> list[ClipFiles]:
    """List the clips of MS3, of all splits, from AVSBench-object or from ``v1m`` of AVSBench-semantic.

    Args:
        root: the folder that holds ``Multi-sources`` or ``metadata.csv``.
        split: what the name of a split must match.

    Raises:
        FileNotFoundError: if there is neither table.
        ValueError: if the table is damaged, lacks a column, or holds a name that leads out of its folder.
    """
    root = Path(root)
    if holds_classes(root, "ms3"):
        return list_avss(root, parts=("v1m",), split=split)
    table = root / "Multi-sources" / "ms3_meta_data.csv"
    return [
        ms3_files(root, row["split"], row["video_id"])
        for row in read_table(table, {"video_id": PLAIN, "split": split}, aliases={"name": "video_id"})
    ]


def list_avss(
    root: str | Path, *, parts: Sequence[str] = tuple(AVSS_SECONDS), split: Kind = PLAIN
) -> list[ClipFiles]:
    """List the clips of AVSBench-semantic, of all splits.

    Args:
        root: the folder that holds ``metadata.csv``.
        parts: the parts to list, out of ``v1s``, ``v1m`` and ``v2``.
        split: what the name of a split must match.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if the table is damaged, lacks a column, or holds a name that leads out of its folder.
    """
    root = Path(root)
    rows = read_table(root / "metadata.csv", {"uid": PLAIN, "label": _PART, "split": split}, texts=("a_obj",))
    return [
        avss_files(root, row["label"], row["split"], row["a_obj"], row["uid"])
        for row in rows
        if row["label"] in parts
    ]


def list_folder(root: str | Path) -> list[ClipFiles]:
    """List the clips of a folder that ``avslib prepare folder`` wrote, with their masks if they have any.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if the table is damaged, lacks a column, or holds a name that leads out of its folder.
    """
    root = Path(root)
    rows = read_table(
        root / "clips.csv", {"id": PLAIN, "split": PLAIN, "seconds": _SECONDS}, texts=("category",)
    )
    return [
        folder_files(
            root,
            row["split"],
            row["category"],
            row["id"],
            seconds=int(row["seconds"]),
            masked=(root / "clips" / row["id"] / "masks").is_dir(),
        )
        for row in rows
    ]


LISTERS: dict[str, Lister] = {"s4": list_s4, "ms3": list_ms3, "avss": list_avss, "folder": list_folder}
"""Function that lists the clips of a setting, by the setting's name."""


def holds_classes(root: Path, setting: str) -> bool:
    """Return whether the masks of a setting are those of AVSBench-semantic.

    S4 and MS3 are read from it if their own folder is missing.
    """
    if setting not in _OWN_FOLDERS:
        return setting == "avss"
    return not (root / _OWN_FOLDERS[setting]).is_dir() and (root / "metadata.csv").is_file()


def read_table(
    path: Path,
    columns: Mapping[str, Kind],
    *,
    texts: Collection[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    """Read a table of clips.

    Args:
        path: the CSV file.
        columns: the columns that it must have, and what their values must match.
        texts: columns that may hold any text; empty if the table lacks them.
        aliases: other names of columns, each with the name in ``columns`` that it stands for.

    Returns:
        One dictionary per row, with these columns only; blanks around names and values are removed.

    Raises:
        FileNotFoundError: if there is no such file; the message says where it was expected.
        ValueError: if it is too large, is not a CSV file, lacks a column, or holds a value that does not
            match.
    """
    if not path.is_file():
        has_folder = path.parent.name in _OWN_FOLDERS.values()
        place = path.relative_to(path.parent.parent) if has_folder else path.name
        raise FileNotFoundError(
            f"{path}: no such table; root must be the folder into which the dataset was unpacked, "
            f"the one that holds {place}"
        )
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_TABLE_BYTES} bytes, got {path.stat().st_size}")
    aliases = aliases or {}
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = [field.strip() for field in reader.fieldnames or ()]
            reader.fieldnames = [aliases.get(field, field) for field in header]
            missing = [column for column in columns if column not in reader.fieldnames]
            if missing:
                raise ValueError(f"expected a column {missing[0]!r}, got {', '.join(header)[:200] or 'none'}")
            for stored in reader:
                row = {column: (stored.get(column) or "").strip() for column in (*columns, *texts)}
                for column, kind in columns.items():
                    if not kind.pattern.fullmatch(row[column]):
                        raise ValueError(
                            f"line {reader.line_num}: expected {kind.words} as {column!r}, "
                            f"got {row[column][:80]!r}"
                        )
                rows.append(row)
    except (csv.Error, ValueError) as error:  # a wrong encoding is a ValueError too
        raise ValueError(f"{path}: {error}") from error
    return rows


def links_out(paths: Iterable[Path], root: Path) -> Iterator[Path]:
    """Yield the paths that lead out of a folder through a link."""
    inside = root.resolve()
    folders: dict[Path, bool] = {}
    for path in paths:
        parent = path.parent
        if parent not in folders:
            folders[parent] = parent.resolve().is_relative_to(inside)
        if not folders[parent] or (path.is_symlink() and not path.resolve().is_relative_to(inside)):
            yield path


def refuse_links_out(paths: Iterable[Path], root: Path, *, to_allow: str) -> None:
    """Raise ``ValueError`` if a path leads out of a folder through a link, and say how to allow it."""
    for path in links_out(paths, root):
        raise ValueError(
            f"{path}: leads out of {root} through a link, to {path.resolve()}; if you made that link "
            f"yourself, {to_allow} with follow_links=True"
        )


def _numbered(folder: Path, stem: str, count: int) -> tuple[Path, ...]:
    return tuple(folder / f"{stem}{i}.png" for i in range(1, count + 1))
