from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from avslib.curation import prepare
from avslib.data import AVSBenchMS3, AVSBenchS4, AVSBenchSemantic, write_avsbench
from avslib.data.layout import LISTERS
from avslib.media import log_mel_examples, normalize_frames, read_wav, write_wav
from avslib.media.palette import class_palette

ROWS = [("v1s", "train"), ("v1m", "train"), ("v2", "train"), ("v1s", "test"), ("v1m", "test"), ("v2", "test")]
SECONDS = {"v1s": 5, "v1m": 5, "v2": 10}
HEIGHT, WIDTH = 48, 64


def drawn(clip: int, second: int) -> Tensor:
    """Classes of a picture: three boxes, one of class 64, whose colour is the darkest there is."""
    classes = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    classes[4:20, 8:30] = 1 + clip
    classes[20:40, 30:60] = 64
    classes[30:44, 10 + second : 20 + second] = 70
    return classes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AVSBench-semantic, written here with nothing but Pillow and the palette."""
    root = tmp_path_factory.mktemp("avss")
    palette = class_palette().numpy()
    lines = ["vid,uid,s_min,s_sec,a_obj,split,label"]
    for clip, (part, split) in enumerate(ROWS):
        uid = f"uid{clip}_0_10"
        lines.append(f'v{clip},{uid},0,0,"dog, cat",{split},{part}')
        folder = root / part / uid
        for name in ("frames", "labels_rgb"):
            (folder / name).mkdir(parents=True)
        for second in range(SECONDS[part]):
            picture = palette[drawn(clip, second).numpy()]
            Image.fromarray(picture).save(folder / "frames" / f"{second}.jpg", quality=95)
            if (part, split) != ("v1s", "train") or second == 0:
                Image.fromarray(picture).save(folder / "labels_rgb" / f"{second}.png")
        noise = 0.1 * torch.randn(SECONDS[part] * 16_000, generator=torch.Generator().manual_seed(clip))
        write_wav(folder / "audio.wav", noise, 16_000)
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = {"background": 0, **{f"class {i}": i for i in range(1, 71)}}
    (root / "label2idx.json").write_text(json.dumps(names), encoding="utf-8")
    return root


def test_classes_are_read_at_their_own_size(root: Path) -> None:
    clips = AVSBenchSemantic(root, "test", size=None)
    for index, row in enumerate((3, 4, 5)):
        seconds = SECONDS[ROWS[row][0]]
        expected = torch.stack([drawn(row, second) for second in range(seconds)])
        clip = clips[index]
        assert torch.equal(clip.masks[:seconds], expected)
        assert clip.frames.shape == (10, 3, HEIGHT, WIDTH)
        assert clip.valid.tolist() == clip.labelled.tolist() == [second < seconds for second in range(10)]


def test_what_is_padded_is_zero_as_published(root: Path) -> None:
    clip = AVSBenchSemantic(root, "test", size=(32, 32))[0]
    for field in (clip.frames, clip.log_mel, clip.masks):
        assert field[:5].any()
        assert not field[5:].any()


def test_log_mels_are_those_of_the_wav_and_then_zeros(root: Path) -> None:
    clips = AVSBenchSemantic(root, "test", size=(32, 32))
    for index, seconds in enumerate((5, 5, 10)):
        waveform, _ = read_wav(clips.clips[index].wav)
        assert torch.equal(clips[index].log_mel[:seconds], log_mel_examples(waveform)[:seconds])


def test_training_labels_the_first_second_of_single_sources(root: Path) -> None:
    labelled = [clip.labelled.sum().item() for clip in AVSBenchSemantic(root, "train", size=(32, 32))]
    assert labelled == [1, 5, 10]


def published_crop(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """The published training transform: shorter side to the crop's, then the middle."""
    width, height = image.size
    if width > height:
        scaled = (int(1.0 * width * side / height), side)
    else:
        scaled = (side, int(1.0 * height * side / width))
    image = image.resize(scaled, resample)
    left, top = round((image.width - side) / 2.0), round((image.height - side) / 2.0)
    return image.crop((left, top, left + side, top + side))


