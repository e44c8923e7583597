from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, AVSBenchS4, write_avsbench
from avslib.data.reader import SAMPLE_RATE
from avslib.media import (
    log_mel_examples,
    normalize_frames,
    read_frame,
    read_wav,
    write_frame,
    write_mask,
    write_wav,
)
from avslib.models import create_model
from avslib.training import SegmentationObjective, evaluate, fit

SIZE = (32, 32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("avsbench")
    write_avsbench(root, setting="ms3", clips={"test": 3}, size=32, videos=False)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def fields(clip: Clip) -> tuple[Tensor, ...]:
    return (clip.frames, clip.log_mel, clip.masks, clip.labelled, clip.valid)


def test_bytes_are_the_frames_before_they_are_normalised(written: Path) -> None:
    normalised = AVSBenchMS3(written, "test", size=SIZE)[0]
    raw = AVSBenchMS3(written, "test", size=SIZE, normalize=False)[0]
    assert raw.frames.dtype == torch.uint8
    assert torch.equal(normalize_frames(raw.frames), normalised.frames)
    for ours, theirs in zip(fields(raw)[1:], fields(normalised)[1:], strict=True):
        assert torch.equal(ours, theirs)


def test_models_take_bytes_for_frames(written: Path) -> None:
    model = create_model("audio_blind.small").eval()
    raw, normalised = (
        AVSBenchMS3(written, "test", size=SIZE, normalize=normalize)[0].frames[None]
        for normalize in (False, True)
    )
    assert torch.equal(model(raw).logits, model(normalised).logits)


def test_a_clip_is_cut_or_padded_to_the_seconds_asked_for(root: Path) -> None:
    own = AVSBenchMS3(root, "test", size=SIZE)[0]
    short = AVSBenchMS3(root, "test", size=SIZE, seconds=2)[0]
    long = AVSBenchMS3(root, "test", size=SIZE, seconds=7)[0]
    for a, b, c in zip(fields(own), fields(short), fields(long), strict=True):
        assert torch.equal(b, a[:2])
        assert torch.equal(c[:5], a)
        assert c.shape[0] == 7
        assert not c[5:].any()
        assert c.dtype == a.dtype
    damaged = AVSBenchMS3(root, "test", size=SIZE, seconds=2)
    damaged.clips[0].frames[2].write_bytes(b"not looked at")
    assert torch.equal(damaged[0].frames, own.frames[:2])
    with pytest.raises(ValueError, match="seconds: expected a number above 0, got 0"):
        AVSBenchMS3(root, "test", seconds=0)


def test_one_number_is_the_side_of_a_square(written: Path) -> None:
    clips = AVSBenchMS3(written, "test", size=48)
    assert clips.size == (48, 48)
    assert clips[0].masks.shape == (5, 48, 48)
    for size in (0, (0, 32), (32, -1)):
        with pytest.raises(ValueError, match="size: expected a number above 0, got"):
            AVSBenchMS3(written, "test", size=size)


def test_safetensors_take_the_place_of_the_pickle(root: Path) -> None:
    clips = AVSBenchMS3(root, "test", size=SIZE)
    path = clips.clips[0].log_mel
    chosen = torch.randn(5, 1, 96, 64)
    save_file({"log_mel": chosen}, path.with_suffix(".safetensors"))
    assert torch.equal(clips[0].log_mel, chosen)
    path.unlink()
    assert torch.equal(AVSBenchMS3(root, "test", size=SIZE)[0].log_mel, chosen)
    path.with_suffix(".safetensors").write_bytes(b"damaged")
    with pytest.raises(
        ValueError, match=r"\.safetensors: expected a safetensors file with a tensor 'log_mel'"
    ):
        clips[0]
    save_file({"other": chosen}, path.with_suffix(".safetensors"))
    with pytest.raises(ValueError, match="expected a safetensors file with a tensor 'log_mel'"):
        clips[0]


def test_transforms_see_bytes_and_the_waveform(written: Path) -> None:
    seen = []

    def flip(clip: Clip) -> Clip:
        seen.append(clip.frames.dtype)
        return clip._replace(frames=clip.frames.flip(-1), masks=clip.masks.flip(-1))

    def quieter(waveform: Tensor) -> Tensor:
        return waveform / 2

    plain = AVSBenchMS3(written, "test", size=SIZE, sound="wav")
    changed = AVSBenchMS3(
        written, "test", size=SIZE, sound="wav", transform=flip, sound_transform=quieter, seconds=6
    )
    assert torch.equal(changed[1].frames[:5], plain[1].frames.flip(-1))
    assert torch.equal(changed[1].masks[:5], plain[1].masks.flip(-1))
    expected = log_mel_examples(plain.waveform(1) / 2)
    assert torch.equal(changed[1].log_mel[:5], expected[:5])
    assert set(seen) == {torch.uint8}
    with pytest.raises(ValueError, match="sound_transform: needs sound='wav', got sound='log_mel'"):
        AVSBenchMS3(written, "test", sound_transform=quieter)


def test_the_waveform_has_one_rate_whatever_the_file_has(root: Path) -> None:
    clips = AVSBenchMS3(root, "test", size=SIZE)
    stored, rate = read_wav(clips.clips[0].wav)
    assert rate == SAMPLE_RATE
    assert torch.equal(clips.waveform(0), stored)
    write_wav(clips.clips[0].wav, torch.zeros(44_100), 44_100)
    assert clips.waveform(0).shape == (16_000,)


def test_too_little_sound_is_named(root: Path) -> None:
    clips = AVSBenchMS3(root, "test", size=SIZE, sound="wav")
    write_wav(clips.clips[0].wav, torch.zeros(1000), 16_000)
    with pytest.raises(ValueError, match=r"\.wav: expected at least 0\.975 s of sound, got 0\.062 s"):
        clips[0]


def test_a_mask_of_another_size_than_its_frame_is_named(root: Path) -> None:
    clips = AVSBenchMS3(root, "test", size=None)
    for path in clips.clips[0].frames:
        write_frame(path, torch.zeros(3, 40, 50, dtype=torch.uint8))
    with pytest.raises(
        ValueError, match=r"_1\.png: expected the size of the clip's first frame, \(40, 50\), got \(32, 32\)"
    ):
        clips[0]


@pytest.mark.parametrize(
    ("split", "part", "second"), [("test", "frames", 2), ("test", "masks", 2), ("train", "masks", 0)]
)
def test_a_picture_of_another_size_than_the_others_is_named(
    tmp_path: Path, split: str, part: str, second: int
) -> None:
    write_avsbench(tmp_path, setting="s4", clips={split: 1}, size=32, videos=False)
    clips = AVSBenchS4(tmp_path, split, size=None)
    path = getattr(clips.clips[0], part)[second]
    write = write_frame if part == "frames" else write_mask
    write(path, torch.zeros(*([3] if part == "frames" else []), 40, 50, dtype=torch.uint8))
    with pytest.raises(
        ValueError, match=rf"{path.name}: expected .* first frame, \(32, 32\), got \(40, 50\)"
    ):
        clips[0]


def test_a_picture_above_the_limit_is_refused_and_the_limit_can_be_raised(root: Path) -> None:
    clips = AVSBenchMS3(root, "test", size=SIZE, max_pixels=32 * 32 - 1)
    with pytest.raises(ValueError, match="max_pixels"):
        clips[0]
    assert AVSBenchMS3(root, "test", size=SIZE, max_pixels=32 * 32)[0].id


def damage(root: Path) -> Path:
    path = AVSBenchMS3(root, "test").clips[1].frames[2]
    path.write_bytes(path.read_bytes()[:50])
    return path


def test_skipping_keeps_the_length_and_gives_a_clip_that_counts_nowhere(root: Path) -> None:
    path = damage(root)
    clips = AVSBenchMS3(root, "test", size=SIZE, on_error="skip", seconds=6)
    with pytest.warns(UserWarning, match=f"is left out: .*{path.name}"):
        blank = clips[1]
    assert len(clips) == 3
    assert blank.id == clips.clips[1].id
    assert not blank.valid.any()
    assert not blank.labelled.any()
    for ours, whole in zip(fields(blank), fields(clips[0]), strict=True):
        assert ours.shape == whole.shape
        assert ours.dtype == whole.dtype
    with pytest.raises(ValueError, match=path.name):
        AVSBenchMS3(root, "test", size=SIZE)[1]


def test_skipping_covers_missing_files_and_says_so_at_once(root: Path) -> None:
    shutil.rmtree(AVSBenchMS3(root, "test").clips[1].frames[0].parent)
    with pytest.warns(UserWarning, match="5 of the 33 files .* read as black ones"):
        clips = AVSBenchMS3(root, "test", size=SIZE, on_error="skip")
    with pytest.warns(UserWarning, match="is left out"):
        assert [bool(clips[i].valid.any()) for i in range(3)] == [True, False, True]


def test_skipping_needs_a_size(written: Path) -> None:
    with pytest.raises(ValueError, match="on_error: 'skip' needs a size"):
        AVSBenchMS3(written, "test", size=None, on_error="skip")


def test_an_evaluation_counts_what_it_could_not_read(root: Path) -> None:
    damage(root)
    model = create_model("audio_blind.small")
    clips = AVSBenchMS3(root, "test", size=SIZE, on_error="skip")
    with (
        pytest.warns(UserWarning, match=f"1 of 3 clips could not .* in no score: {clips.clips[1].id}"),
        pytest.warns(UserWarning, match="is left out"),
    ):
        scores = evaluate(model, clips, batch_size=2)
    whole = torch.utils.data.Subset(AVSBenchMS3(root, "test", size=SIZE), [0, 2])
    expected = evaluate(model, whole, batch_size=1)
    assert scores == pytest.approx(expected, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for folder in (root / "Multi-sources/ms3_data/visual_frames").iterdir():
            shutil.rmtree(folder)
        clips = AVSBenchMS3(root, "test", size=SIZE, on_error="skip")
        with pytest.raises(ValueError, match="clips: not one of 3 could be read"):
            evaluate(model, clips)


def test_training_goes_on_past_a_clip_that_cannot_be_read(root: Path, tmp_path: Path) -> None:
    damage(root)
    model = create_model("audio_blind.small")
    clips = AVSBenchMS3(root, "test", size=SIZE, on_error="skip", normalize=False)
    with pytest.warns(UserWarning, match="is left out"):
        history = fit(
            model,
            SegmentationObjective(),
            DataLoader(clips, batch_size=1),
            torch.optim.SGD(model.parameters(), 1e-3),
            epochs=1,
            run_dir=tmp_path / "run",
            progress=False,
        )
    assert math.isfinite(history[0]["loss"])


@pytest.mark.parametrize("part", ["frames", "masks", "wav", "log_mel"])
def test_a_link_out_of_the_root_is_refused_unless_it_is_allowed(
    part: str, root: Path, tmp_path: Path
) -> None:
    files = AVSBenchMS3(root, "test").clips[0]
    place = getattr(files, part)
    path = place[0] if isinstance(place, tuple) else place
    assert path is not None
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    sound = "wav" if part == "wav" else "log_mel"
    with pytest.raises(
        ValueError, match=r"leads out of .* through a link, to .*outside; .*follow_links=True"
    ):
        AVSBenchMS3(root, "test", sound=sound)
    assert AVSBenchMS3(root, "test", size=SIZE, sound=sound, follow_links=True)[0].id == files.id


def test_the_cropped_frame_and_mask_stay_together(root: Path) -> None:
    files = AVSBenchMS3(root, "test").clips[0]
    for frame, mask in zip(files.frames, files.masks, strict=True):
        picture = torch.zeros(3, 40, 80, dtype=torch.uint8)
        picture[:, 10:30, 30:60] = 255
        write_frame(frame, picture)
        assert mask is not None
        write_frame(mask, picture)
    clip = AVSBenchMS3(root, "test", size=SIZE, fit="crop", normalize=False)[0]
    bright = clip.frames[:, 0] > 127
    assert clip.masks.any()
    assert (bright != clip.masks.bool()).float().mean() < 0.05
    assert torch.equal(clip.frames[0], read_frame(files.frames[0], SIZE, fit="crop"))


def test_choices_are_checked_before_any_file(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ValueError, match="fit: expected one of 'stretch', 'crop', got 'pad'"):
        AVSBenchS4(nowhere, "test", fit="pad")
    with pytest.raises(ValueError, match="on_error: expected one of 'raise', 'skip', got 'ignore'"):
        AVSBenchS4(nowhere, "test", on_error="ignore")


def test_a_reader_travels_to_its_workers(written: Path) -> None:
    clips = AVSBenchMS3(written, "test", size=SIZE)
    loaded = next(iter(DataLoader(clips, batch_size=3, num_workers=1)))
    assert list(loaded.id) == [files.id for files in clips.clips]
