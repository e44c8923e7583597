"""Scores of binary masks that are ratios of sums, so that batches, order and processes do not matter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from avslib.metrics._batches import add_settings, check_binary, not_binary


class SumMetric(Metric):
    """A metric whose states are sums over frames, and which knows whether a mask was not binary.

    Args:
        settings: the arguments of the metric, which tell it from others.
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
        add_settings(self, settings)
        self.add_state("wrong_frames", torch.zeros((), dtype=torch.int64), "sum")

    def _counted(self, masks: Tensor, valid: Tensor | None) -> Tensor:
        """Return which frames count, ``(B, T)``, and look for values other than 0 and 1 in them.

        On an accelerator, where looking at values would stall, ``_check`` says what is wrong.
        """
        counted = torch.ones_like(masks[..., 0, 0], dtype=torch.bool) if valid is None else valid.bool()
        wrong = not_binary(masks) & counted
        if wrong.device.type == "cpu":
            check_binary(wrong)
        self.wrong_frames += wrong.sum()
        return counted

    def _check(self) -> None:
        check_binary(self.wrong_frames)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several on a scale from 0 to 1; needs matplotlib.

        Args:
            val: what ``compute`` returned, or a list of it; by default, what it returns now.
            ax: matplotlib axes to draw on; by default, new ones.

        Returns:
            The figure and its axes.
        """
        return self._plot(val, ax)
