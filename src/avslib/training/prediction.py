"""Predictions of a model for each clip of a dataset, and writing them as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from avslib.clip import Clip
from avslib.data import AVSBenchSemantic, ClipReader, OtherSound
from avslib.data.layout import ClipFiles
from avslib.data.sound import ClipDataset
from avslib.media.palette import write_classes
from avslib.metrics.class_measures import predicted_classes
from avslib.metrics.report import Prediction
from avslib.models.base import evaluating
from avslib.storage import CachedAudio, CachedClips


class Predictions(Protocol):
    """Predictions for the clips of a dataset, in its order."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def __getitem__(self, index: int) -> Prediction:
        """Return the prediction for one clip, a batch of one."""

    def __iter__(self) -> Iterator[Prediction]:
        """Go through all clips in batches."""


class ModelPredictions:
    """Predictions of a model for the clips of a dataset.

    A deterministic model gets ``batch_size`` clips at a time. A stochastic model gets one clip at a time and
    noise that depends only on ``seed`` and the clip's index, so that a prediction does not depend on the
    batch size or on which other clips are predicted. Predictions are on the model's device, except that they
    are on the CPU if that is an MPS device, which lacks the float64 that metrics need.

    Args:
        model: the model, on the device to use; called as ``model(frames, log_mel, valid=valid)`` in
            evaluation mode.
        clips: the dataset. Frames that are not ``labelled`` do not count.
        num_samples: samples per frame of a stochastic model; a deterministic one gives one prediction.
        seed: seed of the noise.
        batch_size: clips per batch.
        num_workers: number of loader processes.
    """

    def __init__(
        self,
        model: nn.Module,
        clips: ClipDataset,
        *,
        num_samples: int = 1,
        seed: int = 0,
        batch_size: int = 4,
        num_workers: int = 0,
    ) -> None:
        self.model = model
        self.clips = clips
        self.num_samples = num_samples
        self.seed = seed
        # a compiled model tells for itself, a distributed one has the model inside
        inner = model if hasattr(model, "stochastic") else getattr(model, "module", model)
        self.stochastic = bool(getattr(inner, "stochastic", False))
        self.batch_size = 1 if self.stochastic else batch_size
        self.num_workers = num_workers
        self.device = metrics_device(next(model.parameters()).device)
        files = clip_files(clips)
        self._categories = [""] * len(clips) if files is None else [clip.category for clip in files]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Prediction:
        """Return the prediction for one clip, a batch of one."""
        return self._predict(default_collate([self.clips[index]]), [index])

    def __iter__(self) -> Iterator[Prediction]:
        """Go through all clips in batches."""
        return (prediction for _, prediction in self.at(range(len(self))))

    def at(self, places: Sequence[int]) -> Iterator[tuple[Sequence[int], Prediction]]:
        """Iterate over the clips at some indices of the dataset, in batches, each with its indices."""
        dataset = Subset(cast("Dataset[Clip]", self.clips), places)
        loader = DataLoader(dataset, self.batch_size, collate_fn=collate_clips, num_workers=self.num_workers)
        for number, clip in enumerate(loader):
            of_batch = places[number * self.batch_size :][: len(clip.id)]
            yield of_batch, self._predict(clip, of_batch)

    @torch.no_grad()
    def _predict(self, clip: Clip, places: Sequence[int]) -> Prediction:
        device = next(self.model.parameters()).device
        clip = clip._replace(**{name: getattr(clip, name).to(device) for name in clip._fields[:5]})
        # a CPU generator reads no more than 32 bits of its seed
        mixed = int(np.random.SeedSequence((self.seed, places[0])).generate_state(1)[0])
        generator = torch.Generator(device).manual_seed(mixed)
        with evaluating(self.model):
            logits = self._logits(clip, generator)
        tensors = (logits, clip.masks, clip.valid & clip.labelled, ~clip.valid)
        logits, masks, counted, padding = (tensor.to(self.device) for tensor in tensors)
        categories = [self._categories[place] for place in places]
        return Prediction(logits, masks, counted, list(clip.id), categories, padding)

    def _logits(self, clip: Clip, generator: torch.Generator) -> Tensor:
        noise = {"num_samples": self.num_samples, "generator": generator} if self.stochastic else {}
        return self.model(clip.frames, clip.log_mel, valid=clip.valid, **noise).logits


