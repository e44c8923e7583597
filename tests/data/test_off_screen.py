from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from avslib.clip import Clip
from avslib.data.avsbench import AVSBenchMS3
from avslib.data.off_screen import OffScreenSound
from avslib.data.reader import ClipReader
from avslib.data.synthetic import write_avsbench
from avslib.media.mel import fit_examples, log_mel_examples
from tests.data._sounding import READERS
from tests.storage._tiny import TinyClips


class Tones:
    """Clips of two seconds, of as many samples as said, of noise; those without samples cannot be read."""

    def __init__(self, *samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def waveform(self, index: int) -> Tensor:
        if not self.samples[index]:
            raise ValueError("damaged")
        return 0.1 * torch.randn(self.samples[index], generator=torch.Generator().manual_seed(index))

    def __getitem__(self, index: int) -> Clip:
        valid = torch.full((2,), self.samples[index] > 0)
        log_mel = (
            fit_examples(log_mel_examples(self.waveform(index)), 2) if valid[0] else torch.zeros(2, 1, 96, 64)
        )
        return Clip(torch.zeros(2, 3, 8, 8), log_mel, torch.ones(2, 8, 8), valid, valid, str(index))


@pytest.mark.parametrize("samples", [(32_000, 32_000), (32_000, 20_000), (20_000, 32_000)])
def test_the_sum_of_both_is_heard(samples: tuple[int, int]) -> None:
    clips = Tones(*samples)
    own, other = clips.waveform(0).tolist(), clips.waveform(1).tolist()
    both = [x + 2 * (other[i] if i < len(other) else 0.0) for i, x in enumerate(own)]
    expected = fit_examples(log_mel_examples(torch.tensor(both)), 2)
    heard = OffScreenSound(clips, gain_db=6.0206)[0]
    torch.testing.assert_close(heard.log_mel, expected, atol=1e-3, rtol=0)
    assert torch.equal(heard.masks, clips[0].masks)


def test_a_clip_keeps_its_sound_if_one_of_the_two_cannot_be_read() -> None:
    clips = Tones(32_000, 0)
    mixed = OffScreenSound(clips)
    assert torch.equal(mixed[0].log_mel, clips[0].log_mel)
    assert torch.equal(mixed[1].log_mel, clips[1].log_mel)


def test_a_reader_reads_waveforms_and_what_is_silent_adds_nothing(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"test": 2}, size=32, videos=False)
    clips = AVSBenchMS3(tmp_path, "test", size=(32, 32), sound="wav")
    torch.testing.assert_close(
        OffScreenSound(clips, gain_db=-200)[0].log_mel, clips[0].log_mel, atol=1e-5, rtol=0
    )
    assert not torch.allclose(OffScreenSound(clips)[0].log_mel, clips[0].log_mel, atol=0.1)
    with pytest.raises(ValueError, match="clips: expected a reader with sound='wav', got sound='log_mel'"):
        OffScreenSound(AVSBenchMS3(tmp_path, "test", size=(32, 32)))


@pytest.mark.parametrize("make", READERS)
def test_a_sound_too_faint_to_be_heard_leaves_every_readers_log_mel_as_it_was(
    make: Callable[[Path], ClipReader], tmp_path: Path
) -> None:
    clips = make(tmp_path)
    faint = OffScreenSound(clips, gain_db=-300)
    for index in range(len(clips)):
        torch.testing.assert_close(faint[index].log_mel, clips[index].log_mel, atol=1e-5, rtol=0)


def test_clips_without_waveforms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clips: expected a dataset that gives waveforms, .* got TinyClips"):
        OffScreenSound(TinyClips(2))  # type: ignore[arg-type]


def test_categories_choose_the_other_clip() -> None:
    clips = Tones(32_000, 32_000, 32_000, 32_000)
    assert OffScreenSound(clips, category="same", categories="aabb").others == [1, 0, 3, 2]
    with pytest.raises(ValueError, match=r"^categories: Tones does not say"):
        OffScreenSound(clips, category="other")
    with pytest.raises(ValueError, match=r"^shift: 0 gives each of 1 clips its own sound"):
        OffScreenSound(Tones(32_000))
    with pytest.raises(ValueError, match=r"^example_hop_steps: expected a number above 0"):
        OffScreenSound(clips, example_hop_steps=0)
