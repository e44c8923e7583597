import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from avslib.clip import Clip
from avslib.data import AVSBenchSemantic, SilentSound, SyntheticAVS, SyntheticConfig, write_avsbench
from avslib.losses import binary_cross_entropy, info_nce
from avslib.media.frame import IMAGENET_MEAN, IMAGENET_STD
from avslib.metrics import FScore, SemanticFScore, SemanticIoU
from avslib.models import DiffusionAVS, LatentTerms, Segmentation
from avslib.training import DiffusionAVSObjective, evaluate, evaluation, fit, latent_statistics, warmup_cosine
from avslib.training.figures import plot_history, plot_predictions


class Constant(nn.Module):
    """Says the same logit everywhere; one parameter, so that training it can be followed by hand."""

    def __init__(self, logit: float = 0.0) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(
        self,
        frames: torch.Tensor,
        log_mel: torch.Tensor,
        *truth: torch.Tensor,
        valid: torch.Tensor | None = None,
    ) -> Segmentation:
        return Segmentation(self.logit.expand(*frames.shape[:2], 1, *frames.shape[-2:]))


def segmentation_only(output: Segmentation, clip: Clip) -> dict[str, torch.Tensor]:
    return {"loss": binary_cross_entropy(output.logits, clip.masks, clip.labelled)}


@pytest.fixture(scope="module")
def clips() -> SyntheticAVS:
    return SyntheticAVS(SyntheticConfig(setting="ms3", size=48), 6)


def tiny_model() -> DiffusionAVS:
    torch.manual_seed(0)
    return DiffusionAVS("test_resnet.r160_in1k", audio_encoder="mel_cnn", channels=64)


