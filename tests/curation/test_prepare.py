import csv
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.io import wavfile
from torch import Tensor

from avslib.curation.prepare import convert_pickles, prepare
from avslib.curation.report import Report
from avslib.data import AVSBenchMS3, AVSBenchS4
from avslib.data.avss import AVSBenchSemantic
from avslib.data.layout import LISTERS, ClipFiles
from avslib.data.reader import ClipReader
from avslib.data.synthetic import write_avsbench
from avslib.media.audio import read_wav, write_wav
from avslib.media.frame import read_frame, write_frame
from avslib.media.tensor_pickle import save_tensor_pickle
from avslib.media.video_writer import write_video
from tests import _golden
from tests._films import film, numbered, numbers_of, tone
from tests._kills import files_of, kill_at_random_moments

SIZE = (48, 48)
READERS: dict[str, Callable[..., ClipReader]] = {"s4": AVSBenchS4, "ms3": AVSBenchMS3}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written")
    for setting in READERS:
        write_avsbench(root, setting=setting, clips={"train": 1, "test": 1}, size=48, videos=True)
    return root


@pytest.fixture
def raw(written: Path, tmp_path: Path) -> Path:
    """The videos, the masks and the tables alone."""
    root = Path(shutil.copytree(written, tmp_path / "raw"))
    for folder in ("visual_frames", "audio_wav", "audio_log_mel"):
        for path in root.glob(f"*/*/{folder}"):
            shutil.rmtree(path)
    return root


def ms3_set(root: Path, *names: str) -> list[ClipFiles]:
    """An empty MS3: a table, and where the files belong."""
    table = root / "Multi-sources" / "ms3_meta_data.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("".join(f"{line}\n" for line in ["video_id,split", *(f"{name},test" for name in names)]))
    clips = LISTERS["ms3"](root)
    for files in clips:
        for path in (files.frames[0], files.wav, files.log_mel, files.video):
            path.parent.mkdir(parents=True, exist_ok=True)
    return clips


def with_frames(files: ClipFiles) -> ClipFiles:
    for path in files.frames:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_frame(path, torch.zeros(3, 8, 8, dtype=torch.uint8))
    return files


@pytest.mark.parametrize("setting", READERS)
def test_from_videos_comes_the_set_that_was_written(setting: str, written: Path, raw: Path) -> None:
    masks = files_of(raw)
    done: list[int] = []
    assert prepare(setting, raw, size=SIZE, progress=done.append) == Report(made=2, kept=0, failures={})
    assert done == [1, 1]
    assert masks.items() <= files_of(raw).items()
    for split in ("train", "test"):
        before, after = (
            READERS[setting](root, split, size=SIZE, normalize=False)[0] for root in (written, raw)
        )
        assert after.id == before.id
        assert torch.equal(after.masks, before.masks)
        for mine, direct, most in (
            (after.frames.float(), before.frames.float(), 6),  # H.264, which halves the resolution of colour
            (after.log_mel, before.log_mel, 0.25),  # AAC, whose noise is louder than the offset of 0.01
        ):
            error, of_another_second = (
                (mine - direct.roll(shift, 0)).abs().mean().item() for shift in (0, 1)
            )
            assert error < min(most, of_another_second / 2)
    assert prepare(setting, raw, size=SIZE) == Report(made=0, kept=2, failures={})


@pytest.mark.parametrize("setting", READERS)
def test_the_log_mel_is_that_of_the_wav_file_to_the_bit(setting: str, raw: Path) -> None:
    prepare(setting, raw, size=SIZE)
    stored, computed = (
        READERS[setting](raw, "test", size=SIZE, sound=sound)[0].log_mel for sound in ("log_mel", "wav")
    )
    assert torch.equal(stored, computed)


def test_the_frames_are_those_that_the_rule_names(tmp_path: Path) -> None:
    (files,) = ms3_set(tmp_path, "a")
    write_video(files.video, numbered(140), fps=29.97)
    for rule, numbers in {
        "avsbench": [28, 58, 88, 118, 139],
        "middle": [15, 44, 74, 104, 134],  # number 15 comes 0.5 ms late, less than a clock tick of Matroska
        "start": [0, 29, 59, 89, 119],
    }.items():
        prepare("ms3", tmp_path, frame_rule=rule, size=None, overwrite=True)
        assert numbers_of(torch.stack([read_frame(path) for path in files.frames])) == numbers
    prepare("ms3", tmp_path, size=(32, 100), overwrite=True)
    frames = torch.stack([read_frame(path) for path in files.frames])
    assert frames.shape == (5, 3, 32, 100)
    assert numbers_of(frames) == [28, 58, 88, 118, 139]


