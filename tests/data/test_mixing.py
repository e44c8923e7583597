from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, AVSBenchS4, ClipReader, SyntheticAVS, SyntheticConfig, write_avsbench
from avslib.data.mixing import ClipsWithWaveforms, MixedClips, paste_sounding
from avslib.data.sound_transforms import RandomGain
from avslib.data.synthetic import render_clip
from avslib.media.mel import fit_examples, log_mel_examples
from tests.data import _sounding
from tests.storage._tiny import TinyClips


class Synthetic:
    """Synthetic clips with their waveforms."""

    def __init__(self, count: int, *, setting: str = "ms3", size: int = 32, seconds: int = 5) -> None:
        self.config = SyntheticConfig(setting=setting, size=size, seconds=seconds)
        self.clips = SyntheticAVS(self.config, count)
        self.waveforms = [torch.from_numpy(render_clip(i, self.config).waveform) for i in range(count)]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        return self.clips[index]

    def waveform(self, index: int) -> Tensor:
        return self.waveforms[index]


class Listed:
    """Clips and waveforms as they are given."""

    def __init__(self, *clips: tuple[Clip, Tensor]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        return self.clips[index][0]

    def waveform(self, index: int) -> Tensor:
        return self.clips[index][1]


MS3 = Synthetic(6)
S4 = Synthetic(4, setting="s4")


def parts(clips: ClipsWithWaveforms, mixed: Clip) -> tuple[int, int]:
    """Say which clips are in a mixed one."""
    names = [clips[i].id for i in range(len(clips))]
    first, second = str(mixed.id).split("+")
    return names.index(first), names.index(second)


def seeded(clips: MixedClips, index: int, seed: int = 0) -> Clip:
    torch.manual_seed(seed)
    return clips[index]


def assert_same(actual: Clip, expected: Clip) -> None:
    assert actual.id == expected.id
    assert all(torch.equal(a, e) for a, e in zip(actual[:5], expected[:5], strict=True))


def random_clip(rng: torch.Generator, seconds: int, size: int = 4, classes: int = 4) -> Clip:
    return Clip(
        frames=torch.randn(seconds, 3, size, size, generator=rng),
        log_mel=torch.randn(seconds, 1, 96, 64, generator=rng),
        masks=torch.randint(classes, (seconds, size, size), generator=rng),
        labelled=torch.randint(2, (seconds,), generator=rng).bool(),
        valid=torch.randint(2, (seconds,), generator=rng).bool(),
        id=f"clip{torch.randint(100, (), generator=rng)}",
    )


@given(seed=st.integers(0, 2**31), seconds=st.integers(1, 4))
def test_pasting_pixel_by_pixel_is_the_same(seed: int, seconds: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    first, second = random_clip(rng, seconds), random_clip(rng, seconds)
    both = paste_sounding(first, second)
    for t in range(seconds):
        is_valid = bool(first.valid[t] and second.valid[t])
        is_labelled = bool(first.labelled[t] and second.labelled[t])
        assert (bool(both.valid[t]), bool(both.labelled[t])) == (is_valid, is_labelled)
        for y in range(4):
            for x in range(4):
                in_front = is_valid and bool(second.labelled[t]) and second.masks[t, y, x] > 0
                shown = second if in_front else first
                assert torch.equal(both.frames[t, :, y, x], shown.frames[t, :, y, x])
                assert both.masks[t, y, x] == (shown.masks[t, y, x] if is_labelled else 0)
    assert both.log_mel is first.log_mel
    assert both.id == first.id


@pytest.mark.parametrize("index", range(6))
def test_every_pixel_of_the_union_shows_the_clip_it_belongs_to(index: int) -> None:
    mixed = seeded(MixedClips(MS3, probability=1), index, seed=index)
    i, j = parts(MS3, mixed)
    assert i == index
    first, second = MS3[i], MS3[j]
    assert mixed.labelled.all()
    assert torch.equal(mixed.masks > 0, (first.masks > 0) | (second.masks > 0))
    for t in range(5):
        front = second.masks[t] > 0
        behind = (first.masks[t] > 0) & ~front
        rest = ~front & ~behind
        assert torch.equal(mixed.frames[t][:, front], second.frames[t][:, front])
        assert torch.equal(mixed.frames[t][:, behind], first.frames[t][:, behind])
        assert torch.equal(mixed.frames[t][:, rest], first.frames[t][:, rest])


@pytest.mark.parametrize("on_screen", [True, False])
@pytest.mark.parametrize("gain", [-20.0, 0.0, 6.0])
def test_the_log_mel_is_that_of_the_sum(on_screen: bool, gain: float) -> None:
    mixed = seeded(MixedClips(MS3, probability=1, low_db=gain, high_db=gain, on_screen=on_screen), 2)
    i, j = parts(MS3, mixed)
    heard = MS3.waveform(i) + 10 ** (gain / 20) * MS3.waveform(j)
    torch.testing.assert_close(mixed.log_mel, fit_examples(log_mel_examples(heard), 5))
    assert not torch.equal(mixed.log_mel, MS3[i].log_mel)


def test_off_screen_only_the_sound_changes() -> None:
    mixed = seeded(MixedClips(MS3, probability=1, on_screen=False), 3)
    own = MS3[3]
    assert mixed.id != own.id
    assert_same(mixed._replace(log_mel=own.log_mel, id=own.id), own)


def test_a_silent_second_clip_changes_nothing_but_the_name() -> None:
    clip, waveform = MS3[0], MS3.waveform(0)
    silent = MS3[1]._replace(masks=torch.zeros_like(clip.masks), id="silent")
    mixed = seeded(MixedClips(Listed((clip, waveform), (silent, torch.zeros(80_000))), probability=1), 0)
    assert mixed.id == f"{clip.id}+silent"
    assert_same(mixed._replace(id=clip.id), clip)


def test_classes_are_those_of_the_clip_that_is_shown() -> None:
    first, second = (MS3[i]._replace(masks=MS3[i].masks * k) for i, k in ((0, 17), (1, 42)))
    masks = paste_sounding(first, second).masks
    assert masks.dtype == torch.int64
    assert masks.unique().tolist() == [0, 17, 42]
    assert torch.equal(masks == 42, second.masks == 42)
    assert torch.equal(masks == 17, (first.masks == 17) & (second.masks == 0))


def test_where_s4_has_no_mask_nothing_is_pasted_and_nothing_is_ground_truth() -> None:
    mixed = seeded(MixedClips(S4, probability=1), 1)
    i, j = parts(S4, mixed)
    assert mixed.labelled.tolist() == [True, False, False, False, False]
    assert mixed.masks[0].sum() == ((S4[i].masks[0] > 0) | (S4[j].masks[0] > 0)).sum()
    assert not mixed.masks[1:].any()
    assert torch.equal(mixed.frames[1:], S4[i].frames[1:])


@pytest.mark.parametrize("on_screen", [True, False])
def test_padding_stays_padding(on_screen: bool) -> None:
    def padded(index: int, seconds: int) -> tuple[Clip, Tensor]:
        real = torch.arange(5) < seconds
        clip = MS3[index]
        fields = (tensor * real.view(-1, *[1] * (tensor.ndim - 1)) for tensor in clip[:5])
        return Clip(*fields, id=clip.id), MS3.waveform(index)[: seconds * 16_000]

    clips = Listed(padded(0, 4), padded(1, 3))
    mixed = seeded(MixedClips(clips, probability=1, on_screen=on_screen), 0)
    assert mixed.valid.tolist() == [True, True, True, not on_screen, False]
    assert mixed.labelled.tolist() == mixed.valid.tolist()
    assert not mixed.log_mel[4].any()
    assert not mixed.masks[4].any()
    assert not mixed.frames[4].any()


def test_a_clip_that_could_not_be_read_is_not_mixed_in() -> None:
    class Broken(Listed):
        def waveform(self, index: int) -> Tensor:
            raise FileNotFoundError

    nothing = torch.zeros(5, dtype=torch.bool)
    black = MS3[1]._replace(valid=nothing, labelled=nothing, id="black")
    clips = Broken((MS3[0], torch.empty(0)), (black, torch.empty(0)))
    mixed = MixedClips(clips, probability=1)
    assert_same(mixed[0], MS3[0])
    assert_same(mixed[1], black)


def test_probability_0_is_the_identity() -> None:
    mixed = MixedClips(MS3, probability=0)
    assert len(mixed) == len(MS3)
    for index in (*range(6), -1):
        assert_same(mixed[index], MS3[index])
    with pytest.raises(IndexError):
        mixed[6]


def test_the_probability_is_how_many_are_mixed_and_partners_are_even() -> None:
    torch.manual_seed(0)
    always, sometimes = MixedClips(MS3, probability=1), MixedClips(MS3, probability=0.25)
    assert sum("+" in sometimes[0].id for _ in range(400)) == pytest.approx(100, abs=30)
    partners = [parts(MS3, always[2])[1] for _ in range(200)]
    assert set(partners) == {0, 1, 3, 4, 5}
    assert all(partners.count(partner) > 20 for partner in set(partners))


def test_gains_lie_in_their_range() -> None:
    clip, waveform = MS3[0], torch.zeros(80_000)
    tone = torch.full((80_000,), 0.1)
    heard: list[Tensor] = []

    def listen(summed: Tensor) -> Tensor:
        heard.append(summed)
        return summed

    clips = Listed((clip, waveform), (MS3[1], tone))
    mixed = MixedClips(clips, probability=1, low_db=-20, high_db=20, sound_transform=listen)
    torch.manual_seed(0)
    for _ in range(50):
        mixed[0]
    gains = torch.stack(heard).mean(dim=1) / 0.1
    assert 0.1 <= gains.min() < 0.2
    assert 5 < gains.max() <= 10.001


def test_a_change_of_sound_is_one_of_the_sum() -> None:
    options = {"probability": 1.0, "low_db": 0.0, "high_db": 0.0}
    plain = seeded(MixedClips(MS3, **options), 0)
    louder = seeded(MixedClips(MS3, **options, sound_transform=RandomGain(6, 6)), 0)
    i, j = parts(MS3, plain)
    expected = log_mel_examples(10**0.3 * (MS3.waveform(i) + MS3.waveform(j)))
    torch.testing.assert_close(louder.log_mel, expected)


@pytest.mark.parametrize("examples", [1, 2, 3, 4])
def test_a_short_sound_goes_on_with_its_last_example(examples: int) -> None:
    sound = torch.randn(80_000, generator=torch.Generator().manual_seed(0))
    clips = Listed((MS3[0], torch.zeros(90_000)), (MS3[1], sound[: examples * 15_360]))
    mixed = seeded(MixedClips(clips, probability=1, low_db=0, high_db=0), 0)
    expected = fit_examples(log_mel_examples(sound)[:examples], 5)
    inside = slice(0, 94)  # the last two windows of an example reach into the next one
    torch.testing.assert_close(mixed.log_mel[:, :, inside], expected[:, :, inside])


def test_no_sound_at_all_is_silence() -> None:
    clips = Listed((MS3[0], MS3.waveform(0)), (MS3[1], torch.empty(0)))
    mixed = seeded(MixedClips(clips, probability=1), 0)
    torch.testing.assert_close(mixed.log_mel, MS3[0].log_mel)


def test_other_steps_between_examples() -> None:
    options = {"probability": 1.0, "low_db": 0.0, "high_db": 0.0}
    mixed = seeded(MixedClips(MS3, **options, example_hop_steps=100), 0)
    i, j = parts(MS3, mixed)
    expected = log_mel_examples(MS3.waveform(i) + MS3.waveform(j), example_hop_steps=100)
    torch.testing.assert_close(mixed.log_mel, expected)


def test_a_seed_tells_the_mix() -> None:
    mixed = MixedClips(MS3, probability=1)
    assert_same(seeded(mixed, 1, seed=7), seeded(mixed, 1, seed=7))
    assert len({seeded(mixed, 1, seed).id for seed in range(12)}) > 1
    before = MS3[1]
    seeded(mixed, 1)
    assert_same(MS3[1], before)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # loaders fork
def test_workers_draw_apart_and_a_seed_tells_what() -> None:
    mixed = MixedClips(MS3, probability=1)
    loader = DataLoader(mixed, batch_size=None, sampler=[0] * 8, num_workers=2)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(list(loader))
    for one, again in zip(runs[0], runs[1], strict=True):
        assert_same(one, again)
    sounds = [clip.log_mel for clip in runs[0]]
    assert not any(torch.equal(a, b) for a, b in zip(sounds[::2], sounds[1::2], strict=True))
    assert not torch.equal(sounds[0], runs[2][0].log_mel)


@pytest.mark.parametrize(("setting", "reader"), [("s4", AVSBenchS4), ("ms3", AVSBenchMS3)])
def test_a_reader_of_files_can_be_mixed(
    tmp_path: Path, setting: str, reader: type[AVSBenchS4 | AVSBenchMS3]
) -> None:
    write_avsbench(tmp_path, setting=setting, clips={"train": 3}, size=32, videos=False)
    stored = reader(tmp_path, "train", size=None, sound="wav")
    in_memory = Synthetic(3, setting=setting)
    from_files = seeded(MixedClips(stored, probability=1), 0)
    expected = seeded(MixedClips(in_memory, probability=1), 0)
    assert from_files.id == expected.id
    for actual, wanted in zip(from_files[:5], expected[:5], strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("make", _sounding.READERS)
def test_a_sound_too_faint_to_be_heard_leaves_every_readers_log_mel_as_it_was(
    make: Callable[[Path], ClipReader], tmp_path: Path
) -> None:
    clips = make(tmp_path)
    faint = MixedClips(clips, probability=1, low_db=-300, high_db=-300, on_screen=False)
    for index in range(len(clips)):
        torch.testing.assert_close(faint[index].log_mel, clips[index].log_mel, atol=1e-5, rtol=0)


def test_a_readers_change_of_sound_is_one_of_the_sum_and_made_once(tmp_path: Path) -> None:
    clips = _sounding.louder(tmp_path)
    mixed = seeded(MixedClips(clips, probability=1, low_db=0, high_db=0), 0)
    expected = log_mel_examples(10 * (clips.waveform(0) + clips.waveform(1)))
    torch.testing.assert_close(mixed.log_mel, expected[:5], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"sound_transform: expected None, since that of the clips"):
        MixedClips(clips, sound_transform=RandomGain())


def test_clips_whose_log_mels_would_tell_which_are_mixed_are_refused(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 2}, size=32, videos=False)
    with pytest.raises(ValueError, match="clips: expected a reader with sound='wav', got sound='log_mel'"):
        MixedClips(AVSBenchMS3(tmp_path, "test", size=None))
    with pytest.raises(ValueError, match=r"clips: expected a dataset that gives waveforms, .* got TinyClips"):
        MixedClips(TinyClips(2))  # type: ignore[arg-type]


def test_errors_name_the_argument_and_both_clips() -> None:
    with pytest.raises(ValueError, match=r"probability: expected a number in \[0, 1\], got 1\.5"):
        MixedClips(MS3, probability=1.5)
    with pytest.raises(ValueError, match="clips: expected at least two to mix, got 1"):
        MixedClips(Listed((MS3[0], MS3.waveform(0))))
    with pytest.raises(ValueError, match="low_db, high_db: expected the smaller number first, got 3 and 1"):
        MixedClips(MS3, low_db=3, high_db=1)
    with pytest.raises(ValueError, match="example_hop_steps: expected a number above 0, got 0"):
        MixedClips(MS3, example_hop_steps=0)
    larger, longer = Synthetic(1, size=48)[0], Synthetic(1, seconds=6)[0]
    for other in (larger, longer):
        name = other._replace(id="other")
        with pytest.raises(
            ValueError, match=r"frames \(5, 3, 32, 32\) of 'synthetic_0000000' and .* of 'other'"
        ):
            paste_sounding(MS3[0], name)
        clips = Listed((MS3[0], MS3.waveform(0)), (name, MS3.waveform(0)))
        with pytest.raises(ValueError, match="clips: expected clips of one length and size to mix"):
            MixedClips(clips, probability=1)[0]


def test_off_screen_a_clip_of_another_size_will_do() -> None:
    larger = Synthetic(2, size=48)
    clips = Listed((MS3[0], MS3.waveform(0)), (larger[1], larger.waveform(1)))
    mixed = seeded(MixedClips(clips, probability=1, on_screen=False), 0)
    assert torch.equal(mixed.frames, MS3[0].frames)
