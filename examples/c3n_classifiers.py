"""The two small classifiers of the C3N demo: what is seen in a frame, what is heard in a second of sound.

The published model takes classifiers of ImageNet and AudioSet. Synthetic clips have twelve classes of
objects, and here a model's classifiers learn those, from clips in which one object sounds. examples/c3n.py
uses it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from avslib.data import SyntheticConfig, clip_indices
from avslib.data.synthetic import FAMILIES, render_clip
from avslib.media import fit_examples, log_mel_examples, normalize_frames
from avslib.models import C3N
from avslib.training import warmup_cosine

CLASSES = [family.name for family in FAMILIES]


class Right(NamedTuple):
    """How often the classifiers are right, 0 to 1."""

    seen: float
    """The class of the highest score is in view."""
    heard: float
    """The class of the highest score is the one that sounds."""


class Labelled(NamedTuple):
    """Seconds of clips, and what is seen and heard in them."""

    frames: Tensor  # (n, 3, H, W), uint8
    log_mel: Tensor  # (n, 1, 96, 64)
    seen: Tensor  # (n, 12), 1 for the classes in view, else 0
    heard: Tensor  # (n,), int64, the class that sounds


def render_labelled(split: str, count: int, size: int) -> Labelled:
    """Render the first and the last second of clips in which one object sounds all the time."""
    config = SyntheticConfig(setting="s4", size=size)
    seconds = []
    for index in clip_indices(split, count):
        clip = render_clip(index, config)
        log_mel = fit_examples(log_mel_examples(torch.from_numpy(clip.waveform)), config.seconds)
        seen = torch.tensor([float(name in clip.classes) for name in CLASSES])
        heard = torch.tensor(CLASSES.index(clip.category))
        for second in (0, config.seconds - 1):
            frame = torch.from_numpy(clip.frames[second]).permute(2, 0, 1)
            seconds.append(Labelled(frame, log_mel[second], seen, heard))
    return Labelled(*map(torch.stack, zip(*seconds, strict=True)))


def classify(model: C3N, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of what is seen and of what is heard, ``(n, 12)`` each."""
    seen = model.visual_encoder(normalize_frames(frames)).scores
    return seen, model.audio_classifier(model.audio_encoder(log_mel).unsqueeze(-2))


def train_classifiers(model: C3N, clips: Labelled, *, epochs: int = 2, batch_size: int = 16) -> None:
    """Train both at once; they share no weights. A frame's target is divided among the classes in view."""
    model.requires_grad_(True).train()
    model.audio_classifier.train()  # a C3N keeps it in evaluation mode
    batches = max(len(clips.heard) // batch_size, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    scheduler = warmup_cosine(optimizer, steps=epochs * batches, warmup_steps=epochs * batches // 5)
    for _ in range(epochs):
        for batch in torch.randperm(len(clips.heard)).tensor_split(batches):
            frames, log_mel, seen, heard = (tensor[batch] for tensor in clips)
            visual_scores, audio_scores = classify(model, frames, log_mel)
            loss = F.cross_entropy(visual_scores, seen / seen.sum(dim=1, keepdim=True))
            loss = loss + F.cross_entropy(audio_scores, heard)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()


@torch.no_grad()
def measure_classifiers(model: C3N, clips: Labelled) -> Right:
    """Return how often both classifiers are right."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    right = []
    for frames, log_mel, seen, heard in zip(*(tensor.to(device).split(50) for tensor in clips), strict=True):
        visual_scores, audio_scores = classify(model, frames, log_mel)
        in_view = seen.gather(1, visual_scores.argmax(dim=1, keepdim=True))[:, 0]
        right.append(torch.stack([in_view, (audio_scores.argmax(dim=1) == heard).float()]))
    model.train(was_training)
    return Right(*torch.cat(right, dim=1).mean(dim=1).tolist())
