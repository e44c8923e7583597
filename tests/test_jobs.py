import os
import signal
import stat
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avslib._jobs import UNFINISHED, permit_as_usual, remove_unfinished, run_jobs, write_whole


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with write_whole(path) as unfinished:
        assert unfinished.parent == path.parent
        assert unfinished.suffix == ".txt"
        assert unfinished.name.startswith(UNFINISHED)
        unfinished.write_text("half")
        assert not path.exists()
        unfinished.write_text("whole")
    assert {file.name: file.read_text() for file in path.parent.iterdir()} == {"a.txt": "whole"}


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_a_file_is_for_whom_any_new_file_is(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    usual = os.umask(0o027)
    try:
        permit_as_usual(path)
    finally:
        os.umask(usual)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), write_whole(path) as unfinished:  # noqa: PT012
        unfinished.write_text("half")
        raise OSError("disk full")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.txt": "old"}
    with pytest.raises(FileNotFoundError), write_whole(path):
        pass  # nothing was written
    assert path.read_text() == "old"


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "a.txt", []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(path.exists()), real(file)))
    with write_whole(path) as unfinished:
        unfinished.write_text("whole")
    assert synced == [False]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("other")
    (tmp_path / "a.txt").symlink_to(tmp_path / "other.txt")
    with write_whole(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("whole")
    assert (tmp_path / "other.txt").read_text() == "other"
    assert not (tmp_path / "a.txt").is_symlink()


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "deep", root / f"{UNFINISHED}folder" / "inner", other):
        folder.mkdir(parents=True)
        (folder / "a.txt").touch()
        (folder / f"{UNFINISHED}b.txt").touch()
    (root / f"{UNFINISHED}link").symlink_to(other)
    (root / "link").symlink_to(other)
    remove_unfinished(root)
    left = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert left == {"deep", "deep/a.txt", "link"}
    assert len(list(other.iterdir())) == 2
    remove_unfinished(tmp_path / "nowhere")


def test_an_exception_becomes_a_record() -> None:
    done: list[int] = []
    outcomes = list(run_jobs(eval, ["1 + 1", "1 / 0", "int('x')", "next(iter([]))"], progress=done.append))
    assert outcomes[0] == ("1 + 1", 2, "")
    assert [error for _, _, error in outcomes[1:]] == [
        "ZeroDivisionError: division by zero",
        "invalid literal for int() with base 10: 'x'",
        "StopIteration: ",
    ]
    assert done == [1] * 4
    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(eval, ["exec('raise KeyboardInterrupt')"]))


def test_torch_has_one_thread_in_a_job_and_its_own_again_after() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        outcomes = [
            (result, torch.get_num_threads())
            for _, result, _ in run_jobs(eval, ["__import__('torch').get_num_threads()"])
        ]
        assert outcomes == [(1, 2)]
    finally:
        torch.set_num_threads(before)


def test_there_must_be_a_worker() -> None:
    with pytest.raises(ValueError, match="workers: expected a number above 0, got 0"):
        list(run_jobs(int, [], workers=0))
    assert list(run_jobs(int, [], workers=2)) == []


@pytest.mark.slow  # a spawned process imports torch anew
def test_a_process_that_dies_costs_its_job_alone() -> None:
    jobs = [f"{i}" for i in range(20)]
    jobs[3] = "__import__('os')._exit(7)"
    jobs[11] = "__import__('os').kill(__import__('os').getpid(), 9)"
    jobs[15] = "1 / 0"
    jobs[16] = "lambda: None"  # cannot be sent back
    outcomes = {job: (result, error) for job, result, error in run_jobs(eval, jobs, workers=2)}
    assert outcomes.pop(jobs[3]) == (None, "its process was ended with exit code 7")
    assert outcomes.pop(jobs[11]) == (None, "its process was ended by SIGKILL")
    assert outcomes.pop(jobs[15]) == (None, "ZeroDivisionError: division by zero")
    assert "pickle" in outcomes.pop(jobs[16])[1].lower()
    assert outcomes == {job: (int(job), "") for job in jobs if job.isdigit()}


@pytest.mark.slow
def test_no_more_processes_are_started_than_there_are_jobs() -> None:
    alive: list[int] = []
    list(run_jobs(int, ["7"], workers=3, progress=lambda _: alive.append(len(active_children()))))
    assert alive == [1]


class Counted:
    """A function that knows how often it was sent somewhere."""

    def __init__(self) -> None:
        self.sent = 0

    def __getstate__(self) -> dict[str, int]:
        self.sent += 1
        return self.__dict__

    def __call__(self, job: int) -> int:
        return 10 * job


@pytest.mark.slow
def test_a_function_is_not_sent_with_every_job() -> None:
    function = Counted()
    assert [result for _, result, _ in run_jobs(function, range(9), workers=2)] == [*range(0, 90, 10)]
    assert function.sent == 1


def test_a_function_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"workers: expected 1 for what cannot be sent to a process \(.*lambda"
    ):
        list(run_jobs(lambda job: job, [1, 2], workers=2))


@pytest.mark.slow
def test_several_processes_work_at_once_and_are_gone_after() -> None:
    jobs = [f"__import__('time').sleep({2 if i < 2 else 0}) or __import__('os').getpid()" for i in range(6)]
    begin, times, pids = time.monotonic(), [], set()
    for _, pid, error in run_jobs(eval, jobs, workers=2):
        assert not error
        times.append(time.monotonic() - begin)
        pids.add(pid)
    assert times[1] - times[0] < 1.5  # the first two slept at the same time
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert all(_is_gone(pid) for pid in pids)


def _is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


_SCRIPT = """
import sys
from avslib._jobs import run_jobs
if __name__ == "__main__":
    job = "print(__import__('os').getpid(), flush=True) or __import__('time').sleep(60)"
    list(run_jobs(eval, [job] * 8, workers=2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_the_processes_end_with_the_first(tmp_path: Path, name: str) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(2)]
    if name == "SIGINT":  # Ctrl-C reaches them all
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=20)
    assert all(_is_gone(pid) for pid in pids)
    assert errors.count("Traceback") == (1 if name == "SIGINT" else 0), errors


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from avslib._jobs import run_jobs\nlist(run_jobs(int, ['1', '2'], workers=2))\n"
    )
    result = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "RuntimeError: workers: the processes ended before their first job" in result.stderr
