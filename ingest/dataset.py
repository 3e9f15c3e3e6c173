"""What a dataset root holds, summed up: for `clipmill ingest status` and the service."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from ingest.catalog import Catalog

RUN_DEAD_AFTER_S = 30.0


@dataclass(frozen=True)
class LevelStatus:
    """One store and short side: videos that have it, frames, bytes of the frames."""

    store: str
    short_side: int
    num_videos: int
    num_frames: int
    num_bytes: int


@dataclass(frozen=True)
class IngestRun:
    """The newest ingest run. `state`: running, finished, interrupted, failed, or dead (killed without a word)."""

    state: str
    started_at: float
    updated_at: float
    total: int
    done: int
    failed: int
    skipped: int
    frames: int
    videos_per_s: float | None
    time_left_s: float | None


@dataclass(frozen=True)
class DatasetStatus:
    """Counts of a dataset root. `states`: videos per state (ok, failed, quarantined, missing, pending)."""

    num_videos: int
    num_frames: int
    num_bytes: int
    duration_s: float
    states: dict[str, int]
    splits: dict[str, dict[str, int]]
    classes: dict[str, dict[str, int]]
    reasons: dict[str, int]
    levels: list[LevelStatus]
    run: IngestRun | None
    class_names: list[str] = field(default_factory=list)


def dataset_status(catalog: Catalog) -> DatasetStatus:
    """Sum up the catalog: videos per state, per split and per class, failures by reason, stores, the newest run."""
    db = catalog.db
    states = dict(db.execute("SELECT state, COUNT(*) FROM videos GROUP BY state"))
    frames, duration = db.execute("SELECT TOTAL(num_frames), TOTAL(duration_s) FROM videos WHERE state='ok'").fetchone()
    (file_bytes,) = db.execute(
        "SELECT TOTAL(b) FROM (SELECT MAX(file_bytes) b FROM outputs GROUP BY video, store)"
    ).fetchone()
    splits = _count_by_state(db.execute(
        "SELECT split, state, COUNT(DISTINCT videos.id) FROM labels JOIN videos ON videos.id = labels.video GROUP BY split, state"
    ).fetchall())  # fmt: skip
    classes = _count_by_state(db.execute(
        "SELECT label, state, COUNT(DISTINCT videos.id) FROM labels JOIN videos ON videos.id = labels.video GROUP BY label, state"
    ).fetchall())  # fmt: skip
    reasons = dict(
        db.execute(
            "SELECT reason, COUNT(*) FROM videos WHERE state IN ('failed','quarantined','missing') GROUP BY reason"
        )
    )
    levels = [
        LevelStatus(*row)
        for row in db.execute(
            "SELECT store, short_side, COUNT(*), SUM(num_frames), SUM(num_bytes) FROM outputs GROUP BY store, short_side"
            " ORDER BY store, short_side DESC"
        )
    ]
    return DatasetStatus(
        num_videos=sum(states.values()),
        num_frames=int(frames),
        num_bytes=int(file_bytes),
        duration_s=duration,
        states=states,
        splits=splits,
        classes=classes,
        reasons=reasons,
        levels=levels,
        run=_newest_run(catalog),
        class_names=catalog.class_names(),
    )


def _count_by_state(rows: list[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for name, state, count in sorted(rows):
        out.setdefault(name, {})[state] = count
    return out


def _newest_run(catalog: Catalog) -> IngestRun | None:
    row = catalog.db.execute(
        "SELECT state, started_at, updated_at, total, done, failed, skipped, frames FROM runs ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    state, started, updated, total, done, failed, skipped, frames = row
    if state == "running" and time.time() - updated > RUN_DEAD_AFTER_S:
        state = "dead"
    worked, elapsed = done + failed, updated - started
    rate = worked / elapsed if worked and elapsed > 0 else None
    left = (total - worked - skipped) / rate if rate and state == "running" else None
    return IngestRun(state, started, updated, total, done, failed, skipped, frames, rate, left)


def folder_name(root: Path) -> str:
    """The name under which a root is shown: its last path component."""
    return os.path.basename(os.path.abspath(root)) or "root"  # noqa: PTH119, PTH100 - no symlink is resolved
