import csv
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, AVSBenchS4, SyntheticAVS, SyntheticConfig, write_avsbench
from avslib.data.synthetic import clip_indices, name_clip
from avslib.media import denormalize_frames, read_frame, write_frame

SIZE = (48, 48)
READERS = {"s4": AVSBenchS4, "ms3": AVSBenchMS3}
TABLES = {"s4": "Single-source/s4_meta_data.csv", "ms3": "Multi-sources/ms3_meta_data.csv"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("avsbench")
    for setting in READERS:
        write_avsbench(root, setting=setting, clips={"train": 2, "test": 2}, size=48, videos=False)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


@pytest.mark.parametrize("setting", READERS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_was_written_is_what_is_read(setting: str, split: str, written: Path) -> None:
    on_disk = READERS[setting](written, split, size=SIZE)
    in_memory = SyntheticAVS(SyntheticConfig(setting=setting, size=48), 2, split=split)
    assert len(on_disk) == len(in_memory) == 2
    for i in range(2):
        read, made = on_disk[i], in_memory[i]
        assert read.id == made.id
        for field in ("frames", "log_mel", "masks", "labelled", "valid"):
            assert torch.equal(getattr(read, field), getattr(made, field)), field


@pytest.mark.parametrize("setting", READERS)
def test_log_mels_from_wav_are_those_of_the_pickles(setting: str, written: Path) -> None:
    pickled = READERS[setting](written, "test", size=SIZE)[0].log_mel
    computed = READERS[setting](written, "test", size=SIZE, sound="wav")[0].log_mel
    # the WAV has 16 bits: half a step of 3e-5 in a waveform whose log-mel floor is log 0.01
    torch.testing.assert_close(computed, pickled, rtol=0, atol=2e-2)
    assert (computed - pickled).abs().mean() < 1e-3


def test_only_the_first_second_of_s4_training_is_labelled(written: Path) -> None:
    clip = AVSBenchS4(written, "train", size=SIZE)[0]
    assert clip.labelled.tolist() == [True, False, False, False, False]
    assert clip.masks[0].any()
    assert not clip.masks[1:].any()
    assert AVSBenchS4(written, "test", size=SIZE)[0].labelled.all()
    assert AVSBenchMS3(written, "train", size=SIZE)[0].labelled.all()


def test_s4_knows_what_sounds(written: Path) -> None:
    names = dict(name_clip(index, SyntheticConfig(setting="s4")) for index in clip_indices("train", 2))
    assert {files.id: files.category for files in AVSBenchS4(written, "train").clips} == names


def test_clips_are_collated_field_by_field(written: Path) -> None:
    batch = next(iter(DataLoader(AVSBenchMS3(written, "test", size=(32, 40)), 2)))
    assert isinstance(batch, Clip)
    assert batch.frames.shape == (2, 5, 3, 32, 40)
    assert batch.log_mel.shape == (2, 5, 1, 96, 64)
    assert batch.masks.shape == (2, 5, 32, 40)
    assert batch.masks.dtype == torch.int64
    assert len(batch.id) == 2


def test_frames_are_the_pictures_on_disk(written: Path) -> None:
    dataset = AVSBenchMS3(written, "test", size=None)
    shown = denormalize_frames(dataset[0].frames) * 255
    stored = torch.stack([read_frame(path) for path in dataset.clips[0].frames])
    torch.testing.assert_close(shown, stored.float(), rtol=0, atol=0.01)


def test_a_table_may_call_its_first_column_name(root: Path) -> None:
    table = root / TABLES["ms3"]
    table.write_text(table.read_text().replace("video_id", "name"))
    assert len(AVSBenchMS3(root, "test")) == 2


def test_a_wrong_root_is_named_when_the_dataset_is_built(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"s4_meta_data\.csv: no such table; root must .* holds Single-source"
    ):
        AVSBenchS4(tmp_path, "train")
    with pytest.raises(
        FileNotFoundError, match=r"ms3_meta_data\.csv: no such table; root must .* holds Multi-sources"
    ):
        AVSBenchMS3(tmp_path, "train")


@pytest.mark.parametrize(("setting", "column"), [("s4", "category"), ("s4", "split"), ("ms3", "video_id")])
def test_a_missing_column_is_named(setting: str, column: str, root: Path) -> None:
    table = root / TABLES[setting]
    table.write_text(table.read_text().replace(column, "other"))
    with pytest.raises(ValueError, match=rf"meta_data\.csv: expected a column '{column}', got "):
        READERS[setting](root, "train")


@pytest.mark.parametrize("name", ["../../secret", "..", "/etc", "a/b", "a\\b", ""])
def test_a_name_cannot_lead_out_of_the_folder(name: str, root: Path) -> None:
    table = root / TABLES["ms3"]
    with table.open("a", newline="") as file:
        csv.writer(file).writerow([name, "train"])
    with pytest.raises(ValueError, match=r"meta_data\.csv: line 6: expected a plain name as 'video_id'"):
        AVSBenchMS3(root, "train")


@pytest.mark.parametrize("folder", ["visual_frames", "gt_masks", "audio_log_mel"])
def test_missing_files_are_counted_and_the_first_is_named(folder: str, root: Path) -> None:
    shutil.rmtree(root / "Multi-sources/ms3_data" / folder)
    with pytest.raises(FileNotFoundError, match=rf"{folder}.*: not there, as \d+ of the 22 files") as caught:
        AVSBenchMS3(root, "test")
    assert ('sound="wav"' in str(caught.value)) is (folder == "audio_log_mel")
    assert folder != "audio_log_mel" or len(AVSBenchMS3(root, "test", sound="wav")) == 2


def test_an_empty_split_and_an_unknown_one(root: Path) -> None:
    with pytest.raises(ValueError, match=r"no clip of .* is in 'val'"):
        AVSBenchMS3(root, "val")
    with pytest.raises(ValueError, match="split: expected one of 'train', 'val', 'test', got 'dev'"):
        AVSBenchMS3(root, "dev")
    with pytest.raises(ValueError, match="sound: expected one of 'log_mel', 'wav'"):
        AVSBenchMS3(root, "test", sound="mp3")


def test_a_truncated_picture_is_named(root: Path) -> None:
    dataset = AVSBenchMS3(root, "test")
    path = dataset.clips[1].frames[3]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=path.name):
        dataset[1]


def test_a_hostile_pickle_is_named_and_runs_nothing(root: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.system, (f"touch {tmp_path / 'canary'}",))

    dataset = AVSBenchMS3(root, "test")
    dataset.clips[0].log_mel.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match=dataset.clips[0].log_mel.name):
        dataset[0]
    assert not (tmp_path / "canary").exists()


def test_a_log_mel_of_another_shape_is_named(root: Path) -> None:
    dataset = AVSBenchMS3(root, "test")
    dataset.clips[0].log_mel.write_bytes(pickle.dumps(torch.zeros(4, 1, 96, 64)))
    with pytest.raises(ValueError, match=r"\.pkl: expected a log-mel \(5, 1, 96, 64\), got \(4, 1, 96, 64\)"):
        dataset[0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_log_mel_that_is_not_finite_is_named(root: Path, value: float) -> None:
    dataset = AVSBenchMS3(root, "test")
    log_mel = dataset[0].log_mel
    log_mel[2, 0, 3, 4] = value
    dataset.clips[0].log_mel.write_bytes(pickle.dumps(log_mel))
    with pytest.raises(ValueError, match=r"\.pkl: expected finite values, got NaN or infinity"):
        dataset[0]


def test_pictures_of_another_size_are_resized(root: Path) -> None:
    dataset = AVSBenchMS3(root, "test", size=SIZE)
    for path in dataset.clips[0].frames:
        write_frame(path, torch.zeros(3, 30, 90, dtype=torch.uint8))
    assert dataset[0].frames.shape == (5, 3, *SIZE)
