from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avslib.pipeline.windows import cut_windows


@given(seconds=st.integers(1, 40), length=st.integers(1, 9), data=st.data())
def test_windows_hold_every_second_are_alike_and_share_what_is_asked(
    seconds: int, length: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, length - 1))
    windows = cut_windows(seconds, length, overlap)
    assert {second for window in windows for second in window} == set(range(seconds))
    assert {len(window) for window in windows} == {min(length, seconds)}
    for before, after in pairwise(windows):
        assert before.start < after.start
        assert before.stop - after.start >= overlap
    if len(windows) > 1:  # without the one before the last, a second would be missing
        assert windows[-2].stop < seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "seconds: expected"),
        ((3, 0), "length: expected"),
        ((3, 5, 5), "overlap: expected 0 to 4 s, less than a window, got 5"),
        ((3, 5, -1), "overlap: expected 0 to 4 s"),
    ],
)
def test_wrong_numbers_are_named(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut_windows(*arguments)
