"""catalog.db: what a dataset root holds. One SQLite file (WAL), written by ingest, read by everybody.

classes(idx, name)                                           class index -> name; an index, once given, never changes
videos(id, class_name, video_id, source, ..., state, ...)    one row per video: pending, ok, failed, quarantined, missing
labels(video, label, split, start_s, end_s)                  what the annotations say of a video
outputs(video, store, short_side, width, height, ...)        what was written for it
failures(id, at, class_name, video_id, reason, ...)          append-only ledger
runs(id, started_at, updated_at, finished_at, state, ...)    ingest runs, with progress while they go on
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlite_utils

from ingest.errors import ClipmillError
from ingest.layout import catalog_path

LOCK_TIMEOUT_S = 30.0
CATALOG_VERSION = 2
_NOT_THE_VIDEO = ("source gone", "unreadable")  # Reasons that say nothing of what is in a file.
_READABLE_VERSIONS = (1, 2)  # Version 1 lacks the columns `attempts` and `concealed` of videos.

_TABLES: dict[str, dict[str, Any]] = {
    "classes": {"columns": {"idx": int, "name": str}, "pk": "idx"},
    "videos": {
        "columns": {
            "id": int, "class_name": str, "video_id": str, "source": str, "source_bytes": int, "source_mtime_ns": int,
            "settings": str, "state": str, "reason": str, "message": str, "num_frames": int, "width": int, "height": int,
            "fps": float, "duration_s": float, "updated_at": float, "attempts": int, "concealed": int,
        },
        "pk": "id",
        "not_null": {"class_name", "video_id", "state"},
    },
    "labels": {
        "columns": {"id": int, "video": int, "label": str, "split": str, "start_s": float, "end_s": float},
        "pk": "id",
    },
    "outputs": {
        "columns": {
            "video": int, "store": str, "short_side": int, "width": int, "height": int, "num_frames": int, "num_bytes": int,
            "file_bytes": int,
        },
        "pk": ("video", "store", "short_side"),
    },
    "failures": {
        "columns": {
            "id": int, "at": float, "class_name": str, "video_id": str, "source": str, "reason": str, "message": str,
            "frame": int,
        },
        "pk": "id",
    },
    "runs": {
        "columns": {
            "id": int, "command": str, "started_at": float, "updated_at": float, "finished_at": float, "state": str,
            "total": int, "done": int, "failed": int, "skipped": int, "frames": int, "pid": int,
        },
        "pk": "id",
    },
}  # fmt: skip
_INDEXES = (("videos", ("class_name", "video_id"), True), ("videos", ("state",), False), ("labels", ("video",), False),
            ("labels", ("split",), False), ("classes", ("name",), True))  # fmt: skip


@dataclass(frozen=True)
class Output:
    """One level of one store of one video: its size in pixels, frames, bytes of frames, bytes of the whole file."""

    store: str
    short_side: int
    width: int
    height: int
    num_frames: int
    num_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class VideoKey:
    """Names of a video. `class_name` is empty for one without a class of its own."""

    class_name: str
    video_id: str


@dataclass(frozen=True)
class Finished:
    """A finished video: its source's size and time of change, the settings, and the size of each store's file.

    For a quarantined one the sizes are empty: the same source and settings have failed as often as is worth while.
    """

    source_bytes: int
    source_mtime_ns: int
    settings: str
    file_bytes: dict[str, int]
    quarantined: bool = False


@dataclass
class VideoRecord:
    """What is known of a video after an attempt to convert it (or to find it).

    `frame`: the first bad one. `concealed`: damaged frames that the decoder has patched up and that are stored as such.
    """

    key: VideoKey
    state: str
    source: str = ""
    source_bytes: int = 0
    source_mtime_ns: int = 0
    settings: str = ""
    reason: str = ""
    message: str = ""
    frame: int | None = None
    num_frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    duration_s: float = 0.0
    concealed: int = 0
    outputs: list[Output] = field(default_factory=list)


class Catalog:
    """The catalog of one dataset root. Open it with `Catalog.create` to write, with `Catalog.open` to read."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self.db, self.path = db, path

    @classmethod
    def create(cls, root: Path, shard: str = "") -> Catalog:
        """Open for writing; make it if it is not there. That of a shard has one writer and may lie on NFS: no WAL.

        Raises: ClipmillError when the root cannot be written or the file is not a catalog.
        """
        path = catalog_path(root, shard)
        try:
            root.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
            _set_journal_mode(db, "TRUNCATE" if shard else "WAL")
            db.execute(f"PRAGMA synchronous={'FULL' if shard else 'NORMAL'}")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                _create_tables(db)
            elif version == 1:
                _upgrade_from_1(db)
        except OSError as error:
            raise ClipmillError(
                f"the dataset root {root} cannot be written: {error.strerror}.",
                "Nothing was converted.",
                "Choose another ROOT.",
            ) from None
        except sqlite3.Error as error:
            raise ClipmillError(
                f"{path} cannot be used: {error}.",
                "Nothing was converted.",
                "If the folder can be written and the disk has room, the file is damaged: move it away and run the same"
                " command again; finished videos are taken in again without decoding.",
            ) from None
        _check_version(db, path)
        return cls(db, path)

    @classmethod
    def open(cls, root: Path, timeout_s: float = 30) -> Catalog:
        """Open for reading. Raises: ClipmillError when there is none or it is not readable."""
        path = catalog_path(root)
        if not path.is_file():
            raise ClipmillError(
                f"{root} holds no catalog.db.",
                "It is not a dataset root, or nothing was ingested yet.",
                f"Make one: clipmill ingest convert SRC {root}",
            )
        try:
            db = _connect_for_reading(path, timeout_s)
            _check_version(db, path)
        except sqlite3.OperationalError as error:  # locked, or a folder that cannot be read: not damaged
            raise ClipmillError(f"{path} cannot be read now: {error}.", "Nothing was done.", "Try again.") from None
        except sqlite3.DatabaseError as error:
            raise ClipmillError(
                f"{path} is damaged: {error}.",
                "Nothing was done.",
                "Move it away and ingest again; finished videos are taken in again without decoding.",
            ) from None
        return cls(db, path)

    @property
    def counts_concealed(self) -> bool:
        """False for a catalog of version 1 that nobody has written to since."""
        return self.db.execute("PRAGMA user_version").fetchone()[0] > 1

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def transaction(self) -> _Transaction:
        return _Transaction(self.db)

    # Classes and labels

    def add_classes(self, names: Sequence[str]) -> None:
        """Give every new name the next index, in the order of `names`. Known names keep theirs."""
        known = {name for (name,) in self.db.execute("SELECT name FROM classes")}
        new = [name for name in dict.fromkeys(names) if name not in known]
        self.db.executemany("INSERT INTO classes VALUES(?,?)", list(enumerate(new, start=len(known))))

    def class_names(self) -> list[str]:
        """Class names; the place in the list is the class index."""
        return [name for (name,) in self.db.execute("SELECT name FROM classes ORDER BY idx")]

    def set_labels(self, rows: Iterable[tuple[VideoKey, str, str, float | None, float | None]]) -> None:
        """Replace the labels of the named videos by (label, split, start_s, end_s); the videos must be known."""
        ids = self._ids()
        by_video: dict[int, list[tuple[str, str, float | None, float | None]]] = {}
        for key, *label in rows:
            by_video.setdefault(ids[key], []).append(tuple(label))  # type: ignore[arg-type]
        self.db.executemany("DELETE FROM labels WHERE video = ?", [(video,) for video in by_video])
        self.db.executemany(
            "INSERT INTO labels(video, label, split, start_s, end_s) VALUES(?,?,?,?,?)",
            [(video, *label) for video, labels in by_video.items() for label in labels],
        )

    # Videos

    def _ids(self) -> dict[VideoKey, int]:
        return {VideoKey(c, v): i for i, c, v in self.db.execute("SELECT id, class_name, video_id FROM videos")}

    def add_pending(self, keys: Iterable[tuple[VideoKey, str]]) -> None:
        """Add the videos (key, source) that are not known yet, as `pending`."""
        self.db.executemany(
            "INSERT INTO videos(class_name, video_id, source, state, updated_at) VALUES(?,?,?,'pending',?)"
            " ON CONFLICT(class_name, video_id) DO NOTHING",
            [(key.class_name, key.video_id, source, time.time()) for key, source in keys],
        )

    def drop_missing(self, video_ids: set[str]) -> None:
        """Forget that these ids were missing: files for them have been found, maybe under a longer name."""
        gone = [
            (i,) for i, v in self.db.execute("SELECT id, video_id FROM videos WHERE state='missing'") if v in video_ids
        ]
        self.db.executemany("DELETE FROM labels WHERE video = ?", gone)
        self.db.executemany("DELETE FROM videos WHERE id = ?", gone)

    def finished(self) -> dict[VideoKey, Finished]:
        """Videos in state ok or quarantined, with what tells whether they still are."""
        sizes: dict[int, dict[str, int]] = {}
        for video, store, file_bytes in self.db.execute(
            "SELECT video, store, MAX(file_bytes) FROM outputs GROUP BY 1, 2"
        ):
            sizes.setdefault(video, {})[store] = file_bytes
        rows = self.db.execute(
            "SELECT id, class_name, video_id, source_bytes, source_mtime_ns, settings, state = 'quarantined' FROM videos"
            " WHERE state IN ('ok', 'quarantined')"
        )
        return {
            VideoKey(class_name, video_id): Finished(size, mtime_ns, settings, sizes.get(video, {}), bool(quarantined))
            for video, class_name, video_id, size, mtime_ns, settings, quarantined in rows
        }

    def record(self, record: VideoRecord, quarantine_after: int | None = None) -> None:
        """Write the outcome of one video: its row, its outputs and, if it failed, a line of the ledger.

        A video that has failed `quarantine_after` times in a row, its source and the settings being the same, goes into
        quarantine. What is outside a video (a missing file) is not counted.
        """
        r = record
        video, attempts = self.db.execute(
            "INSERT INTO videos(class_name, video_id, source, source_bytes, source_mtime_ns, settings, state, reason,"
            " message, num_frames, width, height, fps, duration_s, updated_at, concealed, attempts)"
            " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
            " ON CONFLICT(class_name, video_id) DO UPDATE SET source=excluded.source, source_bytes=excluded.source_bytes,"
            " source_mtime_ns=excluded.source_mtime_ns, settings=excluded.settings, state=excluded.state,"
            " reason=excluded.reason, message=excluded.message, num_frames=excluded.num_frames, width=excluded.width,"
            " height=excluded.height, fps=excluded.fps, duration_s=excluded.duration_s, updated_at=excluded.updated_at,"
            " concealed=excluded.concealed, attempts=excluded.attempts + (CASE WHEN excluded.attempts > 0 AND"
            " (source_bytes, source_mtime_ns, settings) IS (excluded.source_bytes, excluded.source_mtime_ns,"
            " excluded.settings) THEN COALESCE(attempts, 0) ELSE 0 END)"
            " RETURNING id, attempts",
            (r.key.class_name, r.key.video_id, r.source, r.source_bytes, r.source_mtime_ns, r.settings, r.state, r.reason,
             r.message, r.num_frames, r.width, r.height, r.fps, r.duration_s, time.time(), r.concealed,
             int(r.state == "failed" and r.reason not in _NOT_THE_VIDEO)),
        ).fetchone()  # fmt: skip
        if quarantine_after and attempts >= quarantine_after:
            self.db.execute("UPDATE videos SET state = 'quarantined' WHERE id = ?", (video,))
        self.db.execute("DELETE FROM outputs WHERE video = ?", (video,))
        self.db.executemany(
            "INSERT INTO outputs VALUES(?,?,?,?,?,?,?,?)",
            [
                (video, o.store, o.short_side, o.width, o.height, o.num_frames, o.num_bytes, o.file_bytes)
                for o in r.outputs
            ],
        )
        if r.state == "failed":
            self.db.execute(
                "INSERT INTO failures(at, class_name, video_id, source, reason, message, frame) VALUES(?,?,?,?,?,?,?)",
                (time.time(), r.key.class_name, r.key.video_id, r.source, r.reason, r.message, r.frame),
            )

    # Runs

    def start_run(self, command: dict[str, Any], total: int, pid: int) -> int:
        now = time.time()
        cursor = self.db.execute(
            "INSERT INTO runs(command, started_at, updated_at, state, total, done, failed, skipped, frames, pid)"
            " VALUES(?,?,?,'running',?,0,0,0,0,?)",
            (json.dumps(command), now, now, total, pid),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def update_run(
        self, run: int, *, done: int, failed: int, skipped: int, frames: int, state: str = "running"
    ) -> None:
        now = time.time()
        self.db.execute(
            "UPDATE runs SET updated_at=?, done=?, failed=?, skipped=?, frames=?, state=?, finished_at=? WHERE id=?",
            (now, done, failed, skipped, frames, state, None if state == "running" else now, run),
        )


class _Transaction:
    """One write transaction: taken at once, so that a second writer waits at the door and not half-way."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _connect_for_reading(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open read-only. Where the folder cannot be written, SQLite reads a database in WAL mode only as immutable.

    That it is, as long as there is no WAL file: nobody writes.
    """
    uri = f"file:{quote(os.fsencode(path))}?mode=ro"
    db = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)
    try:
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        db.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        db = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    return db


