import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from avslib.clip import Clip
from avslib.data import AVSBenchSemantic, SilentSound, SyntheticAVS, SyntheticConfig, write_avsbench
from avslib.latent import cosine_ddim
from avslib.losses import CrossEntropy, binary_cross_entropy, info_nce
from avslib.media.frame import IMAGENET_MEAN, IMAGENET_STD
from avslib.metrics import FScore, SemanticFScore, SemanticIoU, report
from avslib.models import DiffusionAVS, LatentTerms, Segmentation
from avslib.training import (
    DiffusionAVSObjective,
    ModelPredictions,
    evaluate,
    evaluation,
    figures,
    fit,
    latent_statistics,
    warmup_cosine,
)
from avslib.training.checkpoint import load_weights, save_weights
from avslib.training.figures import plot_history, plot_predictions
from avslib.training.prediction import metrics_device


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
    signal = torch.rand(6, 1, generator=generator)
    logits = torch.randn(2, 3, 1, 8, 8, generator=generator)
    masks = torch.randint(0, 2, (2, 3, 8, 8), generator=generator)
    every = torch.ones(2, 3, dtype=torch.bool)
    clip = Clip(torch.empty(0), torch.empty(0), masks, every, every, ["a", "b"])
    output = Segmentation(
        logits, terms=LatentTerms(latent, condition, noise, predicted, signal, torch.arange(6) // 3)
    )
    terms = DiffusionAVSObjective()(output, clip)
    segmentation = binary_cross_entropy(logits, masks)
    diffusion = ((noise - predicted) ** 2).mean()
    contrastive = info_nce(condition, latent)
    torch.testing.assert_close(terms["loss"], segmentation + 1.0 * diffusion + 0.1 * contrastive)
    assert set(terms) == {"loss", "segmentation", "diffusion", "contrastive"}
    assert "contrastive" not in DiffusionAVSObjective(contrastive_weight=0)(output, clip)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("detach", [True, False])
def test_the_loss_of_the_velocity_is_its_squared_error(prediction_type: str, detach: bool) -> None:
    """Whatever the estimator puts out; and it reaches the ground-truth encoder if the noise's does."""
    torch.manual_seed(0)
    model = DiffusionAVS(
        "test_resnet.r160_in1k",
        audio_encoder="mel_cnn",
        channels=32,
        scheduler=cosine_ddim(prediction_type=prediction_type),
        detach_diffusion=detach,
    )
    generator = torch.Generator().manual_seed(0)
    frames, log_mel = torch.randn(2, 2, 3, 64, 64), torch.randn(2, 2, 1, 96, 64)
    masks = torch.randint(0, 2, (2, 2, 64, 64), generator=generator)
    every = torch.ones(2, 2, dtype=torch.bool)
    output = model(frames, log_mel, masks, generator=generator)
    objective = DiffusionAVSObjective(diffusion="velocity")
    found = objective(output, Clip(frames, log_mel, masks, every, every, ["a", "b"]))["diffusion"]

    terms = output.terms
    assert isinstance(terms, LatentTerms)
    spread = (1 - terms.signal.square()).sqrt()
    noisy = terms.signal * terms.latent + spread * terms.noise
    estimate = (noisy - spread * terms.predicted_noise) / terms.signal
    velocity = terms.signal * terms.noise - spread * terms.latent
    predicted = terms.signal * terms.predicted_noise - spread * estimate
    torch.testing.assert_close(found, (predicted - velocity).square().mean(), rtol=1e-3, atol=1e-4)
    encoder = [*model.ground_truth_encoder.parameters()]
    gradients = torch.autograd.grad(found, encoder, allow_unused=True)
    assert all(gradient is None for gradient in gradients) == detach


def test_a_loss_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match="diffusion: expected one of 'noise', 'velocity', got 'v'"):
        DiffusionAVSObjective(diffusion="v")


def test_latent_diffusion_learns_classes_with_a_loss_for_them() -> None:
    torch.manual_seed(0)
    model = DiffusionAVS("test_resnet.r160_in1k", audio_encoder="mel_cnn", channels=32, num_classes=3)
    frames, log_mel = torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 1, 96, 64)
    masks = torch.randint(0, 3, (1, 2, 64, 64))
    every = torch.ones(1, 2, dtype=torch.bool)
    output = model(frames, log_mel, masks)
    loss = DiffusionAVSObjective(segmentation=CrossEntropy())(
        output, Clip(frames, log_mel, masks, every, every, "a")
    )["segmentation"]
    torch.testing.assert_close(loss, F.cross_entropy(output.logits.transpose(1, 2), masks))


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


