"""Registry of the readers, by the name of a setting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from avslib.data.avsbench import AVSBenchMS3, AVSBenchS4
from avslib.data.avss import AVSBenchSemantic
from avslib.data.folder import ClipFolder
from avslib.data.reader import ClipReader
from avslib.data.vpo import VPO

READERS: dict[str, Callable[..., ClipReader]] = {
    "s4": AVSBenchS4,
    "ms3": AVSBenchMS3,
    "avss": AVSBenchSemantic,
    "folder": ClipFolder,
    "vpo-ss": partial(VPO, part="ss"),
    "vpo-ms": partial(VPO, part="ms"),
    "vpo-msmi": partial(VPO, part="msmi"),
}
"""Reader of a setting, by its name; call it with ``root``, ``split`` and the options of a reader."""
