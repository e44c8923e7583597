"""Linear regressions that predict the code of a mask from what a model knows about the frame."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader

from avslib.clip import Clip
from avslib.models import DiffusionAVS

CELLS = 2
"""Side of the grid over which the fused features are averaged."""
SOURCES = ("condition", "sound", "fused pyramid", "own mask")
"""Inputs of the regressions. The last is the code of the mask that the model predicts with one sample."""
PENALTIES = tuple(10.0**power for power in range(-1, 6))

Known = tuple[Tensor, Mapping[str, Tensor]]
"""The codes z0 ``(n, D)``, and the features by name ``(n, F)``."""


@torch.no_grad()
def collect(model: DiffusionAVS, clips: DataLoader[Clip]) -> Known:
    """Return the codes and features of all labelled frames, on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    codes: list[Tensor] = []
    features: dict[str, list[Tensor]] = {name: [] for name in SOURCES}
    for number, clip in enumerate(clips):
        labelled = clip.labelled.to(device)
        frames, audio = model.embed(clip.frames.to(device), clip.log_mel.to(device))
        assert audio is not None
        pyramid, condition = model.encode(frames, audio, clip.valid.to(device))
        codes.append(model.ground_truth_encoder(clip.masks.to(device)[labelled]).cpu())
        cells = [nn.functional.adaptive_avg_pool2d(level[labelled], CELLS).flatten(1) for level in pyramid]
        features["condition"].append(condition[labelled].cpu())
        features["sound"].append(audio[labelled].cpu())
        features["fused pyramid"].append(torch.cat(cells, dim=1).cpu())
        latent = model.diffusion.sample(condition, generator=Generator(device).manual_seed(number))
        mask = (model.decode(pyramid, latent, size=(frames.shape[-2], frames.shape[-1])) > 0).any(dim=2)
        features["own mask"].append(model.ground_truth_encoder(mask[labelled].long()).cpu())
    return torch.cat(codes), {name: torch.cat(parts) for name, parts in features.items()}


def told(train: Known, val: Known, test: Known) -> dict[str, float]:
    """Return the share of z0's variance on the test clips that ridge regression explains, by its input.

    The penalty is chosen on the validation clips. The share is 1 for a perfect prediction and 0 for the best
    code that is the same for all frames.
    """
    return {name: _told_by(name, train, val, test) for name in train[1]}


def _told_by(name: str, *splits: Known) -> float:
    inputs = [known[name] for _, known in splits]
    mean, std = inputs[0].mean(dim=0), inputs[0].std(dim=0).clamp(min=1e-6)
    train, val, test = (((x - mean) / std).double() for x in inputs)
    codes = [code.double() for code, _ in splits]
    center = codes[0].mean(dim=0)
    product, target = train.T @ train, train.T @ (codes[0] - center)
    weights = [
        torch.linalg.solve(product + p * torch.eye(len(product), dtype=torch.float64), target)
        for p in PENALTIES
    ]
    best = max(weights, key=lambda w: share(val @ w + center, codes[1]))
    return share(test @ best + center, codes[2])


def share(guessed: Tensor, codes: Tensor) -> float:
    """Return the share of the variance of codes ``(n, D)`` that a guess explains, at most 1."""
    return (1 - (guessed - codes).square().mean() / codes.var(dim=0, correction=0).mean()).item()