@pytest.mark.parametrize(
    ("case", "output", "atol"),
    [
        ("B_avsbench_s4_pad_repeat", "log_mel", 1e-5),
        ("B_wavfile_16k_mono", "examples", 1e-5),
        ("B_wavfile_44k_stereo", "examples", 0.025),  # another resampler than resampy
    ],
)
def test_log_mels_of_wav_files_are_the_published_ones(
    case: str, output: str, atol: float, tmp_path: Path
) -> None:
    (files,) = ms3_set(tmp_path, "a")
    wavfile.write(with_frames(files).wav, 44_100 if "44k" in case else 16_000, _golden.inputs(case)["pcm"])
    assert prepare("ms3", tmp_path).made == 1
    log_mel = load_file(files.log_mel.with_suffix(".safetensors"))["log_mel"].numpy()
    expected = _golden.arrays(case)[f"out.{output}"]
    assert log_mel.shape == (5, 1, 96, 64)
    np.testing.assert_allclose(log_mel[: len(expected)], expected, rtol=1e-4, atol=atol)
    assert (log_mel[len(expected) :] == log_mel[len(expected) - 1]).all()  # the last one is repeated


def avss_set(root: Path, part: str, *, frames: bool = True) -> ClipFiles:
    (root / "metadata.csv").write_text(f"uid,label,split,a_obj\na,{part},test,dog\n")
    (files,) = LISTERS["avss"](root)
    files.wav.parent.mkdir(parents=True)
    if frames:
        with_frames(files)
    for path in files.masks:
        assert path is not None
        path.parent.mkdir(exist_ok=True)
        write_frame(path, torch.zeros(3, 8, 8, dtype=torch.uint8))
    return files


def test_log_mels_of_avss_are_filled_with_zeros(tmp_path: Path) -> None:
    files = avss_set(tmp_path, "v2")
    wavfile.write(files.wav, 16_000, _golden.inputs("B_avss_pad_zero")["pcm"])
    assert prepare("avss", tmp_path).made == 1
    log_mel = load_file(tmp_path / "v2/a/audio_log_mel.safetensors")["log_mel"]
    _golden.assert_matches("B_avss_pad_zero", "examples", log_mel)
    readers = [AVSBenchSemantic(tmp_path, "test", size=(8, 8), sound=sound) for sound in ("log_mel", "wav")]
    assert torch.equal(readers[0][0].log_mel, readers[1][0].log_mel)


def test_frames_of_avss_keep_the_size_of_the_video(tmp_path: Path) -> None:
    files = avss_set(tmp_path, "v1s", frames=False)
    film(files.video.with_suffix(".mkv"), range(0, 5000, 100), sound=tone(5, 16_000)).rename(files.video)
    for setting in ("avss", "s4"):  # v1s is S4
        shutil.rmtree(files.frames[0].parent, ignore_errors=True)
        assert prepare(setting, tmp_path).made == 1
        assert numbers_of(torch.stack([read_frame(path) for path in files.frames])) == [9, 19, 29, 39, 49]
    assert len(AVSBenchS4(tmp_path, "test", size=(16, 160))[0].frames) == 5


def test_only_what_lacks_or_is_damaged_is_made(raw: Path) -> None:
    prepare("ms3", raw, size=SIZE)
    before = files_of(raw)
    files = LISTERS["ms3"](raw)[0]
    files.frames[2].unlink()
    files.frames[3].write_bytes(files.frames[3].read_bytes()[:-20])
    write_frame(files.frames[4], torch.zeros(3, *SIZE))  # whole, so it stays
    drawn = files.frames[4].read_bytes()
    files.wav.write_bytes(files.wav.read_bytes()[:1000])
    converted, other = (clip.log_mel.with_suffix(".safetensors") for clip in LISTERS["ms3"](raw)[:2])
    save_file({"log_mel": torch.zeros(4, 1, 96, 64)}, converted)
    save_file({"log_mel": torch.full((5, 1, 96, 64), torch.nan)}, other)
    (raw / "Multi-sources" / ".unfinished-1234.png").touch()
    times = {path: path.stat().st_mtime_ns for path in LISTERS["ms3"](raw)[1].frames}
    assert prepare("ms3", raw, size=SIZE) == Report(made=2, kept=0, failures={})
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert files.frames[4].read_bytes() == drawn
    assert prepare("ms3", raw, size=SIZE, overwrite=True).made == 2
    assert files_of(raw) == before