@pytest.fixture
def _other_accelerator() -> Iterator[None]:
    """Let a test, and those after it, make accelerators of another kind."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_other_accelerator")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_gradients_add_up_over_batches(size: int, clips: SyntheticAVS, tmp_path: Path) -> None:
    """Two equal batches make the step, and the clipped gradient, of one of twice their size."""

    def run(batch_size: int, accumulate: int, folder: str) -> tuple[float, list[dict[str, float]]]:
        AcceleratorState._reset_state(reset_partial_state=True)
        model = Constant(1.0)
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        history = fit(
            model,
            segmentation_only,
            DataLoader(Subset(clips, range(2 * size)), batch_size),
            optimizer,
            epochs=2,
            run_dir=tmp_path / folder,
            lr_scheduler=warmup_cosine(optimizer, steps=4),
            max_grad_norm=0.05,
            progress=False,
            accelerator=Accelerator(
                cpu=True, step_scheduler_with_optimizer=False, gradient_accumulation_steps=accumulate
            ),
        )
        return model.logit.item(), history

    parts, history = run(size, 2, "parts")
    whole, expected = run(2 * size, 1, "whole")
    assert parts == pytest.approx(whole, abs=1e-6)
    assert [record["lr"] for record in history] == [record["lr"] for record in expected]
    assert history[0]["loss"] == pytest.approx(expected[0]["loss"])  # the mean over batches
    left_over, history = run(size, 3, "left over")  # an epoch ends with a step by the mean of what is left
    assert left_over == pytest.approx(whole, abs=1e-6)
    assert [record["lr"] for record in history] == [record["lr"] for record in expected]


def test_a_run_after_another_is_resumed_as_itself(clips: SyntheticAVS, tmp_path: Path) -> None:
    """Though both had one accelerator, which keeps what it was given."""
    accelerator = Accelerator(cpu=True)

    def run(folder: str, start: int, **options: Any) -> float:
        model = Constant(float(start))
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        fit(
            model,
            lambda output, clip: {"loss": output.logits.mean()},  # a step takes 1 off
            DataLoader(Subset(clips, [0])),
            optimizer,
            run_dir=tmp_path / folder,
            progress=False,
            **options,
        )
        return model.logit.item()

    assert run("first", 100, epochs=1, accelerator=accelerator) == 99
    assert run("second", 5, epochs=1, accelerator=accelerator) == 4
    assert run("second", 5, epochs=2, accelerator=Accelerator(cpu=True), resume=True) == 3


def test_a_loader_without_a_batch_is_no_training(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = Constant()
    with pytest.raises(ValueError, match="loader: expected at least one batch in each process, got none"):
        fit(
            model,
            segmentation_only,
            DataLoader(clips, 7, drop_last=True),
            torch.optim.SGD(model.parameters(), 0.5),
            epochs=1,
            run_dir=tmp_path,
            accelerator=Accelerator(cpu=True),
        )


def test_gradients_from_before_are_not_followed(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = Constant()
    model.logit.grad = torch.tensor(100.0)
    fit(
        model,
        lambda output, clip: {"loss": output.logits.mean()},  # a step takes 1 off
        DataLoader(Subset(clips, [0])),
        torch.optim.SGD(model.parameters(), 1.0),
        epochs=1,
        run_dir=tmp_path,
        progress=False,
        accelerator=Accelerator(cpu=True),
    )
    assert model.logit.item() == -1


class Watched(Constant):
    """Notes whether it is called under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, *clip: torch.Tensor, valid: torch.Tensor | None = None) -> Segmentation:
        self.seen.append(torch.is_autocast_enabled("cpu"))
        return super().forward(*clip, valid=valid)


