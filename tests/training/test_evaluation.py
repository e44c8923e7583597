"""What evaluation says of clips that cannot be scored, also under several processes."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from avslib.clip import Clip
from avslib.data import SyntheticAVS, SyntheticConfig
from avslib.metrics import OnsetAccuracy
from avslib.models import DiffusionAVS, Segmentation
from avslib.training import evaluate, latent_statistics

# Two processes have a clip to share, so the second one has none.
PROCESS = """
import sys
from torch import distributed as dist
from tests.training.test_evaluation import OUTCOMES

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
for outcome in OUTCOMES:
    print(outcome())
dist.destroy_process_group()
"""


class Nothing(nn.Module):
    """Finds nothing anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(-1.0))

    def forward(self, frames: Tensor, *rest: Tensor, **more: Tensor) -> Segmentation:
        return Segmentation(self.logit.expand(*frames.shape[:2], 1, *frames.shape[-2:]))


class Told:
    """Clips of which the frames that are labelled and valid are told."""

    def __init__(self, count: int, *, labelled: int = 5, unread: int = 0, gone: bool = False) -> None:
        self.clips = SyntheticAVS(SyntheticConfig(size=32), max(1, count))
        self.count = count
        self.gone = gone
        self.labelled = labelled
        self.unread = unread

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        if self.gone:
            raise IndexError(index)
        clip = self.clips[index]
        place = torch.arange(len(clip.frames))
        valid = clip.valid & (index >= self.unread)
        return clip._replace(labelled=valid & (place < self.labelled), valid=valid)


def outcome(clips: Told, metrics: dict[str, Metric] | None = None) -> str:
    try:
        return str(evaluate(Nothing(), clips, metrics=metrics))
    except ValueError as error:
        return str(error)


OUTCOMES = (
    lambda: outcome(Told(1, labelled=1), {"onsets": OnsetAccuracy()}),  # nothing starts: no number
    lambda: outcome(Told(1, labelled=0)),
    lambda: outcome(Told(1, unread=1)).partition(", such as")[0],  # which a process without clips cannot say
)
EXPECTED = [
    str({"onsets": math.nan}),
    "clips: expected ground truth, of 1 clips no frame is labelled",
    "clips: not one of 1 could be read",
]


def test_what_has_no_score_is_told_from_what_has_no_ground_truth() -> None:
    assert [outcome() for outcome in OUTCOMES] == EXPECTED


@pytest.mark.slow
def test_all_processes_raise_or_none(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    printed = [process.communicate(timeout=240)[0].splitlines() for process in processes]
    assert printed == [EXPECTED, EXPECTED]


def test_a_warning_is_of_who_asked() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(Nothing(), Told(3, unread=1))
    (said,) = (entry for entry in caught if "could not be read" in str(entry.message))
    assert "1 of 3 clips could not be read and are in no score: " in str(said.message)
    assert said.filename == __file__


@pytest.mark.parametrize(("count", "labelled"), [(0, 1), (2, 0), (1, 1)])
def test_statistics_of_latents_need_two_labelled_frames(count: int, labelled: int) -> None:
    model = DiffusionAVS("test_resnet.r160_in1k", audio_encoder="mel_cnn", channels=64)
    message = f"clips: expected at least two labelled frames, got {count * labelled} in {count} clips"
    with pytest.raises(ValueError, match=message):
        latent_statistics(model, Told(count, labelled=labelled), num_samples=2)


def test_a_model_is_left_as_it_was_also_after_an_error() -> None:
    model = DiffusionAVS("test_resnet.r160_in1k", audio_encoder="mel_cnn", channels=64)
    with pytest.raises(IndexError):
        latent_statistics(model.train(), Told(2, gone=True), num_samples=2)
    assert model.training
