"""The telemetry file: percentiles and occupancy, files of before, ranks, history, reports that are whole or absent."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from loaders.telemetry import (
    SpeedSample,
    Stage,
    TelemetryReader,
    TelemetryWriter,
    find_ranks,
    find_runs,
    open_for_writing,
)

_OLD = """
CREATE TABLE run(key TEXT PRIMARY KEY, value);
CREATE TABLE speed(id INTEGER PRIMARY KEY, step, epoch, phase, batch_size, num_frames, height_px, width_px, read, forward,
                   backward, clips_per_s, wait_share, learning_rate, loss, top1, at);
CREATE TABLE stages(step, phase, at, stage, count, seconds, num_bytes);
CREATE TABLE events(at, level, message);
INSERT INTO run VALUES('state', 'finished'), ('heartbeat_at', 1000.0), ('started_at', 900.0), ('ended_at', 1000.0);
INSERT INTO speed VALUES(1, 10, 0, 'train', 2, 4, 8, 8, 100.0, 50.0, 25.0, 15.0, 0.1, 0.01, 1.5, 0.5, 950.0);
INSERT INTO stages VALUES(10, 'train', 950.0, 'decode', 20, 2.0, 0), (20, 'train', 960.0, 'decode', 30, 1.0, 5);
INSERT INTO events VALUES(900.0, 'info', 'started');
"""


def report(step: int, at: float = 0.0, **more: object) -> SpeedSample:
    return SpeedSample(step, 0, "train", 2, 4, 8, 8, at=at, **more)  # type: ignore[arg-type]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as the first writer left it."""
    folder = tmp_path / "old"
    folder.mkdir()
    db = sqlite3.connect(folder / "telemetry.db")
    db.executescript(_OLD)
    db.close()
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path / "a", {"method": "srtg", "config": {"lr": 0.1}})
    stages = {"decode": Stage(160, 0.5, 7, p50_s=0.003, p90_s=0.004, p99_s=0.009), "wait": Stage(160, 0.1)}
    writer.report(report(10, at=1.0, stages=stages, occupancy=0.75, loss=2.5))
    writer.report(report(20, at=2.0, stages={"decode": Stage(40, 0.25, 3)}))
    writer.event("warning", "slow disk")
    writer.close("finished")
    assert writer.error is None
    with TelemetryReader(tmp_path / "a") as reader:
        info = reader.info()
        assert (info.run, info.state, info.about["method"], info.about["config"]) == (
            "a",
            "finished",
            "srtg",
            '{"lr": 0.1}',
        )
        first, second = reader.speed()
        assert (first["occupancy"], first["loss"], second["occupancy"]) == (0.75, 2.5, None)
        assert reader.stages() == {"decode": Stage(200, 0.75, 10), "wait": Stage(160, 0.1)}
        assert reader.stages_of(first) == stages
        assert reader.stages_now() == {"decode": Stage(40, 0.25, 3)}
        assert [event["message"] for event in reader.events()] == ["slow disk"]


def test_work_since_a_report_keeps_the_recent_percentiles() -> None:
    now, before = Stage(30, 3.0, 300, p50_s=0.1), Stage(10, 1.0, 100, p50_s=0.5)
    assert now.since(before) == Stage(20, 2.0, 200, p50_s=0.1)
    assert now.since(None) is now


def test_a_file_of_before_is_read_as_it_is(old: Path) -> None:
    before = (old / "telemetry.db").read_bytes()
    with TelemetryReader(old) as reader:
        assert "occupancy" not in reader.speed()[0]
        assert reader.stages() == {"decode": Stage(50, 3.0, 5)}
        assert reader.stages_now() == {"decode": Stage(30, 1.0, 5)}
        assert reader.info().file is None
        assert len(reader.history(1)) == 1
    assert (old / "telemetry.db").read_bytes() == before


