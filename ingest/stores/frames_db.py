"""frames.db: the frames of one video as JPEG blobs in one SQLite file. Writer, reader and check, side by side.

    Images(ObjId TEXT, frames BLOB, size INTEGER, frame INTEGER PRIMARY KEY)    first level; ObjId "<folder>/frame_00001"
    Images_<short_side>                                                         further levels, same columns
    Frames(frame INTEGER PRIMARY KEY, pts_us INTEGER, crc32_<short_side> INTEGER ...)
    Meta(key TEXT PRIMARY KEY, value)
    PRAGMA user_version = 1, set last

`frame` counts from 0, ObjId from 1; `size` is the width in pixels. ObjId has a unique index, so the historical query
`SELECT ObjId, frames FROM Images WHERE ObjId IN (...)` searches it. Format: docs/formats.md.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import quote

import numpy as np

from ingest.atomic import Writeback, publish, temporary_path, write_text
from ingest.errors import VideoError

STORE = "frames-db"
SCHEMA_VERSION = 1
PAGE_BYTES = 16384  # Few reads per frame, little waste at its end.
_ROWS_PER_INSERT = 64
_WAITING_BYTES = 16 << 20  # Per level, in memory; more than a short video's frames.


@dataclass(frozen=True)
class Level:
    """One stored resolution. `short_side` names it; the frames measure `width` x `height` pixels."""

    short_side: int
    width: int
    height: int
    table: str

    @property
    def crc_column(self) -> str:
        return f"crc32_{self.short_side}"


def plan_levels(width: int, height: int, short_sides: Sequence[int]) -> list[Level]:
    """Levels of a video of `width` x `height` pixels, largest first.

    A frame is never enlarged: a short side above the video's own is stored as the video's own, once. The other side
    keeps the aspect, rounded to the nearest pixel.
    """
    own = min(width, height)
    levels: list[Level] = []
    for short_side in sorted({min(side, own) for side in short_sides}, reverse=True):
        w = short_side if width <= height else max(1, round(width * short_side / height))
        h = short_side if height <= width else max(1, round(height * short_side / width))
        levels.append(Level(short_side, w, h, level_table(short_side, first=not levels)))
    return levels


def level_table(short_side: int, *, first: bool) -> str:
    """Name of a level's table: the first (largest) has the historical name."""
    return "Images" if first else f"Images_{short_side}"


