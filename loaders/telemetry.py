"""Telemetry of one run: an SQLite file (WAL) in the run's folder that the service reads while the run writes.

    <runs>/<run>/telemetry.db
        run(key, value)                 who runs what: run, method, config, dataset, started_at, heartbeat_at, state, ...
        speed(step, at, epoch, ...)     one row per report: shape, rates r/f/b in clips per second, loss, learning rate
        stages(step, stage, ...)        what the loader's stages did since the report before
        events(at, level, message)      what a person should read

Times are seconds since 1970. A run whose heartbeat is older than `DEAD_AFTER_S` is dead, not slow.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

FILE_NAME = "telemetry.db"
HEARTBEAT_EVERY_S = 2.0
DEAD_AFTER_S = 15.0
_LOCKED_FOR_S = 5.0
STATES = ("running", "finished", "failed", "stopped")


@dataclass(frozen=True)
class Stage:
    """What one stage did since the last report: items, busy seconds summed over threads, bytes."""

    count: int
    seconds: float
    num_bytes: int = 0


@dataclass(frozen=True)
class SpeedSample:
    """One report of a run. Rates are clips per second: read (r), forward (f), backward (b); None where unknown.

    `phase` is train, val or test; `top1` and `wait_share` are shares from 0 to 1; `at` is now unless given.
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


_COLUMNS = [f.name for f in fields(SpeedSample) if f.name != "stages"]


class TelemetryWriter:
    """Writes one run's telemetry. A thread keeps the heartbeat going, also while a step takes long.

    A telemetry file that cannot be written never stops a training: the first failure is kept in `error`.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self.error: str | None = None
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            self.error = f"{self.path}: {error}"
        now = time.time()
        self._set(
            {"run": folder.name, "started_at": now, **about, "state": "running", "heartbeat_at": now, "ended_at": None}
        )
        self._closing = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, name="clipmill-heartbeat", daemon=True)
        self._beat.start()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_LOCKED_FOR_S, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(
            "CREATE TABLE IF NOT EXISTS run(key TEXT PRIMARY KEY, value);"
            f"CREATE TABLE IF NOT EXISTS speed(id INTEGER PRIMARY KEY, {', '.join(_COLUMNS)});"
            "CREATE TABLE IF NOT EXISTS stages(step, phase, at, stage, count, seconds, num_bytes);"
            "CREATE TABLE IF NOT EXISTS events(at, level, message);"
        )
        return db

    def report(self, sample: SpeedSample) -> None:
        row = asdict(sample) | {"at": sample.at or time.time()}
        slots = ",".join("?" * len(_COLUMNS))
        self._write(f"INSERT INTO speed({', '.join(_COLUMNS)}) VALUES({slots})", [row[name] for name in _COLUMNS])
        for name, stage in sample.stages.items():
            values = [sample.step, sample.phase, row["at"], name, stage.count, stage.seconds, stage.num_bytes]
            self._write("INSERT INTO stages VALUES(?,?,?,?,?,?,?)", values)

    def event(self, level: str, message: str) -> None:
        self._write("INSERT INTO events VALUES(?,?,?)", [time.time(), level, message])

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
        for key, value in values.items():
            plain = value if value is None or isinstance(value, (int, float, str)) else json.dumps(value)
            self._write("INSERT INTO run VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value", [key, plain])

    def _write(self, statement: str, values: list[Any]) -> None:
        if self._db is None:
            return
        try:
            with self._lock:
                self._db.execute(statement, values)
        except sqlite3.Error as error:
            self.error = self.error or f"{self.path}: {error}"


@dataclass(frozen=True)
class RunInfo:
    """One run as its telemetry tells it. `state` is one of STATES, or `dead` when a running one lost its heartbeat."""

    run: str
    state: str
    started_at: float
    heartbeat_at: float
    ended_at: float | None
    about: Mapping[str, Any]


class TelemetryReader:
    """Reads one run's telemetry while it may still be written.

    Raises: FileNotFoundError where there is none; sqlite3.DatabaseError for a damaged or locked file.
    """

    def __init__(self, folder: Path, timeout_s: float = 2) -> None:
        path = folder / FILE_NAME
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
        if state == "running" and (now or time.time()) - heartbeat > DEAD_AFTER_S:
            state = "dead"
        started, ended = about.pop("started_at", 0.0), about.pop("ended_at", None)
        return RunInfo(about.pop("run", self.folder.name), state, started, heartbeat, ended, about)

    def speed(self, *, after_id: int = 0, limit: int = 1000, phase: str | None = None) -> list[dict[str, Any]]:
        """The newest `limit` reports with id above `after_id`, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM speed WHERE id > ? AND (? IS NULL OR phase = ?) ORDER BY id DESC LIMIT ?",
            (after_id, phase, phase, limit),
        ).fetchall()
        return [dict(row) for row in reversed(rows)]

    def stages(self) -> dict[str, Stage]:
        """Sums over the run, by stage."""
        rows = self._db.execute(
            "SELECT stage, SUM(count) c, SUM(seconds) s, SUM(num_bytes) b FROM stages GROUP BY stage"
        )
        return {row["stage"]: Stage(row["c"], row["s"], row["b"]) for row in rows}

    def events(self, limit: int = 100) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT * FROM events ORDER BY rowid DESC LIMIT ?", (limit,)).fetchall()
        return [dict(row) for row in reversed(rows)]

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> TelemetryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_runs(folder: Path) -> list[Path]:
    """Folders of runs below `folder` (it, or its children), newest first."""
    found = [path.parent for path in (*folder.glob(FILE_NAME), *folder.glob(f"*/{FILE_NAME}"))]
    return sorted(found, key=lambda run: (run / FILE_NAME).stat().st_mtime, reverse=True)
