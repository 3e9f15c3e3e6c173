"""A dataset root and a runs folder as an ingest and a training leave them, and a client of the service over both."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ingest.catalog import Catalog, Output, VideoKey, VideoRecord
from loaders.telemetry import SpeedSample, Stage, TelemetryWriter
from service.app import create_app
from service.settings import Settings

LOCAL = "http://127.0.0.1"


def fill_catalog(root: Path, num_ok: int = 4) -> None:
    """`num_ok` good videos of two classes, one truncated, one missing, one pending (it has a class but no label)."""
    source = "/secret/place/videos/"
    keys = [VideoKey(("left", "right")[i % 2], f"v_{i}") for i in range(num_ok)]
    truncated, missing, pending = VideoKey("left", "cut"), VideoKey("right", "gone"), VideoKey("up", "later")
    with Catalog.create(root) as catalog, catalog.transaction():
        catalog.add_classes(["left", "right"])
        catalog.add_pending([(key, f"{source}{key.video_id}.mp4") for key in (*keys, truncated, missing, pending)])
        for key in keys:
            outputs = [
                Output("frames-db", 128, 170, 128, 75, 1000, 3000),
                Output("frames-db", 64, 85, 64, 75, 400, 3000),
            ]
            catalog.record(
                VideoRecord(
                    key,
                    "ok",
                    source=f"{source}{key.video_id}.mp4",
                    num_frames=75,
                    fps=25,
                    duration_s=3,
                    outputs=outputs,
                )
            )
        message = f"{source}cut.mp4 ends early; see /var/log/x.txt"
        catalog.record(VideoRecord(truncated, "failed", source=f"{source}cut.mp4", reason="truncated", message=message))
        catalog.record(VideoRecord(missing, "missing", source=f"{source}gone.mp4", reason="source missing"))
        split = {0: "train", 1: "train", 2: "val"}
        catalog.set_labels([(key, key.class_name, split.get(i, "test"), None, None) for i, key in enumerate(keys)])
        catalog.set_labels([(truncated, "left", "train", 0.5, 2.0), (missing, "right", "train", None, None)])
        run = catalog.start_run({"src": source}, total=10, pid=1)
        catalog.update_run(run, done=num_ok, failed=1, skipped=1, frames=75 * num_ok)
        catalog.db.execute("UPDATE runs SET started_at = updated_at - 10")


def sample(step: int, phase: str = "train", loss: float = 1.0) -> SpeedSample:
    stages = {"decode": Stage(160, 3.0, 2000), "read": Stage(160, 1.0, 500)}
    return SpeedSample(
        step, step // 10, phase, 16, 8, 112, 96, 400.0, 180.0, 90.0, 60.0, 0.05, 0.1, loss, 0.5, stages=stages
    )


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What does not change between tests, written once: a root, a run that has finished, one that was killed."""
    folder = tmp_path_factory.mktemp("templates")
    fill_catalog(folder / "motion")
    done = TelemetryWriter(folder / "done", {"method": "srtg", "dataset": "motion", "started_at": time.time() - 100})
    done.report(sample(10))
    done.close("finished")
    lost = TelemetryWriter(folder / "lost", {"method": "lstr", "started_at": time.time() - 7200})
    lost.report(sample(10))
    lost.close("running")  # What the file says after kill -9 ...
    _set(lost.path, heartbeat_at=time.time() - 3600, ended_at=None)  # ... and the time that went by.
    return folder


@pytest.fixture
def root(templates: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(templates / "motion", tmp_path / "motion"))
    with sqlite3.connect(
        copy / "catalog.db"
    ) as db:  # However long the session: an ingest that is silent for 30 s is dead.
        db.execute("UPDATE runs SET started_at = ?1 - 10, updated_at = ?1", (time.time(),))
    db.close()
    return copy


@pytest.fixture
def runs(templates: Path, tmp_path: Path) -> Iterator[Path]:
    """Three runs: `live` reports, `done` has finished, `lost` was killed an hour ago."""
    folder = tmp_path / "runs"
    for name in ("done", "lost"):
        shutil.copytree(templates / name, folder / name)
    config = {"data": {"root": "/secret/place/motion"}, "lr": 0.1}
    live = TelemetryWriter(folder / "live", {"method": "srtg", "dataset": "motion", "config": config})
    for step in range(10, 60, 10):
        live.report(sample(step, "val" if step == 30 else "train", loss=float("inf") if step == 20 else 1.0))
    live.event("warning", "clip v_1 of /secret/place/motion was replaced")
    yield folder
    live.close("stopped")


def _set(telemetry: Path, **values: float | None) -> None:
    with sqlite3.connect(telemetry) as db:
        for key, value in values.items():
            db.execute("UPDATE run SET value = ? WHERE key = ?", (value, key))
    db.close()


@pytest.fixture
def client(root: Path, runs: Path) -> TestClient:
    return TestClient(create_app(Settings({"motion": root}, runs)), base_url=LOCAL)
