from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from avslib.clip import Clip
from avslib.data import SwappedSound
from avslib.data.synthetic import SPLITS, SyntheticAVS, SyntheticConfig, clip_indices

AVSS = SyntheticConfig(setting="avss", size=32)


def assert_equal(actual: Clip, expected: Clip, *names: str) -> None:
    for name in names:
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name


def test_masks_of_s4_training_are_known_for_the_first_second_only() -> None:
    train, test = (
        SyntheticAVS(SyntheticConfig(setting="s4", size=32), 1, split=s) for s in ("train", "test")
    )
    assert train[0].labelled.tolist() == [True, False, False, False, False]
    assert train[0].masks.any(dim=-1).any(dim=-1).tolist() == [True, False, False, False, False]
    assert test[0].labelled.all()
    assert train[0].masks.dtype == torch.int64


def test_an_access_leaves_the_dataset_as_it_was() -> None:
    clips = SyntheticAVS(SyntheticConfig(size=32), 2)
    expected, first = clips[1], clips[1]
    for tensor in first[:5]:
        tensor.zero_()
    assert_equal(clips[1], expected, "frames", "log_mel", "masks", "labelled", "valid")
    assert expected.log_mel.any()
    assert clips[-1].id == clips[1].id
    with pytest.raises(IndexError):
        clips[2]


def test_splits_share_no_clip() -> None:
    ranges = [set(clip_indices(split, 1000)) for split in SPLITS]
    assert len(set.union(*ranges)) == 3000


@pytest.mark.parametrize("split", SPLITS)
def test_avss_clips_are_those_of_s4_and_ms3_padded_to_ten_seconds(split: str) -> None:
    clips = SyntheticAVS(AVSS, 3, split=split)
    for index, number in enumerate(clips.indices):
        setting, seconds = (("s4", 5), ("ms3", 5), ("ms3", 10))[number % 3]
        twins = SyntheticAVS(SyntheticConfig(setting=setting, size=32, seconds=seconds), 3, split=split)
        clip, twin = clips[index], twins[index]
        assert clip.id == twin.id
        assert clip.frames.shape == (10, 3, 32, 32)
        assert clip.log_mel.shape == (10, 1, 96, 64)
        assert torch.equal(clip.masks[:seconds] > 0, twin.masks > 0)
        assert clip.masks.dtype == torch.int64
        for name in ("frames", "log_mel", "labelled", "valid"):
            assert torch.equal(getattr(clip, name)[:seconds], getattr(twin, name)), name
        assert not any(field[seconds:].any() for field in clip[:5])


def test_avss_clips_collate_and_swap_their_sound() -> None:
    clips = SyntheticAVS(AVSS, 4)
    batch = next(iter(torch.utils.data.DataLoader(clips, 4)))
    assert batch.masks.shape == (4, 10, 32, 32)
    assert batch.valid.sum(dim=1).tolist() == [5, 5, 10, 5]
    assert batch.labelled.sum(dim=1).tolist() == [1, 5, 10, 1]
    assert_equal(SwappedSound(clips, shift=1)[0], clips[1], "log_mel")


@pytest.mark.parametrize("setting", ["s4", "ms3", "avss"])
@pytest.mark.parametrize("negative", ["silence", "noise", "offscreen"])
def test_a_negative_differs_in_sound_and_ground_truth_only(setting: str, negative: str) -> None:
    config = SyntheticConfig(setting=setting, size=32)
    clip = SyntheticAVS(config, 1)[0]
    twin = SyntheticAVS(replace(config, negative=negative), 1)[0]
    assert clip.id == twin.id
    assert_equal(clip, twin, "frames", "labelled", "valid")
    assert clip.masks.any()
    assert not twin.masks.any()
    assert twin.masks.shape == clip.masks.shape
    assert twin.log_mel.shape == clip.log_mel.shape
    seconds = int(clip.valid.sum())
    assert ((clip.log_mel != twin.log_mel)[:seconds].float().mean() > 0.9).item()


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="split: expected one of 'train', 'val', 'test', got 'validation'"):
        SyntheticAVS(SyntheticConfig(), 1, split="validation")
    with pytest.raises(ValueError, match="count: expected 1 to 1000000 clips, got 0"):
        SyntheticAVS(SyntheticConfig(), 0)
