"""Functions for worker processes to run, each ending in its own way. In a module of their own: workers import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path


class TwoArguments(Exception):
    """Cannot be unpickled: its arguments are not those that it was made of."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


@dataclass(frozen=True)
class Task:
    """One job: what to do, and a folder in which it leaves a file per attempt, named by its process id."""

    name: str
    action: str
    folder: Path

    def attempts(self) -> list[int]:
        return [int(path.suffix[1:]) for path in sorted(self.folder.glob(f"{self.name}-*"))]


def run(task: Task) -> str:
    attempt = len(task.attempts()) + 1
    (task.folder / f"{task.name}-{attempt}.{os.getpid()}").touch()
    match task.action:
        case "kill once" if attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(3)
        case "hang":
            time.sleep(600)
        case "hang deaf":  # as a decoder in an endless loop, which no signal but SIGKILL ends
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while True:
                time.sleep(600)
        case "raise":
            raise ValueError("no such thing")
        case "raise two":
            raise TwoArguments("a fault", "a file")
        case "lambda":
            return lambda: None  # type: ignore[return-value]
        case "sleep":
            time.sleep(0.3)
        case "sleep long":
            time.sleep(1.5)
    return f"{task.name} done"


def allocate(megabytes: int) -> str:
    """Ask for that much memory and fill it."""
    try:
        block = bytearray(megabytes << 20)
        block[:: 1 << 12] = b"x" * (len(block) >> 12)
    except MemoryError:
        return "no memory"
    return f"{len(block) >> 20} MB"


def main() -> None:
    """Run hanging jobs until somebody kills this process: `python -m tests.ingest.jobs FOLDER`."""
    from ingest.executors import run_jobs

    tasks = [Task(f"job{i}", "hang deaf", Path(sys.argv[1])) for i in range(4)]
    for _ in run_jobs(run, tasks, num_workers=2):
        pass


if __name__ == "__main__":
    main()
