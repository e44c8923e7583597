from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avslib.curation.doctor import examine
from avslib.curation.doctor_clip import expectation
from avslib.curation.doctor_fix import fix
from avslib.curation.doctor_report import Diagnosis
from avslib.curation.prepare import prepare
from avslib.data import AVSBenchMS3, ClipFolder, write_avsbench
from avslib.data.layout import ClipFiles, list_folder, list_ms3
from avslib.media import read_frame, read_wav, write_frame, write_mask, write_wav

SIZE = 32


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    root = tmp_path_factory.mktemp("ms3")
    write_avsbench(root, setting="ms3", clips={"test": 4}, size=SIZE, videos=True)
    return root


@pytest.fixture
def root(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy, tmp_path / "copy"))


def test_a_frame_is_remade_by_the_rule_of_the_others(root: Path) -> None:
    prepare("ms3", root, frame_rule="start", size=(SIZE, SIZE), overwrite=True)
    path = list_ms3(root)[0].frames[2]
    before = path.read_bytes()
    path.unlink()
    assert fix(examine(root), frame_rule="start").made == 1
    assert path.read_bytes() == before
    path.unlink()
    fix(examine(root))
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match="frame_rule: expected one of 'avsbench', 'end', 'middle', 'start'"):
        fix(examine(root), frame_rule="first")


def kinds(diagnosis: Diagnosis) -> set[str]:
    return {finding.kind for finding in diagnosis.findings}


def contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage")


def hostile(path: Path) -> None:
    path.write_bytes(pickle.dumps(shutil.rmtree))


def values(path: Path) -> None:
    save_file({"log_mel": torch.full((5, 1, 96, 64), torch.nan)}, path.with_suffix(".safetensors"))


def shape(path: Path) -> None:
    save_file({"log_mel": torch.zeros(4, 1, 96, 64)}, path.with_suffix(".safetensors"))


def narrow(path: Path) -> None:
    write_frame(path, torch.ones(3, SIZE, SIZE - 2))


def odd_rate(path: Path) -> None:
    write_wav(path, torch.ones(5 * 16_001), 16_001)


DERIVED: list[tuple[str, Callable[[ClipFiles], Path], Callable[[Path], None]]] = [
    ("missing-frame", lambda clip: clip.frames[0], Path.unlink),
    ("damaged-frame", lambda clip: clip.frames[1], garbage),
    ("frame-size", lambda clip: clip.frames[2], narrow),
    ("missing-wav", lambda clip: clip.wav, Path.unlink),
    ("damaged-wav", lambda clip: clip.wav, garbage),
    ("odd-rate", lambda clip: clip.wav, odd_rate),
    ("missing-log-mel", lambda clip: clip.log_mel, Path.unlink),
    ("damaged-log-mel", lambda clip: clip.log_mel, garbage),
    ("log-mel-shape", lambda clip: clip.log_mel, shape),
    ("log-mel-values", lambda clip: clip.log_mel, values),
]


@pytest.mark.parametrize(("kind", "choose", "damage"), DERIVED)
def test_what_can_be_derived_is_made_anew(
    kind: str, choose: Callable[[ClipFiles], Path], damage: Callable[[Path], None], root: Path
) -> None:
    clip = list_ms3(root)[0]
    damage(choose(clip))
    before = contents(root)
    diagnosis = examine(root)
    assert kinds(diagnosis) == {kind}
    report = fix(diagnosis)
    assert (report.made, report.failures) == (1, {})
    assert examine(root, deep=True).findings == ()
    after = contents(root)
    made = {path for path in after if after[path] != before.get(path)}
    own = choose(clip).relative_to(root)
    assert made == {own.with_suffix(".safetensors") if own.suffix == ".pkl" else own}
    assert before.keys() <= after.keys()


def test_what_is_made_is_what_was_there(root: Path) -> None:
    """The video of a clip was compressed: its frames and its sound are close to what was, not the same."""
    clip = list_ms3(root)[0]
    frame, (sound, _) = read_frame(clip.frames[3]), read_wav(clip.wav)
    log_mel = AVSBenchMS3(root, "test", size=None)[0].log_mel
    for path in (clip.frames[3], clip.wav, clip.log_mel):
        path.unlink()
    fix(examine(root))
    assert (read_frame(clip.frames[3]).float() - frame.float()).abs().mean() < 8
    again, rate = read_wav(clip.wav)
    assert rate == 16_000
    assert torch.corrcoef(torch.stack([again[: len(sound)], sound[: len(again)]]))[0, 1] > 0.9
    made = AVSBenchMS3(root, "test", size=None)[0].log_mel
    assert (made - log_mel).abs().mean() < 0.3
    computed = expectation(root, "ms3").log_mel((again, rate), 5)
    assert torch.equal(made, computed)


