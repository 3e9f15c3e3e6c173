"""Worker processes: a crash or a hang costs one job, an error stops the run, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.executors import Outcome, WorkerTraceback, run_jobs
from tests.ingest.jobs import Task, TwoArguments, run

ROOT = Path(__file__).resolve().parents[2]


def outcomes(tasks: list[Task], num_workers: int = 2, timeout_s: float | None = None) -> dict[str, Outcome[Task, str]]:
    found = run_jobs(run, tasks, num_workers=num_workers, timeout_s=timeout_s)
    return {outcome.job.name: outcome for outcome in found if outcome is not None}


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], most_s: float = 20) -> bool:
    end = time.monotonic() + most_s
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return true


def workers_of(folder: Path) -> set[int]:
    return {int(path.suffix[1:]) for path in folder.iterdir()}


def test_every_job_is_done_once_by_as_many_workers_as_asked(tmp_path: Path) -> None:
    tasks = [Task(f"job{i}", "sleep", tmp_path) for i in range(8)]
    done = outcomes(tasks, num_workers=3)
    assert {name: outcome.result for name, outcome in done.items()} == {f"job{i}": f"job{i} done" for i in range(8)}
    assert len(list(tmp_path.iterdir())) == 8
    assert len(workers_of(tmp_path)) == 3
    assert os.getpid() not in workers_of(tmp_path)
    assert not any(map(alive, workers_of(tmp_path)))


def test_no_jobs_start_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.executors._Worker", None)
    assert list(run_jobs(run, [], num_workers=2)) == []


def test_a_worker_killed_once_is_replaced_and_its_job_done(tmp_path: Path) -> None:
    tasks = [Task("victim", "kill once", tmp_path), *(Task(f"job{i}", "well", tmp_path) for i in range(4))]
    done = outcomes(tasks)
    assert {outcome.result for outcome in done.values()} == {f"{task.name} done" for task in tasks}
    assert len(tasks[0].attempts()) == 2


@pytest.mark.parametrize(("action", "death"), [("kill", "signal SIGKILL"), ("exit", "exit code 3")])
def test_a_job_that_always_kills_its_worker_has_crashed_and_the_others_are_done(
    tmp_path: Path, action: str, death: str
) -> None:
    tasks = [Task("bad", action, tmp_path), *(Task(f"job{i}", "well", tmp_path) for i in range(4))]
    done = outcomes(tasks)
    assert (done["bad"].result, done["bad"].reason) == (None, "crashed")
    assert death in done["bad"].message
    assert len(tasks[0].attempts()) == 2
    assert all(done[f"job{i}"].result == f"job{i} done" for i in range(4))


@pytest.mark.parametrize("action", ["hang", "hang deaf"])
def test_a_job_that_hangs_is_ended_and_the_others_are_done(tmp_path: Path, action: str) -> None:
    tasks = [Task("slow", action, tmp_path), *(Task(f"job{i}", "well", tmp_path) for i in range(4))]
    done = outcomes(tasks, timeout_s=2)
    assert (done["slow"].result, done["slow"].reason) == (None, "timeout")
    assert done["slow"].message == "not done after 2 s"
    assert all(done[f"job{i}"].result == f"job{i} done" for i in range(4))
    assert not any(map(alive, workers_of(tmp_path)))


def test_an_error_is_raised_with_the_traceback_of_the_worker(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such thing") as caught:
        outcomes([Task("job", "raise", tmp_path), Task("other", "hang", tmp_path)])
    assert isinstance(caught.value.__cause__, WorkerTraceback)
    assert 'raise ValueError("no such thing")' in str(caught.value.__cause__)
    assert not any(map(alive, workers_of(tmp_path)))


def test_an_error_that_cannot_travel_is_told_in_words(tmp_path: Path) -> None:
    assert str(TwoArguments("a fault", "a file")) == "a fault in a file"
    with pytest.raises(RuntimeError, match="a fault in a file") as caught:
        outcomes([Task("job", "raise two", tmp_path)])
    assert "raise TwoArguments" in str(caught.value.__cause__)


def test_a_result_that_cannot_travel_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot be sent"):
        outcomes([Task("job", "lambda", tmp_path)])


def test_nothing_for_half_a_second_is_told_as_none(tmp_path: Path) -> None:
    found = run_jobs(run, [Task("slow", "hang", tmp_path)], num_workers=1)
    assert next(found) is None
    found.close()


def test_closing_the_iterator_ends_the_workers(tmp_path: Path) -> None:
    tasks = [Task("first", "well", tmp_path), *(Task(f"job{i}", "hang", tmp_path) for i in range(4))]
    found = run_jobs(run, tasks, num_workers=2)
    while next(found) is None:
        pass
    assert next(found) is None
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
    found.close()
    assert not any(map(alive, workers_of(tmp_path)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_the_workers_go_when_their_parent_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-m", "tests.ingest.jobs", str(tmp_path)], cwd=ROOT)
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    workers = workers_of(tmp_path)
    assert all(map(alive, workers))
    parent.send_signal(number)
    parent.wait()
    assert wait_until(lambda: not any(map(alive, workers)), most_s=5)


def test_ctrl_c_is_for_the_parent_the_workers_do_not_hear_it(tmp_path: Path) -> None:
    task = Task("job", "sleep long", tmp_path)
    found = run_jobs(run, [task], num_workers=1)
    before = signal.getsignal(signal.SIGINT)
    while not (outcome := next(found)):
        for pid in workers_of(tmp_path):
            os.kill(pid, signal.SIGINT)
    assert (outcome.result, len(task.attempts())) == ("job done", 1)
    assert signal.getsignal(signal.SIGINT) is before
    found.close()
