"""A contact sheet of a report's worst clips: frame, ground truth and prediction of every second."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from avslib.data.sound import ClipDataset
from avslib.media.frame import denormalize_frames
from avslib.metrics.class_measures import predicted_classes
from avslib.metrics.report_record import Report
from avslib.training.figures import overlay_classes, overlay_mask, subplots
from avslib.training.prediction import Predictions

_ROWS = ("frame", "truth", "prediction")


def plot_worst(
    report: Report, predictions: Predictions, clips: ClipDataset, path: str | Path, *, count: int = 8
) -> None:
    """Draw the clips with the lowest J (``Report.clip_measure``), the worst first; needs matplotlib.

    Args:
        report: the report on these predictions.
        predictions: the predictions; those of the drawn clips are read again.
        clips: the dataset that the predictions are for.
        path: the PNG file to write.
        count: number of clips to draw.
    """
    worst = report.worst(count)
    measure = report.clip_measure
    predict, overlay = (
        (predicted_classes, overlay_classes) if report.classes else (_probability, overlay_mask)
    )
    values = measure.of(report.tensors[measure.sums])
    places = report.tensors["place"].tolist()
    shown = [clips[places[i]] for i in worst]
    seconds = max(len(clip.frames) for clip in shown)
    across = 2 if len(worst) > 1 else 1
    down = -(-len(worst) // across)
    figure, axes = subplots(3 * down, across * seconds, width=1.0, height=1.0)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for block, (i, clip) in enumerate(zip(worst, shown, strict=True)):
        prediction = predictions[places[i]]
        predicted = predict(prediction.logits)[0].cpu().numpy()
        frames = denormalize_frames(clip.frames).permute(0, 2, 3, 1).numpy()
        top, left = 3 * (block // across), seconds * (block % across)
        for row, word in enumerate(_ROWS):
            axes[top + row, left].set_ylabel(word, fontsize=7)
        title = f"{report.ids[i]} {report.categories[i]} J {values[i]:.3f}".replace("  ", " ")
        axes[top, left].set_title(title, fontsize=8, loc="left")
        for second in prediction.valid[0].nonzero().flatten().tolist():
            column = axes[top : top + 3, left + second]
            column[0].imshow(frames[second])
            column[1].imshow(overlay(frames[second], clip.masks[second].numpy()))
            column[2].imshow(overlay(frames[second], predicted[second]))
    figure.savefig(path, dpi=110)


def _probability(logits: Tensor) -> Tensor:
    """Return the probability of the foreground, ``(B, T, H, W)``."""
    logits = logits.float()
    return (logits.sigmoid() if logits.shape[2] == 1 else logits.softmax(dim=2))[:, :, -1]