def collate_clips(clips: list[Clip]) -> Clip:
    """Collate clips into a batch.

    Raises:
        ValueError: if the clips differ in length or size, as those of your own folder may.
    """
    shapes = sorted({tuple(clip.frames.shape) for clip in clips})
    if len(shapes) > 1:
        raise ValueError(
            f"clips: expected frames of one shape in a batch, got {shapes[0]} and {shapes[1]}; give the "
            "reader seconds and a size, or take batches of 1 clip"
        )
    return default_collate(clips)


def save_prediction(prediction: Prediction, folder: str | Path) -> None:
    """Write predictions as pictures ``ID/SECOND.png``: 8-bit grey, or classes in the colours of the palette.

    :class:`~avslib.training.FolderPredictions` reads them. Classes are stored exactly. A probability just
    above 1/2 becomes 128 and 1/2 itself 127, so the mask at threshold 1/2 is unchanged; F, whose thresholds
    are finer than grey levels, changes in the third or fourth digit.

    Args:
        prediction: a batch of predictions; frames that do not count are not written.
        folder: the folder in which a folder for each clip is created.
    """
    if _is_of_classes(prediction):
        classes = predicted_classes(prediction.logits).cpu()
        for path, picture in _pictures(prediction, classes, folder):
            write_classes(path, picture, num_classes=int(picture.max()) + 1)
        return
    logits = prediction.logits.detach().float()
    probability = logits[:, :, 0].sigmoid() if logits.shape[2] == 1 else logits.softmax(dim=2)[:, :, 1]
    levels = (probability * 255 - 0.5).ceil().clamp(0, 255).to("cpu", torch.uint8)
    for path, picture in _pictures(prediction, levels, folder):
        Image.fromarray(picture.numpy()).save(path)


def _is_of_classes(prediction: Prediction) -> bool:
    return prediction.logits.dim() == 4 or prediction.logits.shape[2] > 2


def _pictures(prediction: Prediction, values: Tensor, folder: str | Path) -> Iterator[tuple[Path, Tensor]]:
    """Yield each frame that counts with the path to write it to, in a folder that is created."""
    for name, pictures, counted in zip(prediction.id, values, prediction.valid, strict=True):
        below = Path(folder, name)
        below.mkdir(parents=True, exist_ok=True)
        for second in counted.nonzero().flatten().tolist():
            yield below / f"{second}.png", pictures[second]


def metrics_device(device: torch.device) -> torch.device:
    """Return the device on which a model's predictions are scored: the CPU for MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def num_classes(clips: ClipDataset, model: nn.Module | None = None) -> int:
    """Return the number of classes of a dataset's masks; 1 if they are binary.

    It is the reader's, or else the model's; if neither has one, the masks are assumed to be binary.
    """
    return getattr(layers(clips)[-1], "num_classes", getattr(model, "num_classes", 1))


def class_names(clips: ClipDataset) -> tuple[str, ...]:
    """Return the names of a dataset's classes, the background first; empty if there are none or unknown."""
    clips = layers(clips)[-1]
    if isinstance(clips, AVSBenchSemantic) and (clips.root / "label2idx.json").is_file():
        return clips.classes
    return ()


def clip_files(clips: ClipDataset) -> list[ClipFiles] | None:
    """Return the files of a dataset's clips; None if they do not come from a reader."""
    clips = layers(clips)[-1]
    return clips.clips if isinstance(clips, ClipReader) else None


def layers(clips: ClipDataset) -> list[ClipDataset]:
    """Return a dataset and those below its caches and replaced sounds, the one that they come from last."""
    found = [clips]
    while isinstance(clips, OtherSound | CachedClips | CachedAudio):
        clips = clips.clips
        found.append(clips)
    return found
