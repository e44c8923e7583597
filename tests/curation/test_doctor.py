from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from avslib.curation import doctor
from avslib.curation.doctor import PLACES, examine
from avslib.curation.doctor_report import KINDS, Diagnosis, Finding, SplitCount
from avslib.data import AVSBenchMS3, AVSBenchS4, AVSBenchSemantic, write_avsbench
from avslib.data.layout import LISTERS, ClipFiles
from avslib.media import (
    load_tensor_pickle,
    read_frame,
    read_mask,
    save_tensor_pickle,
    write_frame,
    write_mask,
    write_wav,
)

SIZE = 32
SETTINGS = ("s4", "ms3", "avss")
READERS = {"s4": AVSBenchS4, "ms3": AVSBenchMS3, "avss": AVSBenchSemantic}
CLIPS = 14
"""In the test split: files of the first ones are damaged, and the others are for damage to the set."""
Said = tuple[str, Path]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {}
    for setting in SETTINGS:
        roots[setting] = tmp_path_factory.mktemp(setting)
        clips = {"train": 3, "test": CLIPS}
        write_avsbench(roots[setting], setting=setting, clips=clips, size=SIZE, videos=False)
    return roots


def copy_of(root: Path, copy: Path) -> Path:
    """Copy a set by hard links, which is fast; whatever is written to is detached first."""
    return Path(shutil.copytree(root, copy, copy_function=os.link))


def detach(path: Path) -> Path:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    return path


@pytest.fixture
def ms3(healthy: dict[str, Path], tmp_path: Path) -> Path:
    return copy_of(healthy["ms3"], tmp_path / "ms3")


def clips_of(root: Path, setting: str) -> list[ClipFiles]:
    return [clip for clip in LISTERS[setting](root) if clip.split == "test"]


def said(diagnosis: Diagnosis) -> list[Said]:
    return sorted((finding.kind, finding.path) for finding in diagnosis.findings)


# Damage to one file of a clip.


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hostile_was_here",)


def cut(path: Path, _: int) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path, _: int) -> None:
    path.unlink()


def stain(path: Path, _: int) -> None:
    pixels = read_frame(path)
    pixels[:, 3:6, 3:6] = torch.tensor([77, 78, 79], dtype=torch.uint8)[:, None, None]
    pixels[:, 0, 0], pixels[:, 0, 1] = 0, 255
    write_frame(path, pixels)


def grey(value: float, *size: int) -> Callable[[Path, int], None]:
    return lambda path, _: write_frame(path, torch.full((3, *size), float(value)))


def sound(value: float, *, missing: int = 0, rate: int = 16_000) -> Callable[[Path, int], None]:
    return lambda path, seconds: write_wav(
        path, torch.full(((seconds - missing) * rate,), float(value)), rate
    )


def log_mel(value: float, *, missing: int = 0) -> Callable[[Path, int], None]:
    return lambda path, seconds: save_tensor_pickle(path, torch.full((seconds - missing, 1, 96, 64), value))


FILES: dict[str, dict[str, Callable[[Path, int], object]]] = {
    "frame": {
        "missing-frame": remove,
        "damaged-frame": cut,
        "frame-size": grey(0.5, 24, 40),
        "black-frame": grey(0.02, SIZE, SIZE),
    },
    "mask": {
        "missing-mask": remove,
        "damaged-mask": cut,
        "mask-size": grey(0, 24, 40),
        "mask-not-binary": stain,
        "foreign-colour": stain,
    },
    "wav": {
        "missing-wav": remove,
        "damaged-wav": cut,
        "short-sound": sound(0.1, missing=1),
        "silent-sound": sound(0),
        "odd-rate": sound(0.1, rate=16_001),
    },
    "log_mel": {
        "missing-log-mel": remove,
        "damaged-log-mel": lambda path, _: path.write_bytes(b"no pickle"),
        "hostile-log-mel": lambda path, _: path.write_bytes(pickle.dumps(Hostile())),
        "log-mel-shape": log_mel(0, missing=1),
        "log-mel-values": log_mel(-100),
    },
}
NOT_OF = {
    "s4": {"foreign-colour"},
    "ms3": {"foreign-colour"},
    "avss": {"mask-not-binary", "missing-log-mel"},
}