class FramesDbWriter:
    """Writes one frames.db, level after level, under a temporary name; `commit` makes it appear, whole.

    Frames of the first level go straight into the database; those of further levels wait in memory, and beyond 16 MB a
    level in an unnamed temporary file beside it: memory stays flat however long the video is. With `scratch` it is built
    in that folder.
    """

    def __init__(self, path: Path, levels: Sequence[Level], scratch: Path | None = None) -> None:
        self.path, self.levels = path, list(levels)
        self._temporary = temporary_path(path, scratch)
        self._temporary.unlink(missing_ok=True)
        self._waiting = [_Waiting(self._temporary.parent) for _ in self.levels[1:]]
        self._prefix = f"{path.parent.name}/frame_"
        self._db = sqlite3.connect(self._temporary, isolation_level=None)
        self._writeback = Writeback(self._temporary, path)
        # Nobody sees the file before it is renamed, so SQLite need not protect it against a crash.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        self._db.execute("BEGIN")
        self._create_images(self.levels[0])
        self._rows: list[tuple[str, bytes, int, int]] = []
        self._frames: list[tuple[int, ...]] = []
        self.num_bytes = [0] * len(self.levels)

    def add(self, pts_us: int, blobs: Sequence[bytes]) -> None:
        """Append one frame: its presentation time and its encoded image on every level, in the order of `levels`."""
        frame = len(self._frames)
        self._frames.append((frame, pts_us, *map(zlib.crc32, blobs)))
        self._insert(self.levels[0], frame, blobs[0])
        for waiting, blob in zip(self._waiting, blobs[1:], strict=True):
            waiting.add(blob)
        for i, blob in enumerate(blobs):
            self.num_bytes[i] += len(blob)

    @property
    def num_frames(self) -> int:
        return len(self._frames)

    def commit(self, meta: dict[str, Any]) -> None:
        """Finish the file and give it its name. `n_frames` is written first: where frames.db is, n_frames is."""
        self._finish_images(self.levels[0])
        for level, waiting in zip(self.levels[1:], self._waiting, strict=True):
            self._create_images(level)
            for frame, blob in enumerate(waiting.taken()):
                self._insert(level, frame, blob)
            self._finish_images(level)
        crc = ", ".join(f"{level.crc_column} INTEGER NOT NULL" for level in self.levels)
        self._db.execute(f"CREATE TABLE Frames(frame INTEGER PRIMARY KEY, pts_us INTEGER NOT NULL, {crc})")
        slots = ",".join("?" * (2 + len(self.levels)))
        self._db.executemany(f"INSERT INTO Frames VALUES({slots})", self._frames)
        self._db.execute("CREATE TABLE Meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID")
        own = {
            "schema_version": SCHEMA_VERSION,
            "num_frames": self.num_frames,
            "levels": json.dumps([asdict(level) for level in self.levels]),
        }
        self._db.executemany("INSERT INTO Meta VALUES(?, ?)", sorted((meta | own).items()))
        self._db.execute("COMMIT")
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._db.close()
        write_text(self.path.with_name("n_frames"), str(self.num_frames))
        publish(self._temporary, self.path)

    def _create_images(self, level: Level) -> None:
        self._db.execute(
            f"CREATE TABLE {level.table}(ObjId TEXT NOT NULL, frames BLOB NOT NULL, size INTEGER, frame INTEGER PRIMARY KEY)"
        )

    def _insert(self, level: Level, frame: int, blob: bytes) -> None:
        self._rows.append((f"{self._prefix}{frame + 1:05d}", blob, level.width, frame))
        if len(self._rows) >= _ROWS_PER_INSERT:
            self._flush(level)

    def _flush(self, level: Level) -> None:
        self._db.executemany(f"INSERT INTO {level.table} VALUES(?,?,?,?)", self._rows)
        self._writeback.grown(sum(len(blob) for _, blob, _, _ in self._rows))
        self._rows.clear()

    def _finish_images(self, level: Level) -> None:
        self._flush(level)
        # After the rows: so the blobs of a level lie one after the other, and the index behind them.
        self._db.execute(f"CREATE UNIQUE INDEX {level.table}_ObjId ON {level.table}(ObjId)")

    def __enter__(self) -> FramesDbWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._writeback.close()
        for waiting in self._waiting:
            waiting.close()
        self._temporary.unlink(missing_ok=True)