def _set_journal_mode(db: sqlite3.Connection, mode: str) -> None:
    """Of two that switch at once SQLite tells one, without any waiting, that the database is locked."""
    end = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            db.execute(f"PRAGMA journal_mode={mode}")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _create_tables(db: sqlite3.Connection) -> None:
    with _Transaction(db):
        tables = sqlite_utils.Database(db)
        for name, spec in _TABLES.items():
            tables[name].create(spec["columns"], pk=spec["pk"], not_null=spec.get("not_null"), if_not_exists=True)  # type: ignore[union-attr]
        for table, columns, unique in _INDEXES:
            tables[table].create_index(columns, unique=unique, if_not_exists=True)  # type: ignore[union-attr]
        db.execute(f"PRAGMA user_version={CATALOG_VERSION}")


def _upgrade_from_1(db: sqlite3.Connection) -> None:
    with _Transaction(db):
        if db.execute("PRAGMA user_version").fetchone()[0] == 1:  # Nobody else was faster.
            db.execute("ALTER TABLE videos ADD COLUMN attempts INTEGER")
            db.execute("ALTER TABLE videos ADD COLUMN concealed INTEGER")
            db.execute(f"PRAGMA user_version={CATALOG_VERSION}")


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in _READABLE_VERSIONS:
        db.close()
        raise ClipmillError(
            f"{path} is a catalog of version {version}; this Clipmill reads version {CATALOG_VERSION}.",
            "Nothing was done.",
            "Use the Clipmill that wrote it, or move it away and ingest again.",
        )
