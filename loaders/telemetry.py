"""Telemetry of one run: an SQLite file (WAL) in the run's folder that the service reads while the run writes.

    <runs>/<run>/telemetry.db, of rank 0; telemetry.rank0001.db ... of the others
        run(key, value)                 who runs what: run, method, config, dataset, started_at, heartbeat_at, state, ...
        speed(id, step, at, epoch, ...) one row per report: shape, rates r/f/b in clips per second, loss, learning rate
        stages(step, stage, ...)        what the loader's stages did since the report before, and how long an item took
        stage_totals(stage, ...)        the same, summed over the run
        events(at, level, message)      what a person should read

Times are seconds since 1970. A run whose heartbeat is older than `DEAD_AFTER_S` is dead, not slow.
Old reports are merged (loaders/retention.py). Files that lack the newer columns are read as they are, and get them when
a writer opens them again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loaders.retention import MEANS, thin

FILE_NAME = "telemetry.db"
HEARTBEAT_EVERY_S = 2.0
DEAD_AFTER_S = 15.0
_LOCKED_FOR_S = 5.0
_THIN_EVERY = 2000  # Reports; it takes some hundredths of a second.
STATES = ("running", "finished", "failed", "stopped")


@dataclass(frozen=True)
class Stage:
    """What one stage did since the last report: items, busy seconds summed over threads, bytes.

    `p50_s`, `p90_s`, `p99_s`: what half, 90 % and 99 % of the newest items took at most, each; None where not measured.
    """

    count: int
    seconds: float
    num_bytes: int = 0
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None

    def since(self, before: Stage | None) -> Stage:
        """What was done after `before`, when both count from the start of the run. Percentiles stay: they are recent."""
        if before is None:
            return self
        return replace(
            self,
            count=self.count - before.count,
            seconds=self.seconds - before.seconds,
            num_bytes=self.num_bytes - before.num_bytes,
        )


@dataclass(frozen=True)
class SpeedSample:
    """One report of a run. Rates are clips per second: read (r), forward (f), backward (b); None where unknown.

    `phase` is train, val or test; `top1` and `wait_share` are shares from 0 to 1; `at` is now unless given.
    `occupancy`: share of the loader's slots that hold a finished batch, averaged since the report before. Near 0 the
    loader is the limit, near 1 the training is.
    """

    step: int
    epoch: int
    phase: str
    batch_size: int
    num_frames: int
    height_px: int
    width_px: int
    read: float | None = None
    forward: float | None = None
    backward: float | None = None
    clips_per_s: float | None = None
    wait_share: float | None = None
    learning_rate: float | None = None
    loss: float | None = None
    top1: float | None = None
    at: float = 0.0
    stages: Mapping[str, Stage] = field(default_factory=dict)
    occupancy: float | None = None


_COLUMNS = tuple(f.name for f in fields(SpeedSample) if f.name != "stages")
_STAGE_COLUMNS = tuple(f.name for f in fields(Stage))
_TABLES = {
    "run": "key TEXT PRIMARY KEY, value",
    "speed": f"id INTEGER PRIMARY KEY, {', '.join(_COLUMNS)}",
    "stages": f"step, phase, at, stage, {', '.join(_STAGE_COLUMNS)}",
    "events": "at, level, message",
}
_ADDED = {"speed": ("occupancy",), "stages": ("p50_s", "p90_s", "p99_s")}  # Columns that files of before lack.


def file_name(rank: int = 0) -> str:
    """Every rank has a file of its own: they may run on several machines, and SQLite does not lock across those."""
    return f"telemetry.rank{rank:04d}.db" if rank else FILE_NAME


# Writing


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The telemetry file at `path`, made or brought up to date. Raises: sqlite3.Error; OSError when it cannot be made.

    A new one is made under a temporary name, so that no reader ever sees it without its tables.
    """
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            _open(temporary).close()
            with suppress(FileExistsError):  # Somebody else was faster: then his is opened.
                os.link(temporary, path)
        except PermissionError:  # A file system without links.
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
    return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_LOCKED_FOR_S, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("BEGIN IMMEDIATE")
        for table, columns in _TABLES.items():
            db.execute(f"CREATE TABLE IF NOT EXISTS {table}({columns})")
        for table, added in _ADDED.items():
            known = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            for column in added:
                if column not in known:
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        if not _has_table(db, "stage_totals"):
            db.execute("CREATE TABLE stage_totals(stage TEXT PRIMARY KEY, count, seconds, num_bytes)")
            db.execute(
                "INSERT INTO stage_totals SELECT stage, SUM(count), SUM(seconds), SUM(num_bytes) FROM stages GROUP BY 1"
            )
        db.execute("CREATE INDEX IF NOT EXISTS stages_at ON stages(at)")
        # Who copies the file elsewhere can tell by this whether it is still the same one.
        db.execute("INSERT OR IGNORE INTO run VALUES('file', ?)", (uuid.uuid4().hex,))
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def clear(db: sqlite3.Connection) -> None:
    """Forget all that a telemetry file holds, within the caller's transaction."""
    for table in (*_TABLES, "stage_totals"):
        db.execute(f"DELETE FROM {table}")


