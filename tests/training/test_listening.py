from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, AVSBenchS4, SilentSound, SyntheticAVS, SyntheticConfig, write_avsbench
from avslib.models import Segmentation
from avslib.training import evaluate
from avslib.training.listening import g_measures, listen, sound_protocols

LEVELS = (10.0, 20.0)
"""What the log-mel is where the left or the right half of the picture sounds; 0 is a faint background."""
ON = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]]).bool()


class Halves:
    """Two things are always in view; one of them sounds, now and then."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Clip:
        on, side = ON[index // 2], index % 2
        masks = torch.zeros(4, 8, 8, dtype=torch.int64)
        masks[:, :, side * 4 : side * 4 + 4] = on[:, None, None]
        every = torch.ones(4, dtype=torch.bool)
        log_mel = (on * LEVELS[side]).view(4, 1, 1, 1).expand(4, 1, 96, 64)
        return Clip(torch.zeros(4, 3, 8, 8), log_mel, masks, every, every, str(index))


CATEGORIES = ["left", "right"] * 3


class Stub(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


class Listener(Stub):
    """Finds the half whose sound it hears."""

    def forward(self, frames: Tensor, log_mel: Tensor, valid: Tensor | None = None) -> Segmentation:
        level = log_mel.mean(dim=(2, 3, 4))
        halves = torch.stack([(level - of).abs() < 0.1 for of in LEVELS], dim=-1)
        return Segmentation(
            halves.repeat_interleave(4, dim=-1)[:, :, None, None].expand(-1, -1, 1, 8, 8) * 18.0 - 9
        )


class Deaf(Stub):
    """Finds both, whatever sounds."""

    def forward(self, frames: Tensor, log_mel: Tensor, valid: Tensor | None = None) -> Segmentation:
        return Segmentation(torch.full((*frames.shape[:2], 1, 8, 8), 9.0))


def test_a_model_that_listens_loses_all_and_a_deaf_one_nothing() -> None:
    clips = Halves()
    sounds = sound_protocols(clips, categories=CATEGORIES)
    assert list(sounds) == [
        "silence",
        "white noise",
        "another clip's sound",
        "another clip's sound, same category",
        "another clip's sound, other category",
        "shifted by 1 s",
    ]
    heard, deaf = (listen(model, clips, sounds=sounds) for model in (Listener(), Deaf()))
    assert list(heard) == ["true sound", *sounds]

    assert heard["true sound"] == pytest.approx(
        {
            "miou": 1,
            "f_score": 1,
            "sounding_miou": 1,
            "area": 7 / 24,  # 7 of 12 seconds, a half of the picture
            "onset_accuracy": 1,
            "transitions": 1,
        },
        abs=1e-6,
    )
    for row in ("silence", "white noise"):
        assert heard[row]["area"] == 0
        assert heard[row]["drop"] == pytest.approx(1, abs=1e-6)
        silent_seconds = (0 / 4 + 2 / 4 + 3 / 4) / 3
        assert heard[row]["miou"] == pytest.approx(silent_seconds, abs=1e-6)
        assert heard[row]["f_score"] == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))  # that of the whole frame
    assert heard["another clip's sound, other category"]["drop"] == pytest.approx(1, abs=1e-6)
    assert 0.2 < heard["another clip's sound, same category"]["drop"] < 0.8
    # seconds of clips 0, 1 all found; of 2, 3 one of two; of 4, 5 none
    assert heard["shifted by 1 s"]["sounding_miou"] == pytest.approx((1 + 1 / 2 + 0) / 3, abs=1e-6)

    assert deaf["true sound"]["onset_accuracy"] == 0.5
    assert deaf["true sound"]["transitions"] == 0
    for row in sounds:
        assert deaf[row]["drop"] == 0
        assert deaf[row]["area"] == pytest.approx(1)
    g_heard, g_deaf = g_measures(heard), g_measures(deaf)
    assert g_heard["g_miou"] == pytest.approx(1, abs=1e-6)
    assert g_heard["g_fpr"] == pytest.approx((0 + 0 + 7 / 24) / 3)  # the other thing is in view, and found
    assert g_deaf["g_fpr"] == pytest.approx(1)
    assert g_deaf["g_miou"] == pytest.approx(0.5, abs=1e-6)  # J is a half throughout
    assert g_heard["g_f_score"] > g_deaf["g_f_score"]


def test_rows_are_what_evaluate_says() -> None:
    clips = Halves()
    table = listen(Listener(), clips, batch_size=2)
    assert list(table) == ["true sound", "silence", "white noise", "another clip's sound", "shifted by 1 s"]
    for row, sounding in {"true sound": clips, "silence": SilentSound(clips)}.items():
        scores = evaluate(Listener(), sounding)
        assert {name: table[row][name] for name in scores} == pytest.approx(scores, abs=1e-9)
    assert "onset_accuracy" not in listen(Deaf(), clips, sounds={"again": clips})["again"]


def test_readers_have_the_rows_that_they_know(tmp_path: Path) -> None:
    write_avsbench(tmp_path / "s4", setting="s4", clips={"test": 4}, size=32, videos=False)
    write_avsbench(tmp_path / "ms3", setting="ms3", clips={"test": 2}, size=32, videos=False)
    s4 = AVSBenchS4(tmp_path / "s4", "test", size=(8, 8), sound="wav")
    names = [files.category for files in s4.clips]
    alone = min(map(names.count, names)) == 1
    sounds = sound_protocols(s4)
    assert ("another clip's sound, same category" in sounds) == (not alone)
    assert {"another clip's sound, other category", "off-screen sound added"} <= set(sounds)
    table = listen(Deaf(), s4)
    assert "onset_accuracy" not in table["true sound"]  # nothing starts or stops
    assert table["off-screen sound added"]["drop"] == 0
    g = g_measures(table)
    assert 0 <= g["g_miou"] <= 0.5

    ms3 = set(sound_protocols(AVSBenchMS3(tmp_path / "ms3", "test", size=(8, 8), sound="wav")))
    assert "off-screen sound added" in ms3
    assert "another clip's sound, other category" not in ms3
    stored = set(sound_protocols(AVSBenchMS3(tmp_path / "ms3", "test", size=(8, 8))))
    assert ms3 - stored == {"off-screen sound added"}


def test_one_clip_of_synthetic_sound_and_no_one_else() -> None:
    clips = SyntheticAVS(SyntheticConfig(setting="s4", size=32), 1, split="test")
    assert list(sound_protocols(clips)) == ["silence", "white noise", "shifted by 1 s"]


def test_a_folder_with_a_clip_of_one_second_is_not_shifted(tmp_path: Path) -> None:
    write_avsbench(tmp_path / "ms3", setting="ms3", clips={"test": 2}, size=32, videos=False)
    clips = AVSBenchMS3(tmp_path / "ms3", "test", size=(8, 8), sound="wav")
    assert "shifted by 1 s" in sound_protocols(clips)
    files = clips.clips[1]
    clips.clips[1] = files._replace(frames=files.frames[:1], masks=files.masks[:1])
    assert "shifted by 1 s" not in sound_protocols(clips)
    assert "true sound" in listen(Deaf(), clips, batch_size=1)


def test_other_datasets_may_be_listened_to_and_their_silence_has_no_drop() -> None:
    class Nothing(Halves):
        def __getitem__(self, index: int) -> Clip:
            clip = super().__getitem__(index)
            return clip._replace(masks=torch.zeros_like(clip.masks), log_mel=torch.zeros_like(clip.log_mel))

    table = listen(Listener(), Halves(), sounds={"off screen": Nothing()})
    assert math.isnan(table["off screen"]["drop"])
    assert set(g_measures(table, negatives=["off screen"])) == {"g_f_score", "g_fpr"}
    assert table["off screen"]["miou"] == pytest.approx(1, abs=1e-6)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="categories: expected one of each of 6 clips, got 1"):
        sound_protocols(Halves(), categories=["left"])
    with pytest.raises(ValueError, match="table: expected a row 'white noise', got 'true sound', 'silence'"):
        g_measures(listen(Deaf(), Halves(), sounds={"silence": SilentSound(Halves())}))
