from __future__ import annotations

import csv
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from avslib.data import SwappedSound
from avslib.data.vpo import NUM_CLASSES, STORED_NUMBERS, VPO
from avslib.media import log_mel_examples, normalize_frames, read_frame, read_wav, resample, write_wav

PUBLISHED_NUMBERS = {  # in a mask, in the published order
    5: "airplane", 16: "bird", 6: "bus", 3: "car", 17: "cat", 77: "cell phone", 21: "cow", 18: "dog",
    22: "elephant", 19: "horse", 76: "keyboard", 4: "motorcycle", 74: "mouse", 20: "sheep", 41: "skateboard",
    37: "sports ball", 43: "tennis racket", 24: "zebra", 92: "male", 93: "female", 94: "baby",
}  # fmt: skip
NAMES = ["background", *sorted(PUBLISHED_NUMBERS.values())]  # the published list of classes is sorted
COLUMNS = ("cateName", "cateId", "img_Id", "ann_Ids", "vgg_file", "split", "audio_pos", "multi_instance")
Row = tuple[str, int, int, str, str, int]
ROWS: dict[str, list[Row]] = {  # cateName, img_Id, ann_Ids, vgg_file, split, multi_instance
    "ss": [
        ("cat", 139, 1001, "cat_000001", "train", 0),
        ("cell phone", 139, 1002, "phone_000002", "train", 0),
        ("zebra", 724, 900100000724, "zebra_000003", "val", 0),
        ("cat", 139, 1001, "cat_000004", "test", 0),
    ],
    "ms": [
        ("cat", 25, 1, "cat_000001", "train", 0),
        ("male", 30, 2, "male_000005", "test", 0),
        ("dog", 25, 3, "dog_000006", "train", 0),
        ("baby", 30, 4, "short_000007", "val", 0),
        ("cat", 25, 1, "cat_000004", "test", 0),
    ],
    "msmi": [
        ("cat", 25, 1, "cat_000001", "train", 0),
        ("dog", 25, 3, "dog_000006", "train", 0),
        ("sheep", 71, 5, "sheep_000008", "train", 1),
        ("sheep", 71, 6, "short_000007", "train", 1),
        ("dog", 72, 7, "dog_000006", "test", 1),
    ],
}
SOUNDS = sorted({row[3] for rows in ROWS.values() for row in rows})
HEIGHT, WIDTH = 40, 56


def write_table(root: Path, part: str, rows: list[Any]) -> None:
    path = root / "VPO" / f"VPO-{part.upper()}" / f"vpo_{part}_data_stereo.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, image, annotation, sound, split, multiple in rows:
            number = STORED_NUMBERS.get(name, 0)
            writer.writerow((name, number, image, annotation, sound, split, 0.3, multiple))


def published_paths(root: Path, part: str, row: Row) -> tuple[Path, Path]:
    """Where the published code looks for a row's picture and mask."""
    name, image, annotation, _, _, multiple = row
    base = f"{root}/VPO/VPO-{part.upper()}"
    if part == "ss":
        data, mask = f"data/{name}/{image:012d}.jpg", f"mask/{name}/{image:012d}_{annotation:012d}.png"
    else:
        data, mask = f"data/{image:012d}.jpg", f"mask/{image:012d}.png"
    if part == "msmi" and multiple == 0:
        base = base.replace("VPO-MSMI", "VPO-MS")
    return Path(base, data), Path(base, mask)


