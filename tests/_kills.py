"""Kill a run at random moments, let another finish, and compare with one that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def kill_at_random_moments(
    run: Callable[[Path], object], source: Path, scratch: Path, *, times: int, seed: int = 0
) -> None:
    """Run on copies of ``source``, in forked processes of which ``times`` are killed before they end."""
    rng = random.Random(seed)
    begin = time.monotonic()
    run(Path(shutil.copytree(source, scratch / "uninterrupted")))
    duration = time.monotonic() - begin
    old, whole = files_of(source), files_of(scratch / "uninterrupted")
    killed = 0
    for number in range(20 * times):
        root = Path(shutil.copytree(source, scratch / f"{number}"))
        if not _kill(run, root, after=rng.uniform(0, 1) * duration):
            continue  # it was done before
        killed += 1
        left = files_of(root)
        halves = {name for name in left if name in whole and left[name] not in (old.get(name), whole[name])}
        assert halves == set()
        run(root)
        finished = files_of(root)
        assert finished.keys() ^ whole.keys() == set()
        assert {name for name in whole if finished[name] != whole[name]} == set()
        if killed == times:
            return
    raise AssertionError(f"expected {times} runs that were killed, got {killed}")


def _kill(run: Callable[[Path], object], root: Path, *, after: float) -> bool:
    """Tell whether the run was killed before it was done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # to fork beside threads: they are idle
        child = os.fork()
    if not child:
        try:
            run(root)
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])
