from pathlib import Path

import av
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avslib.curation.frame_rule import FRAME_RULES, frame_moments, whole_seconds
from avslib.media.video import VideoInfo, probe_video, read_frames
from avslib.media.video_writer import write_video
from tests._films import film, numbered, numbers_of


def evenly(count: int, fps: float) -> VideoInfo:
    return VideoInfo(tuple(i / fps for i in range(count)), count / fps, fps, False)


COPY_LOSES_RATE = tuple(map(int, av.__version__.split(".")[:2])) < (18, 1)
"""Whether a copy to .mkv holds no rate; FFmpeg then guesses 62 for 60, as the published script does."""


def published_numbers(path: Path, seconds: int) -> list[int]:
    """AVSBench's preparation, word for word: all frames, and of 16 numbers a second the last."""
    with av.open(str(path)) as container:
        interval = round(float(container.streams.video[0].average_rate))
        pictures = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    chosen = [int(second * interval + (i / 16) * interval) for second in range(seconds) for i in range(16)]
    kept = [pictures[min(n, len(pictures) - 1)] for k, n in enumerate(chosen) if k % 16 == 15]
    return numbers_of(torch.stack(kept).permute(0, 3, 1, 2))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [8, 12.5, 14.985, 16, 23.976, 24, 25, 29.97, 30, 50, 60])
def test_frames_of_constant_rates_are_the_published_ones(tmp_path: Path, fps: float, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    write_video(tmp_path / "film.mp4", numbered(round(4.7 * fps)), fps=fps)
    if suffix == "mkv":
        remux(tmp_path / "film.mp4", path)
    numbers = numbers_of(read_frames(path, frame_moments(probe_video(path), 5)))
    if not COPY_LOSES_RATE or (suffix, fps) != ("mkv", 60):
        assert numbers == published_numbers(path, 5)
    rate = round(fps)
    assert numbers == [min(int(s * rate + 15 / 16 * rate), round(4.7 * fps) - 1) for s in range(5)]


def remux(source: Path, target: Path) -> None:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def test_at_a_variable_rate_the_frame_on_the_screen_counts(tmp_path: Path) -> None:
    times = [0, 100, 900, 930, 950, 1_935, 1_940, 2_800, 4_000]
    path = film(tmp_path / "film.mkv", times)
    for rule, after in (("avsbench", 937.5), ("end", 937.5), ("middle", 500), ("start", 0)):
        numbers = numbers_of(read_frames(path, frame_moments(probe_video(path), 5, rule=rule)))
        expected = [max(i for i, t in enumerate(times) if t <= 1000 * s + after) for s in range(5)]
        assert numbers == expected, rule


def test_one_lost_frame_does_not_move_the_others(tmp_path: Path) -> None:
    times = [40 * i for i in range(125) if i != 30]
    path = film(tmp_path / "film.mkv", times)
    numbers = numbers_of(read_frames(path, frame_moments(probe_video(path), 5)))
    assert numbers == [23, *(25 * s + 22 for s in range(1, 5))]  # the same moments as without the loss


@given(fps=st.sampled_from([1, 5, 16, 24, 25, 30, 50, 60]), seconds=st.integers(1, 30))
def test_at_whole_rates_end_is_the_published_rule(fps: int, seconds: int) -> None:
    video = evenly(fps * 30, fps)
    shown = [
        max(i for i, time in enumerate(video.times) if time <= moment + 1e-9)
        for moment in frame_moments(video, seconds, rule="end")
    ]
    assert [video.times[i] for i in shown] == frame_moments(video, seconds)


@given(
    times=st.lists(st.floats(0, 100), min_size=1, max_size=20),
    fps=st.floats(0, 120),
    seconds=st.integers(1, 12),
    rule=st.sampled_from(FRAME_RULES),
)
def test_moments_ascend_whatever_the_video_says(
    times: list[float], fps: float, seconds: int, rule: str
) -> None:
    moments = frame_moments(VideoInfo(tuple(sorted(times)), 100, fps, False), seconds, rule=rule)
    assert len(moments) == seconds
    assert moments == sorted(moments)
    assert moments[0] >= 0


def test_broken_rates_drift_from_the_sound_unless_the_end_is_asked_for() -> None:
    video = evenly(30 * 2000, 29.97)
    drift = [frame_moments(video, 1100, rule=rule)[-1] - (1099 + 15 / 16) for rule in ("avsbench", "end")]
    assert drift == pytest.approx([1.1, 0], abs=0.05)


def test_whole_seconds_forgive_a_lost_last_frame() -> None:
    assert [whole_seconds(evenly(count, 30)) for count in (1, 29, 30, 57, 59, 60, 61, 149, 150)] == [
        1, 1, 1, 1, 2, 2, 2, 5, 5,
    ]  # fmt: skip


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(
        ValueError, match="rule: expected one of 'avsbench', 'end', 'middle', 'start', got 'last'"
    ):
        frame_moments(evenly(5, 5), 1, rule="last")
    with pytest.raises(ValueError, match="seconds: expected a number above 0, got 0"):
        frame_moments(evenly(5, 5), 0)
