"""Predictions out of folders of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from avslib.data import (
    AVSBenchMS3,
    AVSBenchS4,
    AVSBenchSemantic,
    SilentSound,
    write_avsbench,
)
from avslib.media import write_classes
from avslib.metrics import SemanticFScore, SemanticIoU
from avslib.metrics.class_measures import CLASS_ROWS
from avslib.metrics.report import Prediction, report
from avslib.training.folder_predictions import FolderPredictions, read_predicted_classes, read_probability
from avslib.training.prediction import class_names, num_classes, save_prediction

SIZE = (48, 48)


@pytest.fixture(scope="module")
def avss(tmp_path_factory: pytest.TempPathFactory) -> AVSBenchSemantic:
    """A clip of v1s and of v1m, each of five seconds padded to ten, and one of v2."""
    folder = tmp_path_factory.mktemp("avss")
    write_avsbench(folder, setting="avss", clips={"test": 3}, size=32, videos=False)
    return AVSBenchSemantic(folder, "test", size=(32, 32))


def ms3(root: Path) -> AVSBenchMS3:
    return AVSBenchMS3(root, "test", size=SIZE)


def noisy(root: Path) -> list[Prediction]:
    """Ground truth with noise."""
    generator = torch.Generator().manual_seed(0)
    clips = ms3(root)
    predictions = []
    for i in range(len(clips)):
        clip = clips[i]
        logits = 3 * clip.masks - 1.5 + torch.randn(clip.masks.shape, generator=generator)
        predictions.append(
            Prediction(logits[None, :, None], clip.masks[None], clip.valid[None], [clip.id], [""])
        )
    return predictions


def test_a_folder_gives_back_what_was_saved(root: Path, tmp_path: Path) -> None:
    exact = noisy(root)
    for prediction in exact:
        save_prediction(prediction, tmp_path)
    stored = FolderPredictions(tmp_path, ms3(root))
    assert len(stored) == len(exact) == 3
    for there, here in zip(stored, exact, strict=True):
        assert torch.equal(there.masks, here.masks)
        assert there.id == here.id
        difference = there.logits.sigmoid() - here.logits.sigmoid()
        assert difference.abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(there.logits > 0, here.logits > 0)
    before, after = report(exact, replicates=1), report(stored, replicates=1)
    assert before.truth == after.truth
    for old, new in zip(before.scores, after.scores, strict=True):
        tolerance = 0 if old.measure.score == "J" else 5e-3
        assert new.value == pytest.approx(old.value, abs=tolerance), old.measure.name


def test_the_middle_of_grey_is_background(root: Path, tmp_path: Path) -> None:
    logits = torch.tensor([0.0, 1e-6, -1e-6, 9e9]).view(1, 1, 1, 2, 2)
    valid = torch.ones(1, 1, dtype=torch.bool)
    save_prediction(Prediction(logits, torch.zeros(1, 1, 2, 2), valid, ["a"], [""]), tmp_path)
    assert np.asarray(Image.open(tmp_path / "a" / "0.png")).tolist() == [[127, 128], [127, 255]]


@pytest.mark.parametrize("layout", ["{id}/{i}.png", "{id}/{id}_{i}.png", "{category}/{id}/{id}_{i}.png"])
@pytest.mark.parametrize("first", [0, 1])
def test_folders_of_anyone_are_read(root: Path, tmp_path: Path, layout: str, first: int) -> None:
    clips = AVSBenchS4(root, "test", size=SIZE)
    for files in clips.clips:
        for i in range(5):
            path = tmp_path / layout.format(id=files.id, category=files.category, i=i + first)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.new("L", SIZE, 10 * i)
            picture.convert("P").save(path)  # as the published scripts do
    prediction = FolderPredictions(tmp_path, clips)[1]
    levels = (prediction.logits.sigmoid() * 255)[0, :, 0, 0, 0]
    torch.testing.assert_close(levels, torch.arange(0.0, 50, 10))
    assert prediction.category == [clips.clips[1].category]


def test_only_labelled_frames_are_wanted(root: Path, tmp_path: Path) -> None:
    clips = AVSBenchS4(root, "train", size=SIZE)
    folder = tmp_path / clips.clips[0].id
    folder.mkdir()
    Image.new("L", SIZE, 255).save(folder / "0.png")
    prediction = FolderPredictions(tmp_path, clips)[0]
    assert prediction.valid.tolist() == [[True, False, False, False, False]]
    assert torch.equal(prediction.masks[0], clips[0].masks)


@pytest.mark.parametrize("seconds", [3, 7])
def test_no_more_seconds_are_wanted_than_the_reader_gives(root: Path, tmp_path: Path, seconds: int) -> None:
    clips = AVSBenchMS3(root, "test", size=SIZE, seconds=seconds)
    for clip in (clips[i] for i in range(3)):
        logits = clip.masks[None, :, None] * 18.0 - 9
        counted = (clip.valid & clip.labelled)[None]
        save_prediction(Prediction(logits, clip.masks[None], counted, [clip.id], [""]), tmp_path)
    prediction = FolderPredictions(tmp_path, clips)[0]
    assert prediction.valid.tolist() == [[second < 5 for second in range(seconds)]]
    assert torch.equal((prediction.logits[:, :, 0] > 0).long(), prediction.masks)
    (tmp_path / clips.clips[1].id / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"no prediction for 1 of {3 * min(seconds, 5)} frames"):
        FolderPredictions(tmp_path, clips)


@pytest.mark.parametrize("second", ["{id}_3.png", "00003.png"])
def test_two_pictures_of_one_second_are_refused(root: Path, tmp_path: Path, second: str) -> None:
    for prediction in noisy(root):
        save_prediction(prediction, tmp_path)
    name = ms3(root).clips[1].id
    Image.new("L", SIZE).save(tmp_path / name / (second := second.format(id=name)))
    first, second = sorted([second, "3.png"])
    message = f"{name}/{second}: expected one picture of number 3, got {first} too"
    with pytest.raises(ValueError, match=message):
        FolderPredictions(tmp_path, ms3(root))


def test_clips_that_are_no_files_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clips: expected a reader of files on disk, got SilentSound"):
        FolderPredictions(tmp_path, SilentSound(ms3(root)))


def test_missing_predictions_are_said_or_empty(root: Path, tmp_path: Path) -> None:
    clips = ms3(root)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of predictions"):
        FolderPredictions(tmp_path / "nowhere", clips)
    for prediction in noisy(root):
        save_prediction(prediction, tmp_path)
    name = clips.clips[1].id
    (tmp_path / name / "2.png").unlink()
    (tmp_path / name / "4.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"no prediction for 2 of 15 frames, such as second 2 of '{name}'"
    ):
        FolderPredictions(tmp_path, clips)
    empty = FolderPredictions(tmp_path, clips, missing="empty")[1]
    assert (empty.logits[0, [2, 4]] == -torch.inf).all()
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="no prediction for 15 of 15 frames"):
        FolderPredictions(tmp_path / "bare", clips, missing="empty")
    with pytest.raises(ValueError, match="missing: expected one of 'raise', 'empty', got 'skip'"):
        FolderPredictions(tmp_path, clips, missing="skip")


def test_another_size_is_refused_unless_asked_for(root: Path, tmp_path: Path) -> None:
    for prediction in noisy(root):
        save_prediction(prediction, tmp_path)
    clips = AVSBenchMS3(root, "test", size=(32, 40))
    with pytest.raises(
        ValueError, match=r"0.png: expected the size of the ground truth, 32 x 40, got 48 x 48"
    ):
        FolderPredictions(tmp_path, clips)[0]
    assert FolderPredictions(tmp_path, clips, resize=True)[0].logits.shape == (1, 5, 1, 32, 40)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_a_prediction_is_brought_to_a_size_as_the_ground_truth_is(
    root: Path, avss: AVSBenchSemantic, tmp_path: Path, fit: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    for files in ms3(root).clips:
        (tmp_path / files.id).mkdir()
        for second in range(5):
            levels = torch.randint(256, SIZE, generator=generator).to(torch.uint8).numpy()
            Image.fromarray(levels).save(tmp_path / files.id / f"{second}.png")
    larger = AVSBenchMS3(root, "test", size=(60, 90), fit=fit)
    found = FolderPredictions(tmp_path, larger, resize=True)[0].logits[0, 0, 0].sigmoid()
    picture = read_probability(tmp_path / larger.clips[0].id / "0.png")[None, None]
    size = (60, 90) if fit == "stretch" else (90, 90)
    expected = F.interpolate(picture, size, mode="bilinear", align_corners=False)[0, 0]
    expected = expected if fit == "stretch" else expected[15:75]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # float32 went through logits

    for i, files in enumerate(avss.clips):
        (tmp_path / "classes" / files.id).mkdir(parents=True)
        for second, mask in enumerate(avss[i].masks):
            write_classes(tmp_path / "classes" / files.id / f"{second}.png", mask)
    wide = AVSBenchSemantic(avss.root, "test", size=(16, 24), fit=fit)
    prediction = FolderPredictions(tmp_path / "classes", wide, resize=True)[0]
    assert torch.equal(prediction.logits, prediction.masks)


def in_palette(mask: NDArray[np.uint8]) -> Image.Image:
    picture = Image.new("P", mask.shape[::-1])
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.putdata(mask.flatten().tolist())
    return picture


ALONE, ABOVE = "hold the levels 0 and 1 alone, .*; if 1 means foreground, ", "up to white=1, got 255"
MASKS: dict[str, tuple[Callable[[NDArray[np.uint8]], Image.Image], dict[int, str]]] = {
    # how a mask of 0 and 1 may be stored, and what is said of which white
    "grey": (Image.fromarray, {255: ALONE + "white is 1"}),
    "grey, 255": (lambda mask: Image.fromarray(mask * 255), {1: ABOVE}),
    "RGB": (lambda mask: Image.fromarray(mask).convert("RGB"), {255: ALONE + "white is 1"}),
    "RGBA": (lambda mask: Image.fromarray(mask).convert("RGBA"), {255: ALONE + "white is 1"}),
    "grey with alpha": (lambda mask: Image.fromarray(mask).convert("LA"), {255: ALONE + "white is 1"}),
    "palette": (in_palette, {1: ABOVE}),
    "one bit": (lambda mask: Image.fromarray(mask * 255).convert("1"), {}),
    "16 bits": (
        lambda mask: Image.fromarray(mask.astype(np.uint16)),
        dict.fromkeys((1, 255), ALONE + "store them with 8 bits, and white is 1"),
    ),
    "16 bits, 65535": (lambda mask: Image.fromarray(mask * np.uint16(65535)), {}),
}


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("kind", MASKS)
def test_masks_are_read_as_they_are_or_not_at_all(root: Path, tmp_path: Path, kind: str, white: int) -> None:
    store, refused = MASKS[kind]
    clips = ms3(root)
    for i, files in enumerate(clips.clips):
        (tmp_path / files.id).mkdir()
        for second, mask in enumerate(clips[i].masks):
            store(mask.to(torch.uint8).numpy()).save(tmp_path / files.id / f"{second}.png")
    if white in refused:
        with pytest.raises(ValueError, match=refused[white]):
            FolderPredictions(tmp_path, clips, white=white)
        return
    found = report(FolderPredictions(tmp_path, clips, white=white), replicates=1)
    assert {round(score.value, 5) for score in found.scores if score.measure.score == "J"} == {1.0}


@pytest.mark.parametrize("white", [0, -1, 256, 0.5])
def test_white_is_a_level_of_8_bits(root: Path, tmp_path: Path, white: int) -> None:
    for read in (
        lambda: FolderPredictions(tmp_path, ms3(root), white=white),
        lambda: read_probability("a", white=white),
    ):
        with pytest.raises(ValueError, match=f"white: expected a grey level from 1 to 255, got {white}"):
            read()


def test_empty_pictures_do_not_hide_those_of_zeros_and_ones(root: Path, tmp_path: Path) -> None:
    clips = ms3(root)
    for i, files in enumerate(clips.clips):
        (tmp_path / files.id).mkdir()
        for second in range(40):
            Image.new("L", SIZE, int((i, second) == (2, 3))).save(tmp_path / files.id / f"{second}.png")
    with pytest.raises(ValueError, match=r"white: the pictures in .* hold the levels 0 and 1 alone"):
        FolderPredictions(tmp_path, clips)


def test_grey_pictures_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    for mode, value, expected in (
        ("L", 51, 0.2),
        ("1", 1, 1.0),
        ("RGB", (51,) * 3, 0.2),
        ("I;16", 13107, 0.2),
    ):
        Image.new(mode, (3, 2), value).save(path)
        torch.testing.assert_close(read_probability(path), torch.full((2, 3), expected))
    Image.new("RGB", (3, 2), (128, 0, 0)).save(path)
    with pytest.raises(ValueError, match=r"picture.png: expected grey levels, got colours"):
        read_probability(path)
    Image.new("L", (3, 2), 3).save(path)
    with pytest.raises(ValueError, match=r"picture.png: expected grey levels up to white=1, got 3"):
        read_probability(path, white=1)


def test_a_folder_gives_back_classes(avss: AVSBenchSemantic, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    exact = []
    for clip in (avss[i] for i in range(3)):
        logits = torch.randn(1, 10, 71, 32, 32, generator=generator)
        logits.scatter_add_(2, clip.masks[None, :, None], torch.full((1, 10, 1, 32, 32), 3.0))
        exact.append(Prediction(logits, clip.masks[None], clip.valid[None], [clip.id], [""]))
        save_prediction(exact[-1], tmp_path)
    assert sorted(len(list(folder.iterdir())) for folder in tmp_path.iterdir()) == [5, 5, 10]
    stored = FolderPredictions(tmp_path, avss)
    names = class_names(SilentSound(avss))
    assert (len(names), num_classes(avss), names[0]) == (71, 71, "background")
    before = report(exact, class_names=names, replicates=1)
    after = report(stored, num_classes=71, class_names=names, replicates=1)
    assert before.truth == after.truth
    assert sorted(before.frames[:, 0].tolist()) == [5, 5, 10]
    for old, new in zip(before.scores, after.scores, strict=True):
        assert new.value == pytest.approx(old.value, abs=1e-9), old.measure.name
    scores = {score.measure.name: score.value for score in after.scores}
    for row, protocol, options in CLASS_ROWS:
        for score, metric in (
            ("J", SemanticIoU(protocol, **options)),
            ("F", SemanticFScore(protocol, **options)),
        ):
            for prediction in exact:
                metric.update(*prediction[:3])
            assert scores[f"{score}, {row}"] == pytest.approx(metric.compute().item(), abs=1e-9)
    assert scores["J, avsbench_semantic"] > scores["J, avsbench_semantic, no padding"]


def test_colours_as_the_published_script_writes_them(avss: AVSBenchSemantic, tmp_path: Path) -> None:
    for i, files in enumerate(avss.clips):
        (tmp_path / files.id).mkdir()
        for second, mask in enumerate(avss[i].masks):  # padding too
            write_classes(tmp_path / files.id / f"{files.id}_{second}.png", mask)
    found = report(FolderPredictions(tmp_path, avss), num_classes=71, replicates=1)
    scores = {score.measure.name: score.value for score in found.scores}
    assert scores["J, present"] == scores["J, dataset"] == 1
    small = AVSBenchSemantic(avss.root, "test", size=(16, 24))
    with pytest.raises(ValueError, match=r"expected the size of the ground truth, 16 x 24, got 32 x 32"):
        FolderPredictions(tmp_path, small)[0]
    prediction = FolderPredictions(tmp_path, small, resize=True)[0]
    assert torch.equal(prediction.logits, prediction.masks)
    (long,) = (i for i, files in enumerate(avss.clips) if len(files.masks) == 10)
    (tmp_path / avss.clips[long].id / f"{avss.clips[long].id}_9.png").unlink()
    with pytest.raises(FileNotFoundError, match="no prediction for 1 of 20 frames, such as second 9 of"):
        FolderPredictions(tmp_path, avss)
    assert not FolderPredictions(tmp_path, avss, missing="empty")[long].logits[0, 9].any()


def test_colours_of_no_class_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    for mode, colour in (("RGB", (127, 0, 0)), ("L", 255)):
        Image.new(mode, (3, 2), colour).save(path)
        with pytest.raises(ValueError, match=r"picture.png: expected colours of 71 classes, got 6 pixels"):
            read_predicted_classes(path)
