"""The command that scores predictions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avslib.cli._parser import SETTINGS, Commands
from avslib.cli._progress import clip_bar
from avslib.cli._sources import add_clips, add_model_options, open_clips, open_model
from avslib.cli._targets import check_folder

if TYPE_CHECKING:
    from avslib.data import ClipReader
    from avslib.metrics.report import Prediction
    from avslib.metrics.report_record import Report
    from avslib.models import AVSModel
    from avslib.training.prediction import Predictions

_OF_MODEL = ("model_class", "num_samples", "device", "heard", "save_predictions")
_OF_PREDICTIONS = ("missing", "resize", "white")


def add_evaluate(commands: Commands) -> None:
    """Add ``avslib evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="score a model, or a folder of predicted masks, by every metric protocol",
        description="Score predictions by every metric protocol of the field in one pass, with bootstrap "
        "intervals over clips. A clip that cannot be read is an error.",
        allow_abbrev=False,
    )
    add_clips(parser, settings=SETTINGS)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="folder written by save_pretrained, or repository on the hub")
    source.add_argument(
        "--predictions",
        type=Path,
        metavar="FOLDER",
        help="predicted masks, named ID/0.png or as AVSBench's scripts name them",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write the report, tables and pictures to this folder"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="REPORT", help="compare with an earlier report on the same clips"
    )
    parser.add_argument(
        "--worst", type=int, default=8, metavar="N", help="number of clips in worst.png (default: 8)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the model's noise and of the bootstrap (default: 0)"
    )

    of_model = parser.add_argument_group("options of --model")
    add_model_options(of_model)
    of_model.add_argument(
        "--heard",
        choices=("true", "silence", "other"),
        default="true",
        help="sound given to the model: the clip's own, silence, or another clip's; with the last two, false "
        "positives are measured too (default: true)",
    )
    of_model.add_argument(
        "--save-predictions", type=Path, metavar="FOLDER", help="write predicted masks as ID/0.png"
    )

    of_folder = parser.add_argument_group("options of --predictions")
    of_folder.add_argument(
        "--missing",
        choices=("raise", "empty"),
        default="raise",
        help="what to do about a mask that is not there: stop, or count it as empty (default: raise)",
    )
    of_folder.add_argument(
        "--resize", action="store_true", help="resize predictions to the size of the masks"
    )
    of_folder.add_argument(
        "--white", type=int, default=255, help="pixel value of probability 1 (default: 255)"
    )
    parser.set_defaults(run=partial(_evaluate, parser))


def _evaluate(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> int:
    from avslib.metrics.report import report
    from avslib.metrics.report_record import Report
    from avslib.metrics.report_tables import difference_markdown, difference_text
    from avslib.training.prediction import class_names, num_classes, save_prediction
    from avslib.training.provenance import describe_data, describe_run

    _check_options(parser, parsed)
    other = None if parsed.compare is None else Report.load(parsed.compare)  # so that a mistake shows early
    model = None if parsed.model is None else open_model(parsed)
    clips = open_clips(parsed, model)
    predictions, heard, source = _predict(parsed, model, clips)
    for folder in (parsed.out, parsed.save_predictions):
        if folder is not None:
            check_folder(folder)
    provenance = {**source, "data": describe_data(heard), **describe_run(["avslib", *parsed.words])}

    def progress() -> Iterator[Prediction]:
        with clip_bar(len(predictions), leave=False) as bar:
            for prediction in predictions:
                if parsed.save_predictions is not None:
                    save_prediction(prediction, parsed.save_predictions)
                yield prediction
                bar.update(len(prediction.id))

    found = report(
        progress(),
        num_classes=num_classes(clips),
        class_names=class_names(clips),
        provenance=provenance,
        wrong_sound=parsed.heard != "true",
        seed=parsed.seed,
    )
    print(found)
    if parsed.out is not None:
        found.save(parsed.out)  # before anything that may fail
        _draw(parsed, found, predictions, clips)
        print(f"\nreport, tables and pictures are in {parsed.out}")
    if other is not None:
        differences = found.compare(other)
        print(f"\nthis against {parsed.compare}\n{difference_text(differences)}")
        if parsed.out is not None:
            text = difference_markdown(differences)
            (parsed.out / "comparison.md").write_text(text, encoding="utf-8")
    return 0


def _check_options(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Raise ``ValueError`` if an option was given that belongs to the other source of predictions."""
    source, owner, names = (
        ("--predictions", "--model", _OF_MODEL)
        if parsed.model is None
        else ("--model", "--predictions", _OF_PREDICTIONS)
    )
    given = [name for name in names if getattr(parsed, name) != parser.get_default(name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{options}: only with {owner}, got {source}")
    if parsed.worst < 0:
        raise ValueError(f"--worst: expected a number of clips, got {parsed.worst}")


def _predict(
    parsed: argparse.Namespace, model: AVSModel | None, clips: ClipReader
) -> tuple[Predictions, Any, dict[str, Any]]:
    """Return the predictions, the clips with the sound that is heard, and the source of the predictions."""
    from avslib.data import SilentSound, SwappedSound
    from avslib.training.folder_predictions import FolderPredictions
    from avslib.training.prediction import ModelPredictions

    if model is None:
        predictions = FolderPredictions(
            parsed.predictions,
            clips,
            missing=parsed.missing,
            resize=parsed.resize,
            white=parsed.white,
            num_workers=parsed.workers,
        )
        options = {"missing": parsed.missing, "resize": parsed.resize, "white": parsed.white}
        return predictions, clips, {"predictions": {"folder": parsed.predictions.name, **options}}

    from avslib.training.provenance import describe_model

    heard = {"true": lambda x: x, "silence": SilentSound, "other": SwappedSound}[parsed.heard](clips)
    told = describe_model(model)
    if model.stochastic:
        told |= {"num_samples": parsed.num_samples, "seed": parsed.seed}
    return (
        ModelPredictions(
            model,
            heard,
            num_samples=parsed.num_samples,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            num_workers=parsed.workers,
        ),
        heard,
        {"model": told},
    )


def _draw(parsed: argparse.Namespace, found: Report, predictions: Predictions, clips: ClipReader) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        print("no pictures: matplotlib is not installed", file=sys.stderr)
        return
    from avslib.metrics.report_plots import plot_report
    from avslib.training.contact_sheet import plot_worst

    plot_report(found, parsed.out)
    if parsed.worst > 0:
        plot_worst(found, predictions, clips, parsed.out / "worst.png", count=parsed.worst)
