import math
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avslib.clip import Clip
from avslib.data.avsbench import AVSBenchMS3, AVSBenchS4
from avslib.data.reader import ClipReader
from avslib.data.sound import NoiseSound, ShiftedSound, SilentSound, SwappedSound, categories_of
from avslib.data.synthetic import write_avsbench
from avslib.media.mel import log_mel_examples
from tests.data._sounding import READERS


class Numbered:
    """Clips whose every tensor says which clip it is."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        return Clip(
            frames=torch.full((2, 3, 8, 8), index),
            log_mel=torch.full((2, 1, 96, 64), float(index)),
            masks=torch.full((2, 8, 8), index % 2),
            labelled=torch.ones(2, dtype=torch.bool),
            valid=torch.ones(2, dtype=torch.bool),
            id=str(index),
        )


def test_silence_is_what_vggish_hears_and_the_rest_stays() -> None:
    clip = SilentSound(Numbered(3))[2]
    assert torch.allclose(clip.log_mel, torch.tensor(math.log(0.01)))
    assert (clip.frames == 2).all()
    assert clip.id == "2"


@pytest.mark.parametrize("count", [2, 3, 8])
def test_every_clip_gets_the_sound_of_exactly_one_other(count: int) -> None:
    swapped = SwappedSound(Numbered(count))
    sounds = [int(swapped[i].log_mel.flatten()[0]) for i in range(len(swapped))]
    assert sorted(sounds) == list(range(count))
    assert all(sound != i for i, sound in enumerate(sounds))
    assert all((swapped[i].frames == i).all() for i in range(count))


def test_a_clips_own_sound_is_no_other_sound() -> None:
    with pytest.raises(ValueError, match="shift: 4 gives each of 4 clips its own sound"):
        SwappedSound(Numbered(4), shift=4)
    with pytest.raises(ValueError, match="its own sound"):
        SwappedSound(Numbered(1))


class Seconds:
    """Clips of five seconds, the first ``lengths[i]`` of them valid; second t of clip i sounds 10 i + t."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Clip:
        valid = torch.arange(5) < self.lengths[index]
        heard = (10.0 * index + torch.arange(5)) * valid
        return Clip(
            frames=torch.zeros(5, 3, 8, 8),
            log_mel=heard.view(5, 1, 1, 1).expand(5, 1, 96, 64),
            masks=torch.ones(5, 8, 8, dtype=torch.int64),
            labelled=valid,
            valid=valid,
            id=str(index),
        )


