"""Pictures of a run: its curves, and what the model does with a few clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avslib.data.sound import ClipDataset, SilentSound, SwappedSound
from avslib.media.frame import denormalize_frames
from avslib.models import AVSModel, Segmentation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(history: Sequence[dict[str, float]], path: str | Path) -> None:
    """Draw the loss terms and the validation score of every epoch.

    Args:
        history: what :func:`~avslib.training.fit` returned.
        path: the PNG to write.
    """
    epochs = [record["epoch"] for record in history]
    names = [name for name in history[0] if name not in ("epoch", "lr", "validation")]
    figure, axes = _subplots(1, 2 if "validation" in history[0] else 1, width=4.5, height=3.2)
    for name in names:
        axes[0, 0].plot(epochs, [record[name] for record in history], label=name, marker=".")
    axes[0, 0].set(xlabel="epoch", ylabel="training loss", yscale="log")
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
    """Draw frames, ground truth, mask, a stochastic model's uncertainty, and the masks under other sounds.

    Args:
        model: the trained model.
        clips: the dataset; every second of a chosen clip is a column.
        path: the PNG to write.
        indices: the clips to draw.
        num_samples: samples behind a stochastic model's mean mask and its uncertainty.
        seed: of the noise.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()

    def predict(dataset: ClipDataset, index: int) -> Segmentation:
        clip = dataset[index]
        return model(
            clip.frames[None].to(device),
            clip.log_mel[None].to(device),
            num_samples=num_samples if model.stochastic else 1,
            generator=torch.Generator(device).manual_seed(seed),
        )

    rows = ["frame", "ground truth", "mask", "silence", "other sound"]
    if model.stochastic:
        rows.insert(3, "uncertainty")
    seconds = len(clips[indices[0]].frames)
    figure, axes = _subplots(len(rows), len(indices) * seconds, width=1.0, height=1.0)
    for block, index in enumerate(indices):
        clip = clips[index]
        outputs = {
            "mask": predict(clips, index),
            "silence": predict(SilentSound(clips), index),
            "other sound": predict(SwappedSound(clips), index),
        }
        frames = denormalize_frames(clip.frames).permute(0, 2, 3, 1).numpy()
        for second in range(seconds):
            column = dict(zip(rows, axes[:, block * seconds + second], strict=True))
            column["frame"].imshow(frames[second])
            column["frame"].set_title(f"{second + 1} s", fontsize=8)
            column["ground truth"].imshow(_overlay(frames[second], clip.masks[second].numpy()))
            for row, output in outputs.items():
                mask = output.probabilities()[0, second, 0].cpu().numpy()
                column[row].imshow(_overlay(frames[second], mask))
            if model.stochastic:
                uncertainty = outputs["mask"].uncertainty()[0, second, 0].cpu().numpy()
                column["uncertainty"].imshow(uncertainty, cmap="magma", vmin=0, vmax=0.5)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, label in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(label, fontsize=8)
    figure.savefig(path, dpi=110)
    model.train(was_training)


def _overlay(frame: Any, mask: Any) -> Any:
    """A greyed frame with the mask in colour."""
    grey = 0.35 * frame.mean(-1, keepdims=True) + 0.15
    colour = np.array([1.0, 0.75, 0.1])
    return np.clip(
        grey + mask[..., None] * (0.25 + 0.75 * colour * frame.mean(-1, keepdims=True)) * colour, 0, 1
    )


def _subplots(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, Any]:
    """Axes on a figure of their own: nothing here touches matplotlib's global state or needs a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes
