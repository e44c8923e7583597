"""A long video as the short clips that a model is used to."""

from __future__ import annotations

from avslib._checks import check_positive


def cut_windows(seconds: int, length: int, overlap: int = 0) -> list[range]:
    """Cut a video into windows of one length that together hold every second.

    The last window begins earlier than its turn, where it would otherwise be shorter than the others.

    Args:
        seconds: length of the video, s.
        length: of a window, s; a shorter video is one window.
        overlap: seconds that a window shares with the one before it, at least.

    Raises:
        ValueError: if ``seconds`` or ``length`` is not positive, or ``overlap`` not in ``[0, length)``.

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
