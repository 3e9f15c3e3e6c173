"""Reads the catalogs of the registered roots, with short read-only connections, while an ingest may be writing them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.catalog import Catalog
from ingest.dataset import DatasetStatus, dataset_status
from ingest.errors import ClipmillError
from ingest.layout import catalog_path
from ingest.verify import Verification, last_verification
from service.cache import FileCache
from service.models import Video, VideoPage
from service.problems import Problem, unknown, without_paths

_LOCK_WAIT_S = 0.5


@dataclass(frozen=True)
class Status:
    """What a catalog says, summed up, and when its root was last verified."""

    found: DatasetStatus
    verified: Verification | None


@dataclass(frozen=True)
class VideoFilter:
    """Which videos: those for which every condition that is not None or empty holds. `states`: one of them is enough.

    `text`: part of a name or reason.
    """

    states: Sequence[str] = ()
    class_name: str | None = None
    split: str | None = None
    text: str | None = None

    def where(self) -> tuple[str, list[str]]:
        """The SQL condition on `videos v`, and its values.

        Class and split belong to one label; the folder's class counts for a video that no annotation names.
        """
        parts: list[str] = ["1"]
        values: list[str] = []
        if self.states:
            parts.append(f"v.state IN ({','.join('?' * len(self.states))})")
            values += self.states
        label = {"label": self.class_name, "split": self.split}
        asked = {column: value for column, value in label.items() if value is not None}
        if asked:
            in_labels = "v.id IN (SELECT video FROM labels WHERE " + " AND ".join(f"{c} = ?" for c in asked) + ")"
            values += asked.values()
            if list(asked) == ["label"]:
                in_labels = (
                    f"({in_labels} OR (v.class_name = ? AND NOT EXISTS (SELECT 1 FROM labels WHERE video = v.id)))"
                )
                values += asked.values()
            parts.append(in_labels)
        if self.text:
            parts.append(
                r"(v.video_id LIKE ? ESCAPE '\' OR v.class_name LIKE ? ESCAPE '\' OR v.reason LIKE ? ESCAPE '\')"
            )
            escaped = self.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            values += [f"%{escaped}%"] * 3
        return " AND ".join(parts), values


class Datasets:
    """The registered datasets by name. A name is looked up, never made into a path.

    Methods raise Problem: 404 for an unknown name, 503 while a catalog is missing, locked or damaged.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = dict(roots)
        self._status: FileCache[Status] = FileCache()

    @property
    def names(self) -> list[str]:
        return list(self._roots)

    def any_root(self) -> bool:
        """Whether at least one root is there (a disk may have been unmounted)."""
        return any(root.is_dir() for root in self._roots.values())

    def status(self, name: str) -> Status:
        """The sums over the catalog, at most about a second old (older where summing takes longer, see FileCache)."""
        root = self.root(name)

        def read() -> Status:
            with self.reading(name) as catalog:
                return Status(dataset_status(catalog), last_verification(catalog))

        return self._status.get(name, catalog_path(root), read)

    def check(self, name: str) -> None:
        """Raise unless the catalog can be opened."""
        with self.reading(name) as catalog:
            catalog.db.execute("SELECT 1 FROM videos LIMIT 1").fetchone()

    def videos(self, name: str, wanted: VideoFilter, limit: int, offset: int) -> VideoPage:
        where, values = wanted.where()
        with self.reading(name) as catalog:
            db = catalog.db
            db.execute("BEGIN")  # Count, page, labels and outputs of one moment.
            if wanted.text:  # The search is what takes time: once for the number and the page.
                ids = [row[0] for row in db.execute(f"SELECT id FROM videos v WHERE {where} ORDER BY id", values)]
                total, page = len(ids), ids[offset : offset + limit]
            else:
                (total,) = db.execute(f"SELECT COUNT(*) FROM videos v WHERE {where}", values).fetchone()
                found = db.execute(
                    f"SELECT id FROM videos v WHERE {where} ORDER BY id LIMIT ? OFFSET ?", [*values, limit, offset]
                )
                page = [row[0] for row in found]
            marks = ",".join("?" * len(page))
            rows = _dicts(db.execute(
                "SELECT id, class_name, video_id, source, state, reason, message, num_frames, width, height, fps,"
                f" duration_s, updated_at FROM videos WHERE id IN ({marks}) ORDER BY id", page,
            ))  # fmt: skip
            labels = labels_of(catalog, page)
            outputs = _by_video(
                db.execute(f"SELECT * FROM outputs WHERE video IN ({marks}) ORDER BY store, short_side DESC", page)
            )
            videos = [self._video(row, labels.get(row["id"], []), outputs.get(row["id"], [])) for row in rows]
        return VideoPage(total=total, limit=limit, offset=offset, videos=videos)

    def _video(self, row: dict[str, Any], labels: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> Video:
        source, message = row["source"] or "", row["message"] or ""
        shown = Path(source).name
        if source:
            message = message.replace(source, shown)
        words = {"source": shown, "message": without_paths(message, self._roots)}
        return Video.model_validate(row | words | {"labels": labels, "outputs": outputs})

    def root(self, name: str) -> Path:
        """The root that is registered under this name."""
        root = self._roots.get(name)
        if root is None:
            raise unknown("dataset", name, self._roots)
        return root

    @contextmanager
    def reading(self, name: str) -> Iterator[Catalog]:
        """The dataset's catalog, opened read-only; whatever goes wrong with it inside becomes a Problem."""
        root = self.root(name)
        try:
            with Catalog.open(root, timeout_s=_LOCK_WAIT_S) as catalog:
                yield catalog
        except ClipmillError as error:
            cause = error.__context__
            if isinstance(cause, sqlite3.Error):
                raise _unreadable(name, cause) from None
            raise Problem(503, f"Dataset {name!r}: {without_paths(error.what, {name: root})}") from None
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise _unreadable(name, error) from None


def labels_of(catalog: Catalog, ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    """The labels of these videos, by video."""
    marks = ",".join("?" * len(ids))
    return _by_video(catalog.db.execute(f"SELECT * FROM labels WHERE video IN ({marks}) ORDER BY id", ids))


def _unreadable(name: str, error: Exception) -> Problem:
    text = without_paths(str(error)).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, sqlite3.OperationalError) and "locked" in text:
        return Problem(503, f"Dataset {name!r}: another program holds its catalog locked. Ask again in a moment.")
    if not isinstance(error, sqlite3.Error):
        text = "it holds values of a wrong type"
    return Problem(
        503, f"Dataset {name!r}: its catalog cannot be read: {text}. Look at it with: clipmill ingest status ROOT"
    )


def _dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor]


def _by_video(cursor: sqlite3.Cursor) -> dict[int, list[dict[str, Any]]]:
    out: dict[int, list[dict[str, Any]]] = {}
    for row in _dicts(cursor):
        out.setdefault(row["video"], []).append(row)
    return out
