"""Learning-rate schedules."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from avslib._checks import check_positive


def warmup_cosine(optimizer: Optimizer, *, steps: int, warmup_steps: int = 0) -> LambdaLR:
    """Return a schedule that raises the learning rate linearly, then lowers it to 0 along a cosine.

    Args:
        optimizer: the optimizer; the learning rates of its groups are the peak.
        steps: length of the run, in optimiser steps.
        warmup_steps: length of the linear rise, in optimiser steps.
    """
    check_positive("steps", steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(steps - warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return LambdaLR(optimizer, factor)
