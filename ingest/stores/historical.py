"""Frames that other tools extracted, read as they lie there: historical frame databases, folders of numbered jpg files.

dataset2database 1.0 to 1.2 wrote `Images(ObjId STRING, frames BLOB, size INT)` without key, index or order; an id is
`<folder>/frame_%05d`, counted from 1, which SQLite has turned into a number where the folder looks like the mantissa of
one. Which row holds which frame is found out once, by reading all ids; after that a frame is read by its row.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.errors import VideoError
from ingest.layout import printable
from ingest.stores import frames_db

STORE = "historical"
_NUMBER = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)(?:\.(?:jpe?g|png|webp))?", re.IGNORECASE | re.DOTALL)
_JPG = (".jpg", ".jpeg")
_FLOW_PREFIXES = ("flow", "x_", "y_")  # Optical flow lies beside the pictures in the folders of many two-stream works.


@contextlib.contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    for ending in ("-journal", "-wal"):
        beside = path.with_name(path.name + ending)
        if beside.exists() and beside.stat().st_size:
            raise VideoError(
                "unfinished", f"{beside.name} lies beside it: its writer was killed; open it once with sqlite3 to roll back"
            )  # fmt: skip
    db = frames_db.connect(path)
    try:
        yield db
    finally:
        db.close()


def is_empty(path: Path) -> bool:
    try:
        with open_database(path) as db:
            return db.execute("SELECT 1 FROM Images LIMIT 1").fetchone() is None
    except sqlite3.OperationalError as error:
        return "no such table" in str(error)
    except sqlite3.DatabaseError:
        return False


def numbered_rows(db: sqlite3.Connection) -> list[int]:
    """Row ids of the frames in the order of the numbers in their ids."""
    try:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'Images' COLLATE NOCASE").fetchone() is None:
            raise VideoError("no Images table", "frames.db has no table Images: its writer was stopped at once")
        if (
            db.execute("PRAGMA user_version").fetchone()[0]
            or db.execute("SELECT 1 FROM sqlite_master WHERE name = 'Meta'").fetchone()
        ):
            raise VideoError("not historical", "a database of Clipmill's own, and damaged: see clipmill ingest repair")
        numbers = [(_number_of_id(name), row) for row, name in db.execute("SELECT rowid, ObjId FROM Images")]
    except sqlite3.DatabaseError as error:
        raise VideoError("not a database", f"{error}") from None
    if not numbers:
        raise VideoError("empty database", "its table Images has no row")
    numbers.sort()
    _refuse_gaps([number for number, _ in numbers])
    return [row for _, row in numbers]


def _number_of_id(name: object) -> int:
    """The number of a frame: the last digits of its id, or the id itself where SQLite has made a number of it."""
    if isinstance(name, int) or (isinstance(name, float) and name.is_integer()):
        return int(name)
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise VideoError("no number", f"the id {text!r} does not end in a number")
    return int(match["number"])


def read_rows(db: sqlite3.Connection, rows: list[int]) -> Iterator[bytes]:
    for frame, row in enumerate(rows):
        try:
            (blob,) = db.execute("SELECT frames FROM Images WHERE rowid = ?", (row,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise VideoError("not a database", f"{error}", frame) from None
        yield blob


def read_files(folder: Path, files: list[str]) -> Iterator[bytes]:
    for frame, name in enumerate(files):
        try:
            blob = (folder / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:  # not to be taken for a fault of the target
            raise VideoError("unreadable", f"{printable(name)}: {error.strerror}", frame) from None
        yield blob


def numbered_files(names: list[str]) -> list[str]:
    """Names of one series of files (`img_00001.jpg`, `frame_1.jpg`, `000001.jpg`) in the order of their numbers."""
    series: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = _NUMBER.fullmatch(name)
        if match is None:
            raise VideoError("no number", f"the file name {printable(name)!r} does not end in a number")
        if not match["prefix"].lower().startswith(_FLOW_PREFIXES):
            series.setdefault(match["prefix"], []).append((int(match["number"]), name))
    if not series:
        raise VideoError("no frames", "there are no pictures, only optical flow" if names else "the folder is empty")
    if len(series) > 1:
        raise VideoError(
            "several series", f"files begin with {', '.join(map(repr, sorted(series)[:4]))}: which are it?"
        )
    (files,) = series.values()
    files.sort()
    _refuse_gaps([number for number, _ in files])
    return [name for _, name in files]


def _refuse_gaps(numbers: list[int]) -> None:
    """The sorted numbers must be 1, 2, 3, ... or 0, 1, 2, ...: a missing frame would move all that follow."""
    for before, number in itertools.pairwise(numbers):
        if number == before:
            raise VideoError("number twice", f"the frame number {number} is there twice")
    first, last = numbers[0], numbers[-1]
    start = min(first, 1)
    if last - start + 1 != len(numbers):
        have = set(numbers)
        missing = [number for number in range(start, min(last, start + len(numbers) + 1000)) if number not in have]
        count = last - start + 1 - len(numbers)
        shown = ", ".join(map(str, missing[:5])) + (" and others" if count > 5 else "")
        raise VideoError("gaps", f"{count} of the frames {start} to {last} are missing: {shown}", missing[0] - start)


def is_jpg(name: str) -> bool:
    return name.lower().endswith(_JPG) and not name.startswith(".")


def is_picture(name: str) -> bool:
    return name.lower().endswith((*_JPG, ".png", ".webp")) and not name.startswith(".")


class _DatabaseFrames:
    """Frames of a historical database: which row is which is read once."""

    def __init__(self, path: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._db = self._stack.enter_context(open_database(path))
        try:
            self._rows = numbered_rows(self._db)
        except BaseException:
            self.close()
            raise

    @property
    def num_frames(self) -> int:
        return len(self._rows)

    def read(self, frames: Sequence[int]) -> list[bytes]:
        """Encoded pictures of the 0-based frames, in that order, by one query. Numbers may repeat."""
        rows = [self._rows[int(frame)] for frame in frames]
        wanted = sorted(set(rows))
        slots = ",".join("?" * len(wanted))
        found = dict(self._db.execute(f"SELECT rowid, frames FROM Images WHERE rowid IN ({slots})", wanted))
        return [found[row] for row in rows]

    def close(self) -> None:
        self._stack.close()


class _FolderFrames:
    """Frames of a folder of numbered pictures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = numbered_files(sorted(entry.name for entry in os.scandir(folder) if is_picture(entry.name)))

    @property
    def num_frames(self) -> int:
        return len(self._files)

    def read(self, frames: Sequence[int]) -> list[bytes]:
        """Encoded pictures of the 0-based frames, in that order."""
        return [(self._folder / self._files[int(frame)]).read_bytes() for frame in frames]

    def close(self) -> None:
        pass


def open_frames(folder: Path) -> _DatabaseFrames | _FolderFrames:
    """Random access to the frames of one folder: of its frames.db, or, if there is none with rows, of its files.

    Raises: VideoError when there is no complete series of frames; sqlite3.Error; OSError.
    """
    path = folder / "frames.db"
    return _DatabaseFrames(path) if path.exists() and not is_empty(path) else _FolderFrames(folder)
