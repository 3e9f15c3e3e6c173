"""Retention: what is merged, what stays, that sums hold, and that years stay small."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.retention import MAX_EVENTS, thin
from loaders.telemetry import SpeedSample, Stage, TelemetryReader, insert_event, insert_report, open_for_writing

DAY_S = 86400.0
START = 1_760_000_000.0 // 600 * 600


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_for_writing(tmp_path / "telemetry.db")
    yield connection
    connection.close()


def fill(db: sqlite3.Connection, times: list[float], phase: str = "train") -> None:
    db.execute("BEGIN")
    for i, at in enumerate(times):
        stages = {"decode": Stage(10, 1.0, 100, p50_s=float(i % 2), p99_s=float(i % 5))}
        sample = SpeedSample(i, i // 100, phase, 2 + i, 4, 8, 8, read=float(i), loss=None, at=START + at, stages=stages)
        insert_report(db, sample)
    db.execute("COMMIT")


def rows(db: sqlite3.Connection, what: str) -> list[tuple]:
    return db.execute(f"SELECT {what} FROM speed ORDER BY id").fetchall()


def test_an_empty_file_and_a_short_run_stay_as_they_are(db: sqlite3.Connection) -> None:
    assert thin(db) == 0
    fill(db, [float(i) for i in range(0, 21_600, 60)])  # Six hours.
    assert thin(db) == 0
    assert len(rows(db, "id")) == 360


def test_what_is_older_than_six_hours_becomes_a_row_a_minute(db: sqlite3.Connection) -> None:
    fill(db, [0.0, 20.0, 40.0, 60.0, 61.0, 8 * 3600.0])
    assert thin(db) == 3 * 2  # Reports and their stages.
    assert rows(db, "id, step, read, batch_size, loss, at - 0") == [
        (3, 2, 1.0, 4, None, START + 40),
        (5, 4, 3.5, 6, None, START + 61),
        (6, 5, 5.0, 7, None, START + 8 * 3600),
    ]
    stages = db.execute("SELECT count, seconds, num_bytes, p50_s, p99_s FROM stages ORDER BY rowid").fetchall()
    assert stages == [(30, 3.0, 300, pytest.approx(1 / 3), 2.0), (20, 2.0, 200, 0.5, 4.0), (10, 1.0, 100, 1.0, 0.0)]


def test_what_is_older_than_a_week_becomes_a_row_every_ten_minutes(db: sqlite3.Connection) -> None:
    fill(db, [*(60.0 * i for i in range(20)), 9 * DAY_S])
    thin(db)
    assert rows(db, "id, read") == [(10, 4.5), (20, 14.5), (21, 20.0)]


def test_phases_are_not_mixed(db: sqlite3.Connection) -> None:
    fill(db, [0.0, 10.0])
    fill(db, [20.0, 30.0, DAY_S], phase="val")
    thin(db)
    assert rows(db, "id, phase") == [(2, "train"), (4, "val"), (5, "val")]


def test_thinning_again_changes_nothing_and_in_steps_gives_the_same(tmp_path: Path) -> None:
    times = [float(t) for t in range(0, int(10 * DAY_S), 300)]
    results = []
    for name, parts in (("once", 1), ("steps", 7)):
        db = open_for_writing(tmp_path / name)
        size = -(-len(times) // parts)
        for start in range(0, len(times), size):
            part = times[start : start + size]
            db.execute("BEGIN")
            for i, at in enumerate(part, start):
                insert_report(db, SpeedSample(i, 0, "train", 2, 4, 8, 8, read=float(i % 97), at=START + at))
            db.execute("COMMIT")
            thin(db)
        assert thin(db) == 0
        results.append(rows(db, "id, step, at, ROUND(read, 9)"))
        db.close()
    assert results[0] == results[1]


def test_sums_over_the_run_hold(db: sqlite3.Connection, tmp_path: Path) -> None:
    draw = random.Random(0)
    fill(db, sorted(draw.uniform(0, 20 * DAY_S) for _ in range(3000)))
    sums = db.execute("SELECT SUM(count), SUM(seconds), SUM(num_bytes) FROM stages").fetchone()
    removed = thin(db)
    assert removed > 0
    assert db.execute("SELECT SUM(count), SUM(seconds), SUM(num_bytes) FROM stages").fetchone() == sums
    with TelemetryReader(tmp_path) as reader:
        assert reader.stages()["decode"] == Stage(30_000, 3000.0, 300_000)


def test_a_year_of_reports_is_bounded(db: sqlite3.Connection) -> None:
    """One report every ten minutes and one in each minute of the last week: what a year of one a second comes to."""
    fill(db, [*(600.0 * i for i in range(358 * 144)), *(358 * DAY_S + 60.0 * i for i in range(7 * 1440))])
    thin(db)
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    assert len(rows(db, "id")) <= 365 * 144 + 7 * 1440
    assert pages * 4096 < 20e6


def test_only_the_newest_events_stay(db: sqlite3.Connection) -> None:
    fill(db, [0.0])
    for i in range(MAX_EVENTS + 20):
        insert_event(db, float(i), "info", str(i))
    thin(db)
    found = [message for (message,) in db.execute("SELECT message FROM events ORDER BY rowid")]
    assert found == [str(i) for i in range(20, MAX_EVENTS + 20)]


def test_a_fault_half_way_changes_nothing(db: sqlite3.Connection) -> None:
    fill(db, [0.0, 10.0, DAY_S])
    db.execute("CREATE TRIGGER full BEFORE DELETE ON stages BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    before = rows(db, "*")
    with pytest.raises(sqlite3.IntegrityError, match="disk is full"):
        thin(db)
    assert rows(db, "*") == before
    db.execute("DROP TRIGGER full")
    assert thin(db) == 2


def test_reports_whose_clock_went_back_are_kept(db: sqlite3.Connection) -> None:
    fill(db, [DAY_S, 5.0, 6.0, DAY_S + 1])
    thin(db)
    assert rows(db, "id") == [(1,), (3,), (4,)]