def heard(clip: Clip) -> list[float]:
    return clip.log_mel[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", [SilentSound, NoiseSound, SwappedSound, ShiftedSound])
def test_only_the_sound_of_valid_seconds_differs(kind: type) -> None:
    clips = Seconds(3, 5, 0)
    other = kind(clips)
    assert len(other) == 3
    for i in range(3):
        before, after = clips[i], other[i]
        for field in ("frames", "masks", "labelled", "valid"):
            assert torch.equal(getattr(after, field), getattr(before, field))
        assert after.id == before.id
        assert (after.log_mel != before.log_mel).flatten(1).any(dim=1).tolist() == before.valid.tolist()


class Embedded(Seconds):
    """The same with embeddings, whose first number tells the second."""

    def __getitem__(self, index: int) -> Clip:
        clip = super().__getitem__(index)
        return clip._replace(log_mel=clip.log_mel[:, 0, 0, :7])


def test_embeddings_are_swapped_and_shifted_as_log_mels_are_and_none_is_made_up() -> None:
    lengths = (5, 3, 4)
    for kind in (SwappedSound, ShiftedSound):
        for index in range(3):
            embedded, clip = kind(Embedded(*lengths))[index], kind(Seconds(*lengths))[index]
            assert torch.equal(embedded.log_mel, clip.log_mel[:, 0, 0, :7])
    for kind in (SilentSound, NoiseSound):
        with pytest.raises(ValueError, match=r"clips: expected log-mels .* got embeddings \(5, 7\) of '0'"):
            kind(Embedded(*lengths))[0]
    with pytest.raises(ValueError, match="clips: expected log-mels"):  # for one that could not be read
        SwappedSound(Embedded(5, 0), shift=1)[0]


def test_a_sound_is_shifted_by_whole_seconds_and_comes_round() -> None:
    clips = Seconds(5, 3, 0)
    assert heard(ShiftedSound(clips)[0]) == [4, 0, 1, 2, 3]
    assert heard(ShiftedSound(clips)[1]) == [12, 10, 11, 0, 0]
    assert heard(ShiftedSound(clips, seconds=-2)[0]) == [2, 3, 4, 0, 1]
    assert heard(ShiftedSound(clips)[2]) == [0] * 5
    for seconds in (0, 5, -10):
        with pytest.raises(ValueError, match=f"seconds: {seconds} gives clip '0', of 5 s, its own sound"):
            ShiftedSound(clips, seconds=seconds)
    with pytest.raises(ValueError, match="seconds: 3 gives clip '1', of 3 s"):
        ShiftedSound(clips, seconds=3)[1]


def test_a_shorter_sound_starts_anew_and_an_unreadable_one_is_silent() -> None:
    clips = Seconds(5, 2, 0)
    assert heard(SwappedSound(clips, shift=1)[0]) == [10, 11, 10, 11, 10]
    assert heard(SwappedSound(clips, shift=1)[1]) == pytest.approx([math.log(0.01)] * 2 + [0] * 3)


def test_noise_is_that_of_the_seed_and_the_clip_at_the_level_asked_for() -> None:
    clips = Numbered(3)
    noise = NoiseSound(clips, rms=0.05)
    assert torch.equal(noise[1].log_mel, NoiseSound(clips, rms=0.05)[1].log_mel)
    assert not torch.equal(noise[1].log_mel, noise[2].log_mel)
    assert not torch.equal(noise[1].log_mel, NoiseSound(clips, rms=0.05, seed=1)[1].log_mel)
    generator = torch.Generator().manual_seed(zlib.crc32(f"0 {noise[1].id}".encode()))
    waveform = 0.05 * torch.randn(len(noise[1].frames) * 16_000, generator=generator)
    torch.testing.assert_close(noise[1].log_mel, log_mel_examples(waveform))
    closer = log_mel_examples(waveform, example_hop_steps=48)[:2]
    torch.testing.assert_close(NoiseSound(clips, rms=0.05, example_hop_steps=48)[1].log_mel, closer)
    with pytest.raises(ValueError, match="rms: expected a number above 0, got 0"):
        NoiseSound(clips, rms=0)
    with pytest.raises(ValueError, match="example_hop_steps: expected a number above 0, got 0"):
        NoiseSound(clips, example_hop_steps=0)


@pytest.mark.parametrize("build", READERS)
def test_noise_goes_through_the_front_end_of_a_reader(
    build: Callable[[Path], ClipReader], tmp_path: Path
) -> None:
    clips = build(tmp_path)
    noise = NoiseSound(clips, rms=0.05)[0]
    seconds = int(noise.valid.sum())
    generator = torch.Generator().manual_seed(zlib.crc32(f"0 {noise.id}".encode()))
    waveform = 0.05 * torch.randn(len(noise.frames) * 16_000, generator=generator)
    expected = clips.examples(waveform, len(noise.frames))
    torch.testing.assert_close(noise.log_mel[:seconds], expected[:seconds], rtol=0, atol=0)


@given(names=st.lists(st.sampled_from("abcd"), min_size=2, max_size=12))
def test_categories_are_the_same_or_others_and_every_sound_is_used_once(names: list[str]) -> None:
    clips = Numbered(len(names))
    most, least = max(map(names.count, names)), min(map(names.count, names))
    for category, possible in (("same", least > 1), ("other", 2 * most <= len(names))):
        if not possible:
            with pytest.raises(ValueError, match=r"^category: '[abcd]' has"):
                SwappedSound(clips, category=category, categories=names)
            continue
        others = SwappedSound(clips, category=category, categories=names).others
        assert sorted(others) == list(range(len(names)))
        for own, other in enumerate(others):
            assert own != other
            assert (names[own] == names[other]) == (category == "same")


def test_readers_say_what_sounds_where_the_dataset_does(tmp_path: Path) -> None:
    write_avsbench(tmp_path / "s4", setting="s4", clips={"test": 6}, size=32, videos=False)
    clips = AVSBenchS4(tmp_path / "s4", "test", size=(32, 32), sound="wav")
    names = categories_of(clips)
    assert names == [files.category for files in clips.clips]
    swapped = SwappedSound(clips, category="other")
    assert all(names[i] != names[other] for i, other in enumerate(swapped.others))
    assert torch.equal(swapped[0].log_mel, clips[swapped.others[0]].log_mel)

    write_avsbench(tmp_path / "ms3", setting="ms3", clips={"test": 2}, size=32, videos=False)
    without = AVSBenchMS3(tmp_path / "ms3", "test", size=(32, 32), sound="wav")
    for dataset, name in ((without, "AVSBenchMS3"), (Numbered(2), "Numbered")):
        with pytest.raises(ValueError, match=f"^categories: {name} does not say what sounds in each clip"):
            SwappedSound(dataset, category="same")


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="category: expected one of 'any', 'same', 'other', got 'else'"):
        SwappedSound(Numbered(2), category="else")
    with pytest.raises(ValueError, match="categories: expected one of each of 2 clips, got 3"):
        SwappedSound(Numbered(2), category="same", categories="aaa")
    with pytest.raises(ValueError, match="shift: expected None with category='other', got 1"):
        SwappedSound(Numbered(2), shift=1, category="other", categories="ab")
