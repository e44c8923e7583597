import argparse
import contextlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.utils.data import Subset

from avslib.clip import Clip
from avslib.data import AVSBenchMS3, AVSBenchS4, ClipDataset, SilentSound, SwappedSound
from avslib.losses import binary_cross_entropy
from avslib.models import AVSModel, Segmentation, create_model
from avslib.storage import CachedAudio, cache_audio
from avslib.training import evaluate, experiment, run_folder
from avslib.training.checkpoint import save_weights
from avslib.training.experiment import open_data, run
from avslib.training.recipe import SMALL, Recipe, add_arguments, parse_arguments
from avslib.training.run_folder import Result, Splits, format_result, train_and_test
from avslib.training.trainer import new_accelerator

RECIPES = {
    "demo": replace(SMALL, epochs={"s4": 1, "ms3": 1}),
    "steady": replace(SMALL, epochs={"s4": 1, "ms3": 1}, anneal=False),
    "paper": Recipe("resnet50", epochs={"s4": 15, "ms3": 30}),
}
SYNTHETIC = Path("runs", "data", "synthetic-ms3-48px-4")
FILES = (
    "best.safetensors",
    "checkpoint",
    "config.json",
    "curves.png",
    "metrics.json",
    "model",
    "predictions.png",
)


class Pixelwise(AVSModel):
    """Tells the mask of a pixel from its colour; its samples are one another's copies."""

    stochastic: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(3, 1, 1)

    def forward(
        self,
        frames: Tensor,
        log_mel: Tensor,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Segmentation:
        logits = self.classify(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return Segmentation(logits, logits.expand(num_samples, *logits.shape))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def load_weights(self, path: Path) -> None:
        nn.init.constant_(self.weight, float(path.read_text()))


class WithEncoder(Pixelwise):
    """Has an encoder to load weights into, which takes part in nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.visual_encoder = Encoder()
        self.audio_encoder = None


def segmentation_only(output: Segmentation, clip: Clip) -> dict[str, Tensor]:
    return {"loss": binary_cross_entropy(output.logits, clip.masks, clip.labelled)}


def parse(*words: str) -> tuple[argparse.Namespace, Recipe]:
    parser = argparse.ArgumentParser()
    add_arguments(parser, RECIPES)
    return parse_arguments(parser, RECIPES, ["--clips", "4", "--size", "48", *words])


def run_stub(*words: str, model: type[Pixelwise] = Pixelwise) -> Result:
    """Run without the pictures of predictions, which take longer than everything else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "plot_predictions", lambda model, clips, path, *, indices: None)
        result = run(*parse(*words), model, segmentation_only, name="stub")
    assert result is not None
    return result


def history(folder: str) -> list[dict[str, float]]:
    return json.loads(Path(folder, "metrics.json").read_text())["history"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the synthetic clips are made already."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("os.cpu_count", lambda: 1)
        open_data("ms3", size=48, clips=4)
    return folder


@pytest.fixture(autouse=True)
def _in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run there, in this process alone, and leave no state of PyTorch or Accelerate to other tests."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_flush_denormal(False)


def test_a_run_folder_holds_scores_pictures_and_the_model() -> None:
    def red(model: Pixelwise, clips: ClipDataset) -> float:
        return model.classify.weight[0, 0].item() + len(clips)

    arguments, recipe = parse()
    result = run(
        arguments,
        recipe,
        Pixelwise,
        segmentation_only,
        name="stub",
        num_samples=2,
        rows={"again": evaluate},
        numbers=lambda model, clips: {"red": red(model, clips)},
    )
    assert result is not None
    assert result.folder == Path("runs/stub-ms3-seed0")
    assert tuple(sorted(path.name for path in result.folder.iterdir())) == FILES
    assert list(result.table) == [
        "true sound",
        "silence",
        "another clip's sound",
        "again",
        "audio-blind ceiling",
    ]
    assert result.table["again"] == result.table["true sound"] == result.table["silence"]  # it is deaf
    assert set(result.table["true sound"]) == {"miou", "f_score"}
    assert set(result.table["audio-blind ceiling"]) == {"miou"}

    weights = [*result.folder.rglob("*.safetensors")]
    assert len(weights) == 3
    usual = (result.folder / "config.json").stat().st_mode
    assert {path.stat().st_mode for path in weights} == {usual}

    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert list(metrics) == ["test", "red", "best epoch", "history", "seconds"]
    assert metrics["test"] == result.table
    assert metrics["seconds"]["data and training"] < metrics["seconds"]["all"] == result.seconds
    loaded = Pixelwise.from_pretrained(result.folder / "model")
    assert metrics["red"] == result.numbers["red"] == loaded.classify.weight[0, 0].item() + 2

    config = json.loads((result.folder / "config.json").read_text())
    assert config["model"] == "Pixelwise"
    assert config["recipe"]["size"] == 48
    assert config["recipe"]["epochs"] == {"s4": 1, "ms3": 1}
    assert config["arguments"]["clips"] == "4"
    schedule = {"epochs": 1, "batch_size": 4, "accumulate": 1, "processes": 1, "learning_rate": 1e-3}
    more = {"anneal": True, "num_samples": 2, "seed": 0}
    assert {name: config[name] for name in (schedule | more)} == schedule | more


def test_the_test_split_is_heard_in_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[type, int]] = []

    def record(
        model: nn.Module, clips: ClipDataset, *, batch_size: int, num_samples: int = 1
    ) -> dict[str, float]:
        assert batch_size == 4
        calls.append((type(clips), num_samples))
        return {"miou": 0.5, "f_score": 0.5}

    monkeypatch.setattr(run_folder, "evaluate", record)
    run(*parse("--out", "three"), Pixelwise, segmentation_only, name="stub", num_samples=3)
    validation, *test = calls
    assert validation == (AVSBenchMS3, 1)
    assert test == [(AVSBenchMS3, 3), (SilentSound, 3), (SwappedSound, 3)]


def test_a_resumed_run_is_the_uninterrupted_run() -> None:
    run_stub("--preset", "steady", "--epochs", "3", "--out", "whole")
    run_stub("--preset", "steady", "--epochs", "2", "--out", "cut")
    run_stub("--preset", "steady", "--epochs", "3", "--out", "cut", "--resume")
    assert history("cut") == history("whole")
    assert [record["epoch"] for record in history("cut")] == [1, 2, 3]
    whole, cut = (Pixelwise.from_pretrained(Path(folder, "model")) for folder in ("whole", "cut"))
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_adds_its_configuration() -> None:
    for resume in ((), ("--resume",), ("--resume",)):
        run_stub("--epochs", str(1 + len(resume)), "--seed", "3", "--out", "again", *resume)
    config = json.loads(Path("again/config.json").read_text())
    assert (config["epochs"], config["seed"]) == (1, 3)
    assert [told["epochs"] for told in config["resumed"]] == [2, 2]
    table = json.loads(Path("again/metrics.json").read_text())["test"]
    assert f"| miou, silence | {table['silence']['miou']:.3f} |" in Path("again/model/README.md").read_text()


def test_a_run_that_is_there_is_not_started_over() -> None:
    run_stub("--out", "there")
    written = {path: path.read_bytes() for path in Path("there").glob("*.*")}
    with pytest.raises(FileExistsError, match="there: already holds a run; --resume continues it"):
        run_stub("--out", "there")
    shutil.rmtree("there/checkpoint")
    with pytest.raises(
        FileExistsError, match="there: holds a run without a checkpoint; choose another folder"
    ):
        run_stub("--out", "there", "--resume")
    assert {path: path.read_bytes() for path in Path("there").glob("*.*")} == written


@pytest.mark.parametrize(
    ("words", "model", "message"),
    [
        (("--learning-rate", "0.5"), Pixelwise, "its run with learning_rate 0.001, got learning_rate 0.5"),
        (("--seed", "7", "--batch-size", "2"), Pixelwise, "batch_size 4, seed 0, got batch_size 2, seed 7"),
        ((), WithEncoder, "its run with model 'Pixelwise', got model 'WithEncoder'"),
        (("--clips", "2"), Pixelwise, "its run with clips 4, ids_sha256 .*, got clips 2, ids_sha256"),
    ],
)
def test_another_run_is_not_resumed(words: tuple[str, ...], model: type[Pixelwise], message: str) -> None:
    if not Path("first").exists():
        run_stub("--out", "first")
    before = Path("first/config.json").read_text()
    with pytest.raises(ValueError, match=f"first: expected to resume .*{message}"):
        run_stub("--out", "first", "--resume", "--epochs", "2", *words, model=model)
    assert Path("first/config.json").read_text() == before


def test_a_run_goes_on_with_its_data_elsewhere_and_more_samples() -> None:
    run_stub("--out", "moved")
    shutil.copytree("runs/data/synthetic-ms3-48px-4", "elsewhere")
    run_stub("--out", "moved", "--resume", "--data-root", "elsewhere")
    splits = open_data("ms3", size=48, clips=4)
    options: dict[str, Any] = {"epochs": 1, "data_name": "clips"}
    with pytest.raises(ValueError, match="num_samples: expected a number above 0, got 0"):
        train_and_test(Pixelwise(), segmentation_only, splits, Path("few"), num_samples=0, **options)
    assert not Path("few").exists()
    train_and_test(Pixelwise(), segmentation_only, splits, Path("few"), **options)
    train_and_test(Pixelwise(), segmentation_only, splits, Path("few"), num_samples=2, resume=True, **options)


def test_another_configuration_is_not_resumed_either() -> None:
    class Named(Pixelwise):
        def __init__(self, *, name: str = "a") -> None:
            super().__init__()

    splits = open_data("ms3", size=48, clips=4)
    options: dict[str, Any] = {"epochs": 1, "data_name": "clips"}
    train_and_test(Named(), segmentation_only, splits, Path("named"), **options)
    with pytest.raises(ValueError, match="its run with name 'a', got name 'b'"):
        train_and_test(Named(name="b"), segmentation_only, splits, Path("named"), resume=True, **options)


def test_a_start_that_failed_is_no_run() -> None:
    def fails(output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(*parse("--out", "failing"), Pixelwise, fails, name="stub")
    run_stub("--out", "failing", "--seed", "1")
    assert json.loads(Path("failing/config.json").read_text())["seed"] == 1


def test_where_there_is_nothing_to_resume_a_run_starts() -> None:
    taught = []
    with pytest.warns(UserWarning, match="nothing: nothing to resume, starting"):
        run(
            *parse("--out", "nothing", "--resume", "--pretrain-clips", "1"),
            Pixelwise,
            segmentation_only,
            name="stub",
            pretrain=lambda model, clips: taught.append(model),
        )
    assert len(taught) == 1
    assert "resumed" not in json.loads(Path("nothing/config.json").read_text())


def test_one_clip_to_test_has_no_other_s_sound() -> None:
    splits = open_data("ms3", size=48, clips=4)
    one = splits._replace(test=Subset(splits.test, [0]))
    result = train_and_test(Pixelwise(), segmentation_only, one, Path("one"), epochs=1, data_name="clips")
    assert result is not None
    assert list(result.table) == ["true sound", "silence"]
    assert tuple(sorted(path.name for path in Path("one").iterdir())) == FILES


class OwnScheduler(DDIMScheduler):
    """A scheduler that diffusers cannot find by its name."""


def test_what_would_fail_after_training_fails_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = open_data("ms3", size=48, clips=4)
    nothing = Subset(splits.test, [])

    def attempt(model: AVSModel, data: Splits) -> None:
        train_and_test(model, segmentation_only, data, Path("early"), epochs=1, data_name="clips")

    for split in Splits._fields:
        with pytest.raises(ValueError, match=rf"data\.{split}: expected at least one clip, got none"):
            attempt(Pixelwise(), splits._replace(**{split: nothing}))
    with pytest.raises(ValueError, match="scheduler: expected one of diffusers' own, got OwnScheduler"):
        attempt(create_model("diffusion_avs.small", scheduler=OwnScheduler(clip_sample=False)), splits)
    unwritable = Pixelwise()
    unwritable._unwritable = ["act"]
    with pytest.raises(ValueError, match="act: expected what JSON can say"):
        attempt(unwritable, splits)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'training needs matplotlib: pip install "avslib\[train\]"'):
        attempt(Pixelwise(), splits)
    assert not Path("early").exists()


def test_caches_are_trained_on_as_what_they_hold() -> None:
    splits = open_data("ms3", size=48, clips=4)
    model = create_model("encoder_decoder_film.small", freeze_audio=True)
    assert model.audio_encoder is not None
    for split, clips in splits._asdict().items():
        cache_audio(clips, model.audio_encoder, f"{split}.safetensors")
    embedded = Splits(
        *(
            CachedAudio(clips, f"{split}.safetensors", model.audio_encoder)
            for split, clips in splits._asdict().items()
        )
    )
    options = {"epochs": 1, "data_name": "clips"}
    result = train_and_test(model, segmentation_only, embedded, Path("embedded"), **options)
    assert result is not None
    assert list(result.table) == ["true sound", "silence", "another clip's sound"]
    assert model.frame_size == (48, 48)
    described = json.loads(Path("embedded/config.json").read_text())["data"]["test"]
    assert (described["reader"], described["size"]) == ("AVSBenchMS3", [48, 48])


def test_a_model_is_saved_before_it_is_tested() -> None:
    def fails(model: Pixelwise, clips: ClipDataset) -> dict[str, float]:
        raise ValueError("no")

    splits = open_data("ms3", size=48, clips=4)
    with pytest.raises(ValueError, match="no"):
        train_and_test(
            Pixelwise(),
            segmentation_only,
            splits,
            Path("failed"),
            epochs=1,
            data_name="clips",
            rows={"failing": fails},
        )
    saved = Pixelwise.from_pretrained("failed/model")
    assert saved.frame_size == (48, 48)


def test_the_schedule_ends_with_the_last_step() -> None:
    """Three batches an epoch, two to a step: two steps an epoch."""
    splits = open_data("ms3", size=48, clips=4)
    train_and_test(
        Pixelwise(),
        segmentation_only,
        splits._replace(train=Subset(splits.train, [0, 1, 2])),
        Path("accumulated"),
        epochs=2,
        data_name="clips",
        batch_size=1,
        learning_rate=1.0,
        anneal=True,
        accelerator=new_accelerator(accumulate=2),
    )
    assert [record["lr"] for record in history("accumulated")] == pytest.approx([0.5, 0.0])


def test_the_seed_decides_weights_and_order() -> None:
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        run_stub("--seed", seed, "--batch-size", "2", "--out", folder)
    assert history("a") == history("b")
    assert history("a") != history("c")


def test_the_learning_rate_is_annealed_where_the_recipe_says_so() -> None:
    run_stub("--out", "annealed")
    run_stub("--preset", "steady", "--learning-rate", "0.25", "--out", "steady")
    assert history("annealed")[-1]["lr"] == pytest.approx(0)
    assert history("steady")[-1]["lr"] == 0.25


def test_the_real_set_has_no_ceiling() -> None:
    result = run_stub("--data-root", str(SYNTHETIC), "--out", "real")
    assert "true sound" in result.table
    assert "audio-blind ceiling" not in result.table


def test_a_wrong_root_ends_with_what_to_do_and_leaves_no_folder() -> None:
    with pytest.raises(FileNotFoundError, match=r"no such table; root must be the folder .* holds Multi-"):
        run_stub("--data-root", "nowhere", "--out", "never")
    assert not Path("never").exists()


def test_encoders_start_from_the_weights_given() -> None:
    Path("weights.txt").write_text("3.0")
    result = run_stub("--visual-weights", "weights.txt", "--out", "given", model=WithEncoder)
    assert WithEncoder.from_pretrained(result.folder / "model").visual_encoder.weight == 3
    with pytest.raises(ValueError, match="--vggish-weights: WithEncoder has no audio encoder, got weights"):
        run_stub("--vggish-weights", "weights.txt", "--out", "refused", model=WithEncoder)


def test_a_recipe_for_the_real_set_warns_of_random_weights() -> None:
    words = ("--preset", "paper", "--data-root", str(SYNTHETIC), "--epochs", "1")
    with pytest.warns(UserWarning, match="without --visual-weights the visual encoder starts from random"):
        run_stub(*words, "--out", "warned", model=WithEncoder)
    run_stub(*words, "--out", "silent", "--init-from", "warned/best.safetensors", model=WithEncoder)


def test_a_run_starts_from_another_one() -> None:
    first = Pixelwise()
    nn.init.constant_(first.classify.weight, 7)
    save_weights(first, "first.safetensors")
    result = run_stub("--init-from", "first.safetensors", "--learning-rate", "1e-9", "--out", "second")
    second = Pixelwise.from_pretrained(result.folder / "model")
    torch.testing.assert_close(second.classify.weight, first.classify.weight, atol=1e-5, rtol=0)


def test_an_argument_changes_the_recipe() -> None:
    assert parse()[1] == replace(RECIPES["demo"], size=48)
    words = ("--epochs", "7", "--batch-size", "3", "--learning-rate", "0.5", "--setting", "s4")
    changed = replace(RECIPES["demo"], size=48, epochs={"s4": 7, "ms3": 1}, batch_size=3, learning_rate=0.5)
    assert parse(*words)[1] == changed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "paper"), "--preset paper trains on the real set: say where it is with --data-root"),
        (("--epochs", "0"), "epochs['ms3']: expected a number above 0, got 0"),
        (("--batch-size", "-1"), "batch_size: expected a number above 0, got -1"),
        (("--pretrain-clips", "-1"), "pretrain_clips: expected 0 or more, got -1"),
    ],
)
def test_arguments_that_do_not_fit_end_the_program(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(*words)
    assert message in capsys.readouterr().err


def test_clips_are_made_once() -> None:
    made = {path: path.stat().st_mtime_ns for path in SYNTHETIC.rglob("*.png")}
    splits = open_data("ms3", size=48, clips=4)
    assert [len(split) for split in splits] == [4, 2, 2]
    assert {path: path.stat().st_mtime_ns for path in SYNTHETIC.rglob("*.png")} == made


def test_clips_are_made_by_one_script_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both, met = threading.Barrier(2), []

    def make(*_: object, **__: object) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            met.append(both.wait(timeout=1))

    monkeypatch.setattr(experiment, "write_avsbench", make)
    with ThreadPoolExecutor(2) as scripts:
        for opened in [scripts.submit(open_data, "ms3", size=48, clips=4) for _ in range(2)]:
            assert len(opened.result().train) == 4
    assert not met


def test_both_settings_are_read() -> None:
    splits = open_data("s4", size=48, clips=2)
    assert all(isinstance(split, AVSBenchS4) for split in splits)
    assert splits.train[0].labelled.tolist() == [True, False, False, False, False]
    assert splits.train[0].frames.shape == (5, 3, 48, 48)
    heard = open_data("s4", SYNTHETIC.with_name("synthetic-s4-48px-2"), size=32, sound="wav")
    assert heard.test[0].frames.shape == (5, 3, 32, 32)
    torch.testing.assert_close(heard.test[0].log_mel, splits.test[0].log_mel, atol=1e-2, rtol=0)


def test_the_table_has_a_row_for_every_score_and_number() -> None:
    table = {"true sound": {"miou": 0.25, "f_score": 0.5}, "audio-blind ceiling": {"miou": 1.0}}
    text = format_result(Result(Path("runs", "x"), table, {"std": 0.125}, 1.6))
    assert text.splitlines() == [
        "test split                  mIoU       F",
        "true sound                 0.250   0.500",
        "audio-blind ceiling        1.000",
        "std                        0.125",
        "",
        "2 s; the model, its scores and its pictures are in runs/x/",
    ]