def files_of(clip: ClipFiles) -> dict[tuple[str, int], Path]:
    masks = {("mask", i): path for i, path in enumerate(clip.masks) if path is not None}
    frames = {("frame", i): path for i, path in enumerate(clip.frames[:2])}  # few: most tell the usual size
    return {**frames, **masks, ("wav", 0): clip.wav, ("log_mel", 0): clip.log_mel}


@st.composite
def damaged_files(draw: st.DrawFn, setting: str) -> dict[tuple[int, str, int], str]:
    """Draw clips, files of theirs, and what happens to each."""
    slot = st.tuples(
        st.integers(0, 3), st.sampled_from([*((name, i) for name in FILES for i in range(2))])
    ).map(lambda pair: (pair[0], pair[1][0], pair[1][1] * (pair[1][0] in ("frame", "mask"))))
    chosen = draw(st.sets(slot, max_size=12))
    return {
        place: draw(st.sampled_from(sorted(FILES[place[1]].keys() - NOT_OF[setting])))
        for place in sorted(chosen)
    }


# Damage to a set.


def add_row(root: Path, setting: str, source: ClipFiles, **changes: str) -> ClipFiles:
    """Repeat the row of a clip with changes, and copy its files to where that says."""
    table = detach(root / PLACES[setting].table)
    own = {"s4": "name", "ms3": "video_id", "avss": "uid"}[setting]
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if row[own] == source.id)
    rows.append(row | {own if key == "name" else key: value for key, value in changes.items()})
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(rows)
    clip = LISTERS[setting](root)[-1]
    for old, new in zip(all_files(source), all_files(clip), strict=True):
        if old is not None and new is not None and old.is_file() and old != new:
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(old, new)
    return clip


def all_files(clip: ClipFiles) -> tuple[Path | None, ...]:
    return (*clip.frames, *clip.masks, clip.wav, clip.log_mel)


def leak(root: Path, setting: str, clip: ClipFiles) -> Said:
    add_row(root, setting, clip, split="train")
    return "leak", root / PLACES[setting].table


def copy_across_splits(root: Path, setting: str, clip: ClipFiles) -> Said:
    copy = add_row(root, setting, clip, split="train", name="another_name")
    return "copy-across-splits", copy.frames[0].parent


def duplicate_clip(root: Path, setting: str, clip: ClipFiles) -> Said:
    add_row(root, setting, clip)
    return "duplicate-clip", root / PLACES[setting].table


def unknown_split(root: Path, setting: str, clip: ClipFiles) -> Said:
    copy = add_row(root, setting, clip, split="tets", name="misspelled")
    frame = read_frame(copy.frames[1])
    write_frame(copy.frames[1], frame.flip(-1))  # else it is a copy too
    return "unknown-split", root / PLACES[setting].table


def extra_file(root: Path, setting: str, clip: ClipFiles) -> Said:
    path = clip.frames[0].with_name("thumbnail.png")
    path.write_bytes(b"")
    return "extra-file", path


def extra_folder(root: Path, setting: str, clip: ClipFiles) -> Said:
    shutil.copytree(clip.frames[0].parent, folder := clip.frames[0].parent.with_name("unlisted"))
    return "extra-file", folder


def unfinished(root: Path, setting: str, clip: ClipFiles) -> Said:
    path = clip.wav.with_name(".unfinished-abc.wav")
    path.write_bytes(b"")
    return "unfinished", path


def link_out(root: Path, setting: str, clip: ClipFiles) -> Said:
    outside = root.with_name(f"{root.name}-{clip.id}.wav")
    shutil.move(clip.wav, outside)
    clip.wav.symlink_to(outside)
    return "link-out", clip.wav


def empty_mask(root: Path, setting: str, clip: ClipFiles) -> Said:
    for path in filter(None, clip.masks):
        write_mask(detach(path), torch.zeros(SIZE, SIZE))
    assert clip.masks[0] is not None
    return "empty-mask", clip.masks[0]


def class_names(root: Path, setting: str, clip: ClipFiles) -> Said:
    detach(root / "label2idx.json").write_text('{"background": 0, "dog": 2}')
    return "class-names", root / "label2idx.json"


def counts(root: Path, setting: str, clip: ClipFiles) -> Said:
    (root / "synthetic.json").unlink()  # says why there are other clips than were published
    return "counts", root / PLACES[setting].table


