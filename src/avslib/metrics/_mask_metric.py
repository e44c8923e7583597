"""Base class of all metrics of masks."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class MaskMetric(Metric):
    """A metric of masks that counts the frames with invalid values.

    torchmetrics' ``MetricCollection`` lets metrics whose states agree after the first batch share one state
    from then on: a perfect first batch would make F read the sums of J. The state ``settings`` prevents
    this, since it differs between metrics whose states mean different things.

    Args:
        settings: arguments of the metric, which tell it apart from other metrics.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    settings: Tensor
    wrong_frames: Tensor

    def __init__(self, settings: tuple[object, ...]) -> None:
        super().__init__()
        mark = zlib.crc32(repr(settings).encode())
        self.add_state("settings", torch.tensor(mark, dtype=torch.float64), "max")
        self.add_state("wrong_frames", torch.zeros((), dtype=torch.int64), "sum")

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several on the scale of the metric; needs matplotlib.

        Args:
            val: a value that ``compute`` returned, or a list of such values; by default, the current value.
            ax: matplotlib axes to draw on; by default, new ones.

        Returns:
            The figure and its axes.
        """
        return self._plot(val, ax)
