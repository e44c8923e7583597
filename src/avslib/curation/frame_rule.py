"""Choose the frame of a video that represents each of its seconds."""

from __future__ import annotations

import math

from avslib._checks import check_one_of, check_positive
from avslib.media.video import VideoInfo

FRAME_RULES = ("avsbench", "end", "middle", "start")
"""The published rule, and three fixed moments in each second."""
_MOMENTS = {"avsbench": 15 / 16, "end": 15 / 16, "middle": 1 / 2, "start": 0.0}


def whole_seconds(video: VideoInfo) -> int:
    """Count the whole seconds of a video.

    A second is whole if there is still a picture at 15/16 s; the first second always is. So a video of five
    seconds still has five if its last frame is lost.

    Example:
        >>> [whole_seconds(VideoInfo((0.0,), end, 30.0, False)) for end in (0.2, 4.9, 4.97, 5.2)]
        [1, 4, 5, 5]
    """
    return max(1, math.floor(video.end + 1 / 16))


def frame_moments(video: VideoInfo, seconds: int, *, rule: str = "avsbench") -> list[float]:
    """Choose a moment in each second; the frame shown then represents the second.

    AVSBench counts frames: second s gets frame number ``int(s * r + 15/16 * r)``, where r is the frame rate
    rounded to a whole number, or the last frame if there are fewer. At a fractional rate this drifts, at
    29.97 Hz by 1 s in 17 minutes, so in a long video ``"end"`` stays in step with the sound and
    ``"avsbench"`` does not. If frames are not evenly spaced, their numbers do not give times, and
    ``"avsbench"`` works like ``"end"``.

    Args:
        video: what :func:`~avslib.media.probe_video` returned.
        seconds: number of seconds; those after the end of the video get its last frame.
        rule: ``"avsbench"``; or ``"end"``, ``"middle"`` and ``"start"`` for 15/16 s, 1/2 s and 0 s after
            the second begins.

    Returns:
        Presentation times, s from the beginning of the file.

    Raises:
        ValueError: if ``seconds`` is not positive or the rule is unknown.

    Example:
        >>> film = VideoInfo(times=tuple(i / 16 for i in range(40)), end=2.5, fps=16, has_sound=False)
        >>> frame_moments(film, 3)
        [0.9375, 1.9375, 2.4375]
        >>> frame_moments(film, 3, rule="middle")
        [0.5, 1.5, 2.5]

    Published code of AVSBench, ``preprocess_scripts/preprocess_s4.py``.
    """
    check_positive("seconds", seconds)
    check_one_of("rule", rule, FRAME_RULES)
    rate = round(video.fps)
    if rule == "avsbench" and rate >= 1 and _evenly_spaced(video):
        numbers = [int(second * rate + 15 / 16 * rate) for second in range(seconds)]
        return [max(0.0, video.times[min(number, len(video.times) - 1)]) for number in numbers]
    return [second + _MOMENTS[rule] for second in range(seconds)]


def _evenly_spaced(video: VideoInfo) -> bool:
    """Return whether each frame comes within half a frame of the time that its number implies."""
    first = video.times[0]
    return all(abs((time - first) * video.fps - number) < 0.5 for number, time in enumerate(video.times))
