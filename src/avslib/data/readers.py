"""The readers by the name of what they read."""

from __future__ import annotations

from collections.abc import Callable

from avslib.data.avsbench import AVSBenchMS3, AVSBenchS4
from avslib.data.avss import AVSBenchSemantic
from avslib.data.folder import ClipFolder
from avslib.data.reader import ClipReader

READERS: dict[str, Callable[..., ClipReader]] = {
    "s4": AVSBenchS4,
    "ms3": AVSBenchMS3,
    "avss": AVSBenchSemantic,
    "folder": ClipFolder,
}
"""By the name of a setting: what reads it, called with ``root``, ``split`` and options of a reader."""