SETS = [
    leak,
    copy_across_splits,
    duplicate_clip,
    unknown_split,
    extra_file,
    extra_folder,
    unfinished,
    link_out,
]
OWN_SETS = {"s4": [empty_mask, counts], "ms3": [], "avss": [class_names]}
ELSEWHERE = {"missing-table", "damaged-table", "check-failed", "other-sound"}


def test_every_kind_is_tested() -> None:
    of_files = {kind for damages in FILES.values() for kind in damages}
    of_sets = {rule.__name__.replace("_", "-") for rule in (*SETS, *OWN_SETS["s4"], *OWN_SETS["avss"])}
    assert KINDS.keys() == of_files | of_sets - {"extra-folder"} | ELSEWHERE


def check_that_damage_is_named(root: Path, setting: str, draw: Callable[[st.SearchStrategy], Any]) -> None:
    clips = clips_of(root, setting)
    rules = SETS + OWN_SETS[setting]
    sets = draw(st.sets(st.sampled_from(range(len(rules)))))
    expected = [rules[i](root, setting, clips[4 + i]) for i in sorted(sets)]
    for (clip, name, index), kind in draw(damaged_files(setting)).items():
        path = files_of(clips[clip])[name, index]
        FILES[name][kind](detach(path) if path.is_file() else path, len(clips[clip].frames))
        expected.append((kind, path))
    diagnosis = examine(root)
    assert said(diagnosis) == sorted(expected)
    assert len(diagnosis.summary().splitlines()) <= 40
    check_that_readers_agree(root, setting, diagnosis)


def check_that_readers_agree(root: Path, setting: str, diagnosis: Diagnosis) -> None:
    """What the doctor calls an error of a clip is what its reader cannot read, or reads and should not."""
    of_test = [finding for finding in diagnosis.findings if finding.split == "test"]
    bad = {finding.clip for finding in of_test if finding.level == "error"}
    silent = {"mask-size", "log-mel-values", "copy-across-splits"}
    if any(finding.kind == "unknown-split" for finding in diagnosis.findings):
        with pytest.raises(ValueError, match="expected train, val or test as 'split', got 'tets'"):
            READERS[setting](root, "test", follow_links=True)
        table = root / PLACES[setting].table
        table.write_text(table.read_text().replace("tets", "train"))
    unread = bad - {finding.clip for finding in of_test if finding.kind in silent}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of each clip that cannot be read
        clips = list(READERS[setting](root, "test", size=(8, 8), on_error="skip", follow_links=True))
    blank = {clip.id for clip in clips if not clip.valid.any()}
    assert unread <= blank <= bad
    usable = next(split.usable for split in diagnosis.splits if split.split == "test")
    assert usable == len({clip.id for clip in clips} - bad)