def insert_report(db: sqlite3.Connection, sample: SpeedSample, report_id: int | None = None) -> bool:
    """Add one report, within the caller's transaction. False when there is one with this id already."""
    at = sample.at or time.time()
    values = [at if name == "at" else getattr(sample, name) for name in _COLUMNS]
    added = db.execute(
        f"INSERT OR IGNORE INTO speed(id, {', '.join(_COLUMNS)}) VALUES(?,{_slots(len(values))})", [report_id, *values]
    )
    if not added.rowcount:
        return False
    for name, stage in sample.stages.items():
        done = [getattr(stage, column) for column in _STAGE_COLUMNS]
        db.execute(
            f"INSERT INTO stages(step, phase, at, stage, {', '.join(_STAGE_COLUMNS)}) VALUES({_slots(4 + len(done))})",
            [sample.step, sample.phase, at, name, *done],
        )
        db.execute(
            "INSERT INTO stage_totals VALUES(?,?,?,?) ON CONFLICT(stage) DO UPDATE SET count = count + excluded.count,"
            " seconds = seconds + excluded.seconds, num_bytes = num_bytes + excluded.num_bytes",
            [name, *done[:3]],
        )
    return True


def set_values(db: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Write what the run says of itself; what is no number, text or None as JSON."""
    for key, value in values.items():
        plain = value if value is None or isinstance(value, (int, float, str)) else json.dumps(value)
        db.execute("INSERT INTO run VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value", (key, plain))


def insert_event(db: sqlite3.Connection, at: float, level: str, message: str) -> None:
    db.execute("INSERT INTO events VALUES(?,?,?)", (at, level, message))


def _slots(count: int) -> str:
    return ",".join("?" * count)


def _has_table(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (name,)).fetchone() is not None


class TelemetryWriter:
    """Writes the telemetry of one rank. A thread keeps the heartbeat going, also while a step takes long.

    A telemetry file that cannot be written never stops a training: the first failure is kept in `error`.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], rank: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / file_name(rank)
        self.error: str | None = None
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._reports = 0
        try:
            self._db = open_for_writing(self.path)
        except (sqlite3.Error, OSError) as error:
            self.error = f"{self.path}: {error}"
        self._do(thin)  # What an earlier part of a resumed run has left.
        now = time.time()
        own = {"state": "running", "heartbeat_at": now, "ended_at": None, "rank": rank}
        self._set({"run": folder.name, "started_at": now, **about, **own})
        self._closing = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, name="clipmill-heartbeat", daemon=True)
        self._beat.start()

    def report(self, sample: SpeedSample) -> None:
        self._write(lambda db: insert_report(db, sample))
        self._reports += 1
        if self._reports % _THIN_EVERY == 0:
            self._do(thin)

    def event(self, level: str, message: str) -> None:
        self._write(lambda db: insert_event(db, time.time(), level, message))

    def close(self, state: str) -> None:
        """End the run as `finished`, `failed` or `stopped`. A second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._beat.join()
        now = time.time()
        self._set({"state": state, "heartbeat_at": now, "ended_at": now})
        with self._lock:
            if self._db is not None:
                self._db.close()

    def _keep_beating(self) -> None:
        while not self._closing.wait(HEARTBEAT_EVERY_S):
            self._set({"heartbeat_at": time.time()})

    def _set(self, values: Mapping[str, Any]) -> None:
        self._write(lambda db: set_values(db, values))

    def _write(self, change: Callable[[sqlite3.Connection], object]) -> None:
        """Make a change in one transaction, or not at all."""

        def whole(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                change(db)
            except BaseException:
                if db.in_transaction:  # On a full disk SQLite has rolled back already.
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

        self._do(whole)

    def _do(self, change: Callable[[sqlite3.Connection], object]) -> None:
        if self._db is None:
            return
        try:
            with self._lock:
                change(self._db)
        except sqlite3.Error as error:
            self.error = self.error or f"{self.path}: {error}"


# Reading


@dataclass(frozen=True)
class RunInfo:
    """One run as its telemetry tells it. `state` is one of STATES, or `dead` when a running one lost its heartbeat.

    `file` names the telemetry file for whoever copies it; None in files of before.
    """

    run: str
    state: str
    started_at: float
    heartbeat_at: float
    ended_at: float | None
    about: Mapping[str, Any]
    file: str | None = None
    rank: int = 0

    def at(self, now: float) -> RunInfo:
        """The same, with the state that it has at the time `now`."""
        silent = self.state == "running" and now - self.heartbeat_at > DEAD_AFTER_S
        return replace(self, state="dead") if silent else self


class TelemetryReader:
    """Reads the telemetry of one rank while it may still be written.

    Raises: FileNotFoundError where there is none; sqlite3.DatabaseError for a damaged or locked file.
    """

    def __init__(self, folder: Path, timeout_s: float = 2, rank: int = 0) -> None:
        path = folder / file_name(rank)
        if not path.is_file():
            raise FileNotFoundError(path)
        self.folder = folder
        self._db = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=timeout_s, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row

    def info(self, now: float | None = None) -> RunInfo:
        about = {row["key"]: row["value"] for row in self._db.execute("SELECT key, value FROM run")}
        state, heartbeat = about.pop("state", "running"), about.pop("heartbeat_at", 0.0)
        started, ended = about.pop("started_at", 0.0), about.pop("ended_at", None)
        run, file, rank = about.pop("run", self.folder.name), about.pop("file", None), about.pop("rank", 0)
        found = RunInfo(run, state, started, heartbeat, ended, about, file, rank)
        return found.at(time.time() if now is None else now)

    def speed(self, *, after_id: int = 0, limit: int = 1000, phase: str | None = None) -> list[dict[str, Any]]:
        """The newest `limit` reports with id above `after_id`, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM speed WHERE id > ? AND (? IS NULL OR phase = ?) ORDER BY id DESC LIMIT ?",
            (after_id, phase, phase, limit),
        ).fetchall()
        return [dict(row) for row in reversed(rows)]

    def reports_after(self, after_id: int, limit: int) -> list[dict[str, Any]]:
        """The first `limit` reports with id above `after_id`, oldest first: for copying them all, page by page."""
        rows = self._db.execute("SELECT * FROM speed WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit))
        return [dict(row) for row in rows]

    def history(self, num_points: int, phase: str | None = None) -> list[dict[str, Any]]:
        """The whole run in about `num_points` rows per phase, oldest first: means over equal stretches of time.

        id, step, epoch and shape are those of a stretch's last report; a year costs no more to draw than a day.
        """
        count, first, last = self._db.execute("SELECT COUNT(*), MIN(at), MAX(at) FROM speed").fetchone()
        if count <= num_points:
            return self.speed(limit=num_points, phase=phase)
        width_s = max((last - first) / num_points, 1e-6)
        known = [row["name"] for row in self._db.execute("PRAGMA table_info(speed)")]
        columns = ", ".join(_history_column(name) for name in known)
        rows = self._db.execute(
            f"SELECT {columns} FROM speed WHERE (? IS NULL OR phase = ?)"
            " GROUP BY phase, CAST((at - ?) / ? AS INTEGER) ORDER BY 1",
            (phase, phase, first, width_s),
        )
        return [dict(row) for row in rows]

    def stages(self) -> dict[str, Stage]:
        """Sums over the run, by stage."""
        source = "stage_totals" if _has_table(self._db, "stage_totals") else "stages"
        rows = self._db.execute(
            f"SELECT stage, SUM(count) c, SUM(seconds) s, SUM(num_bytes) b FROM {source} GROUP BY stage"
        )
        return {row["stage"]: Stage(row["c"], row["s"], row["b"]) for row in rows}

    def stages_now(self) -> dict[str, Stage]:
        """What the stages did in the newest report that tells of them; empty when none does."""
        rows = [dict(row) for row in self._db.execute("SELECT * FROM stages ORDER BY rowid DESC LIMIT 64")]
        newest = [row for row in rows if row["at"] == rows[0]["at"]]
        return {row["stage"]: _stage(row) for row in reversed(newest)}

    def stages_of(self, report: Mapping[str, Any]) -> dict[str, Stage]:
        """What the stages did in one report, a row of `speed()`."""
        rows = self._db.execute(
            "SELECT * FROM stages WHERE at = ? AND step = ? AND phase = ? ORDER BY rowid",
            (report["at"], report["step"], report["phase"]),
        )
        return {row["stage"]: _stage(dict(row)) for row in rows}

    def events(self, limit: int = 100, after_id: int = 0) -> list[dict[str, Any]]:
        """The newest `limit` events with id above `after_id`, oldest first."""
        rows = self._db.execute(
            "SELECT rowid AS id, * FROM events WHERE rowid > ? ORDER BY rowid DESC LIMIT ?", (after_id, limit)
        ).fetchall()
        return [dict(row) for row in reversed(rows)]

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> TelemetryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stage(row: Mapping[str, Any]) -> Stage:
    return Stage(**{name: row[name] for name in _STAGE_COLUMNS if name in row})


_AVERAGED = frozenset(MEANS)


def _history_column(name: str) -> str:
    # Next to MAX(id) SQLite takes every other plain column from the row that has it.
    return "MAX(id) AS id" if name == "id" else f"AVG({name}) AS {name}" if name in _AVERAGED else name


def find_runs(folder: Path) -> list[Path]:
    """Folders of runs below `folder` (it, or its children), newest first."""
    found = [path.parent for path in (*folder.glob(FILE_NAME), *folder.glob(f"*/{FILE_NAME}"))]
    return sorted(found, key=lambda run: (run / FILE_NAME).stat().st_mtime, reverse=True)


def find_ranks(folder: Path) -> list[int]:
    """Ranks that have written telemetry in a run's folder, in order."""
    found = [0] if (folder / FILE_NAME).is_file() else []
    for path in folder.glob("telemetry.rank*.db"):
        digits = path.name[len("telemetry.rank") : -len(".db")]
        if digits.isascii() and digits.isdigit() and path.name == file_name(int(digits)):
            found.append(int(digits))
    return sorted(found)
