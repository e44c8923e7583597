"""Figures of a run: its curves, and the model's predictions for a few clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avslib.data.sound import ClipDataset
from avslib.media.frame import denormalize_frames
from avslib.media.palette import class_palette
from avslib.metrics.class_measures import predicted_classes
from avslib.models import AVSModel, Segmentation
from avslib.models.base import evaluating
from avslib.training.listening import ANOTHER, TRUE, three_sounds
from avslib.training.prediction import num_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(history: Sequence[dict[str, float]], path: str | Path) -> None:
    """Draw the loss terms and the validation score of every epoch.

    The loss axis is logarithmic. If a term is ever 0 or below, as an estimate of information may be, the
    axis is linear between -0.01 and 0.01.

    Args:
        history: the records that :func:`~avslib.training.fit` returned.
        path: the PNG file to write.
    """
    epochs = [record["epoch"] for record in history]
    names = [name for name in history[0] if name not in ("epoch", "lr", "validation")]
    figure, axes = subplots(1, 2 if "validation" in history[0] else 1, width=4.5, height=3.2)
    curves = {name: [record[name] for record in history] for name in names}
    for name, values in curves.items():
        axes[0, 0].plot(epochs, values, label=name, marker=".")
    axes[0, 0].set(xlabel="epoch", ylabel="training loss")
    if any(value <= 0 for values in curves.values() for value in values):
        axes[0, 0].set_yscale("symlog", linthresh=0.01)
    else:
        axes[0, 0].set_yscale("log")
    axes[0, 0].legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    if "validation" in history[0]:
        axes[0, 1].plot(epochs, [record["validation"] for record in history], color="black", marker=".")
        axes[0, 1].set(xlabel="epoch", ylabel="validation mIoU", ylim=(0, 1))
    for axis in axes.flat:
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


@torch.no_grad()
def plot_predictions(
    model: AVSModel,
    clips: ClipDataset,
    path: str | Path,
    *,
    indices: Sequence[int] = (0, 1, 2),
    num_samples: int = 16,
    seed: int = 0,
) -> None:
    """Draw frames, ground truth, masks, a stochastic model's uncertainty, and the masks under other sounds.

    The other sounds are silence and another clip's, where the dataset can have them.

    Args:
        model: the trained model; masks of a multi-class model are drawn in the colours of the palette.
        clips: the dataset, whose clips may differ in length; every second of a drawn clip is a column.
        path: the PNG file to write.
        indices: indices of the clips to draw.
        num_samples: samples from which a stochastic model's mean mask and uncertainty are computed.
        seed: seed of the noise.
    """
    device = next(model.parameters()).device

    def predict(dataset: ClipDataset, index: int) -> Segmentation:
        clip = dataset[index]
        with evaluating(model):
            return model(
                clip.frames[None].to(device),
                clip.log_mel[None].to(device),
                valid=clip.valid[None].to(device),
                num_samples=num_samples if model.stochastic else 1,
                generator=torch.Generator(device).manual_seed(seed),
            )

    labels = {TRUE: "mask", ANOTHER: "other sound"}
    sounds = {labels.get(name, name): heard for name, heard in three_sounds(clips).items()}
    of_classes = num_classes(clips, model) > 1
    overlay = overlay_classes if of_classes else overlay_mask
    rows = ["frame", "ground truth", *sounds]
    if model.stochastic:
        rows.insert(3, "uncertainty")
    shown = [clips[index] for index in indices]
    seconds = max(len(clip.frames) for clip in shown)
    figure, axes = subplots(len(rows), len(indices) * seconds, width=1.0, height=1.0)
    for block, (index, clip) in enumerate(zip(indices, shown, strict=True)):
        outputs = {row: predict(heard, index) for row, heard in sounds.items()}
        frames = denormalize_frames(clip.frames).permute(0, 2, 3, 1).numpy()
        for second in clip.valid.nonzero().flatten().tolist():
            column = dict(zip(rows, axes[:, block * seconds + second], strict=True))
            column["frame"].imshow(frames[second])
            column["frame"].set_title(f"{second + 1} s", fontsize=8)
            column["ground truth"].imshow(overlay(frames[second], clip.masks[second].numpy()))
            for row, output in outputs.items():
                logits = output.logits[:, second : second + 1]
                mask = predicted_classes(logits) if of_classes else logits.sigmoid()[:, :, 0]
                column[row].imshow(overlay(frames[second], mask[0, 0].cpu().numpy()))
            if model.stochastic:
                uncertainty = outputs["mask"].uncertainty()[0, second].amax(dim=0).cpu().numpy()
                column["uncertainty"].imshow(uncertainty, cmap="magma", vmin=0, vmax=0.5)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, label in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(label, fontsize=8)
    figure.savefig(path, dpi=110)


def overlay_mask(frame: Any, mask: Any) -> Any:
    """Return a greyed frame with the mask drawn in colour."""
    grey = 0.35 * frame.mean(-1, keepdims=True) + 0.15
    colour = np.array([1.0, 0.75, 0.1])
    return np.clip(
        grey + mask[..., None] * (0.25 + 0.75 * colour * frame.mean(-1, keepdims=True)) * colour, 0, 1
    )


def overlay_classes(frame: Any, classes: Any) -> Any:
    """Return a greyed frame with the classes drawn in the colours of the palette."""
    grey = 0.35 * frame.mean(-1, keepdims=True) + 0.15
    colours = class_palette(int(classes.max()) + 1).numpy()[classes] / 255
    return np.where(classes[..., None] > 0, 0.5 * grey + 0.65 * colours, grey).clip(0, 1)


def subplots(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, Any]:
    """Return a new figure and its axes, without touching matplotlib's global state or needing a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes
