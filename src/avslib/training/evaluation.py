"""Scoring a model on a dataset, optionally with another latent than its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric, SumMetric

from avslib._checks import check_one_of
from avslib.clip import Clip
from avslib.data.sound import ClipDataset
from avslib.metrics import FScore, MaskIoU, SemanticFScore, SemanticIoU
from avslib.metrics._batches import ClipBatchMean
from avslib.models import DiffusionAVS, Segmentation
from avslib.models.base import evaluating
from avslib.training.prediction import ModelPredictions, collate_clips, num_classes

LATENTS = ("sampled", "noise", "ground_truth")


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

    With several processes, each scores its own share of the clips, no clip is scored twice, and the metrics
    combine the shares. Frames that are not ``labelled`` do not count. Clips that could not be read have no
    ``valid`` frame; they do not count either, and a warning names them.

    Args:
        model: the model, on the device to use; called as ``model(frames, log_mel, valid=valid)``.
        clips: the dataset.
        metrics: metrics by name, updated with ``(logits, masks, counted)``. Metrics that emulate batches also
            get the index of each clip in the dataset; multi-class metrics also get which frames are padding.
            None for ``"miou"`` and ``"f_score"`` as AVSBench computes them, binary or multi-class.
        latent: the latent that a :class:`~avslib.models.DiffusionAVS` decodes. ``"sampled"`` is the model
            itself; ``"noise"`` shows whether the latent is used at all; ``"ground_truth"`` shows what a
            perfect sampler would achieve.
        num_samples: samples per frame of a stochastic model; a deterministic one gives one prediction, and so
            does the ground truth's code.
        batch_size: clips per batch for a deterministic model; a stochastic one gets one clip at a time.
        num_workers: number of loader processes.
        seed: seed of the noise, which depends only on it and on the clip's index in the dataset.

    Returns:
        The value of each metric, by name.

    Raises:
        ValueError: if ``latent`` is not ``"sampled"`` and the model has no latent, if there is no clip, if no
            clip could be read, or if no frame is labelled.
    """
    check_one_of("latent", latent, LATENTS)
    if latent != "sampled" and not isinstance(model, DiffusionAVS):
        raise ValueError(f"latent: {latent!r} needs a DiffusionAVS, got {type(model).__name__}")
    if len(clips) == 0:
        raise ValueError("clips: expected at least one, got none")
    options = {"num_samples": num_samples, "seed": seed, "batch_size": batch_size, "num_workers": num_workers}
    predictions = (
        ModelPredictions(model, clips, **options)
        if latent == "sampled"
        else _OtherLatent(cast(DiffusionAVS, model), clips, latent, **options)
    )
    metrics = _published_metrics(clips, model) if metrics is None else metrics
    for metric in metrics.values():
        metric.to(predictions.device).reset()
    names: list[str] = []
    has_frame: list[Tensor] = []
    has_truth: list[Tensor] = []
    for places, (logits, masks, counted, ids, _, padding) in predictions.at(_share(len(clips))):
        assert padding is not None
        names += ids
        has_frame.append(~padding.all(dim=1))  # read only at the end, so as not to wait for a GPU
        has_truth.append(counted.any(dim=1))
        for metric in metrics.values():
            if isinstance(metric, ClipBatchMean):
                metric.update(logits, masks, counted, index=torch.tensor(places, device=logits.device))
            elif isinstance(metric, SemanticIoU | SemanticFScore):
                metric.update(logits, masks, counted, padding=padding)
            else:
                metric.update(logits, masks, counted)
    read, with_truth = (torch.cat(flags).tolist() if flags else [] for flags in (has_frame, has_truth))
    unread = [name for name, is_read in zip(names, read, strict=True) if not is_read]
    if not _over_processes(sum(read), predictions.device):
        such = f", such as {unread[0]!r}" if unread else ""  # a process may have none
        raise ValueError(f"clips: not one of {len(clips)} could be read{such}")
    if unread:
        warnings.warn(
            f"{len(unread)} of {len(clips)} clips could not be read and are in no score: "
            f"{', '.join(unread[:20])}{', ...' if len(unread) > 20 else ''}",
            stacklevel=2,
        )
    if not _over_processes(sum(with_truth), predictions.device):
        raise ValueError(f"clips: expected ground truth, of {len(clips)} clips no frame is labelled")
    return {name: metric.compute().item() for name, metric in metrics.items()}


