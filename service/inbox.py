"""Takes in the telemetry that runs on other machines push, into files of the same format in the runs folder."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loaders.retention import thin
from loaders.telemetry import (
    SpeedSample,
    Stage,
    clear,
    file_name,
    find_ranks,
    find_runs,
    insert_event,
    insert_report,
    open_for_writing,
    set_values,
)
from service.models import Push, PushedReport, Receipt
from service.problems import Problem, without_paths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = ("run", "state", "heartbeat_at", "started_at", "ended_at", "file", "rank", "pushed", "num_pushes")
_MAX_RUNS = 1000
_THIN_EVERY = 500  # Messages.
_PRUNE_EVERY_S = 3600.0


class Inbox:
    """The runs folder as the place where pushed runs are kept; one writer at a time.

    A pushed run is one whose file says so: a run that is written on this machine is never touched. Pushed runs that
    have been silent for `keep_days` are removed.
    """

    def __init__(self, folder: Path, keep_days: float) -> None:
        self._folder, self._keep_s = folder, keep_days * 86400
        self._lock = threading.Lock()
        self._next_prune = 0.0

    def take(self, run: str, push: Push) -> Receipt:
        """Keep what is new of a message; a repeated one changes nothing.

        Raises: Problem: 422 for a name that could not be a folder, 409 where a run of this machine has the name, 503
        when it cannot be written now, 507 when there are too many runs.
        """
        if not _NAME.fullmatch(run):
            raise Problem(422, "The name of a run is 1 to 100 letters, digits, dots, dashes and underscores.")
        with self._lock:
            self._prune()
            folder = self._folder / run
            self._check_place(run, folder)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with _opened(folder / file_name(push.rank), push.file) as db:
                    return _write(db, run, push)
            except (OSError, sqlite3.Error, OverflowError) as error:
                raise Problem(503, f"Run {run!r} cannot be written now: {without_paths(str(error))}.") from None

    def _check_place(self, run: str, folder: Path) -> None:
        files = [folder / file_name(rank) for rank in find_ranks(folder)]
        if any(not is_pushed(file) for file in files):
            raise Problem(409, f"Run {run!r} is written on the service's own machine. Push under another name.")
        if folder.exists() and not files and any(folder.iterdir()):
            raise Problem(409, f"The folder of run {run!r} holds something else. Push under another name.")
        if not files and len(find_runs(self._folder)) >= _MAX_RUNS:
            raise Problem(507, f"There are {_MAX_RUNS} runs already. Remove some from the runs folder.")

    def _prune(self) -> None:
        """Now and then remove the pushed runs that nobody has heard of for long."""
        now = time.time()
        if now < self._next_prune or not self._folder.is_dir():
            return
        self._next_prune = now + _PRUNE_EVERY_S
        for folder in find_runs(self._folder):
            files = [folder / file_name(rank) for rank in find_ranks(folder)]
            if folder == self._folder or any(not is_pushed(file, silent_since=now - self._keep_s) for file in files):
                continue
            for file in files:
                _remove(file)
            with suppress(OSError):  # Not empty: somebody keeps something else there.
                folder.rmdir()


def is_pushed(file: Path, silent_since: float | None = None) -> bool:
    """Whether this telemetry file was pushed here (and has had no sign of life after `silent_since`)."""
    try:
        db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
    except sqlite3.Error:
        return False
    try:
        about = dict(db.execute("SELECT key, value FROM run WHERE key IN ('pushed', 'heartbeat_at')").fetchall())
    except sqlite3.Error:
        return False  # What cannot be read is nobody's to overwrite.
    finally:
        db.close()
    return bool(about.get("pushed")) and (silent_since is None or float(about.get("heartbeat_at") or 0) < silent_since)


@contextmanager
def _opened(path: Path, file: str) -> Iterator[sqlite3.Connection]:
    """The copy of the sender's file `file`; a copy of another one that lies there is replaced."""
    db = open_for_writing(path)
    try:
        db.execute("BEGIN IMMEDIATE")
        known = dict(db.execute("SELECT key, value FROM run WHERE key IN ('file', 'pushed')").fetchall())
        if known.get("pushed") and known.get("file") != file:
            clear(db)  # In the same transaction as what is new: a reader sees the old run or the new one.
        try:
            yield db
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        (pushes,) = db.execute("SELECT value FROM run WHERE key = 'num_pushes'").fetchone()
        if pushes % _THIN_EVERY == 0:
            thin(db)
    finally:
        db.close()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _write(db: sqlite3.Connection, run: str, push: Push) -> Receipt:
    now = time.time()
    pushes = db.execute("SELECT value FROM run WHERE key = 'num_pushes'").fetchone()
    said = {str(_text(key)): json.dumps(v) if isinstance(v, dict | list) else _text(v) for key, v in push.about.items()}
    about = {key: value for key, value in said.items() if key not in _RESERVED}
    own = {
        "run": run,
        "file": push.file,
        "rank": push.rank,
        "pushed": 1,
        "num_pushes": (pushes[0] if pushes else 0) + 1,
        "state": push.state,
        "started_at": push.started_at or now,
        "heartbeat_at": now - push.silent_s,  # By this machine's clock: the sender's may be off.
        "ended_at": push.ended_at,
    }
    if pushes and push.started_at is None:
        own.pop("started_at")
    set_values(db, about | own)
    taken = sum(insert_report(db, _sample(report), report.id) for report in push.samples)
    (last_event,) = db.execute("SELECT COALESCE(MAX(value), 0) FROM run WHERE key = 'last_event'").fetchone()
    for event in push.events:
        if event.id is None or event.id > last_event:
            insert_event(db, event.at, event.level, event.message)
            last_event = max(last_event, event.id or 0)
    set_values(db, {"last_event": last_event})
    (last_id,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM speed").fetchone()
    return Receipt(run=run, last_id=last_id, last_event=last_event, taken=taken)


def _sample(report: PushedReport) -> SpeedSample:
    values = report.model_dump(exclude={"id", "stages"})
    return SpeedSample(**values, stages={name: Stage(**s.model_dump()) for name, s in report.stages.items()})


def _text(value: object) -> object:
    """Text that SQLite can hold; JSON may carry halves of characters. Whole numbers beyond 64 bits become text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value