def run_on_a_copy(setting: str, data: st.DataObject, healthy: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory(dir=healthy[setting].parent) as folder:
        check_that_damage_is_named(copy_of(healthy[setting], Path(folder, "copy")), setting, data.draw)


@pytest.mark.parametrize("setting", SETTINGS)
@given(data=st.data())
@settings(max_examples=4)
def test_every_damage_is_named_and_nothing_else(
    setting: str, data: st.DataObject, healthy: dict[str, Path]
) -> None:
    run_on_a_copy(setting, data, healthy)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@given(data=st.data())
@settings(max_examples=40)
def test_every_damage_is_named_however_it_meets_others(
    setting: str, data: st.DataObject, healthy: dict[str, Path]
) -> None:
    run_on_a_copy(setting, data, healthy)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_healthy_set_gives_no_finding(setting: str, healthy: dict[str, Path]) -> None:
    diagnosis = examine(healthy[setting], deep=True)
    assert diagnosis.findings == ()
    assert diagnosis.is_healthy
    assert diagnosis.splits == (
        SplitCount(setting, "train", 3, 3, 3, 0),
        SplitCount(setting, "test", CLIPS, CLIPS, CLIPS, 0),
    )
    assert "nothing wrong" in diagnosis.summary()


@given(data=st.data())
@settings(max_examples=6)
def test_no_damage_ends_the_examination(data: st.DataObject, healthy: dict[str, Path]) -> None:
    setting = data.draw(st.sampled_from(SETTINGS))
    with tempfile.TemporaryDirectory(dir=healthy[setting].parent) as folder:
        root = copy_of(healthy[setting], Path(folder, "copy"))
        files = sorted(path for path in root.rglob("*") if path.is_file())
        for path in data.draw(st.sets(st.sampled_from(files), max_size=20)):
            path.unlink()
            content = data.draw(st.one_of(st.binary(max_size=200), st.none()))
            path.mkdir() if content is None else path.write_bytes(content)
        assert "check-failed" not in dict(said(examine(root, deep=True)))


@pytest.mark.slow
def test_processes_find_the_same(ms3: Path) -> None:
    leak(ms3, "ms3", clips_of(ms3, "ms3")[0])
    copy_across_splits(ms3, "ms3", clips_of(ms3, "ms3")[1])
    cut(detach(clips_of(ms3, "ms3")[2].frames[0]), 5)
    done: list[int] = []
    assert examine(ms3, workers=2, progress=done.append) == examine(ms3)
    assert sum(done) == CLIPS + 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\x00", "decode"),
        (b"video,split\na,test\n", "expected a column 'video_id'"),
        (b"video_id,split\n../../secret,test\n", "line 2: expected a plain name"),
        (b"video_id,split\n/etc/passwd,test\n", "line 2: expected a plain name"),
        (b'video_id,split\n"a,test\n', "unexpected end"),
        (b"video_id,split\n", "lists no clip"),
        (None, "not there"),
    ],
)
def test_tables_that_cannot_be_read(ms3: Path, text: bytes | None, message: str) -> None:
    table = ms3 / PLACES["ms3"].table
    table.unlink()
    if text is not None:
        table.write_bytes(text)
    found, *extra = examine(ms3).findings
    assert (found.level, found.path) == ("error", table)
    assert found.kind == ("missing-table" if text is None else "damaged-table")
    assert message in found.problem
    assert {finding.kind for finding in extra} <= {"extra-file"}