@torch.no_grad()
def latent_statistics(
    model: DiffusionAVS, clips: ClipDataset, *, num_samples: int = 8, batch_size: int = 4, seed: int = 0
) -> dict[str, float]:
    """Compare the latents that the sampler draws with those of the ground truth.

    The masks alone may not show whether the two agree.

    Args:
        model: the model, on the device to use.
        clips: a dataset with ground truth.
        num_samples: latents drawn per frame, at least 2.
        batch_size: clips per batch.
        seed: seed of the noise.

    Returns:
        The following numbers.

        - ``"std of z0"``: standard deviation of z0 over labelled frames, averaged over D. Near 0, the
          ground-truth encoder has collapsed and the diffusion has nothing to learn.
        - ``"std of samples"``: the same over all samples of these frames. If it is far above that of z0, the
          sampler has diverged.
        - ``"told of z0"``: the share of z0's variance that the mean of a frame's samples explains. A perfect
          sampler has 1, the same code for every frame at best 0; below 0 is worse than that.
        - ``"spread of samples"``: the variance among the samples of a frame, divided by z0's variance. A
          sampler of the right distribution has 1 minus ``"told of z0"``.

    Raises:
        ValueError: if ``num_samples`` is below 2, or fewer than two frames are labelled.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples: expected at least 2, got {num_samples}")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    truths, drawn = [], []
    dataset = cast("torch.utils.data.Dataset[Clip]", clips)
    with evaluating(model):
        for clip in DataLoader(dataset, batch_size, collate_fn=collate_clips):
            labelled = clip.labelled.to(device)
            frames, audio = model.embed(clip.frames.to(device), clip.log_mel.to(device))
            assert audio is not None
            condition = model.encode(frames, audio, clip.valid.to(device)).condition[labelled]
            truths.append(model.ground_truth_encoder(clip.masks.to(device)[labelled]))
            drawn.append(model.diffusion.sample(condition.expand(num_samples, -1, -1), generator=generator))
    count = sum(map(len, truths))
    if count < 2:
        raise ValueError(f"clips: expected at least two labelled frames, got {count} in {len(clips)} clips")
    truth, samples = torch.cat(truths), torch.cat(drawn, dim=1)
    variance = truth.var(dim=0, correction=0).mean()
    missed = (samples.mean(dim=0) - truth).square().mean()
    return {
        "std of z0": truth.std(dim=0).mean().item(),
        "std of samples": samples.flatten(0, 1).std(dim=0).mean().item(),
        "told of z0": (1 - missed / variance).item(),
        "spread of samples": (samples.var(dim=0).mean() / variance).item(),
    }


def _published_metrics(clips: ClipDataset, model: nn.Module) -> dict[str, Metric]:
    classes = num_classes(clips, model)
    if classes == 1:
        return {"miou": MaskIoU(), "f_score": FScore()}
    return {
        "miou": SemanticIoU(num_classes=classes),
        "f_score": SemanticFScore(num_classes=classes),
    }


def _share(count: int) -> range:
    """Return the indices of the clips that this process scores."""
    rank, world = 0, 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return range(rank, count, world)


def _over_processes(count: int, device: torch.device) -> int:
    """Return the sum of a count over all processes, so that either all of them raise or none does."""
    total = SumMetric().to(device)
    total.update(count)
    return int(total.compute())


class _OtherLatent(ModelPredictions):
    """Predictions of a model from noise, or from the ground truth's code, instead of a sampled latent."""

    def __init__(self, model: DiffusionAVS, clips: ClipDataset, latent: str, **options: int) -> None:
        super().__init__(model, clips, **options)
        self.latent = latent

    def _logits(self, clip: Clip, generator: torch.Generator) -> Tensor:
        model = cast(DiffusionAVS, self.model)
        frames, audio = model.embed(clip.frames, clip.log_mel)
        assert audio is not None
        encoded = model.encode(frames, audio, clip.valid)
        code = model.ground_truth_encoder(clip.masks)[None]
        if self.latent == "noise":
            code = torch.randn(self.num_samples, *code.shape[1:], generator=generator, device=code.device)
        size = (frames.shape[-2], frames.shape[-1])
        return Segmentation.of_samples(model.decode(encoded.pyramid, code, size=size)).logits