def test_masks_and_tables_are_never_touched(root: Path) -> None:
    first, second, third, fourth = list_ms3(root)
    assert first.masks[0] is not None
    assert second.masks[1] is not None
    first.masks[0].unlink()
    write_mask(second.masks[1], torch.zeros(8, 8))
    table = root / "Multi-sources/ms3_meta_data.csv"
    table.write_text(table.read_text() + f"{third.id},train\n{fourth.id},test\n")
    garbage(fourth.log_mel)
    leftover = first.wav.with_name(".unfinished-x.wav")
    leftover.write_bytes(b"")
    before, diagnosis = contents(root), examine(root)
    report = fix(diagnosis)
    assert not report.failures
    found = examine(root).findings
    assert {finding.kind for finding in found} == {"missing-mask", "mask-size", "leak", "duplicate-clip"}
    missing = {finding.path for finding in found if finding.kind == "missing-mask"}
    in_train = {path.parents[2] / "train" / third.id / path.name for path in third.masks if path is not None}
    assert missing == in_train | {first.masks[0]}
    del before[leftover.relative_to(root)]
    after = contents(root)
    assert {path: after[path] for path in before} == before


def test_a_hostile_pickle_stays_and_is_not_read(root: Path) -> None:
    clip = list_ms3(root)[0]
    hostile(clip.log_mel)
    assert examine(root).findings[0].level == "error"
    for _ in range(2):
        fix(examine(root))
        (found,) = examine(root).findings
        assert (found.kind, found.level, found.path) == ("hostile-log-mel", "warning", clip.log_mel)
    assert AVSBenchMS3(root, "test")[0].log_mel.shape == (5, 1, 96, 64)


def test_without_a_video_only_the_log_mel_can_be_made(root: Path) -> None:
    first, second, *_ = list_ms3(root)
    for path in (first.video, first.frames[0], first.log_mel, second.video, second.wav, second.log_mel):
        path.unlink()
    report = fix(examine(root))
    assert report.made == 0
    assert set(report.failures) == {first.id, second.id}
    assert "cannot be recreated, since there is no" in report.failures[first.id]
    left = {(finding.kind, finding.clip) for finding in examine(root).findings}
    assert left == {
        ("missing-frame", first.id),
        ("missing-wav", second.id),
        ("missing-log-mel", second.id),
    }


def test_a_frame_needs_no_sound(root: Path) -> None:
    clip = list_ms3(root)[0]
    write_wav(clip.wav, torch.full((8_000,), 0.1), 16_000)  # too short for a log-mel
    clip.frames[2].unlink()
    before = contents(root)
    report = fix(examine(root))
    assert (report.made, report.failures) == (1, {})
    assert contents(root).keys() - before.keys() == {clip.frames[2].relative_to(root)}
    assert kinds(examine(root)) == {"short-sound"}


def test_a_damaged_video_leaves_what_there_is(root: Path) -> None:
    clip = list_ms3(root)[0]
    garbage(clip.video)
    garbage(clip.wav)
    garbage(clip.log_mel)
    before = contents(root)
    report = fix(examine(root))
    assert "cannot be read" in report.failures[clip.id]
    assert contents(root) == before


def test_nothing_is_written_behind_a_link(root: Path, tmp_path: Path) -> None:
    wavs = root / "Multi-sources/ms3_data/audio_wav"
    outside = Path(shutil.move(wavs, tmp_path / "outside"))
    wavs.symlink_to(outside)
    clip = list_ms3(root)[0]
    garbage(clip.wav)
    before = contents(outside)
    assert "leads out of" in fix(examine(root)).failures[clip.id]
    assert contents(outside) == before


def test_only_what_was_examined_is_made(root: Path) -> None:
    clips = list_ms3(root)
    for clip in clips:
        clip.frames[0].unlink()
    garbage(clips[1].frames[1])
    report = fix(examine(root, sample=1))
    assert report.made == 1
    assert read_frame(clips[0].frames[0]).shape == (3, SIZE, SIZE)
    assert not clips[1].frames[0].exists()


def test_a_healthy_set_stays_as_it_is(root: Path) -> None:
    before = contents(root)
    report = fix(examine(root))
    assert (report.made, report.kept, report.failures) == (0, 0, {})
    assert contents(root) == before


def test_log_mels_of_ones_own_clips_go_by_the_second(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("id,split,seconds\na,test,12\n", encoding="utf-8")
    (clip,) = list_folder(tmp_path)
    clip.frames[0].parent.mkdir(parents=True)
    for path in clip.frames:
        write_frame(path, torch.ones(3, 32, 32))
    write_wav(clip.wav, 0.1 * torch.randn(12 * 16_000, generator=torch.Generator().manual_seed(0)), 16_000)
    assert kinds(examine(tmp_path)) == {"missing-log-mel"}
    assert fix(examine(tmp_path)).made == 1
    assert examine(tmp_path, deep=True).findings == ()
    stored = ClipFolder(tmp_path, size=(32, 32))[0].log_mel
    assert torch.equal(stored, ClipFolder(tmp_path, size=(32, 32), sound="wav")[0].log_mel)
    clip.frames[3].unlink()
    assert "avslib prepare folder" in fix(examine(tmp_path)).failures["a"]
