"""Remake missing or damaged files of a data folder that can be derived from others."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from avslib._checks import check_one_of
from avslib._jobs import remove_unfinished, run_jobs, write_whole
from avslib.curation.doctor_clip import Expectation, expectation
from avslib.curation.doctor_report import Diagnosis
from avslib.curation.frame_rule import FRAME_RULES
from avslib.curation.prepare import prepare_clip
from avslib.curation.report import Report, report_of
from avslib.data.layout import LISTERS, ClipFiles, holds_classes, refuse_links_out
from avslib.data.stored_log_mel import converted_path, log_mel_path, save_log_mel
from avslib.media.audio import read_wav
from avslib.media.frame import read_frame

FROM_VIDEO = ("missing-frame", "damaged-frame", "frame-size", "missing-wav", "damaged-wav", "odd-rate")
FROM_WAV = ("missing-log-mel", "damaged-log-mel", "hostile-log-mel", "log-mel-shape", "log-mel-values")


class _Repair(NamedTuple):
    clip: ClipFiles
    bad: frozenset[Path]
    size: tuple[int, int] | None
    """``(H, W)`` of the frames, px; None for the size of the video."""


def fix(
    diagnosis: Diagnosis,
    *,
    frame_rule: str = "avsbench",
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Remake missing or damaged files that can be derived; masks and tables are never touched.

    Log-mels are made from WAV files; frames, in the size of the other frames, and WAV files from the videos
    of AVSBench. A new log-mel is a ``.safetensors`` file, which readers use instead of the pickle, so the
    pickle may stay. Files that killed runs left are removed, so no other run may write to the folder at the
    same time. Examine the folder again afterwards.

    Args:
        diagnosis: what :func:`~avslib.curation.examine` returned.
        frame_rule: which frame represents a second; by default as in AVSBench. Give the rule by which the
            other frames were made, see :func:`~avslib.curation.frame_moments`.
        workers: number of processes. More than one needs a script with ``if __name__ == "__main__"``.
        progress: called with 1 after every clip, for example tqdm's ``update``.

    Returns:
        The number of clips that were repaired, and why the others could not be.

    Raises:
        ValueError: if ``frame_rule`` is unknown or ``workers`` is not above 0.
    """
    check_one_of("frame_rule", frame_rule, FRAME_RULES)
    root = diagnosis.root
    remove_unfinished(root)
    outcomes: list[tuple[str, bool, str]] = []
    for setting in dict.fromkeys(split.setting for split in diagnosis.splits):
        bad = {
            finding.path
            for finding in diagnosis.findings
            if finding.setting == setting and finding.kind in FROM_VIDEO + FROM_WAV
        }
        repair = partial(_repair, root=root, expected=expectation(root, setting), frame_rule=frame_rule)
        jobs = list(_repairs(root, setting, bad))
        for job, made, error in run_jobs(repair, jobs, workers=workers, progress=progress):
            outcomes.append((job.clip.id, bool(made), error))
    return report_of(outcomes)


def _repairs(root: Path, setting: str, bad: set[Path]) -> Iterator[_Repair]:
    """Yield the clips to repair, with their bad files and the size of their frames."""
    clips = list(dict.fromkeys(LISTERS[setting](root)))
    one_size = setting in ("s4", "ms3") and not holds_classes(root, setting)
    of_set = _size_of((path for clip in clips for path in clip.frames), bad) if one_size else None
    for clip in clips:
        own = bad & {*clip.frames, clip.wav, converted_path(clip), log_mel_path(clip)}
        if own:
            size = (of_set or (224, 224)) if one_size else _size_of(clip.frames, bad)
            yield _Repair(clip, frozenset(own), size)


def _repair(job: _Repair, *, root: Path, expected: Expectation, frame_rule: str) -> bool:
    """Remake the bad files of a clip, first those that need no video; each stays until it is replaced."""
    clip, bad, size = job
    converted = converted_path(clip)
    refuse_links_out((*bad, converted), root, to_allow="prepare")
    lacks_log_mel = bool(bad & {clip.log_mel, converted})
    if lacks_log_mel and clip.wav not in bad:
        save_log_mel(clip, expected.log_mel(read_wav(clip.wav), len(clip.frames)))
        lacks_log_mel = False
    from_video = sorted(bad & {*clip.frames, clip.wav})
    if not from_video:
        return True
    if not clip.video.is_file():
        raise FileNotFoundError(
            f"{from_video[0]}: cannot be recreated, since there is no {clip.video}; repair a folder of "
            "your own with `avslib prepare folder`, where its videos are"
        )
    with TemporaryDirectory() as folder:
        aside = {path: Path(folder, f"{i}{path.suffix}") for i, path in enumerate(from_video)}
        made = clip._replace(
            frames=tuple(aside.get(path, path) for path in clip.frames),
            wav=aside.get(clip.wav, clip.wav),
            log_mel=Path(folder, "log_mel.safetensors"),
        )
        prepare_clip(
            made,
            size=size,
            frame_rule=frame_rule,
            padding=expected.padding,
            hop_steps=expected.hop_steps,
            with_log_mel=lacks_log_mel,
        )
        if lacks_log_mel:
            aside[converted] = made.log_mel
        for path, new in aside.items():
            with write_whole(path) as unfinished:
                shutil.copyfile(new, unfinished)
    return True


def _size_of(paths: Iterable[Path], bad: set[Path]) -> tuple[int, int] | None:
    """Return the size of the first frame that can be read and is not bad; a sample may miss bad ones."""
    for path in paths:
        if path not in bad:
            with contextlib.suppress(OSError, ValueError):
                _, height, width = read_frame(path).shape
                return height, width
    return None