def test_a_check_that_fails_is_a_finding(ms3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(doctor, "check_copies", fail)
    cut(detach(clips_of(ms3, "ms3")[2].frames[0]), 5)
    failed, found = sorted(examine(ms3).findings, key=lambda finding: finding.kind)
    assert (failed.kind, failed.problem) == ("check-failed", "ZeroDivisionError: oh")
    assert found.kind == "damaged-frame"
    monkeypatch.setattr(doctor, "examine_clip", fail)
    assert {finding.kind for finding in examine(ms3).findings} == {"check-failed"}


def test_log_mels_are_held_against_the_sound(ms3: Path) -> None:
    a, b = clips_of(ms3, "ms3")[:2]
    first, second = a.log_mel.read_bytes(), b.log_mel.read_bytes()
    detach(a.log_mel).write_bytes(second)
    detach(b.log_mel).write_bytes(first)
    assert examine(ms3).findings == ()
    assert said(examine(ms3, deep=True)) == [("other-sound", a.log_mel), ("other-sound", b.log_mel)]
    converted = a.log_mel.with_suffix(".safetensors")
    save_file({"log_mel": load_tensor_pickle(a.log_mel)}, converted)  # which readers take then
    assert said(examine(ms3, deep=True)) == [("other-sound", converted), ("other-sound", b.log_mel)]


def test_a_mask_is_judged_by_what_readers_see(healthy: dict[str, Path], tmp_path: Path) -> None:
    root = copy_of(healthy["s4"], tmp_path / "s4")
    of_16_bits, transparent, graded = clips_of(root, "s4")[:3]
    for path in filter(None, of_16_bits.masks):
        Image.fromarray(read_mask(path).numpy().astype(np.uint16)).save(detach(path))  # 0 and 1
    for path in filter(None, transparent.masks):
        Image.fromarray(np.array([[[255, 255, 255, 0]] * SIZE] * SIZE, np.uint8)).save(detach(path))
    first = graded.masks[0]
    assert first is not None
    steps = np.linspace(0, 255, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)  # in the lower 8 bits
    Image.fromarray(steps).save(detach(first))
    expected = [("empty-mask", transparent.masks[0]), ("mask-not-binary", first)]
    assert said(examine(root)) == expected


def test_a_hostile_pickle_is_named_though_another_file_takes_its_place(ms3: Path) -> None:
    clip = clips_of(ms3, "ms3")[0]
    save_file({"log_mel": load_tensor_pickle(clip.log_mel)}, clip.log_mel.with_suffix(".safetensors"))
    assert examine(ms3).findings == ()
    detach(clip.log_mel).write_bytes(pickle.dumps(Hostile()))
    (found,) = examine(ms3).findings
    assert (found.kind, found.level) == ("hostile-log-mel", "warning")
    assert "system" in found.problem
    assert "readers take" in found.problem
    assert not Path("hostile_was_here").exists()


def test_a_linked_folder_is_named_once(ms3: Path) -> None:
    wavs = ms3 / "Multi-sources/ms3_data/audio_wav"
    outside = shutil.move(wavs, ms3.with_name("elsewhere"))
    wavs.symlink_to(outside)
    assert said(examine(ms3)) == [("link-out", wavs)]


def test_a_sample_is_spread_over_each_split(ms3: Path) -> None:
    clips = clips_of(ms3, "ms3")
    for clip in clips:
        clip.wav.unlink()
    diagnosis = examine(ms3, sample=2)
    assert [finding.clip for finding in diagnosis.findings if finding.split == "test"] == [
        clips[0].id,
        clips[CLIPS // 2].id,
    ]
    assert [split.examined for split in diagnosis.splits] == [2, 2]
    assert "examined" in diagnosis.summary()
    assert "examined" not in examine(ms3).summary()


def test_settings_are_found_or_chosen(healthy: dict[str, Path], ms3: Path) -> None:
    shutil.copytree(healthy["s4"] / "Single-source", ms3 / "Single-source", copy_function=os.link)
    assert [split.setting for split in examine(ms3).splits] == ["s4", "s4", "ms3", "ms3"]
    assert {split.setting for split in examine(ms3, settings=["ms3"]).splits} == {"ms3"}
    as_s4 = examine(healthy["avss"], settings=["s4"])  # v1s of AVSBench-semantic, which has no log-mels
    assert {finding.kind for finding in as_s4.findings} == {"missing-log-mel"}
    with pytest.raises(ValueError, match="settings: expected one of 's4'"):
        examine(ms3, settings=["s5"])
    with pytest.raises(ValueError, match="sample: expected a number above 0"):
        examine(ms3, sample=0)


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("id,split,seconds\na,mine,2\nb,mine,3\n", encoding="utf-8")
    for name, seconds, size in (("a", 2, (40, 48)), ("b", 3, (32, 32))):
        folder = tmp_path / "clips" / name
        (folder / "frames").mkdir(parents=True)
        for second in range(seconds):
            write_frame(folder / f"frames/{second}.png", torch.full((3, *size), (second + 1) / 4))
        write_wav(folder / "audio.wav", torch.full((seconds * 16_000,), 0.1), 16_000)
        save_file({"log_mel": torch.zeros(seconds, 1, 96, 64)}, folder / "audio_log_mel.safetensors")
        (folder / "made_from.json").write_text("{}")
    assert examine(tmp_path).findings == ()
    masks = tmp_path / "clips/b/masks"
    masks.mkdir()
    write_mask(masks / "1.png", torch.zeros(32, 30))
    assert said(examine(tmp_path)) == [
        ("mask-size", masks / "1.png"),
        ("missing-mask", masks / "0.png"),
        ("missing-mask", masks / "2.png"),
    ]
    (tmp_path / "clips/b/frames/0.png").unlink()
    remedies = {finding.kind: finding.remedy for finding in examine(tmp_path).findings}
    assert "`avslib prepare folder` recreates it from the video" in remedies["missing-frame"]
    assert "draw it again" in remedies["missing-mask"]


def test_a_sound_without_an_example_is_what_readers_say_of_it(ms3: Path) -> None:
    short, empty = clips_of(ms3, "ms3")[:2]
    write_wav(detach(short.wav), torch.full((8_000,), 0.1), 16_000)
    write_wav(detach(empty.wav), torch.zeros(0), 44_100)
    findings = examine(ms3, deep=True).findings
    texts = {finding.path: finding.problem for finding in findings if finding.kind == "short-sound"}
    assert texts.keys() == {short.wav, empty.wav}
    assert "check-failed" not in {finding.kind for finding in findings}
    clips = AVSBenchMS3(ms3, "test", sound="wav", size=(SIZE, SIZE))
    for index, clip in enumerate((short, empty)):
        assert texts[clip.wav].endswith("so sound='wav' raises")
        with pytest.raises(ValueError, match=r"expected at least 0\.975 s of sound"):
            clips[index]


def test_a_log_mel_of_another_type_hides_nothing(ms3: Path) -> None:
    clip = clips_of(ms3, "ms3")[0]
    save_file(
        {"log_mel": torch.ones(5, 1, 96, 64, dtype=torch.bool)}, clip.log_mel.with_suffix(".safetensors")
    )
    assert [finding.kind for finding in examine(ms3, deep=True).findings] == ["other-sound"]


def test_a_wrong_folder_is_told_from_the_right_one(ms3: Path, tmp_path: Path) -> None:
    for wrong in (ms3.parent, ms3 / "Multi-sources", ms3 / "Multi-sources/ms3_data"):
        with pytest.raises(FileNotFoundError) as caught:
            examine(wrong)
        assert f"give {ms3} (ms3)" in str(caught.value)
        assert "looked for Single-source/s4_meta_data.csv" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="there is nothing"):
        examine(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        examine(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        examine(tmp_path / "nowhere", settings=["s4"])


def test_thousands_of_findings_fit_on_a_screen(tmp_path: Path) -> None:
    findings = tuple(
        Finding(kind.level, name, "s4", "train", "a", tmp_path / f"{'x' * 99}/\x1b{i}", "\x1b[2J\n" * 99)
        for name, kind in KINDS.items()
        for i in range(200)
    )
    splits = tuple(
        SplitCount(setting, split, 9, 9, 0, 9)
        for setting in ("s4", "ms3", "avss")
        for split in ("train", "val", "test", *map(str, range(99)))
    )
    summary = Diagnosis(tmp_path, splits, findings).summary()
    assert len(summary.splitlines()) <= 40
    assert max(map(len, summary.splitlines())) <= 500
    assert "\x1b" not in summary
    assert "--csv" in summary


def test_the_summary_reads_well(ms3: Path) -> None:
    clips = clips_of(ms3, "ms3")
    for clip in clips[:4]:
        clip.log_mel.unlink()
    cut(detach(clips[5].frames[2]), 5)
    extra_file(ms3, "ms3", clips[6])
    summary = examine(ms3).summary()
    inside = "Multi-sources/ms3_data"
    assert summary.splitlines() == [
        "setting  split  clips  usable  videos  errors  warnings  notes",
        "ms3      train      3       3       0       0         0      0",
        "ms3      test      14       9       0       5         0      0",
        "ms3      -                                  0         0      1",
        "",
        "errors",
        f"  1 damaged-frame: {KINDS['damaged-frame'].remedy}",
        f"      {inside}/visual_frames/{clips[5].id}/{clips[5].id}.mp4_3.png: cannot be read as a picture "
        "(image file is truncated)",
        f"  4 missing-log-mel: {KINDS['missing-log-mel'].remedy}",
        *(f"      {inside}/audio_log_mel/test/{clip.id}.pkl: not there" for clip in clips[:3]),
        "notes",
        f"  1 extra-file: {KINDS['extra-file'].remedy}",
        f"      {inside}/visual_frames/{clips[6].id}/thumbnail.png: in no row of the table",
        "5 errors, 0 warnings, 1 note",
    ]


def test_findings_are_written(ms3: Path, tmp_path: Path) -> None:
    clip = clips_of(ms3, "ms3")[0]
    clip.wav.unlink()
    diagnosis = examine(ms3)
    folder = tmp_path / "new"
    diagnosis.write_csv(folder / "findings.csv")
    diagnosis.write_json(folder / "findings.json")
    with (folder / "findings.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    record = json.loads((folder / "findings.json").read_text())
    assert record["findings"] == [row]
    assert row["path"] == str(clip.wav)
    assert row["remedy"] == KINDS["missing-wav"].remedy
    assert record["splits"][1] == {
        "setting": "ms3",
        "split": "test",
        "clips": 14,
        "examined": 14,
        "usable": 14,
        "videos": 0,
    }
