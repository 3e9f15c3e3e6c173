"""Runs a function over many jobs in worker processes, so that a crash or a hang costs one job and not the run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import re
import resource
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

TICK_S = 0.5
MAX_ATTEMPTS = 2


@dataclass(frozen=True)
class Outcome(Generic[JobT, ResultT]):
    """What became of one job: a result, or the reason why there is none."""

    job: JobT
    result: ResultT | None = None
    reason: str = ""
    message: str = ""


class Executor(Protocol):
    """What runs a function over jobs somewhere: see `run_jobs` for the contract."""

    def __call__(
        self,
        function: Callable[[Any], Any],
        jobs: Iterable[Any],
        *,
        num_workers: int,
        timeout_s: float | None = None,
        memory_bytes: int | None = None,
    ) -> Iterator[Outcome[Any, Any] | None]: ...


class WorkerTraceback(Exception):
    """Where in the worker an error came from: the cause of the error that `run_jobs` raises."""


def run_jobs(
    function: Callable[[JobT], ResultT],
    jobs: Iterable[JobT],
    *,
    num_workers: int,
    timeout_s: float | None = None,
    memory_bytes: int | None = None,
) -> Iterator[Outcome[JobT, ResultT] | None]:
    """Outcomes in the order of completion, with a None about every half second in which nothing ended.

    `function` is called in worker processes (started by spawn; it must be importable there) with one job at a time. A
    worker that dies is replaced and its job tried once more; then, or when a job takes longer than `timeout_s`, the
    outcome has the reason `crashed` or `timeout`. A worker that grows by more than `memory_bytes` is refused more: mostly
    a MemoryError in `function`, sometimes a crash. Closing the iterator ends the workers at once; so does the death of
    this process, however sudden.

    Raises: what `function` raises (it concerns the whole run: a full disk, a bug), with the worker's traceback as cause.
    """
    waiting = deque((job, 1) for job in jobs)
    if not waiting:
        return
    workers = [_Worker(function, memory_bytes) for _ in range(min(num_workers, len(waiting)))]
    try:
        while waiting or any(worker.job is not None for worker in workers):
            for i, worker in enumerate(workers):
                if worker.job is None and waiting:
                    if not worker.process.is_alive():
                        worker.stop()
                        workers[i] = worker = _Worker(function, memory_bytes)
                    worker.give(*waiting.popleft())
            busy = [worker for worker in workers if worker.job is not None]
            ready = set(wait([worker.connection for worker in busy], timeout=TICK_S))
            if not ready:
                yield None
            for worker in busy:
                if worker.connection in ready:
                    job, attempt = worker.take()
                    try:
                        result, error, trace = worker.connection.recv()
                    except (EOFError, OSError):
                        worker.process.join()
                        if attempt < MAX_ATTEMPTS:
                            waiting.appendleft((job, attempt + 1))
                        else:
                            yield Outcome(
                                job, None, "crashed", f"the worker process died twice ({_death(worker.process)})"
                            )
                        continue
                    if error is not None:
                        raise error from WorkerTraceback(trace)
                    yield Outcome(job, result)
                elif timeout_s is not None and worker.busy_s > timeout_s:
                    job, _ = worker.take()
                    worker.stop()
                    yield Outcome(job, None, "timeout", f"not done after {timeout_s:.0f} s")
    finally:
        for worker in workers:
            worker.stop()


class _Worker(Generic[JobT, ResultT]):
    """One worker process and the pipe to it."""

    def __init__(self, function: Callable[[JobT], ResultT], memory_bytes: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        alive, self._lifeline = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(
            target=_work, args=(function, theirs, alive, memory_bytes), name="clipmill-worker", daemon=True
        )
        with ignoring_sigint():
            self.process.start()
        theirs.close()
        alive.close()
        self.job: JobT | None = None
        self._attempt = 0
        self._since_s = 0.0

    def give(self, job: JobT, attempt: int) -> None:
        self.job, self._attempt, self._since_s = job, attempt, time.monotonic()
        with contextlib.suppress(OSError):  # A worker that died meanwhile shows as end of file on the next read.
            self.connection.send(job)

    def take(self) -> tuple[JobT, int]:
        job, self.job = self.job, None
        assert job is not None
        return job, self._attempt

    @property
    def busy_s(self) -> float:
        return time.monotonic() - self._since_s

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        self._lifeline.close()


@contextlib.contextmanager
def ignoring_sigint() -> Iterator[None]:
    """Children started inside ignore Ctrl-C for good: it goes to the whole process group, and the parent decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(
    function: Callable[[JobT], ResultT], connection: Connection, alive: Connection, memory_bytes: int | None
) -> None:
    """Body of a worker: jobs in, (result, error) out, until the parent is gone."""
    threading.Thread(target=die_with_parent, args=(alive,), daemon=True).start()
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        answer: tuple[ResultT | None, Exception | None, str]
        try:
            answer = (function(job), None, "")
        except Exception as error:
            answer = (None, portable(error), "\n" + traceback.format_exc())
        try:
            connection.send(answer)
        except Exception:  # an answer that cannot be pickled
            connection.send((None, RuntimeError(f"the worker's answer cannot be sent: {answer[1]!r}"), answer[2]))


def portable(error: Exception) -> Exception:
    """The error itself if it survives the pipe (some do not, for their arguments are not what they were made of)."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def limit_memory(more_bytes: int) -> None:
    """Let this process grow by no more than `more_bytes` of private memory. Nothing where the system cannot do it."""
    try:
        status = Path("/proc/self/status").read_text()
        now = int(re.search(r"VmData:\s*(\d+) kB", status)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):  # no Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = now + more_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def die_with_parent(alive: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)


def _death(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