def drawn(seed: int, numbers: list[int]) -> np.ndarray[Any, Any]:
    """Blocks of 4 pixels, each of one of the numbers."""
    blocks = np.random.default_rng(seed).choice([0, *numbers], (HEIGHT // 4, WIDTH // 4))
    return blocks.repeat(4, 0).repeat(4, 1).astype(np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VPO, written here with nothing but Pillow."""
    root = tmp_path_factory.mktemp("audio_visual")
    for part, rows in ROWS.items():
        write_table(root, part, rows)
        for row in rows:
            picture, mask = published_paths(root, part, row)
            for path in (picture, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            same = [STORED_NUMBERS[r[0]] for r in rows if r[1] == row[1]]
            numbers = drawn(row[1], same if part != "ss" else [STORED_NUMBERS[row[0]]])
            Image.fromarray(numbers).save(mask)
            Image.fromarray(np.stack([numbers * 9, numbers, 255 - numbers], -1)).save(picture, quality=95)
    audios = root / "vggsound_bench" / "VGGSound" / "audios"
    audios.mkdir(parents=True)
    for seed, name in enumerate(SOUNDS):
        seconds, rate = (0.9, 16_000) if "short" in name else (2.5, 16_000 if seed % 2 else 44_100)
        noise = torch.randn(int(seconds * rate), generator=torch.Generator().manual_seed(seed))
        write_wav(audios / f"{name}.wav", 0.2 * noise, rate)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def published_classes(numbers: Tensor) -> Tensor:
    """One class after another, as the published loop: a later one also meets what an earlier one wrote."""
    for number in numbers.unique().tolist():
        if number not in (0, 255):
            numbers = torch.where(numbers == number, NAMES.index(PUBLISHED_NUMBERS[number]), numbers)
    return numbers


def published_crop(samples: list[float]) -> list[float]:
    """The middle second as the published crop cuts it, in plain lists."""
    begin = len(samples) // 2 - 16_000 // 2
    cut = samples[begin : begin + 16_000]
    if len(cut) != 16_000:
        cut = (cut * (16_000 // len(cut) + 1))[:16_000]
    return cut


def mask_of(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).long()


@pytest.mark.parametrize("part", ROWS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_clips_lie_and_sound_as_published(part: str, split: str, written: Path) -> None:
    clips = VPO(written, split, part=part, size=None)
    rows = [row for row in ROWS[part] if (row[4] == "train") == (split == "train")]
    groups = [[row] for row in rows]
    if part != "ss":
        groups = [[row for row in rows if row[1] == image] for image in dict.fromkeys(row[1] for row in rows)]
    assert len(clips) == len(groups)
    for index, group in enumerate(groups):
        files, clip = clips.clips[index], clips[index]
        picture, mask = published_paths(written, part, group[0])
        assert (files.frames, files.masks) == ((picture,), (mask,))
        assert clip.id == (f"{group[0][1]}_{group[0][2]}" if part == "ss" else f"{group[0][1]}")
        assert files.category == ", ".join(dict.fromkeys(row[0] for row in group))
        assert torch.equal(clip.frames[0], normalize_frames(read_frame(picture)))
        assert torch.equal(clip.masks[0], published_classes(mask_of(mask)))
        assert clip.masks.any()
        assert clip.valid.tolist() == clip.labelled.tolist() == [True]
        sounds = []
        for row in group:
            stored, rate = read_wav(written / "vggsound_bench/VGGSound/audios" / f"{row[3]}.wav")
            sounds.append(torch.tensor(published_crop(resample(stored, rate, 16_000).tolist())))
        assert torch.equal(clips.waveform(index), torch.stack(sounds).sum(0))
        assert torch.equal(clip.log_mel, log_mel_examples(torch.stack(sounds).sum(0)))


def test_sounds_are_summed_and_not_averaged(written: Path) -> None:
    clips = VPO(written, "train", part="ms")
    cat, dog = (read_wav(clips.vggsound / f"{name}.wav") for name in ("cat_000001", "dog_000006"))
    middles = [resample(*sound, 16_000)[20_000 - 8_000 : 20_000 + 8_000] for sound in (cat, dog)]
    assert torch.equal(clips.waveform(0), middles[0] + middles[1])
    assert clips.waveform(0).std() > middles[0].std()


@pytest.mark.parametrize("samples", [1, 2, 100, 5333, 5334, 12_345, 15_999, 16_000, 16_001, 40_000])
def test_a_sound_of_any_length_is_cut_or_repeated_as_published(samples: int, root: Path) -> None:
    clips = VPO(root, "train")
    path = clips.clips[0].wav
    write_wav(path, torch.linspace(-1, 0.9, samples), 16_000)
    assert clips.waveform(0).tolist() == published_crop(read_wav(path)[0].tolist())
    assert clips[0].log_mel.shape == (1, 1, 96, 64)


def test_classes_have_the_published_order_and_numbers() -> None:
    assert {number: name for name, number in STORED_NUMBERS.items()} == {0: "background", **PUBLISHED_NUMBERS}
    assert list(STORED_NUMBERS) == NAMES
    assert NUM_CLASSES == 22


def test_names_of_classes_come_with_the_clips(written: Path) -> None:
    assert VPO(written, "train").classes == tuple(NAMES)


def read_mask(root: Path, path: Path) -> Tensor:
    return VPO(root, "train", size=None, max_pixels=10_000)._read_mask(path)


@given(st.integers(0, 2**32 - 1), st.permutations(sorted(PUBLISHED_NUMBERS)))
def test_masks_are_renumbered_as_published(written: Path, seed: int, order: list[int]) -> None:
    numbers = drawn(seed, [number for number in order[:12] if number != 3])
    path = written / "mask.png"
    Image.fromarray(numbers).save(path)
    ours = read_mask(written, path)
    assert torch.equal(ours, published_classes(torch.from_numpy(numbers).long()))
    for number, name in PUBLISHED_NUMBERS.items():
        assert torch.equal(ours == NAMES.index(name), torch.from_numpy(numbers == number))


def test_cars_stay_cars_beside_an_airplane(written: Path, tmp_path: Path) -> None:
    numbers = drawn(0, [3, 5])
    Image.fromarray(numbers).save(tmp_path / "mask.png")
    ours = read_mask(written, tmp_path / "mask.png")
    assert torch.equal(ours == NAMES.index("car"), torch.from_numpy(numbers == 3))
    assert torch.equal(ours == NAMES.index("airplane"), torch.from_numpy(numbers == 5))
    published = published_classes(torch.from_numpy(numbers).long())
    assert published.unique().tolist() == [0, NAMES.index("airplane")]


def test_a_palette_is_read_by_its_indices(written: Path, tmp_path: Path) -> None:
    numbers = drawn(1, [17, 18, 94])
    image = Image.fromarray(numbers)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(tmp_path / "mask.png")
    ours = read_mask(written, tmp_path / "mask.png")
    assert torch.equal(ours, published_classes(torch.from_numpy(numbers).long()))


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_masks_are_scaled_with_their_frames_and_gain_no_class(fit: str, written: Path) -> None:
    clip = VPO(written, "train", size=(20, 20), fit=fit, normalize=False)[0]
    assert clip.frames.shape == (1, 3, 20, 20)
    assert set(clip.masks.unique().tolist()) == {0, NAMES.index("cat")}
    bright = clip.frames[0, 1].float() > STORED_NUMBERS["cat"] / 2
    assert (bright != clip.masks[0].bool()).float().mean() < 0.2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (8, 8), 1), r"expected only 0, 3, 4, .*, 94 for classes, got 1 and 64 such pixels"),
        (Image.new("L", (8, 8), 255), "got 255 and 64 such pixels in all"),
        (Image.new("RGB", (8, 8)), "expected 8-bit grey levels or a palette, got RGB"),
        (Image.new("1", (8, 8)), "expected 8-bit grey levels or a palette, got 1"),
        (Image.new("L", (101, 100)), "max_pixels"),
    ],
)
def test_a_mask_that_means_nothing_is_named(
    image: Image.Image, message: str, written: Path, tmp_path: Path
) -> None:
    image.save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=rf"mask\.png: .*{message}"):
        read_mask(written, tmp_path / "mask.png")


def test_damaged_files_are_named(root: Path) -> None:
    clips = VPO(root, "train", size=(32, 32))
    files = clips.clips[0]
    for path in (files.frames[0], files.masks[0], files.wav):
        assert path is not None
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=path.name):
            clips[0]
        path.write_bytes(content)
    write_wav(files.wav, torch.zeros(0), 16_000)
    with pytest.raises(ValueError, match=r"\.wav: expected some sound, got no sample"):
        clips[0]


def test_clips_share_a_batch_and_swap_their_sounds(written: Path) -> None:
    clips = VPO(written, "train", part="msmi", size=(32, 32))
    batch = next(iter(DataLoader(clips, batch_size=2, num_workers=1)))
    assert batch.frames.shape == (2, 1, 3, 32, 32)
    assert batch.log_mel.shape == (2, 1, 1, 96, 64)
    assert torch.equal(SwappedSound(clips)[0].log_mel, clips[1].log_mel)


def test_the_sound_can_be_changed_before_its_log_mel(written: Path) -> None:
    plain = VPO(written, "train", part="ms")
    changed = VPO(written, "train", part="ms", sound_transform=lambda waveform: waveform / 2)
    assert torch.equal(changed[0].log_mel, log_mel_examples(plain.waveform(0) / 2))


def test_sounds_may_lie_anywhere_else(root: Path, tmp_path: Path) -> None:
    expected = VPO(root, "train", part="ms")[0].log_mel
    (root / "vggsound_bench/VGGSound/audios").rename(tmp_path / "sounds")
    with pytest.raises(
        FileNotFoundError, match=r"audios/cat_000001\.wav: not there, as 2 of the 4 files .* vggsound="
    ):
        VPO(root, "train", part="ms")
    assert torch.equal(VPO(root, "train", part="ms", vggsound=tmp_path / "sounds")[0].log_mel, expected)


def test_a_clip_without_one_of_its_sounds_can_be_skipped(root: Path) -> None:
    (root / "vggsound_bench/VGGSound/audios/dog_000006.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"dog_000006\.wav: not there, as 1 of the 8 files"):
        VPO(root, "train", part="msmi")
    with pytest.warns(UserWarning, match="read as black ones"):
        clips = VPO(root, "train", part="msmi", size=(32, 32), on_error="skip")
    with pytest.warns(UserWarning, match=r"clip '25' is left out: .*dog_000006"):
        assert not clips[0].valid.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clips[1].valid.all()


@pytest.mark.parametrize(
    ("part", "column"),
    [(part, column) for part in ROWS for column in ("cateName", "img_Id", "vgg_file")]
    + [("ss", "ann_Ids"), ("msmi", "multi_instance")],
)
@pytest.mark.parametrize("value", ["../../secret", "..", "/etc", "a\\b", "C:x", ""])
def test_no_value_leads_out_of_its_folder(part: str, column: str, value: str, tmp_path: Path) -> None:
    row: list[object] = list(ROWS[part][0])
    row[("cateName", "img_Id", "ann_Ids", "vgg_file", "split", "multi_instance").index(column)] = value
    write_table(tmp_path, part, [row])
    with pytest.raises(ValueError, match=rf"_stereo\.csv: line 2: expected .* as '{column}'"):
        VPO(tmp_path, "train", part=part)


@pytest.mark.parametrize("image", ["12a", "1" * 13, "-1", "1.0", "٣"])
def test_numbers_of_pictures_are_digits(image: str, tmp_path: Path) -> None:
    write_table(tmp_path, "ms", [("cat", image, 1, "cat_000001", "train", 0)])
    with pytest.raises(ValueError, match="expected a number of at most 12 digits as 'img_Id'"):
        VPO(tmp_path, "train", part="ms")


@pytest.mark.parametrize("kind", ["frames", "masks", "wav"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_link_out_of_its_folder_is_refused_unless_it_is_allowed(
    kind: str, elsewhere: bool, root: Path, tmp_path: Path
) -> None:
    place = getattr(VPO(root, "train").clips[0], kind)
    path = place[0] if isinstance(place, tuple) else place
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    vggsound = None
    if elsewhere:
        vggsound = tmp_path / "sounds"
        (root / "vggsound_bench/VGGSound/audios").rename(vggsound)
    with pytest.raises(ValueError, match=r"leads out of .* through a link, .*follow_links=True"):
        VPO(root, "train", vggsound=vggsound)
    assert VPO(root, "train", vggsound=vggsound, follow_links=True)[0].id == "139_1001"


@pytest.mark.parametrize("zero", ["0", "0.0", "False"])
def test_a_picture_lies_in_one_folder(zero: str, root: Path) -> None:
    name, image, annotation, sound, split, _ = ROWS["msmi"][0]
    write_table(root, "msmi", [(name, image, annotation, sound, split, zero)])
    assert "VPO-MS/" in VPO(root, "train", part="msmi").clips[0].frames[0].as_posix()
    both = [(name, image, annotation, sound, split, value) for value in (zero, "1")]
    write_table(root, "msmi", both)
    with pytest.raises(ValueError, match="expected all rows of picture 25 in 'train' to be 0 as 'multi_inst"):
        VPO(root, "train", part="msmi")


def test_choices_are_checked_before_any_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part: expected one of 'ss', 'ms', 'msmi', got 'mm'"):
        VPO(tmp_path, "train", part="mm")
    with pytest.raises(ValueError, match="split: expected one of 'train', 'test', got 'val'"):
        VPO(tmp_path, "val")
    with pytest.raises(ValueError, match="sound: expected one of 'wav', got 'log_mel'"):
        VPO(tmp_path, "train", sound="log_mel")
    with pytest.raises(FileNotFoundError, match=r"the folder that holds VPO/VPO-MS/vpo_ms_data_stereo\.csv"):
        VPO(tmp_path, "train", part="ms")
    write_table(tmp_path, "ms", [("cat", 25, 1, "cat_000001", "test", 0)])
    with pytest.raises(ValueError, match=r"split: no clip of .* is in 'train'"):
        VPO(tmp_path, "train", part="ms")