def test_the_objective_is_equation_12() -> None:
    generator = torch.Generator().manual_seed(0)
    latent, condition, noise, predicted = torch.randn(4, 6, 24, generator=generator)
    logits = torch.randn(2, 3, 1, 8, 8, generator=generator)
    masks = torch.randint(0, 2, (2, 3, 8, 8), generator=generator)
    every = torch.ones(2, 3, dtype=torch.bool)
    clip = Clip(torch.empty(0), torch.empty(0), masks, every, every, ["a", "b"])
    output = Segmentation(
        logits, terms=LatentTerms(latent, condition, noise, predicted, torch.arange(6) // 3)
    )
    terms = DiffusionAVSObjective()(output, clip)
    segmentation = binary_cross_entropy(logits, masks)
    diffusion = ((noise - predicted) ** 2).mean()
    contrastive = info_nce(condition, latent)
    torch.testing.assert_close(terms["loss"], segmentation + 1.0 * diffusion + 0.1 * contrastive)
    assert set(terms) == {"loss", "segmentation", "diffusion", "contrastive"}
    assert "contrastive" not in DiffusionAVSObjective(contrastive_weight=0)(output, clip)


def test_the_objective_says_that_it_needs_masks() -> None:
    every = torch.ones(1, 1, dtype=torch.bool)
    clip = Clip(torch.empty(0), torch.empty(0), torch.zeros(1, 1, 8, 8), every, every, "a")
    with pytest.raises(ValueError, match=r"output\.terms: expected LatentTerms, got NoneType; .* with masks"):
        DiffusionAVSObjective()(Segmentation(torch.zeros(1, 1, 1, 8, 8)), clip)


def test_fitting_a_constant_finds_the_share_of_foreground(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = Constant()
    history = fit(
        model,
        segmentation_only,
        DataLoader(clips, 6),
        torch.optim.SGD(model.parameters(), 4.0),
        epochs=40,
        run_dir=tmp_path,
        progress=False,
        accelerator=Accelerator(cpu=True),
    )
    share = torch.stack([clip.masks.float().mean() for clip in (clips[i] for i in range(6))]).mean()
    assert model.logit.sigmoid().item() == pytest.approx(share.item(), abs=2e-3)
    assert [record["epoch"] for record in history] == list(range(1, 41))
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_best_epoch_is_kept(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = Constant(1.0)
    seen: list[float] = []

    def validate(trained: nn.Module) -> float:
        assert isinstance(trained, Constant)
        seen.append(trained.logit.item())
        return [0.1, 0.9, 0.3][len(seen) - 1]

    history = fit(
        model,
        segmentation_only,
        DataLoader(clips, 3),
        torch.optim.SGD(model.parameters(), 0.5),
        epochs=3,
        run_dir=tmp_path,
        validate=validate,
        progress=False,
        accelerator=Accelerator(cpu=True),
    )
    assert model.logit.item() == seen[1]
    assert [record["validation"] for record in history] == [0.1, 0.9, 0.3]


@pytest.mark.parametrize("left", ["checkpoint", "checkpoint.new"])
def test_a_run_that_was_cut_off_and_resumed_is_the_uninterrupted_run(
    left: str, clips: SyntheticAVS, tmp_path: Path
) -> None:
    def run(
        folder: Path, epochs: int, *, resume: bool = False
    ) -> tuple[DiffusionAVS, list[dict[str, float]]]:
        torch.manual_seed(0)
        model = tiny_model()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        history = fit(
            model,
            DiffusionAVSObjective(),
            DataLoader(clips, 3, shuffle=True),
            optimizer,
            epochs=epochs,
            run_dir=folder,
            lr_scheduler=warmup_cosine(optimizer, steps=6, warmup_steps=2),
            resume=resume,
            progress=False,
            accelerator=Accelerator(cpu=True, step_scheduler_with_optimizer=False),
        )
        return model, history

    whole, whole_history = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    (tmp_path / "cut" / "checkpoint").rename(tmp_path / "cut" / left)
    resumed, resumed_history = run(tmp_path / "cut", 3, resume=True)
    assert resumed_history == whole_history
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_evaluation_is_the_metric_over_all_clips_whatever_the_batch(clips: SyntheticAVS) -> None:
    scores = [evaluate(Constant(-1.0), clips, batch_size=size) for size in (1, 4)]
    assert scores[0] == scores[1]
    silent = torch.stack([clips[i].masks.flatten(1).any(1) for i in range(6)]).logical_not().float().mean()
    assert scores[0]["miou"] == pytest.approx(
        silent.item(), abs=1e-4
    )  # nothing predicted: right where silent


class Labelled(SilentSound):
    """Only some seconds have ground truth, and the masks of the others are all foreground."""

    seconds: tuple[int, ...] = ()

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        labelled = torch.zeros_like(clip.labelled)
        labelled[list(self.seconds)] = True
        return clip._replace(labelled=labelled, masks=clip.masks.where(labelled[:, None, None], 1))


def test_frames_without_ground_truth_are_in_no_score(clips: SyntheticAVS) -> None:
    first = Labelled(clips)
    first.seconds = (0,)
    silent = torch.stack([~clips[i].masks[0].any() for i in range(6)]).float().mean()
    assert evaluate(Constant(-1.0), first)["miou"] == pytest.approx(silent.item(), abs=1e-4)
    with pytest.raises(ValueError, match="clips: expected ground truth, of 6 clips no frame is labelled"):
        evaluate(Constant(-1.0), Labelled(clips))


def test_masks_of_classes_are_scored_as_such(tmp_path: Path) -> None:
    write_avsbench(tmp_path, setting="avss", clips={"test": 3}, size=32, videos=False)
    semantic = AVSBenchSemantic(tmp_path, "test", size=(32, 32))

    class Background(Constant):
        def forward(self, frames: torch.Tensor, *rest: torch.Tensor, **more: torch.Tensor) -> Segmentation:
            logits = torch.zeros(*frames.shape[:2], 71, *frames.shape[-2:])
            logits[:, :, 0] = 1
            return Segmentation(logits)

    metrics = {"miou": SemanticIoU(), "f_score": SemanticFScore()}
    for clip in DataLoader(semantic):
        for metric in metrics.values():
            metric.update(torch.zeros_like(clip.masks), clip.masks, clip.valid)
    assert evaluate(Background(), semantic) == {
        name: metric.compute().item() for name, metric in metrics.items()
    }


def test_emulated_batches_are_those_of_the_dataset_even_where_processes_share_it(
    clips: SyntheticAVS, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(Constant(0.5), clips, metrics={"f": FScore(clips_per_batch=4)}, batch_size=1)["f"]
    shared = FScore(clips_per_batch=4)
    monkeypatch.setattr(shared, "reset", lambda: None)
    for rank in (1, 0):  # the shares of two processes, one after the other into one metric
        monkeypatch.setattr(evaluation, "_share", lambda count, rank=rank: range(rank, count, 2))
        result = evaluate(Constant(0.5), clips, metrics={"f": shared}, batch_size=2)["f"]
    assert result == pytest.approx(expected, abs=1e-12)


def test_replacing_the_latent_changes_the_scores_and_only_where_asked(clips: SyntheticAVS) -> None:
    model = tiny_model()
    sampled, again, noise, truth = (
        evaluate(model, clips, latent=latent)["miou"]
        for latent in ("sampled", "sampled", "noise", "ground_truth")
    )
    assert sampled == again
    assert len({sampled, noise, truth}) > 1
    assert model.training


def test_a_latent_is_replaced_also_where_frames_are_bytes(clips: SyntheticAVS) -> None:
    class InBytes(SilentSound):
        def __getitem__(self, index: int) -> Clip:
            clip = self.clips[index]
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
            return clip._replace(frames=((clip.frames * std + mean) * 255).round().byte())

    model = tiny_model()
    in_bytes = evaluate(model, InBytes(clips), latent="noise")["miou"]
    assert in_bytes == pytest.approx(evaluate(model, clips, latent="noise")["miou"], abs=1e-4)


def test_the_codes_of_a_collapsed_encoder_do_not_differ(clips: SyntheticAVS) -> None:
    model = tiny_model()
    assert latent_statistics(model, clips)["std of z0"] > 0
    for parameter in model.ground_truth_encoder.encoder.linear[-1].parameters():
        nn.init.zeros_(parameter)
    assert latent_statistics(model, clips)["std of z0"] == 0


class Codes(nn.Module):
    """Draws latents for the first frame, and for each next one, that are the true codes with an error."""

    def __init__(self, model: DiffusionAVS, clips: SyntheticAVS, *, scale: float, noise: float) -> None:
        super().__init__()
        self.codes = iter(
            [model.ground_truth_encoder(clips[i].masks[clips[i].labelled]) for i in range(len(clips))]
        )
        self.scale, self.noise = scale, noise

    def sample(self, condition: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        code = self.scale * next(self.codes)
        return code + self.noise * torch.randn(condition.shape, generator=generator)


@pytest.mark.parametrize(("scale", "noise"), [(1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (30.0, 0.5)])
@torch.no_grad()
def test_the_statistics_of_a_sampler_that_is_known(clips: SyntheticAVS, scale: float, noise: float) -> None:
    model = tiny_model().eval()
    each = [clips[i] for i in range(len(clips))]
    codes = torch.cat([model.ground_truth_encoder(clip.masks[clip.labelled]) for clip in each])
    variance = codes.var(dim=0, correction=0).mean().item()
    missed = (scale - 1) ** 2 * codes.square().mean().item() + noise**2 / 200
    model.diffusion = Codes(model, clips, scale=scale, noise=noise)
    found = latent_statistics(model, clips, num_samples=200, batch_size=1)
    assert found["told of z0"] == pytest.approx(1 - missed / variance, rel=0.02, abs=0.02)
    assert found["spread of samples"] == pytest.approx(noise**2 / variance, rel=0.05, abs=1e-3)
    assert found["std of z0"] == pytest.approx(codes.std(dim=0).mean().item(), rel=1e-4)


def test_a_spread_cannot_be_told_from_one_sample(clips: SyntheticAVS) -> None:
    with pytest.raises(ValueError, match="num_samples: expected 2 at least, got 1"):
        latent_statistics(tiny_model(), clips, num_samples=1)


def test_a_model_without_latent_cannot_have_it_replaced(clips: SyntheticAVS) -> None:
    with pytest.raises(ValueError, match="latent: 'noise' needs a DiffusionAVS, got Constant"):
        evaluate(Constant(), clips, latent="noise")


def test_the_learning_rate_rises_and_falls() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 2.0)
    scheduler = warmup_cosine(optimizer, steps=10, warmup_steps=2)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert rates[10] == pytest.approx(0.0)


def test_pictures_are_written(clips: SyntheticAVS, tmp_path: Path) -> None:
    history = [
        {"loss": 1.0 / i, "diffusion": 1.0, "lr": 1e-3, "epoch": i, "validation": 0.1 * i} for i in (1, 2, 3)
    ]
    plot_history(history, tmp_path / "curves.png")
    plot_predictions(tiny_model(), clips, tmp_path / "predictions.png", indices=(0, 1), num_samples=2)
    for name in ("curves.png", "predictions.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