@pytest.mark.usefixtures("_other_accelerator")
def test_a_second_training_has_the_precision_of_the_first(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = Watched()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16", step_scheduler_with_optimizer=False)
    for folder in ("first", "second"):
        fit(
            model,
            segmentation_only,
            DataLoader(clips, 6),
            torch.optim.SGD(model.parameters(), 0.1),
            epochs=1,
            run_dir=tmp_path / folder,
            progress=False,
            accelerator=accelerator,
        )
    assert model.seen == [True, True]


@pytest.mark.usefixtures("_other_accelerator")
def test_weights_of_a_compiled_model_are_those_of_the_model(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = Constant()
    fit(
        model,
        segmentation_only,
        DataLoader(clips, 6),
        torch.optim.SGD(model.parameters(), 0.1),
        epochs=1,
        run_dir=tmp_path,
        progress=False,
        accelerator=Accelerator(cpu=True, dynamo_backend="eager", step_scheduler_with_optimizer=False),
    )
    saved = Constant()
    load_weights(saved, tmp_path / "best.safetensors")
    assert saved.logit.item() == model.logit.item() != 0


@pytest.mark.usefixtures("_other_accelerator")
def test_after_training_a_model_computes_as_the_saved_one(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = tiny_model()
    fit(
        model,
        DiffusionAVSObjective(),
        DataLoader(clips, 6),
        torch.optim.SGD(model.parameters(), 1e-6),
        epochs=1,
        run_dir=tmp_path,
        progress=False,
        accelerator=Accelerator(cpu=True, mixed_precision="bf16", step_scheduler_with_optimizer=False),
    )
    saved = tiny_model()
    load_weights(saved, tmp_path / "best.safetensors")
    clip = clips[0]
    given = {"num_samples": 1}
    logits = [
        network.eval()(
            clip.frames[None], clip.log_mel[None], generator=torch.Generator().manual_seed(0), **given
        ).logits
        for network in (model, saved)
    ]
    assert torch.equal(*logits)


def test_weights_are_written_over_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.rename")  # on Windows it takes the place of no file
    for logit in (1.0, 2.0):
        save_weights(Constant(logit), tmp_path / "weights.safetensors")
    loaded = Constant()
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert loaded.logit == 2


@pytest.mark.parametrize("scores", [[0.1, 0.9, 0.3], [math.nan, 0.9, math.nan], [0.1, 0.9, 0.9]])
def test_the_best_epoch_is_kept(scores: list[float], clips: SyntheticAVS, tmp_path: Path) -> None:
    model = Constant(1.0)
    seen: list[float] = []

    def validate(trained: nn.Module) -> float:
        assert isinstance(trained, Constant)
        seen.append(trained.logit.item())
        return scores[len(seen) - 1]

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
    assert [record["validation"] for record in history] == pytest.approx(scores, nan_ok=True)


@pytest.mark.parametrize(
    ("left", "workers"), [("checkpoint", 0), ("checkpoint.new", 0), ("both", 0), ("checkpoint", 1)]
)
def test_a_run_that_was_cut_off_and_resumed_is_the_uninterrupted_run(
    left: str, workers: int, clips: SyntheticAVS, tmp_path: Path
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
            DataLoader(clips, 3, shuffle=True, num_workers=workers, persistent_workers=workers > 0),
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
    checkpoint, fresh = tmp_path / "cut" / "checkpoint", tmp_path / "cut" / "checkpoint.new"
    if left == "checkpoint.new":
        checkpoint.rename(fresh)
    elif left == "both":  # killed while the old one was removed
        shutil.copytree(checkpoint, fresh)
        (checkpoint / "model.safetensors").unlink()
    resumed, resumed_history = run(tmp_path / "cut", 3, resume=True)
    assert resumed_history == whole_history
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_is_another_run_s_or_damaged(clips: SyntheticAVS, tmp_path: Path) -> None:
    steps: list[int] = []

    def run(epochs: int, *, resume: bool, stop: bool = False) -> list[dict[str, float]]:
        def objective(output: Segmentation, clip: Clip) -> dict[str, torch.Tensor]:
            steps.append(epochs)
            if stop:
                raise KeyboardInterrupt
            return segmentation_only(output, clip)

        model = Constant()
        return fit(
            model,
            objective,
            DataLoader(clips, 6),
            torch.optim.SGD(model.parameters(), 0.5),
            epochs=epochs,
            run_dir=tmp_path,
            resume=resume,
            progress=False,
            accelerator=Accelerator(cpu=True),
        )

    run(2, resume=False)
    with pytest.raises(KeyboardInterrupt):
        run(3, resume=False, stop=True)
    steps.clear()
    assert len(run(3, resume=True)) == len(steps) == 3  # nothing of the first run is gone on with
    (tmp_path / "checkpoint" / "optimizer.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"checkpoint: cannot be resumed, a file is missing: .*"):
        run(4, resume=True)


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


@pytest.mark.parametrize("wanted", [{}, {"padding": "drop"}, {"protocol": "dataset"}])
def test_of_classes_padding_counts_and_frames_without_ground_truth_do_not(wanted: dict[str, str]) -> None:
    """Of each clip the first frame is labelled, the second is not, and the last is padding."""

    class ThreeFrames(Dataset[Clip]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Clip:
            masks = torch.arange(8 * 8).view(8, 8).add(index).remainder(3).expand(3, 8, 8)
            labelled, valid = torch.tensor([[True, False, False], [True, True, False]])
            return Clip(
                torch.zeros(3, 3, 8, 8), torch.zeros(3, 1, 96, 64), masks, labelled, valid, str(index)
            )

    class Halves(Constant):
        num_classes = 3

        def forward(self, frames: torch.Tensor, *rest: torch.Tensor, **more: torch.Tensor) -> Segmentation:
            logits = torch.zeros(*frames.shape[:2], 3, 8, 8)
            logits[:, :, 1, :4] = 1
            logits[:, :, 2, 4:] = 1
            return Segmentation(logits)

    clips = ThreeFrames()
    kinds = {"iou": SemanticIoU, "f": SemanticFScore}
    metrics = {name: kind(**wanted, num_classes=3) for name, kind in kinds.items()}
    found = evaluate(Halves(), clips, metrics=metrics)
    for name, kind in kinds.items():
        metric = kind(**wanted, num_classes=3)
        for clip in DataLoader(clips):
            metric.update(Halves()(clip.frames).logits[:, ::2], clip.masks[:, ::2], clip.valid[:, ::2])
        assert found[name] == metric.compute().item()
    reported = report(ModelPredictions(Halves(), clips), num_classes=3, replicates=1)
    of_report = {score.measure.name: score.value for score in reported.scores}
    row = {"padding": "avsbench_semantic, no padding", "protocol": "dataset"}.get(
        next(iter(wanted), ""), "avsbench_semantic"
    )
    assert of_report[f"J, {row}"] == pytest.approx(found["iou"], abs=1e-9)
    assert set(evaluate(Halves(), Subset(clips, [0]))) == {
        "miou",
        "f_score",
    }  # the model says of how many classes


def test_there_must_be_clips() -> None:
    with pytest.raises(ValueError, match="clips: expected at least one, got none"):
        evaluate(Constant(), [])


def test_a_model_that_fails_is_left_as_it_was(clips: SyntheticAVS) -> None:
    class Fails(Constant):
        def forward(self, *_: torch.Tensor, **__: torch.Tensor) -> Segmentation:
            raise ValueError("no")

    model = Fails()
    with pytest.raises(ValueError, match="no"):
        evaluate(model, clips)
    assert model.training


def test_noise_is_that_of_the_report_whatever_the_batch(clips: SyntheticAVS) -> None:
    model = tiny_model()
    predictions = ModelPredictions(model, clips, num_samples=2, seed=1)
    metric = FScore()
    for prediction in predictions:
        metric.update(*prediction[:3])
    for size in (1, 4):
        scores = evaluate(model, clips, num_samples=2, seed=1, batch_size=size)
        assert scores["f_score"] == metric.compute().item()


def test_a_compiled_or_wrapped_model_draws_what_the_model_draws(clips: SyntheticAVS) -> None:
    model = tiny_model()
    wrapped = (torch.compile(model, backend="eager"), nn.DataParallel(model))
    expected = evaluate(model, clips, num_samples=2, seed=3)
    assert [evaluate(network, clips, num_samples=2, seed=3) for network in wrapped] == [expected] * 2
    assert evaluate(model, clips, num_samples=2, seed=4) != expected


def test_noise_is_averaged_as_samples_are(clips: SyntheticAVS) -> None:
    model = tiny_model()
    one, same, several = (
        evaluate(model, clips, latent="noise", num_samples=count)["miou"] for count in (1, 1, 4)
    )
    assert one == same != several
    truth = [evaluate(model, clips, latent="ground_truth", num_samples=count) for count in (1, 4)]
    assert truth[0] == truth[1]


def test_metrics_are_where_there_is_float64() -> None:
    assert [metrics_device(torch.device(name)).type for name in ("mps", "cuda", "cpu")] == [
        "cpu",
        "cuda",
        "cpu",
    ]


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
    with pytest.raises(ValueError, match="num_samples: expected at least 2, got 1"):
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
    plot_predictions(tiny_model(), Subset(clips, [0]), tmp_path / "one.png", indices=(0,), num_samples=2)
    for name in ("curves.png", "predictions.png", "one.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_clips_of_several_lengths_are_drawn(clips: SyntheticAVS, tmp_path: Path) -> None:
    whole = clips[1]
    several = [Clip(*(tensor[:2] for tensor in whole[:-1]), "short"), whole]
    plot_predictions(tiny_model(), several, tmp_path / "predictions.png", indices=(0, 1), num_samples=2)
    assert (tmp_path / "predictions.png").exists()


def test_a_model_that_cannot_be_drawn_goes_on_as_it_was(clips: SyntheticAVS, tmp_path: Path) -> None:
    model = tiny_model().train()
    with pytest.raises(ValueError, match="log_mel"):
        plot_predictions(
            model, [clips[0]._replace(log_mel=torch.zeros(5))], tmp_path / "none.png", indices=(0,)
        )
    assert model.training


def test_a_loss_term_below_0_is_in_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[str] = []

    def record(*sizes: int, **options: float) -> Any:
        figure, axes = subplots(*sizes, **options)
        monkeypatch.setattr(figure, "savefig", lambda path, dpi: scales.append(axes[0, 0].get_yscale()))
        return figure, axes

    subplots = figures.subplots
    monkeypatch.setattr(figures, "subplots", record)
    for lowest in (0.1, 0.0, -0.1):
        history = [{"loss": 1.0, "information": value, "lr": 1e-3, "epoch": 1} for value in (0.5, lowest)]
        plot_history(history, tmp_path / "curves.png")
    assert scales == ["log", "symlog", "symlog"]


VALIDATE_IN_TWO = """
import json, torch
from torch.utils.data import DataLoader
from torchmetrics import Metric
from avslib.data import SyntheticAVS, SyntheticConfig
from avslib.models import create_model
from avslib.training import DiffusionAVSObjective, evaluate, fit
from avslib.training.trainer import new_accelerator

class Sum(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits, masks, counted):
        self.sum += logits.double().sum()

    def compute(self):
        return self.sum

def score(model):
    return evaluate(model, clips, metrics={"sum": Sum()})["sum"]

if __name__ == "__main__":
    torch.manual_seed(0)
    clips = SyntheticAVS(SyntheticConfig(setting="ms3", size=32), 4)
    model = create_model("diffusion_avs.small", decode_from="sampled")
    history = fit(
        model,
        DiffusionAVSObjective(contrastive_weight=0),
        DataLoader(clips, 1),
        torch.optim.SGD(model.parameters(), 0.1),
        epochs=1,
        run_dir="run",
        validate=score,
        accelerator=new_accelerator(cpu=True),
        progress=False,
    )
    saved = score(model)
    json.dump([history[0]["validation"], saved], open("scores.json", "w"))
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_validate_the_weights_that_are_kept(tmp_path: Path) -> None:
    """Whose batch norms have seen other clips; and they train also if the head decodes samples alone."""
    (tmp_path / "train.py").write_text(VALIDATE_IN_TWO)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(
        [sys.executable, *launcher], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    validated, saved = json.loads((tmp_path / "scores.json").read_text())
    assert validated == pytest.approx(saved, rel=1e-6)


RESUME_IN_TWO = """
import json, sys
import torch
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader
from avslib.data import SyntheticAVS, SyntheticConfig
from avslib.losses import binary_cross_entropy
from avslib.models import Segmentation
from avslib.training import fit
from avslib.training.trainer import new_accelerator

class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, frames, log_mel, *truth):
        return Segmentation(self.logit.expand(*frames.shape[:2], 1, *frames.shape[-2:]))

def train(folder, epochs, resume=False):
    accelerator = new_accelerator(cpu=True)
    set_seed(0, device_specific=True)
    model, seen = Constant(), []

    def objective(output, clip):
        seen.extend(clip.id)
        return {"loss": binary_cross_entropy(output.logits, clip.masks, clip.labelled)}

    loader = DataLoader(clips, 1, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    options = {"epochs": epochs, "run_dir": folder, "resume": resume, "accelerator": accelerator}
    history = fit(model, objective, loader, optimizer, progress=False, **options)
    return [history, seen[-len(clips) // 2:], model.logit.item()]

if __name__ == "__main__":
    workers = int(sys.argv[1])
    clips = SyntheticAVS(SyntheticConfig(setting="ms3", size=32), 8)
    whole = train("whole", 3)
    train("cut", 2)
    resumed = train("cut", 3, resume=True)
    assert len(set(whole[1])) == 4
    json.dump([whole, resumed], open("runs.json", "w"))
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_two_processes_resume_in_the_order_of_the_uninterrupted_run(workers: int, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(RESUME_IN_TWO)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "train.py", str(workers)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole, resumed = json.loads((tmp_path / "runs.json").read_text())
    assert resumed == whole