def test_a_file_of_before_gets_the_new_columns_from_a_writer(old: Path) -> None:
    writer = TelemetryWriter(old, {})
    writer.report(report(30, at=970.0, stages={"decode": Stage(10, 1.0, p50_s=0.2)}, occupancy=0.5))
    writer.close("finished")
    assert writer.error is None
    with TelemetryReader(old) as reader:
        assert [row["occupancy"] for row in reader.speed()] == [None, 0.5]
        assert reader.stages() == {"decode": Stage(60, 4.0, 5)}
        assert reader.stages_now()["decode"].p50_s == 0.2


def test_a_file_keeps_its_name_over_writers_and_another_file_has_another(tmp_path: Path) -> None:
    names = []
    for folder in ("a", "a", "b"):
        TelemetryWriter(tmp_path / folder, {}).close("stopped")
        with TelemetryReader(tmp_path / folder) as reader:
            names.append(reader.info().file)
    assert names[0] == names[1] != names[2]


def test_every_rank_has_a_file(tmp_path: Path) -> None:
    for rank in (2, 0, 11):
        TelemetryWriter(tmp_path / "a", {}, rank=rank).close("finished")
    (tmp_path / "a" / "telemetry.rank12.db").touch()  # Not the name that a writer gives.
    (tmp_path / "a" / "telemetry.rank00x1.db").touch()
    assert find_ranks(tmp_path / "a") == [0, 2, 11]
    assert find_ranks(tmp_path / "none") == []
    assert find_runs(tmp_path) == [tmp_path / "a"]
    with TelemetryReader(tmp_path / "a", rank=11) as reader:
        assert reader.info().rank == 11


def test_history_is_means_over_equal_stretches_of_time(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path / "a", {})
    for i in range(100):
        writer.report(report(i, at=1000.0 + i, read=float(i), loss=None if i < 50 else 1.0))
    writer.report(report(100, at=1100.0, read=5.0, loss=2.0))
    writer.close("finished")
    with TelemetryReader(tmp_path / "a") as reader:
        rows = reader.history(10)
        assert len(rows) == 11  # The last instant stands alone.
        assert [row["id"] for row in rows] == [*range(10, 101, 10), 101]
        assert [row["step"] for row in rows[:2]] == [9, 19]
        assert [row["read"] for row in rows[:2]] == [4.5, 14.5]
        assert [row["loss"] for row in rows] == [None] * 5 + [1.0] * 5 + [2.0]
        assert reader.history(1000) == reader.speed()
        assert reader.history(10, "val") == []


def test_a_report_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path / "a", {})
    with sqlite3.connect(tmp_path / "a" / "telemetry.db") as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON stages BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    db.close()
    writer.report(report(1, stages={"read": Stage(1, 1.0)}))
    assert "disk is full" in str(writer.error)
    writer.report(report(2))
    writer.close("finished")
    with TelemetryReader(tmp_path / "a") as reader:
        assert [row["step"] for row in reader.speed()] == [2]


def test_history_is_short_also_when_the_clock_went_back(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path / "a", {})
    for at in (*range(10_000, 11_000), *range(5000, 5100)):
        writer.report(report(at, at=float(at)))
    writer.close("finished")
    with TelemetryReader(tmp_path / "a") as reader:
        assert len(reader.history(20)) <= 21


def test_no_reader_ever_sees_a_file_without_its_tables(tmp_path: Path) -> None:
    """A reader that looks all the time while 150 files are made: each is absent or whole."""
    made, seen, ended = [tmp_path / str(i) for i in range(150)], [], threading.Event()

    def look() -> None:
        while not ended.is_set():
            for folder in made:
                with suppress(FileNotFoundError), TelemetryReader(folder) as reader:
                    seen.append(reader.info().file is not None and reader.speed() == [])

    thread = threading.Thread(target=look)
    thread.start()
    for folder in made:
        folder.mkdir()
        open_for_writing(folder / "telemetry.db").close()
    ended.set()
    thread.join()
    assert seen and all(seen)
    assert {path.name for folder in made for path in folder.iterdir()} <= {
        "telemetry.db",
        "telemetry.db-wal",
        "telemetry.db-shm",
    }
