"""The videos of a dataset root that a loader draws from: an index in arrays, and a reader with its own connections."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from ingest.catalog import Catalog
from ingest.errors import ClipmillError, VideoError
from ingest.layout import frames_db_path
from ingest.stores import frames_db
from ingest.stores.frames_db import Level

# Of all threads together: well below the 1,024 files that a process may have open on most systems.
_CONNECTIONS = 256
# A frame is read once, so a cache of pages (2 MB per connection if SQLite has its way) only costs: every connection
# would fill memory of its own, which no processor's cache holds.
_CACHE_PAGES = 8


class ClipDataset:
    """Labelled videos of one split, in the order of (class, id), each with its stored levels.

    `labels` int64 (N,), -1 where a video has none; `num_frames` int64 (N,); `class_names` by class index.

    Raises: ClipmillError when the root is none, or the split holds no finished video.
    """

    def __init__(self, root: Path | str, split: str | None = None) -> None:
        self.root, self.split = Path(root), split
        with Catalog.open(self.root) as catalog:
            self.class_names = catalog.class_names()
            rows = catalog.db.execute(
                "SELECT v.id, v.class_name, v.video_id, v.num_frames, l.label FROM videos v"
                " LEFT JOIN labels l ON l.video = v.id WHERE v.state = 'ok' AND (? IS NULL OR l.split = ?)"
                " GROUP BY v.id ORDER BY v.class_name, v.video_id",
                (split, split),
            ).fetchall()
            stored: dict[int, list[tuple[int, int, int]]] = {}
            for video, *size in catalog.db.execute(
                "SELECT video, short_side, width, height FROM outputs WHERE store = ? ORDER BY video, short_side DESC",
                (frames_db.STORE,),
            ):
                stored.setdefault(video, []).append(tuple(size))
            splits = [name for (name,) in catalog.db.execute("SELECT DISTINCT split FROM labels ORDER BY split")]
        if not rows:
            raise ClipmillError(
                f"{self.root} holds no finished video" + (f" of split {split!r}." if split else "."),
                f"Its splits are {', '.join(map(repr, splits)) or 'none'}." if split else "Nothing can be loaded.",
                f"See what is there: clipmill ingest status {self.root}",
            )
        index = {name: i for i, name in enumerate(self.class_names)}
        self.labels = np.array([index.get(row[4], -1) for row in rows], np.int64)
        self.num_frames = np.array([row[3] for row in rows], np.int64)
        self.video_ids = [row[2] for row in rows]
        self._folders = [row[1] for row in rows]
        known: dict[tuple, tuple[Level, ...]] = {}
        self._levels = [known.setdefault(tuple(stored[row[0]]), _levels(stored[row[0]])) for row in rows]

    def __len__(self) -> int:
        return len(self.labels)

    def levels(self, video: int) -> tuple[Level, ...]:
        """Stored levels of a video, largest first."""
        return self._levels[video]

    def path(self, video: int) -> Path:
        return frames_db_path(self.root, self._folders[video], self.video_ids[video])

    def name(self, video: int) -> str:
        """`class/id`, for messages."""
        return f"{self._folders[video] or '_'}/{self.video_ids[video]}"


class FrameReader:
    """Reads encoded frames of a dataset, for `num_threads` threads.

    Connections are kept per thread, the least recently used is closed.
    """

    def __init__(self, dataset: ClipDataset, num_threads: int = 1) -> None:
        self._dataset = dataset
        self._num_kept = max(_CONNECTIONS // num_threads, 1)
        self._local = threading.local()
        self._all: list[OrderedDict[int, sqlite3.Connection]] = []

    def read(self, video: int, level: Level, frames: np.ndarray) -> list[bytes]:
        """Encoded images of the given frames, in that order.

        Raises: VideoError naming the video, when its database is gone, damaged or lacks a frame.
        """
        try:
            return frames_db.read_frames(self._connection(video), level, frames)
        except sqlite3.Error as error:
            raise VideoError(
                "unreadable", f"{self._dataset.name(video)}: {error} ({self._dataset.path(video)})"
            ) from error
        except VideoError as error:
            raise VideoError(error.reason, f"{self._dataset.name(video)}: {error.message}", error.frame) from error

    def _connection(self, video: int) -> sqlite3.Connection:
        connections: OrderedDict[int, sqlite3.Connection] | None = getattr(self._local, "connections", None)
        if connections is None:
            connections = self._local.connections = OrderedDict()
            self._all.append(connections)
        if (db := connections.get(video)) is None:
            db = connections[video] = frames_db.connect(self._dataset.path(video))
            db.execute(f"PRAGMA cache_size={_CACHE_PAGES}")
            if len(connections) > self._num_kept:
                connections.popitem(last=False)[1].close()
        else:
            connections.move_to_end(video)
        return db

    def close(self) -> None:
        """Close every connection. Only once no thread reads any more."""
        for connections in self._all:
            while connections:
                connections.popitem()[1].close()


def _levels(sizes: list[tuple[int, int, int]]) -> tuple[Level, ...]:
    return tuple(
        Level(short_side, width, height, frames_db.level_table(short_side, first=i == 0))
        for i, (short_side, width, height) in enumerate(sizes)
    )
