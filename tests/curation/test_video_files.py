import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avslib.curation.video_files import _LONGEST_NAME, _marked, _plain, find_videos
from avslib.data.layout import PLAIN


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_videos_are_found_in_folders_and_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "b.mov", "dog/1.MP4", "dog/wild dog/2.webm", "cat/1.mp4", "note.txt", "mp4", "sound.wav")
    touch(tmp_path, "._b.mov", ".trash/old.mp4", ".unfinished-1.mp4")
    found = find_videos(tmp_path)
    assert [(video.id, video.category, video.source) for video in found] == [
        ("b", "", "b.mov"),
        ("cat_1", "cat", "cat/1.mp4"),
        ("dog_1", "dog", "dog/1.MP4"),
        ("dog_wild_dog_2", "dog/wild dog", "dog/wild dog/2.webm"),
    ]
    assert all(video.path.is_file() for video in found)


def test_no_name_is_that_of_a_device(tmp_path: Path) -> None:
    touch(tmp_path, "con.mp4", "COM1.mp4", "nul.txt.mp4", "console.mp4", "a.con.mp4", "com.mp4")
    names = {video.id for video in find_videos(tmp_path)}
    assert names == {"_con", "_COM1", "_nul.txt", "console", "a.con", "com"}


def test_equal_names_get_a_mark_that_stays_with_the_video(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.mp4", "a_b.mp4", "A_B.mkv", "c.mp4")
    before = {video.source: video.id for video in find_videos(tmp_path)}
    assert len({name.casefold() for name in before.values()}) == 4
    assert before["c.mp4"] == "c"
    touch(tmp_path, "0/a_b.mp4", "a b.avi")
    after = {video.source: video.id for video in find_videos(tmp_path)}
    assert before.items() <= after.items()


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4).map("/".join))
def test_every_path_has_a_plain_name(stem: str) -> None:
    for name in (_plain(f"{stem}.mp4"), _marked(_plain(f"{stem}.mp4"), stem)):
        assert not name or PLAIN.pattern.fullmatch(name)
        assert len(name.encode()) <= _LONGEST_NAME + 9


def test_names_that_are_not_unicode_are_borne(tmp_path: Path) -> None:
    name = os.fsdecode(b"na\xefve/\xff.mp4")
    try:
        touch(tmp_path, name)
    except OSError:
        pytest.skip("this file system wants Unicode")
    (video,) = find_videos(tmp_path)
    assert (video.id, video.category) == ("na_ve_", "na?ve")
    _marked(video.id, video.source)


def test_links_to_folders_are_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "here/a.mp4", "there/b.mp4")
    (tmp_path / "here/loop").symlink_to(tmp_path)
    assert [video.source for video in find_videos(tmp_path / "here")] == ["a.mp4"]


def test_a_folder_without_videos_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "note.txt")
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            FileNotFoundError, match=rf"{root.name}: expected a folder with videos \(3gp, avi,"
        ):
            find_videos(root)
