"""Pretraining of encoders as classifiers, as published systems do on ImageNet and AudioSet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avslib.data import SyntheticConfig, clip_indices
from avslib.data.synthetic import FAMILIES, render_clip
from avslib.encoders import VisualEncoder
from avslib.media import fit_examples, log_mel_examples, normalize_frames
from avslib.models import C3N, AVSModel
from avslib.training.optim import warmup_cosine

CLASSES = tuple(family.name for family in FAMILIES)
"""The classes of objects that are seen and heard in synthetic clips."""

Classifier = Callable[[Tensor], Tensor]
"""Maps frames ``(n, 3, H, W)`` or log-mels ``(n, 1, 96, 64)`` to scores ``(n, 12)``."""


class LabelledSeconds(NamedTuple):
    """Seconds of clips, with the classes that are seen and heard in them."""

    frames: Tensor
    """``(n, 3, H, W)``, uint8."""
    log_mel: Tensor
    """``(n, 1, 96, 64)``."""
    seen: Tensor
    """``(n, 12)``, 1 for the classes in view, else 0."""
    heard: Tensor
    """``(n,)``, int64, index of the class that sounds."""


class Right(NamedTuple):
    """Accuracies of two classifiers, 0 to 1."""

    seen: float
    """How often the class with the highest score is in view."""
    heard: float
    """How often the class with the highest score is the one that sounds."""


def render_labelled(split: str, count: int, size: int) -> LabelledSeconds:
    """Render the first and the last second of synthetic clips in which one object sounds all the time.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``; no clip is in two of them.
        count: number of clips; each gives two seconds.
        size: side of a frame, px.
    """
    config = SyntheticConfig(setting="s4", size=size)
    seconds = []
    for index in clip_indices(split, count):
        clip = render_clip(index, config)
        log_mel = fit_examples(log_mel_examples(torch.from_numpy(clip.waveform)), config.seconds)
        seen = torch.tensor([float(name in clip.classes) for name in CLASSES])
        heard = torch.tensor(CLASSES.index(clip.category))
        for second in (0, config.seconds - 1):
            frame = torch.from_numpy(clip.frames[second]).permute(2, 0, 1)
            seconds.append(LabelledSeconds(frame, log_mel[second], seen, heard))
    return LabelledSeconds(*map(torch.stack, zip(*seconds, strict=True)))


def train_classifiers(
    see: Classifier,
    hear: Classifier | None,
    parameters: Iterable[nn.Parameter],
    seconds: LabelledSeconds,
    *,
    epochs: int = 2,
    batch_size: int = 16,
) -> None:
    """Train a frame and a sound classifier jointly; a frame's target is split among the classes in view.

    Args:
        see: the frame classifier.
        hear: the sound classifier; None leaves it out.
        parameters: the parameters of both.
        seconds: the training data.
        epochs: passes over the training data.
        batch_size: seconds per batch.
    """
    batches = max(len(seconds.heard) // batch_size, 1)
    optimizer = torch.optim.Adam(parameters, lr=2e-3, fused=True)
    scheduler = warmup_cosine(optimizer, steps=epochs * batches, warmup_steps=epochs * batches // 5)
    for _ in range(epochs):
        for batch in torch.randperm(len(seconds.heard)).tensor_split(batches):
            frames, log_mel, seen, heard = (tensor[batch] for tensor in seconds)
            loss = F.cross_entropy(see(normalize_frames(frames)), seen / seen.sum(dim=1, keepdim=True))
            if hear is not None:
                loss = loss + F.cross_entropy(hear(log_mel), heard)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()


@torch.no_grad()
def measure_classifiers(see: Classifier, hear: Classifier, seconds: LabelledSeconds) -> Right:
    """Measure how often each classifier is right."""
    right = []
    for frames, log_mel, seen, heard in zip(*(tensor.split(50) for tensor in seconds), strict=True):
        in_view = seen.gather(1, see(normalize_frames(frames)).argmax(dim=1, keepdim=True))[:, 0]
        right.append(torch.stack([in_view, (hear(log_mel).argmax(dim=1) == heard).float()]))
    return Right(*torch.cat(right, dim=1).mean(dim=1).tolist())


def pretrain_encoders(model: AVSModel, seconds: LabelledSeconds) -> None:
    """Train a model's encoders as classifiers, with linear heads that are discarded afterwards.

    Args:
        model: a model with a :class:`~avslib.encoders.VisualEncoder`; a frozen audio encoder is not trained.
        seconds: the training data.

    Raises:
        TypeError: if the model has another visual encoder; for C3N see :func:`pretrain_classifiers`.
    """
    encoder, listener = model.visual_encoder, model.audio_encoder
    if not isinstance(encoder, VisualEncoder):
        raise TypeError(f"model: expected a VisualEncoder for the frames, got {type(encoder).__name__}")
    look = nn.Linear(encoder.channels[-1], len(CLASSES))
    parts: list[nn.Module] = [encoder, look]
    hear = None
    if listener is not None and not listener.frozen:
        listen = nn.Linear(listener.embedding_dim, len(CLASSES))
        parts += [listener, listen]
        hear = nn.Sequential(listener, listen)
    model.train()
    train_classifiers(
        lambda frames: look(encoder(frames)[-1].mean(dim=(-2, -1))),
        hear,
        nn.ModuleList(parts).parameters(),
        seconds,
    )


def pretrain_classifiers(model: C3N, seconds: LabelledSeconds) -> None:
    """Train the two classifiers of a C3N, which it keeps, on the classes of synthetic clips.

    Frozen parts learn too, and are as frozen afterwards as before.

    Args:
        model: a C3N with as many visual and audio classes as :data:`CLASSES`.
        seconds: the training data.

    Raises:
        ValueError: if the model has other numbers of classes.
    """
    classes = tuple(model.consensus.similarity.shape)
    if classes != (len(CLASSES),) * 2:
        raise ValueError(
            f"model: expected num_visual_classes and num_audio_classes of {len(CLASSES)}, got {classes}"
        )
    teacher = copy.deepcopy(model).requires_grad_(True)
    teacher.audio_encoder.frozen = False
    teacher.train()
    teacher.audio_classifier.train()  # a C3N keeps it in evaluation mode
    train_classifiers(
        lambda frames: teacher.visual_encoder(frames).scores,
        lambda log_mel: teacher.score_sound(teacher.audio_encoder(log_mel)),
        teacher.parameters(),
        seconds,
    )
    model.load_state_dict(teacher.state_dict())
