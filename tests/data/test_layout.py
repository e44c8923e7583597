from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avslib.data import AVSBenchMS3, AVSBenchS4, AVSBenchSemantic
from avslib.data.layout import (
    LISTERS,
    MAX_TABLE_BYTES,
    PLAIN,
    ClipFiles,
    links_out,
    list_avss,
    list_folder,
    list_ms3,
    list_s4,
    read_table,
)

HEADERS = {
    "s4": ("Single-source/s4_meta_data.csv", "name,start,category,split"),
    "ms3": ("Multi-sources/ms3_meta_data.csv", "video_id,split"),
    "avss": ("metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label"),
    "folder": ("clips.csv", "id,split,seconds,category"),
}


def write_table(root: Path, setting: str, *rows: str) -> Path:
    name, header = HEADERS[setting]
    table = root / name
    table.parent.mkdir(exist_ok=True)
    table.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return table


def under(root: Path, clip: ClipFiles) -> dict[str, str]:
    """Name the files of a clip relative to its root."""
    return {
        "frame": clip.frames[-1].relative_to(root).as_posix(),
        "mask": str(clip.masks[0] and clip.masks[0].relative_to(root).as_posix()),
        "wav": clip.wav.relative_to(root).as_posix(),
        "log_mel": clip.log_mel.relative_to(root).as_posix(),
    }


def test_s4_lies_as_published(tmp_path: Path) -> None:
    write_table(tmp_path, "s4", "a_1_2,1,dog_barking,train", "b_3_4,3,lawn_mowing,test")
    train, test = list_s4(tmp_path)
    assert (train.id, train.split, train.category) == ("a_1_2", "train", "dog_barking")
    assert under(tmp_path, train) == {
        "frame": "Single-source/s4_data/visual_frames/train/dog_barking/a_1_2/a_1_2_5.png",
        "mask": "Single-source/s4_data/gt_masks/train/dog_barking/a_1_2/a_1_2_1.png",
        "wav": "Single-source/s4_data/audio_wav/train/dog_barking/a_1_2.wav",
        "log_mel": "Single-source/s4_data/audio_log_mel/train/dog_barking/a_1_2.pkl",
    }
    assert [mask is not None for mask in train.masks] == [True, False, False, False, False]
    assert all(test.masks)
    assert len(test.masks) == len(test.frames) == 5


def test_ms3_lies_as_published(tmp_path: Path) -> None:
    write_table(tmp_path, "ms3", "abc,train")
    (clip,) = list_ms3(tmp_path)
    assert under(tmp_path, clip) == {
        "frame": "Multi-sources/ms3_data/visual_frames/abc/abc.mp4_5.png",
        "mask": "Multi-sources/ms3_data/gt_masks/train/abc/abc_1.png",
        "wav": "Multi-sources/ms3_data/audio_wav/train/abc.wav",
        "log_mel": "Multi-sources/ms3_data/audio_log_mel/train/abc.pkl",
    }
    assert all(clip.masks)


def test_avss_lies_as_published_and_holds_s4_and_ms3(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "avss",
        "x,x_0_5,0,0,dog,train,v1s",
        'y,y_0_5,0,0,"dog, cat",train,v1m',
        "z,z_0_10,0,0,,test,v2",
    )
    single, multi, new = list_avss(tmp_path)
    assert under(tmp_path, single)["frame"] == "v1s/x_0_5/frames/4.jpg"
    assert under(tmp_path, new) == {
        "frame": "v2/z_0_10/frames/9.jpg",
        "mask": "v2/z_0_10/labels_rgb/0.png",
        "wav": "v2/z_0_10/audio.wav",
        "log_mel": "v2/z_0_10/audio_log_mel.pkl",
    }
    assert [len([m for m in clip.masks if m]) for clip in (single, multi, new)] == [1, 5, 10]
    assert (multi.category, new.category) == ("dog, cat", "")
    assert list_s4(tmp_path) == [single]
    assert list_ms3(tmp_path) == [multi]
    write_table(tmp_path, "s4", "own,0,dog,test")
    assert [clip.id for clip in list_s4(tmp_path)] == ["own"]


def test_a_folder_has_clips_of_any_length_and_perhaps_masks(tmp_path: Path) -> None:
    write_table(tmp_path, "folder", "long,test,61,", "seen,train,2,dog")
    (tmp_path / "clips/seen/masks").mkdir(parents=True)
    long, seen = list_folder(tmp_path)
    assert len(long.frames) == 61
    assert not any(long.masks)
    assert under(tmp_path, seen)["mask"] == "clips/seen/masks/0.png"


