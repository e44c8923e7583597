"""A model and a dataset to scores; and what the scores are when the latent is replaced."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchmetrics import Metric

from avslib._checks import check_one_of
from avslib.clip import Clip
from avslib.data.sound import ClipDataset
from avslib.metrics import FScore, MaskIoU
from avslib.metrics._batches import ClipBatchMean
from avslib.models import AVSModel, DiffusionAVS

LATENTS = ("sampled", "noise", "ground_truth")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    clips: ClipDataset,
    *,
    metrics: Mapping[str, Metric] | None = None,
    latent: str = "sampled",
    num_samples: int = 1,
    batch_size: int = 4,
    num_workers: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Score a model on a dataset.

    Under several processes each takes its share of the clips, none twice, and the metrics add up the shares.
    Clips that a reader could not read, of which no frame is ``valid``, are in no score; a warning names them.

    Args:
        model: called as ``model(frames, log_mel, valid=valid)``; on the device that is to be used.
        clips: the dataset.
        metrics: updated with ``(logits, masks, valid)``, and those that emulate batches with the place of
            each clip in the dataset too; None for ``"miou"`` and ``"f_score"`` as AVSBench computes them.
        latent: what a :class:`~avslib.models.DiffusionAVS` decodes. ``"sampled"`` is the model itself;
            ``"noise"`` shows whether the latent is used at all, ``"ground_truth"`` what a perfect sampler
            would give.
        num_samples: samples a frame, of a stochastic model; a deterministic one gives its one prediction.
        batch_size: clips a batch.
        num_workers: loader processes.
        seed: of the noise. The noise is drawn batch by batch, so it also depends on ``batch_size``.

    Returns:
        The value of each metric.

    Raises:
        ValueError: if ``latent`` asks for another latent of a model that has none, or no clip could be read.
    """
    check_one_of("latent", latent, LATENTS)
    if latent != "sampled" and not isinstance(model, DiffusionAVS):
        raise ValueError(f"latent: {latent!r} needs a DiffusionAVS, got {type(model).__name__}")
    device = next(model.parameters()).device
    metrics = {"miou": MaskIoU(), "f_score": FScore()} if metrics is None else metrics
    for metric in metrics.values():
        metric.to(device).reset()
    generator = torch.Generator(device).manual_seed(seed)
    was_training = model.training
    model.eval()
    unread: list[str] = []
    share = _share(len(clips))
    loader = DataLoader(
        Subset(cast("torch.utils.data.Dataset[Clip]", clips), share),
        batch_size=batch_size,
        num_workers=num_workers,
    )
    seen = 0
    for clip in loader:
        places = torch.tensor(share[seen : seen + len(clip.valid)], device=device)
        seen += len(places)
        unread += [name for name, valid in zip(clip.id, clip.valid, strict=True) if not valid.any()]
        frames, log_mel, masks, valid = (
            tensor.to(device) for tensor in (clip.frames, clip.log_mel, clip.masks, clip.valid)
        )
        if latent == "sampled":
            stochastic = (
                {"num_samples": num_samples, "generator": generator}
                if isinstance(model, AVSModel) and model.stochastic
                else {}
            )
            logits = model(frames, log_mel, valid=valid, **stochastic).logits
        else:
            logits = _decode_instead(
                cast(DiffusionAVS, model), frames, log_mel, masks, valid, latent, generator
            )
        for metric in metrics.values():
            if isinstance(metric, ClipBatchMean):
                metric.update(logits, masks, valid, index=places)
            else:
                metric.update(logits, masks, valid)
    model.train(was_training)
    if len(unread) == len(clips):
        raise ValueError(f"clips: not one of {len(clips)} could be read, such as {unread[0]!r}")
    if unread:
        warnings.warn(
            f"{len(unread)} of {len(clips)} clips could not be read and are in no score: "
            f"{', '.join(unread[:20])}{', ...' if len(unread) > 20 else ''}",
            stacklevel=2,
        )
    return {name: metric.compute().item() for name, metric in metrics.items()}


@torch.no_grad()
def latent_std(model: DiffusionAVS, clips: ClipDataset, *, batch_size: int = 4) -> float:
    """Return how much the codes of ground truth differ: the standard deviation over frames, averaged over D.

    Near 0 the ground-truth encoder has collapsed and the diffusion has nothing to learn.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    latents = [
        model.ground_truth_encoder(clip.masks.to(device))[clip.labelled.to(device)]
        for clip in DataLoader(cast("torch.utils.data.Dataset[Clip]", clips), batch_size)
    ]
    model.train(was_training)
    return torch.cat(latents).std(dim=0).mean().item()


def _share(count: int) -> range:
    """Return which clips are this process's."""
    rank, world = 0, 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return range(rank, count, world)


def _decode_instead(
    model: DiffusionAVS,
    frames: Tensor,
    log_mel: Tensor,
    masks: Tensor,
    valid: Tensor,
    latent: str,
    generator: torch.Generator,
) -> Tensor:
    frames, audio = model.embed(frames, log_mel)
    assert audio is not None
    encoded = model.encode(frames, audio, valid)
    code = model.ground_truth_encoder(masks)
    if latent == "noise":
        code = torch.randn(code.shape, generator=generator, device=code.device)
    return model.decode(encoded.pyramid, code, size=(frames.shape[-2], frames.shape[-1]))
