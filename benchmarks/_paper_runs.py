"""A run of the paper's tables: its row, setting, seed and budget, its clips, and the report it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from _paper_results import AGAIN
from _paper_rows import ROWS
from filelock import FileLock

from avslib.data import READERS, ClipDataset, SilentSound, write_avsbench

RUNS = Path("runs", "paper")


@dataclass(frozen=True)
class Budget:
    """The model size, the clips and the training that every row of a table gets."""

    variant: str
    size: int
    clips: Mapping[str, Mapping[str, int]]
    epochs: Mapping[str, int]
    learning_rate: float
    pretrain_clips: int
    batch_size: int = 4
    num_samples: int = 8
    backbone: str | None = None

    def sizes(self) -> dict[str, str]:
        """Return the arguments for :meth:`Row.build`."""
        backbone = {} if self.backbone is None else {"backbone": self.backbone}
        return {"variant": self.variant, "audio_encoder": "mel_cnn", **backbone}


_FEW = {"train": 1500, "val": 100, "test": 240}
_TINY = {"train": 8, "val": 2, "test": 4}
BUDGETS = {
    "cpu": Budget(
        "small", 112, {"s4": _FEW, "ms3": _FEW}, {"s4": 3, "ms3": 3}, learning_rate=1e-3, pretrain_clips=1000
    ),
    "gpu": Budget(
        "pvt_v2_b5",
        224,
        {
            "s4": {"train": 4000, "val": 400, "test": 740},
            "ms3": {"train": 1200, "val": 120, "test": 240},
        },
        {"s4": 15, "ms3": 30},
        learning_rate=1e-4,
        pretrain_clips=4000,
        backbone="pvt_v2_b2",
    ),
    "tiny": Budget(
        "small",
        32,
        {"s4": _TINY, "ms3": _TINY},
        {"s4": 1, "ms3": 1},
        learning_rate=1e-3,
        pretrain_clips=4,
    ),
}
BUDGETS["cpu_long"] = replace(BUDGETS["cpu"], epochs={"s4": 9, "ms3": 9})
"""``tiny`` is for trying out the command, ``cpu_long`` for rows that learn slowly, such as AVSBench."""


@dataclass(frozen=True)
class Run:
    """One training of a row, with a budget, a setting and a seed."""

    budget: str
    setting: str
    row: str
    seed: int
    again: bool = False
    """Whether it repeats a finished run, to see whether the numbers are the same."""

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.row}-seed{self.seed}"

    @property
    def place(self) -> Path:
        """Path of its files below the folder of weights and below the folder of results."""
        return Path(self.budget, self.setting, AGAIN if self.again else "", self.name)

    @property
    def folder(self) -> Path:
        """Folder of its checkpoint and weights."""
        return RUNS / self.place

    @property
    def weights(self) -> Path:
        """File with the weights of its best epoch."""
        return self.folder / "best.safetensors"

    @property
    def before(self) -> Run | None:
        """The run whose weights it starts from; None if it starts from encoders only."""
        row = ROWS[self.row]
        if row.begins_as is None:
            return None
        return Run(self.budget, row.begins_in or self.setting, row.begins_as, self.seed)

    def lock(self, *, blocking: bool = True) -> FileLock:
        """Return the lock that a process holds while it works on the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock", blocking=blocking)


def open_splits(run: Run) -> dict[str, ClipDataset]:
    """Open the clips, after writing those that are missing; only one process writes at a time."""
    budget = BUDGETS[run.budget]
    root = RUNS / run.budget / "data"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_suffix(".lock")):  # writing removes clips that others have half written
        write_avsbench(
            root,
            setting=run.setting,
            clips=budget.clips[run.setting],
            size=budget.size,
            videos=False,
            workers=os.cpu_count() or 1,
        )
    size = (budget.size, budget.size)
    splits: dict[str, ClipDataset] = {
        split: READERS[run.setting](root, split, size=size, normalize=False)
        for split in ("train", "val", "test")
    }
    if ROWS[run.row].silent:
        return {split: SilentSound(clips) for split, clips in splits.items()}
    return splits


def keep(report: Mapping[str, object], out: Path) -> None:
    """Write a report; an interrupted write leaves no report."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".new").write_text(json.dumps(report) + "\n", encoding="utf-8")
    out.with_suffix(".new").replace(out)