def test_training_clips_are_cropped_and_others_stretched_as_published(root: Path) -> None:
    for split, crop in (("train", True), ("test", False)):
        clips = AVSBenchSemantic(root, split, size=(32, 32), parts=["v2"])
        clip, files = clips[0], clips.clips[0]
        with Image.open(files.frames[3]) as frame, Image.open(str(files.masks[3])) as mask:
            if crop:
                frame = published_crop(frame, 32, Image.Resampling.BILINEAR)
                mask = published_crop(mask, 32, Image.Resampling.NEAREST)
            else:
                frame = frame.resize((32, 32), Image.Resampling.BILINEAR)
                mask = mask.resize((32, 32), Image.Resampling.NEAREST)
            pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)
            assert torch.equal(clip.frames[3], normalize_frames(pixels))
            colours = torch.from_numpy(np.array(mask))
        assert torch.equal(class_palette()[clip.masks[3]], colours)


def test_parts_can_be_chosen(root: Path) -> None:
    assert [files.id for files in AVSBenchSemantic(root, "test", parts=("v1m", "v2")).clips] == [
        "uid4_0_10",
        "uid5_0_10",
    ]
    with pytest.raises(ValueError, match="parts: expected one of 'v1s', 'v1m', 'v2', got 'v3'"):
        AVSBenchSemantic(root, "test", parts=("v3",))


@pytest.mark.parametrize(("reader", "row"), [(AVSBenchS4, 3), (AVSBenchMS3, 4)])
def test_the_object_settings_are_read_out_of_it_with_every_class_as_foreground(
    reader: type[AVSBenchS4] | type[AVSBenchMS3], row: int, root: Path
) -> None:
    clip = reader(root, "test", size=None, sound="wav")[0]
    expected = torch.stack([drawn(row, second) for second in range(5)]) > 0
    assert torch.equal(clip.masks, expected.long())  # the darkest colour, (32, 0, 0), too
    assert clip.frames.shape[0] == 5


@pytest.mark.parametrize(("reader", "setting"), [(AVSBenchS4, "s4"), (AVSBenchMS3, "ms3")])
def test_a_short_sound_of_the_object_settings_is_followed_by_zeros_as_prepared(
    reader: type[AVSBenchS4] | type[AVSBenchMS3], setting: str, tmp_path: Path
) -> None:
    write_avsbench(tmp_path, setting="avss", clips={"test": 3}, size=32, videos=False)
    (wav,) = {files.wav for files in LISTERS[setting](tmp_path)}
    write_wav(wav, 0.1 * torch.randn(32_000, generator=torch.Generator().manual_seed(0)), 16_000)
    prepare(setting, tmp_path, overwrite=True)
    stored, computed = (reader(tmp_path, "test", sound=sound)[0].log_mel for sound in ("log_mel", "wav"))
    assert torch.equal(stored, computed)
    assert not computed[2:].any()


def test_clips_of_all_parts_share_a_batch(root: Path) -> None:
    batch = next(iter(DataLoader(AVSBenchSemantic(root, "test", size=(32, 32)), 3)))
    assert batch.frames.shape == (3, 10, 3, 32, 32)
    assert batch.masks.max() == 70


def test_names_of_classes(root: Path, tmp_path: Path) -> None:
    clips = AVSBenchSemantic(root, "test")
    assert clips.classes[0] == "background"
    assert clips.classes[70] == "class 70"
    stored = (root / "label2idx.json").read_text()
    try:
        for content, message in [
            ("[]", "expected names and their numbers"),
            ('{"a": 1, "b": 1}', "expected 71 names numbered from 0, got 2"),
            ("{", "expected names and their numbers"),
        ]:
            (root / "label2idx.json").write_text(content)
            with pytest.raises(ValueError, match=message):
                _ = clips.classes
        (root / "label2idx.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"label2idx\.json: not there; it comes with"):
            _ = clips.classes
    finally:
        (root / "label2idx.json").write_text(stored)
