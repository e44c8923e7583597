"""Run long jobs over many files in several processes, and write files whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from avslib._checks import check_positive

UNFINISHED = ".unfinished-"
"""Prefix of the names of files that are not complete yet; code that lists a folder skips them."""

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextlib.contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    The content reaches the disk before the name does, so after a kill or a power cut there is the old file,
    the new file or none. A kill may leave a file whose name begins with ``UNFINISHED``.

    Args:
        path: the file; its folder is created if it is missing. If it is a link, the link is replaced.

    Yields:
        Another path in the same folder, with the same suffix. Write to it directly: ``save_file`` of
        safetensors would write a temporary file of its own first, which a kill would leave under another
        name.

    Example:
        >>> path = getfixture("tmp_path") / "folder" / "note.txt"
        >>> with write_whole(path) as unfinished:
        ...     _ = unfinished.write_text("done")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('done', 1)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}{path.suffix}")
    try:
        yield unfinished
        with unfinished.open("r+b") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def permit_as_usual(path: Path) -> None:
    """Give a file the permissions of any new file in its folder.

    Safetensors gives the files that it writes permissions for their owner only.
    """
    usual = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    usual.touch()
    mode = usual.stat().st_mode
    usual.unlink()
    if path.stat().st_mode != mode:  # some file systems know one mode and refuse to change it
        path.chmod(mode)


def remove_unfinished(root: str | Path) -> None:
    """Remove the unfinished files that killed runs left anywhere in a folder, without following links.

    A run that is still writing there loses its unfinished files and reports them as failed.
    """
    for folder, folders, files in os.walk(root):
        for name in files:
            if name.startswith(UNFINISHED):
                Path(folder, name).unlink(missing_ok=True)
        for name in [name for name in folders if name.startswith(UNFINISHED)]:
            folders.remove(name)
            if Path(folder, name).is_symlink():
                Path(folder, name).unlink()
            else:
                shutil.rmtree(Path(folder, name), ignore_errors=True)


class Outcome(NamedTuple, Generic[Job, Result]):
    """Outcome of a job."""

    job: Job
    result: Result | None
    error: str
    """Why there is no result; empty if there is one."""


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Outcome[Job, Result]]:
    """Call a function on every job, in several processes, and yield the outcomes in order.

    An exception ends only its own job. So does the death of a process, which may be killed for its memory or
    by a file that crashes a decoder. Torch gets one thread, so that the results do not depend on ``workers``.
    If this process is interrupted or killed, the others end with it immediately.

    Args:
        function: called with one job; with several workers it must be picklable, and so must the jobs and the
            results.
        jobs: arguments of the function, one per call.
        workers: number of processes; 1 runs the jobs in this process. More than one needs a script with
            ``if __name__ == "__main__"``, since processes are spawned: a forked torch may hang.
        progress: called with 1 after every job, like tqdm's ``update``.

    Raises:
        ValueError: if there is no worker, or ``function`` cannot be sent to several.
        RuntimeError: if a process ends before its first job.

    Example:
        >>> fine, failed = run_jobs(int, ["7", "seven"])
        >>> fine.result, failed.error
        (7, "invalid literal for int() with base 10: 'seven'")
    """
    check_positive("workers", workers)
    outcomes = _run_here(function, jobs) if workers == 1 else _run_apart(function, jobs, workers)
    for outcome in outcomes:
        if progress is not None:
            progress(1)
        yield outcome


def _attempt(function: Callable[[Job], Result], job: Job) -> Outcome[Job, Result]:
    try:
        return Outcome(job, function(job), "")
    except (ValueError, OSError, ImportError) as error:  # their messages are written to be read
        return Outcome(job, None, str(error) or type(error).__name__)
    except Exception as error:
        return Outcome(job, None, f"{type(error).__name__}: {error}")


_pickled = b""
"""In a process of `_run_apart`: the pickled function that it calls on its jobs."""


def _attempt_sent(job: Job) -> Outcome[Job, Any]:
    return _attempt(lambda job: _sent_function()(job), job)


@functools.cache
def _sent_function() -> Callable[[Any], Any]:
    return pickle.loads(_pickled)


def _run_here(function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Outcome[Job, Result]]:
    for job in jobs:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            outcome = _attempt(function, job)
        finally:
            torch.set_num_threads(threads)
        yield outcome


def _run_apart(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[Outcome[Job, Result]]:
    from pebble import ProcessExpired, ProcessPool

    try:
        pickled = pickle.dumps(function)  # sent once to each process, since it may hold a dataset
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"workers: expected 1 for what cannot be sent to a process ({error})") from error
    jobs = list(jobs)
    count = min(workers, max(1, len(jobs)))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(count, initializer=_begin, initargs=(pickled,), context=context)
    try:
        outcomes = pool.map(_attempt_sent, jobs).result()
        for job in jobs:
            try:
                yield next(outcomes)
            except BrokenProcessPool:
                raise RuntimeError(
                    "workers: the processes ended before their first job; a script that takes more than one "
                    'needs `if __name__ == "__main__":` around what it runs'
                ) from None
            except ProcessExpired as error:
                yield Outcome(job, None, f"its process was ended {_end(error.exitcode)}")
            except Exception as error:  # the result cannot be sent back
                yield Outcome(job, None, f"{type(error).__name__}: {error}")
    except BaseException:
        pool.stop()
        raise
    else:
        pool.close()  # not stopped: a process that is still starting would complain
    finally:
        pool.join()


def _end(exit_code: int) -> str:
    return f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"


def _begin(pickled: bytes) -> None:
    """Prepare a process for its jobs."""
    global _pickled
    _pickled = pickled
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # even in the middle of a job, as if it had been killed itself
