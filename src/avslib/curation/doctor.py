"""Examine a data folder: its tables, the files that they list, and any other files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from avslib._checks import check_one_of, check_positive
from avslib._jobs import run_jobs
from avslib.curation.doctor_clip import Examined, examine_clip, expectation
from avslib.curation.doctor_report import KINDS, LEVELS, Diagnosis, Finding, SplitCount, find
from avslib.curation.doctor_set import (
    PLACES,
    check_class_names,
    check_copies,
    check_counts,
    check_extra,
    check_links,
    check_rows,
    check_sizes,
    check_unfinished,
)
from avslib.data.layout import LISTERS, SPLITS, ClipFiles, holds_classes


def examine(
    root: str | Path,
    *,
    settings: Sequence[str] | None = None,
    sample: int | None = None,
    deep: bool = False,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Diagnosis:
    """Examine a data folder, without changing it or stopping at damaged files.

    Every frame, mask, sound and log-mel is opened; videos are only counted.

    Args:
        root: the folder where the dataset was unpacked, or that ``avslib prepare folder`` wrote.
        settings: any of ``"s4"``, ``"ms3"``, ``"avss"`` and ``"folder"``; None for all that are in ``root``.
        sample: number of evenly spaced clips of each split whose files are opened; None for all.
        deep: whether to compare every log-mel with one computed from its WAV file.
        workers: number of processes. More than one needs a script with ``if __name__ == "__main__"``.
        progress: called with 1 after every clip, for example tqdm's ``update``.

    Returns:
        The findings, and the number of clips in each split.

    Raises:
        FileNotFoundError: if there is no such folder or, without ``settings``, no dataset in it; the message
            says what was expected and what is there.
        ValueError: if a setting is unknown, or ``sample`` or ``workers`` is not positive.

    Example:
        >>> examine("/nowhere")
        Traceback (most recent call last):
        ...
        FileNotFoundError: /nowhere: no such folder
    """
    root = Path(root)
    check_positive("workers", workers)
    if sample is not None:
        check_positive("sample", sample)
    for setting in settings or ():
        check_one_of("settings", setting, PLACES)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    findings = _attempt("", root, partial(check_unfinished, root))
    splits: list[SplitCount] = []
    for setting in settings or find_settings(root) or _nothing(root):
        found, counted = _examine_setting(
            root, setting, sample=sample, deep=deep, workers=workers, progress=progress
        )
        findings += found
        splits += counted
    order = list(KINDS)
    findings.sort(key=lambda found: (LEVELS.index(found.level), order.index(found.kind), found.path))
    return Diagnosis(root, tuple(splits), tuple(dict.fromkeys(findings)))


def find_settings(root: str | Path) -> tuple[str, ...]:
    """Return the settings whose tables or folders lie in a folder."""
    own = [
        setting
        for setting, place in PLACES.items()
        if Path(root, place.table).is_file()
        or (setting != "folder" and any(Path(root, folder).is_dir() for folder in place.folders))
    ]
    return tuple(own)


def _examine_setting(
    root: Path,
    setting: str,
    *,
    sample: int | None,
    deep: bool,
    workers: int,
    progress: Callable[[int], object] | None,
) -> tuple[list[Finding], list[SplitCount]]:
    semantic = holds_classes(root, setting)
    table = root / PLACES["avss" if semantic else setting].table
    try:
        clips = LISTERS[setting](root)
    except FileNotFoundError:
        return [find("missing-table", setting, table, "not there")], []
    except (OSError, ValueError) as error:
        return [find("damaged-table", setting, table, str(error).removeprefix(f"{table}: "))], []
    check = partial(examine_clip, expected=expectation(root, setting), deep=deep)
    results: dict[ClipFiles, Examined] = {}
    findings: list[Finding] = []
    jobs = _sampled(clips, sample)
    for clip, result, reason in run_jobs(check, jobs, workers=workers, progress=progress):
        if result is None:
            findings.append(find("check-failed", setting, clip.frames[0].parent, reason, clip=clip))
            continue
        results[clip] = result
        findings += [
            find(problem.kind, setting, problem.path, problem.text, clip=clip, is_unused=problem.is_unused)
            for problem in result.problems
        ]
    in_order = dict.fromkeys(clips)  # order of the table, not of the processes
    examined = {clip: results[clip] for clip in in_order if clip in results}
    rules: list[Callable[[], Iterable[Finding]]] = [
        partial(check_rows, setting, table, clips),
        partial(check_counts, root, setting, table, clips),
        partial(check_copies, setting, examined),
        partial(check_sizes, setting, examined, shared=setting in ("s4", "ms3") and not semantic),
        partial(check_extra, root, setting, clips),
        partial(check_links, root, setting, clips),
    ]
    if setting == "avss":
        rules.append(partial(check_class_names, root, setting))
    for rule in rules:
        findings += _attempt(setting, table, rule)
    return findings, _count(setting, clips, examined, findings)


def _attempt(setting: str, path: Path, rule: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(rule())
    except Exception as error:  # a rule that fails must not hide the findings of the others
        return [find("check-failed", setting, path, f"{type(error).__name__}: {error}")]


def _sampled(clips: Iterable[ClipFiles], sample: int | None) -> list[ClipFiles]:
    by_split: dict[str, list[ClipFiles]] = defaultdict(list)
    for clip in dict.fromkeys(clips):
        by_split[clip.split].append(clip)
    chosen = []
    for group in by_split.values():
        count = min(sample or len(group), len(group))
        chosen += [group[i * len(group) // count] for i in range(count)]
    return chosen


def _count(
    setting: str,
    clips: Sequence[ClipFiles],
    examined: Mapping[ClipFiles, Examined],
    findings: Iterable[Finding],
) -> list[SplitCount]:
    faulty = {(finding.split, finding.clip) for finding in findings if finding.level == "error"}
    splits = dict.fromkeys((*SPLITS, *(clip.split for clip in clips)))
    listed = Counter(clip.split for clip in dict.fromkeys(clips))
    seen = Counter(clip.split for clip in examined)
    usable = Counter(clip.split for clip in examined if (clip.split, clip.id) not in faulty)
    videos = Counter(clip.split for clip, result in examined.items() if result.has_video)
    return [
        SplitCount(setting, split, listed[split], seen[split], usable[split], videos[split])
        for split in splits
        if listed[split]
    ]


def _nothing(root: Path) -> tuple[str, ...]:
    """Raise an error that says what was expected in a folder without a dataset, and what is there."""
    looked_for = ", ".join(f"{place.table} ({place.words})" for place in PLACES.values())
    inner = sorted(root.iterdir())
    near = [*root.absolute().parents[:2], *(path for path in inner[:1000] if path.is_dir())]
    better = [f"{path} ({', '.join(found)})" for path in near if (found := find_settings(path))]
    names = ", ".join(path.name for path in inner[:8]) + (", ..." if len(inner) > 8 else "")
    hint = (
        f"give {' or '.join(better[:4])}" if better else "`avslib prepare folder` makes a set out of videos"
    )
    raise FileNotFoundError(
        f"{root}: no dataset here: looked for {looked_for}; there is {names or 'nothing'}; {hint}"
    )