def test_published_pickles_are_left_alone_unless_overwritten(written: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(written, tmp_path / "copy"))
    assert prepare("s4", root, size=SIZE) == Report(0, 2, {})
    assert not list(root.rglob("*.safetensors"))
    files = LISTERS["s4"](root)[0]
    files.log_mel.write_bytes(b"damaged")
    assert prepare("s4", root, size=SIZE).made == 1
    assert [path.stem for path in root.rglob("*.safetensors")] == [files.id]
    for path in root.rglob("*.mp4"):
        path.unlink()
    frames = files.frames[0].read_bytes()
    assert prepare("s4", root, overwrite=True) == Report(2, 0, {})  # log-mels alone: there are no videos
    assert files.frames[0].read_bytes() == frames
    assert len(list(root.rglob("*.safetensors"))) == 2


def test_a_silent_video_and_a_short_sound_are_followed_by_silence(tmp_path: Path) -> None:
    silent, short, longer = ms3_set(tmp_path, "silent", "short", "longer")
    write_video(silent.video, numbered(50), fps=10)
    for files, seconds in ((short, 0.5), (longer, 2.5)):
        film(tmp_path / "film.mkv", range(0, 5000, 100), sound=tone(seconds, 16_000)).rename(files.video)
    assert prepare("ms3", tmp_path, size=SIZE) == Report(3, 0, {})
    lengths = [len(read_wav(files.wav)[0]) for files in (silent, short, longer)]
    assert lengths == [80_000, 80_000, 40_000]
    assert not read_wav(silent.wav)[0].any()
    log_mels = [
        load_file(files.log_mel.with_suffix(".safetensors"))["log_mel"] for files in (silent, short, longer)
    ]
    torch.testing.assert_close(log_mels[0], torch.full((5, 1, 96, 64), 0.01).log())
    assert torch.equal(log_mels[1][1:], log_mels[0][1:])
    assert torch.equal(
        log_mels[2][3], log_mels[2][1]
    )  # 2.5 s give two examples, of which the last is repeated


