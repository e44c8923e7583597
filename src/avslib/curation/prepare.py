"""Make the frames, sounds and log-mels that readers need from the raw videos of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch.nn import functional as F

from avslib._checks import check_one_of, check_positive
from avslib._jobs import remove_unfinished, run_jobs, write_whole
from avslib.curation.doctor_clip import expectation
from avslib.curation.frame_rule import FRAME_RULES, frame_moments
from avslib.curation.report import Report, report_of
from avslib.data.layout import LISTERS, ClipFiles, refuse_links_out
from avslib.data.reader import SAMPLE_RATE, clip_examples
from avslib.data.stored_log_mel import converted_path, load_examples, log_mel_path, save_log_mel
from avslib.media.audio import read_wav, resample, write_wav
from avslib.media.frame import read_frame, resize_frame, write_frame
from avslib.media.video import iter_frames, probe_video, read_sound

_SETTINGS = ("s4", "ms3", "avss")
_SHORTEST = 15_600
"""Length of one log-mel example at 16 kHz, samples."""


def prepare(
    setting: str,
    root: str | Path,
    *,
    frame_rule: str = "avsbench",
    size: tuple[int, int] | None = (224, 224),
    overwrite: bool = False,
    follow_links: bool = False,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Make the frames, WAV files and log-mels that readers need and an unpacked AVSBench lacks.

    Frames and WAV files are made from the raw videos, and log-mels from the WAV files, as safetensors;
    pickles are read but never written. Masks are never touched. Each file is written completely or not at
    all, and complete files are left alone. So if a call is killed, a second call makes the rest, with the
    same bytes as a single call. Use ``overwrite`` to apply another ``frame_rule`` or ``size`` to existing
    frames.

    Pictures are resized like in the published code: bilinearly between the four nearest pixels, without
    keeping the aspect ratio. AVSBench-semantic comes with frames and WAV files, so only log-mels are made;
    missing frames are made if there is a video, and keep its size, as the masks do.

    Args:
        setting: ``"s4"``, ``"ms3"`` or ``"avss"``.
        root: the folder where the dataset was unpacked.
        frame_rule: which frame represents a second; see :func:`~avslib.curation.frame_moments`.
        size: ``(H, W)`` of the frames, px; None for the size of the video.
        overwrite: remake frames and WAV files if there is a video, and every log-mel.
        follow_links: whether symbolic links may lead to files outside ``root``.
        workers: number of processes. More than one needs a script with ``if __name__ == "__main__"``.
        progress: called with 1 after every clip, for example tqdm's ``update``.

    Returns:
        How many clips were made or were already complete, and why the others failed.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if the table is damaged or names a file outside ``root``, or an argument is wrong.
    """
    check_one_of("setting", setting, _SETTINGS)
    check_one_of("frame_rule", frame_rule, FRAME_RULES)
    if size is not None:
        check_positive("size", min(size))
    root = Path(root)
    clips = LISTERS[setting](root)
    expected = expectation(root, setting)
    job = partial(
        prepare_clip,
        size=None if expected.has_classes else size,
        frame_rule=frame_rule,
        padding=expected.padding,
        overwrite=overwrite,
    )
    return _run(job, clips, root, follow_links, workers, progress)


