"""Cutting a long video into short windows for a model."""

from __future__ import annotations

from avslib._checks import check_positive


def cut_windows(seconds: int, length: int, overlap: int = 0) -> list[range]:
    """Cut a video into windows of equal length that together cover every second.

    The last window begins earlier if it would otherwise be shorter than the others.

    Args:
        seconds: length of the video, s.
        length: length of a window, s; a shorter video is a single window.
        overlap: minimum number of seconds that a window shares with the one before it.

    Raises:
        ValueError: if ``seconds`` or ``length`` is not positive, or if ``overlap`` is not in ``[0, length)``.

    Example:
        >>> cut_windows(12, 5)
        [range(0, 5), range(5, 10), range(7, 12)]
        >>> cut_windows(9, 5, overlap=2)
        [range(0, 5), range(3, 8), range(4, 9)]
    """
    check_positive("seconds", seconds)
    check_positive("length", length)
    if not 0 <= overlap < length:
        raise ValueError(f"overlap: expected 0 to {length - 1} s, less than a window, got {overlap}")
    length = min(length, seconds)
    last = seconds - length
    starts = [*range(0, last, max(1, length - overlap)), last]
    return [range(start, start + length) for start in starts]
