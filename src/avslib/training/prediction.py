"""What a model predicts, clip by clip, and how it is written as pictures."""

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
from avslib.models import AVSModel
from avslib.models.base import evaluating


class Predictions(Protocol):
    """Predictions for the clips of a dataset, in its order."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def __getitem__(self, index: int) -> Prediction:
        """Return the prediction for one clip, a batch of one."""

    def __iter__(self) -> Iterator[Prediction]:
        """Go through all clips in batches."""


class ModelPredictions:
    """What a model predicts for the clips of a dataset.

    A deterministic model is given ``batch_size`` clips at a time; a stochastic one a clip at a time, with
    noise that depends on ``seed`` and the clip's place alone, so that neither the batch size nor which clips
    are asked for changes a prediction. Predictions are on the model's device, but for an MPS device, which
    lacks the float64 of the metrics: its predictions are on the CPU.

    Args:
        model: called as ``model(frames, log_mel, valid=valid)``; on the device that is to be used, and put
            into evaluation mode while it predicts.
        clips: the dataset. Frames that are not ``labelled`` do not count.
        num_samples: samples a frame, of a stochastic model; a deterministic one gives its one prediction.
        seed: of the noise.
        batch_size: clips a batch.
        num_workers: loader processes.
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
        self.stochastic = isinstance(model, AVSModel) and model.stochastic
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
        """Go through the clips at some places of the dataset, in batches, each with its places."""
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
    """Make a batch of clips.

    Raises:
        ValueError: if they differ in length or size, as those of a folder of one's own may.
    """
    shapes = sorted({tuple(clip.frames.shape) for clip in clips})
    if len(shapes) > 1:
        raise ValueError(
            f"clips: expected frames of one shape in a batch, got {shapes[0]} and {shapes[1]}; give the "
            "reader seconds and a size, or take batches of 1 clip"
        )
    return default_collate(clips)


def save_prediction(prediction: Prediction, folder: str | Path) -> None:
    """Write predictions as pictures ``ID/SECOND.png``: grey, of 8 bits, or classes in colours of the palette.

    :class:`~avslib.training.FolderPredictions` reads them. Classes stay what they are.
    A probability just above 1/2 becomes 128 and 1/2 itself 127, so the mask at 1/2 stays as it is; F, whose
    thresholds are finer than grey levels, changes in the third or fourth digit.

    Args:
        prediction: a batch; frames that do not count are not written.
        folder: where a folder for each clip is made.
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
    """Yield every frame that counts, with the file that it goes to, whose folder is made."""
    for name, pictures, counted in zip(prediction.id, values, prediction.valid, strict=True):
        below = Path(folder, name)
        below.mkdir(parents=True, exist_ok=True)
        for second in counted.nonzero().flatten().tolist():
            yield below / f"{second}.png", pictures[second]


def metrics_device(device: torch.device) -> torch.device:
    """Return where predictions of a model on a device are scored: an MPS device has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def num_classes(clips: ClipDataset, model: nn.Module | None = None) -> int:
    """Return of how many classes a dataset's masks are; 1 if they are binary.

    A reader says it, else the model that is meant for them; where nobody does they are taken for binary.
    """
    return getattr(_heard(clips), "num_classes", getattr(model, "num_classes", 1))


def class_names(clips: ClipDataset) -> tuple[str, ...]:
    """Return the names of a dataset's classes, the background first; empty if it has none or nobody says."""
    clips = _heard(clips)
    if isinstance(clips, AVSBenchSemantic) and (clips.root / "label2idx.json").is_file():
        return clips.classes
    return ()


def clip_files(clips: ClipDataset) -> list[ClipFiles] | None:
    """Return where the clips of a dataset lie, also behind another sound; None if it is no reader."""
    clips = _heard(clips)
    return clips.clips if isinstance(clips, ClipReader) else None


def _heard(clips: ClipDataset) -> ClipDataset:
    """Return the dataset behind another sound."""
    while isinstance(clips, OtherSound):
        clips = clips.clips
    return clips