def test_each_failure_has_a_reason_that_names_the_file(tmp_path: Path) -> None:
    names = ("gone", "text", "empty", "cut", "deaf", "whole", "no_sound_file")
    clips = dict(zip(names, ms3_set(tmp_path, *names), strict=True))
    clips["text"].video.write_text("hello " * 1000)
    clips["empty"].video.touch()
    write_video(clips["whole"].video, numbered(50), fps=10, waveform=0.1 * torch.randn(80_000))
    content = clips["whole"].video.read_bytes()
    clips["cut"].video.write_bytes(content[: len(content) // 3])
    write_wav(with_frames(clips["deaf"]).wav, torch.zeros(8_000), 16_000)
    with_frames(clips["no_sound_file"])
    report = prepare("ms3", tmp_path, size=SIZE)
    assert report[:2] == (1, 0)
    for name, words in {
        "gone": "gone.mp4_1.png: not there, or damaged, and there is no",
        "text": "text.mp4: cannot be read or written as a video",
        "empty": "empty.mp4: cannot be read or written as a video",
        "cut": "cut.mp4: ends after",
        "deaf": "deaf.wav: expected at least 0.975 s of sound, got 0.500 s",
        "no_sound_file": "no_sound_file.wav: not there, or damaged, and there is no",
    }.items():
        assert words in report.failures.pop(name)  # type: ignore[attr-defined]
    assert not report.failures
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_files_behind_links_need_leave(raw: Path, tmp_path: Path) -> None:
    folder = raw / "Multi-sources" / "ms3_data" / "raw_videos"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    for call in (prepare, convert_pickles):
        with pytest.raises(ValueError, match=r"raw_videos.*leads out of .* prepare with follow_links=True"):
            call("ms3", raw)
    assert prepare("ms3", raw, size=SIZE, follow_links=True).made == 2


def test_wrong_arguments_are_named(raw: Path) -> None:
    with pytest.raises(ValueError, match="setting: expected one of 's4', 'ms3', 'avss', got 'folder'"):
        prepare("folder", raw)
    with pytest.raises(ValueError, match="frame_rule: expected one of 'avsbench', 'end'"):
        prepare("s4", raw, frame_rule="last")
    with pytest.raises(ValueError, match="size: expected a number above 0, got 0"):
        prepare("s4", raw, size=(0, 4))
    with pytest.raises(FileNotFoundError, match=r"ms3_meta_data\.csv: no such table"):
        prepare("ms3", raw / "Single-source")


def original(path: Path, tensor: Tensor) -> None:
    """As AVSBench pickled them: the default protocol of then, sometimes with a gradient asked for."""
    path.write_bytes(pickle.dumps(tensor.requires_grad_(), protocol=3))


def test_pickles_are_converted_number_for_number(tmp_path: Path) -> None:
    clips = ms3_set(tmp_path, "plain", "array", "double", "golden")
    log_mel = _golden.arrays("B_avsbench_s4_pad_repeat")["out.log_mel"]
    tensors = [torch.randn(5, 1, 96, 64) for _ in range(3)] + [torch.from_numpy(log_mel)]
    original(clips[0].log_mel, tensors[0].clone())
    clips[1].log_mel.write_bytes(pickle.dumps(tensors[1].numpy(), protocol=4))
    clips[2].log_mel.write_bytes(pickle.dumps(tensors[2].double(), protocol=2))
    original(clips[3].log_mel, tensors[3].clone())
    assert convert_pickles("ms3", tmp_path) == Report(4, 0, {})
    for files, tensor in zip(clips, tensors, strict=True):
        assert torch.equal(load_file(files.log_mel.with_suffix(".safetensors"))["log_mel"], tensor)
        assert files.log_mel.is_file()
    assert convert_pickles("ms3", tmp_path) == Report(0, 4, {})
    assert convert_pickles("ms3", tmp_path, delete=True) == Report(4, 0, {})
    assert not any(files.log_mel.exists() for files in clips)
    assert convert_pickles("ms3", tmp_path, delete=True) == Report(0, 4, {})


def test_a_pickle_that_cannot_be_trusted_stays_and_is_named(tmp_path: Path) -> None:
    evil, short, other, _ = ms3_set(tmp_path, "evil", "short", "other", "gone")
    evil.log_mel.write_bytes(pickle.dumps(os.getcwd))
    save_tensor_pickle(short.log_mel, torch.zeros(4, 1, 96, 64))
    save_tensor_pickle(other.log_mel, torch.zeros(5, 1, 96, 64))
    save_file({"log_mel": torch.ones(5, 1, 96, 64)}, other.log_mel.with_suffix(".safetensors"))
    failures = convert_pickles("ms3", tmp_path, delete=True).failures
    for name, words in {
        "evil": "evil.pkl: expected one pickled tensor: found the name",
        "short": "short.pkl: expected a log-mel (5, 1, 96, 64), got (4, 1, 96, 64)",
        "other": "other.pkl: not deleted, since other.safetensors holds other numbers",
        "gone": "gone.pkl: no such pickle",
    }.items():
        assert words in failures[name]
    assert all(files.log_mel.is_file() for files in (evil, short, other))


def test_the_bytes_are_the_same_each_time(raw: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(raw, tmp_path / "again"))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        prepare("s4", raw, size=SIZE)
    finally:
        torch.set_num_threads(threads)
    prepare("s4", again, size=SIZE)
    assert files_of(raw) == files_of(again)


@pytest.mark.slow  # a spawned process imports torch anew
def test_two_processes_make_what_one_makes(raw: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(raw, tmp_path / "again"))
    assert prepare("s4", raw, size=SIZE) == prepare("s4", again, size=SIZE, workers=2) == Report(2, 0, {})
    assert files_of(raw) == files_of(again)


def test_a_killed_run_is_finished_by_the_next(raw: Path, tmp_path: Path) -> None:
    kill_at_random_moments(lambda root: prepare("ms3", root, size=SIZE), raw, tmp_path, times=3)


@pytest.mark.slow
def test_a_run_killed_at_20_moments_is_finished_by_the_next(raw: Path, tmp_path: Path) -> None:
    kill_at_random_moments(lambda root: prepare("s4", root, size=SIZE), raw, tmp_path, times=20)


def test_the_report_is_a_table(raw: Path, tmp_path: Path) -> None:
    files = LISTERS["ms3"](raw)[0]
    files.video.unlink()
    prepare("ms3", raw, size=SIZE).write(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["id", files.id]
