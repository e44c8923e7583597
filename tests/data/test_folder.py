from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from avslib.data import ClipFolder
from avslib.media import log_mel_examples, write_frame, write_mask, write_wav


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clips.csv").write_text("id,split,seconds\nlong,test,13\nshort,train,1\n", encoding="utf-8")
    for name, seconds in (("long", 13), ("short", 1)):
        folder = tmp_path / "clips" / name
        (folder / "frames").mkdir(parents=True)
        for second in range(seconds):
            write_frame(folder / "frames" / f"{second}.png", torch.full((3, 40, 48), second / 13))
        sound = 0.1 * torch.randn(seconds * 16_000, generator=torch.Generator().manual_seed(0))
        write_wav(folder / "audio.wav", sound, 16_000)
    return tmp_path


def test_clips_have_their_own_lengths(root: Path) -> None:
    clips = ClipFolder(root, size=(32, 32), sound="wav")
    assert [len(clip.frames) for clip in clips] == [13, 1]
    assert not clips[0].labelled.any()
    assert clips[0].valid.all()
    padded = DataLoader(ClipFolder(root, size=(32, 32), sound="wav", seconds=5), batch_size=2)
    assert next(iter(padded)).valid.sum(dim=1).tolist() == [5, 1]


def test_the_example_of_a_second_starts_with_it(root: Path) -> None:
    clips = ClipFolder(root, size=(32, 32), sound="wav")
    waveform = clips.waveform(0)
    for second in range(13):
        own = log_mel_examples(waveform[second * 16_000 :][:16_000])
        assert torch.equal(clips[0].log_mel[second], own[0])


def test_masks_are_read_where_there_are_any(root: Path) -> None:
    masks = root / "clips/short/masks"
    masks.mkdir()
    mask = torch.zeros(40, 48, dtype=torch.int64)
    mask[:20] = 1
    write_mask(masks / "0.png", mask)
    clips = ClipFolder(root, "train", size=None, sound="wav")
    assert torch.equal(clips[0].masks[0], mask)
    assert clips[0].labelled.all()


def test_splits_are_those_of_the_table(root: Path) -> None:
    assert [files.id for files in ClipFolder(root, "test", sound="wav").clips] == ["long"]
    with pytest.raises(ValueError, match=r"split: expected one that .* names \('test', 'train'\), got 'val'"):
        ClipFolder(root, "val")


def test_what_lacks_is_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="compute them with `avslib prepare`"):
        ClipFolder(root)
    (root / "clips.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"clips\.csv: no such table"):
        ClipFolder(root)
