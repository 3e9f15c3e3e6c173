"""Catalogs of shards into the one catalog of a root.

Machines without a common manager each convert one shard (`convert --shard i/n`) into a catalog of its own, as SQLite's
write-ahead log does not work over a network file system. The stores lie where they belong already; only what is known
of them is to be brought together.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ingest.catalog import Catalog
from ingest.convert import write_raw_lists
from ingest.convert_video import target_error
from ingest.errors import ClipmillError
from ingest.layout import catalog_path, shard_catalogs
from ingest.stores import raw_frames

_NAME = re.compile(r"catalog\.shard-(\d+)-of-(\d+)\.db")


@dataclass(frozen=True)
class MergeReport:
    """`waiting`: shards of the same count that have no catalog here and were not merged before, as `i/n`."""

    shards: int
    videos: int
    failed: int
    waiting: list[str]


def merge_shards(root: Path) -> MergeReport:
    """Merge every shard catalog of the root and remove it, in one transaction each. What is merged stays merged.

    Raises: ClipmillError when there is none, one is still being written or cannot be read, or they do not fit together.
    """
    paths = shard_catalogs(root)
    if not paths:
        raise ClipmillError(
            f"{root} holds no catalog of a shard.",
            "There is nothing to merge.",
            f"Make some: clipmill ingest convert SRC {root} --shard 0/4",
        )
    videos = failed = 0
    try:
        with Catalog.create(root) as catalog:
            for path in paths:
                _refuse_running(path)
                count, bad = _merge(catalog, path)
                videos, failed = videos + count, failed + bad
                path.unlink()
                for suffix in ("-journal", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
            if catalog.db.execute("SELECT 1 FROM outputs WHERE store = ?", (raw_frames.STORE,)).fetchone():
                write_raw_lists(root, catalog)
            waiting = _waiting(catalog)
    except sqlite3.OperationalError as error:
        raise target_error(catalog_path(root), root, error) from error
    return MergeReport(len(paths), videos, failed, waiting)


def _refuse_running(path: Path) -> None:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        running = db.execute("SELECT state FROM runs ORDER BY id DESC LIMIT 1").fetchone() == ("running",)
        alive = running and db.execute("SELECT MAX(updated_at) > unixepoch() - 60 FROM runs").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise ClipmillError(
            f"{path} cannot be read: {error}.",
            "It was not merged, nor were the shards after it.",
            "Move it away and convert that shard again; finished videos are taken in without decoding.",
        ) from None
    finally:
        db.close()
    if alive:
        raise ClipmillError(
            f"{path} is still being written.",
            "It was not merged, nor were the shards after it.",
            "Wait until its run has ended, then merge again.",
        )


def _merge(catalog: Catalog, path: Path) -> tuple[int, int]:
    """Videos and failed videos that came in. Row ids are the shard's own; videos are matched by their names."""
    db = catalog.db
    db.execute("ATTACH ? AS shard", (str(path),))
    try:
        with catalog.transaction():
            names = [name for (name,) in db.execute("SELECT name FROM shard.classes ORDER BY idx")]
            catalog.add_classes(names)
            if catalog.class_names()[: len(names)] != names:
                raise ClipmillError(
                    f"{path.name} has its classes in another order than catalog.db.",
                    "It was not merged: class indices would change their meaning.",
                    "Convert all shards with the same labels file.",
                )
            columns = [row[1] for row in db.execute("PRAGMA shard.table_info(videos)") if row[1] != "id"]
            listed = ", ".join(columns)
            updates = ", ".join(f"{name}=excluded.{name}" for name in columns if name not in ("class_name", "video_id"))
            db.execute(
                f"INSERT INTO videos({listed}) SELECT {listed} FROM shard.videos WHERE true"
                f" ON CONFLICT(class_name, video_id) DO UPDATE SET {updates}"
            )
            db.execute(
                "CREATE TEMP TABLE ids AS SELECT s.id AS theirs, v.id AS ours FROM shard.videos s"
                " JOIN videos v USING(class_name, video_id)"
            )
            for table, rest in (
                ("outputs", "store, short_side, width, height, num_frames, num_bytes, file_bytes"),
                ("labels", "label, split, start_s, end_s"),
            ):
                db.execute(f"DELETE FROM {table} WHERE video IN (SELECT ours FROM ids)")
                db.execute(
                    f"INSERT INTO {table}(video, {rest}) SELECT ours, {rest} FROM shard.{table} JOIN ids ON video = theirs"
                )
            for table in ("failures", "runs"):
                rest = ", ".join(row[1] for row in db.execute(f"PRAGMA shard.table_info({table})") if row[1] != "id")
                # A merge that was killed before the shard's file was removed is done again: no line twice.
                db.execute(
                    f"INSERT INTO {table}({rest}) SELECT {rest} FROM shard.{table} EXCEPT SELECT {rest} FROM {table}"
                )
            (failed,) = db.execute("SELECT COUNT(*) FROM shard.videos WHERE state <> 'ok'").fetchone()
            (count,) = db.execute("SELECT COUNT(*) FROM ids").fetchone()
            db.execute("DROP TABLE ids")
            index, of = map(int, _NAME.fullmatch(path.name).groups())  # type: ignore[union-attr]
            db.execute("CREATE TABLE IF NOT EXISTS shards(idx INTEGER, count INTEGER, PRIMARY KEY(idx, count))")
            db.execute("INSERT OR IGNORE INTO shards VALUES(?, ?)", (index, of))
    finally:
        db.execute("DETACH shard")
    return count, failed


def _waiting(catalog: Catalog) -> list[str]:
    rows = catalog.db.execute("SELECT count, idx FROM shards ORDER BY count, idx").fetchall()
    merged: dict[int, set[int]] = {}
    for count, index in rows:
        merged.setdefault(count, set()).add(index)
    newest = max(merged, key=lambda count: len(merged[count]) / count)
    return [f"{i}/{newest}" for i in range(newest) if i not in merged[newest]]