def convert_pickles(
    setting: str,
    root: str | Path,
    *,
    delete: bool = False,
    follow_links: bool = False,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Convert the pickled log-mels of a set to safetensors files, which readers then use instead.

    No code in a pickle is run; see :func:`~avslib.media.load_tensor_pickle`.

    Args:
        setting: ``"s4"``, ``"ms3"`` or ``"avss"``.
        root: the folder where the dataset was unpacked.
        delete: delete each pickle once the new file has been read back and holds the same tensor.
        follow_links: whether symbolic links may lead to files outside ``root``.
        workers: number of processes. More than one needs a script with ``if __name__ == "__main__"``.
        progress: called with 1 after every clip, for example tqdm's ``update``.

    Returns:
        How many clips were converted or already had been, and why the others failed.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if the table is damaged or names a file outside ``root``.
    """
    check_one_of("setting", setting, _SETTINGS)
    root = Path(root)
    job = partial(_convert_pickle, delete=delete)
    return _run(job, LISTERS[setting](root), root, follow_links, workers, progress)


def _run(
    job: Callable[[ClipFiles], bool],
    clips: Sequence[ClipFiles],
    root: Path,
    follow_links: bool,
    workers: int,
    progress: Callable[[int], object] | None,
) -> Report:
    if not follow_links:
        touched = ((*clip.frames, clip.wav, clip.log_mel, converted_path(clip), clip.video) for clip in clips)
        refuse_links_out(chain.from_iterable(touched), root, to_allow="prepare")
    remove_unfinished(root)
    outcomes = run_jobs(job, clips, workers=workers, progress=progress)
    return report_of((files.id, bool(made), error) for files, made, error in outcomes)


def prepare_clip(
    files: ClipFiles,
    *,
    size: tuple[int, int] | None,
    frame_rule: str,
    padding: str = "repeat",
    hop_steps: int = 96,
    fill_sound: bool = False,
    overwrite: bool = False,
    with_log_mel: bool = True,
) -> bool:
    """Make the frames, the WAV file and the log-mel of a clip, unless they exist and are complete.

    Args:
        files: the paths of these files and of the video to make them from.
        size: ``(H, W)`` of the frames, px; None for the size of the video.
        frame_rule: which frame represents a second.
        padding: how the log-mel of a short sound is padded: ``"repeat"`` or ``"zero"``.
        hop_steps: distance between two log-mel examples, steps of 10 ms.
        fill_sound: whether the sound is cut or padded to the length of the pictures.
        overwrite: remake the frames and the WAV file if there is a video, and the log-mel.
        with_log_mel: False leaves the log-mel alone.

    Returns:
        Whether anything was made.

    Raises:
        FileNotFoundError: if a file is missing or damaged and there is no video.
        ValueError: if the video is damaged; the message names it.
    """
    seconds = len(files.frames)
    is_there = files.video.is_file()
    anew = overwrite and is_there
    lacking = [i for i, path in enumerate(files.frames) if anew or not _is_whole(read_frame, path)]
    lacks_sound = anew or not _is_whole(read_wav, files.wav)
    if lacking or lacks_sound:
        if not is_there:
            target = files.frames[lacking[0]] if lacking else files.wav
            raise FileNotFoundError(
                f"{target}: not there, or damaged, and there is no {files.video} to make it from"
            )
        video = probe_video(files.video)
    if lacking:
        moments = frame_moments(video, seconds, rule=frame_rule)
        for i, picture in enumerate(iter_frames(files.video, moments)):  # all: a seek elsewhere could matter
            if i in lacking:
                with write_whole(files.frames[i]) as path:
                    write_frame(path, picture if size is None else resize_frame(picture, size))
    if lacks_sound:
        most = seconds if fill_sound else None
        waveform = read_sound(files.video, video, SAMPLE_RATE, seconds=most)
        if fill_sound or len(waveform) < _SHORTEST:
            waveform = F.pad(waveform, (0, seconds * SAMPLE_RATE - len(waveform)))
        with write_whole(files.wav) as path:
            write_wav(path, waveform, SAMPLE_RATE)
    lacks_log_mel = with_log_mel and (overwrite or not _has_log_mel(files))
    if lacks_log_mel:
        waveform, rate = read_wav(files.wav)
        waveform = resample(waveform, rate, SAMPLE_RATE)
        examples = clip_examples(waveform, seconds, name=files.wav, padding=padding, hop_steps=hop_steps)
        save_log_mel(files, examples)
    return bool(lacking or lacks_sound or lacks_log_mel)


def _is_whole(read: Callable[[Path], object], path: Path) -> bool:
    try:
        read(path)
    except (OSError, ValueError):
        return False
    return True


def _has_log_mel(files: ClipFiles) -> bool:
    """Return whether the log-mel that a reader would use exists and is complete."""
    return _is_whole(partial(load_examples, seconds=len(files.frames)), log_mel_path(files))


def _convert_pickle(files: ClipFiles, *, delete: bool) -> bool:
    check = partial(load_examples, seconds=len(files.frames))
    lacks = not _is_whole(check, converted_path(files))
    if lacks:
        save_log_mel(files, check(files.log_mel))
    if not delete or not files.log_mel.is_file():
        return lacks
    if not torch.equal(check(converted_path(files)), check(files.log_mel)):
        raise ValueError(
            f"{files.log_mel}: not deleted, since {converted_path(files).name} holds other numbers"
        )
    files.log_mel.unlink()
    return True