@pytest.mark.parametrize("setting", HEADERS)
@pytest.mark.parametrize(
    "name", ["../../secret", "..", ".", "/etc", "a/b", "a\\b", "C:x", "", "x" * 201, "a\tb"]
)
def test_no_name_leads_out_of_its_folder(setting: str, name: str, tmp_path: Path) -> None:
    row = {"s4": "{},0,dog,train", "ms3": "{},train", "avss": "v,{},0,0,d,train,v2", "folder": "{},train,5,"}
    write_table(tmp_path, setting, row[setting].format(name))
    with pytest.raises(ValueError, match=r"\.csv: line 2: expected a plain name as '(name|video_id|uid|id)'"):
        LISTERS[setting](tmp_path)


@given(st.text(max_size=30))
def test_a_plain_name_is_one_step_below_any_folder(name: str) -> None:
    if PLAIN.pattern.fullmatch(name):
        folder = Path("/data/root")
        assert len((folder / name).parts) == len(folder.parts) + 1
        assert (folder / name).parent == folder
        assert name not in (".", "..")


@pytest.mark.parametrize(
    ("setting", "row", "message"),
    [
        ("avss", "v,u,0,0,dog,train,v3", "expected v1s, v1m or v2 as 'label', got 'v3'"),
        ("folder", "a,test,0,", "expected a whole number from 1 to 999999 as 'seconds', got '0'"),
        ("folder", "a,test,1e9,", "as 'seconds', got '1e9'"),
        ("folder", "a,test", "as 'seconds', got ''"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_line(
    setting: str, row: str, message: str, tmp_path: Path
) -> None:
    write_table(tmp_path, setting, row)
    with pytest.raises(ValueError, match=re.escape(message)):
        LISTERS[setting](tmp_path)


@pytest.mark.parametrize("setting", ["s4", "ms3", "avss"])
def test_a_split_that_is_none_is_refused_by_readers_and_listed_for_others(
    setting: str, tmp_path: Path
) -> None:
    row = {"s4": "{},0,dog,{}", "ms3": "{},{}", "avss": "v,{},0,0,d,{},v2"}[setting]
    write_table(tmp_path, setting, row.format("a", "train"), row.format("b", "Train"))
    assert [clip.split for clip in LISTERS[setting](tmp_path)] == ["train", "Train"]
    reader = {"s4": AVSBenchS4, "ms3": AVSBenchMS3, "avss": AVSBenchSemantic}[setting]
    with pytest.raises(
        ValueError, match=r"\.csv: line 3: expected train, val or test as 'split', got 'Train'"
    ):
        reader(tmp_path, "train")


def test_blanks_around_names_and_values_are_dropped(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(" id, more\na b ,\tc\n", encoding="utf-8")
    assert read_table(table, {"id": PLAIN}, texts=("more",)) == [{"id": "a b", "more": "c"}]
    table.write_text("id,more\n  ,c\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: expected a plain name as 'id', got ''"):
        read_table(table, {"id": PLAIN})


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    columns = {"id": PLAIN}
    with pytest.raises(FileNotFoundError, match=r"table\.csv: no such table; root must be the folder"):
        read_table(table, columns)
    for content, message in [
        (b"", "expected a column 'id', got none"),
        (b"other\n1\n", "expected a column 'id', got other"),
        (b"id\n\xff\xfe\n", "codec can't decode"),
        (b'id\n"a', "unexpected end of data"),
        (b"id\n" + b"x" * 200_000 + b"\n", "field larger than field limit"),
        (b"id\na\0b\n", "table.csv"),
    ]:
        table.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            read_table(table, columns)
        assert str(table) in str(caught.value)


def test_a_table_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    with table.open("wb") as file:
        file.truncate(MAX_TABLE_BYTES + 1)
    with pytest.raises(ValueError, match=r"expected at most \d+ bytes"):
        read_table(table, {"id": PLAIN})


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(b"\xef\xbb\xbfid,more\r\nabc,1\r\n")
    assert read_table(table, {"id": PLAIN}, texts=("more", "lacking")) == [
        {"id": "abc", "more": "1", "lacking": ""}
    ]


def test_links_are_followed_inside_and_reported_outside(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "kept", outside):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "file")
    (root / "within").symlink_to(root / "kept" / "file")
    paths = [root / name for name in ("kept/file", "within", "file", "folder/file", "folder/lacking")]
    assert list(links_out(paths, root)) == paths[2:]
    (tmp_path / "alias").symlink_to(root)  # the root itself may be behind a link
    assert list(links_out([tmp_path / "alias/kept/file"], tmp_path / "alias")) == []
