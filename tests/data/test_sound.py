import math

import pytest
import torch

from avslib.clip import Clip
from avslib.data import SilentSound, SwappedSound


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