class _Waiting:
    """Frames of one level, in memory as they come, and in an unnamed file in `folder` where those before them went."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs: list[bytes] = []
        self._num_bytes = 0
        self._file: IO[bytes] | None = None
        self._sizes: list[int] = []  # of those in the file

    def add(self, blob: bytes) -> None:
        self._blobs.append(blob)
        self._num_bytes += len(blob)
        if self._num_bytes > _WAITING_BYTES:
            self._file = self._file or tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.writelines(self._blobs)
            self._sizes += map(len, self._blobs)
            self._blobs.clear()
            self._num_bytes = 0

    def taken(self) -> Iterator[bytes]:
        """All of them, in order; they are let go of as they are taken."""
        if self._file is not None:
            self._file.seek(0)
            for size in self._sizes:
                yield self._file.read(size)
        self._blobs.reverse()
        while self._blobs:
            yield self._blobs.pop()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def connect(path: Path | str) -> sqlite3.Connection:
    """Open for reading only: no locks, no journal looked for. Never share the connection across a fork.

    Raises: sqlite3.OperationalError when the file is absent.
    """
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1", uri=True, check_same_thread=False, isolation_level=None
    )


def read_meta(db: sqlite3.Connection) -> dict[str, Any]:
    """Meta as a dict, with `levels` as a list of Level.

    Raises: VideoError when the database is not a finished one of a version we know.
    """
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise VideoError("not whole", f"user_version is {version}, not {SCHEMA_VERSION}")
        meta = dict(db.execute("SELECT key, value FROM Meta"))
        meta["num_frames"] = int(meta["num_frames"])
        meta["levels"] = [Level(**level) for level in json.loads(meta["levels"])]
    except (sqlite3.DatabaseError, KeyError, ValueError, TypeError) as error:
        raise VideoError("not whole", f"{type(error).__name__}: {error}") from error
    return meta


def read_frames(db: sqlite3.Connection, level: Level, frames: np.ndarray) -> list[bytes]:
    """Encoded images of the given 0-based frame numbers, in that order, by one query. Numbers may repeat.

    Consecutive frames are read as one range, others by key. Raises: VideoError naming the first missing frame.
    """
    wanted = sorted({int(i) for i in frames})
    first, last = wanted[0], wanted[-1]
    if last - first + 1 == len(wanted):
        rows = db.execute(f"SELECT frame, frames FROM {level.table} WHERE frame BETWEEN ? AND ?", (first, last))
    else:
        slots = ",".join("?" * len(wanted))
        rows = db.execute(f"SELECT frame, frames FROM {level.table} WHERE frame IN ({slots})", wanted)
    blobs = dict(rows)
    try:
        return [blobs[int(i)] for i in frames]
    except KeyError as missing:
        raise VideoError("missing frame", f"level {level.short_side} has no such frame", missing.args[0]) from None


def read_pts_us(db: sqlite3.Connection) -> np.ndarray:
    """Presentation time of every frame in microseconds, int64 (num_frames,)."""
    return np.array([pts for (pts,) in db.execute("SELECT pts_us FROM Frames ORDER BY frame")], np.int64)


def check(path: Path) -> Iterator[str]:
    """Everything wrong with a frames.db, a line each; nothing when it is whole.

    Looks at the file structure and the indexes (PRAGMA integrity_check), the number and order of rows, n_frames, and
    the id and the checksum of every frame of every level. Decodes nothing.
    """
    try:
        db = connect(path)
    except sqlite3.OperationalError as error:
        yield f"cannot be opened: {error}"
        return
    try:
        structure = [row[0] for row in db.execute("PRAGMA integrity_check")]
        if structure != ["ok"]:
            yield f"structure: {'; '.join(structure[:3])}"
        meta = read_meta(db)
        count = meta["num_frames"]
        beside = path.with_name("n_frames")
        text = beside.read_text(errors="replace") if beside.exists() else "absent"
        if text != str(count):
            yield f"n_frames says {text}, Meta says {count}"
        if (numbers := [row[0] for row in db.execute("SELECT frame FROM Frames ORDER BY frame")]) != list(range(count)):
            yield f"Frames has {len(numbers)} rows, not the frames 0 to {count - 1}"
        folder = path.absolute().parent.name
        for level in meta["levels"]:
            expected = dict(db.execute(f"SELECT frame, {level.crc_column} FROM Frames"))
            seen = 0
            for frame, name, blob in db.execute(f"SELECT frame, ObjId, frames FROM {level.table} ORDER BY frame"):
                seen += 1
                if name != f"{folder}/frame_{frame + 1:05d}":
                    yield f"level {level.short_side}, frame {frame}: its id is {name!r}"
                if not isinstance(blob, bytes) or zlib.crc32(blob) != expected.get(frame):
                    yield f"level {level.short_side}, frame {frame}: checksum differs"
            if seen != count:
                yield f"level {level.short_side}: {seen} frames, not {count}"
    except (sqlite3.DatabaseError, VideoError, UnicodeDecodeError) as error:  # the last: damage in SQLite's own words
        yield str(error)
    finally:
        db.close()
