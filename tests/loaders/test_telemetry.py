"""Telemetry of a run: written and read at once, alive or dead, and never a reason for a training to stop."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loaders import telemetry
from loaders.telemetry import DEAD_AFTER_S, SpeedSample, Stage, TelemetryReader, TelemetryWriter, find_runs


@pytest.fixture
def writer(tmp_path: Path):
    made = TelemetryWriter(tmp_path / "run", {"method": "srtg", "config": {"lr": 0.1}, "note": None})
    yield made
    made.close("stopped")


def sample(step: int = 1, **changes) -> SpeedSample:
    values = {"epoch": 0, "phase": "train", "batch_size": 8, "num_frames": 16, "height_px": 112, "width_px": 96}
    return SpeedSample(step, **values | changes)


def wait_until(is_so: Callable[[], bool], limit_s: float = 30) -> None:
    for _ in range(round(limit_s / 0.01)):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


# Round trip


def test_a_report_is_read_back_as_it_was_written(writer: TelemetryWriter):
    sent = sample(5, read=100.5, forward=20.0, wait_share=0.25, learning_rate=1e-3, loss=2.5, top1=0.1, at=123.0)
    writer.report(sent)
    with TelemetryReader(writer.path.parent) as reader:
        (row,) = reader.speed()
    assert row.pop("id") == 1
    assert SpeedSample(**row) == sent
    assert row["backward"] is None


def test_a_report_is_dated_now_unless_it_says_otherwise(writer: TelemetryWriter):
    before = time.time()
    writer.report(sample())
    with TelemetryReader(writer.path.parent) as reader:
        assert before <= reader.speed()[0]["at"] <= time.time()


def test_speed_gives_the_newest_reports_oldest_first(writer: TelemetryWriter):
    for step in range(1, 7):
        writer.report(sample(step, phase="val" if step == 3 else "train"))
    with TelemetryReader(writer.path.parent) as reader:
        assert [row["step"] for row in reader.speed()] == [1, 2, 3, 4, 5, 6]
        assert [row["step"] for row in reader.speed(limit=2)] == [5, 6]
        assert [row["step"] for row in reader.speed(after_id=4)] == [5, 6]
        assert [row["step"] for row in reader.speed(after_id=6)] == []
        assert [row["step"] for row in reader.speed(phase="val")] == [3]


def test_stages_are_summed_over_the_run(writer: TelemetryWriter):
    writer.report(sample(1, stages={"read": Stage(8, 0.5, 1000), "decode": Stage(8, 2.0)}))
    writer.report(sample(2, stages={"read": Stage(4, 0.25, 500)}))
    with TelemetryReader(writer.path.parent) as reader:
        assert reader.stages() == {"read": Stage(12, 0.75, 1500), "decode": Stage(8, 2.0, 0)}


def test_events_come_back_in_order(writer: TelemetryWriter):
    for i in range(3):
        writer.event("info", f"event {i}")
    with TelemetryReader(writer.path.parent) as reader:
        assert [(row["level"], row["message"]) for row in reader.events(limit=2)] == [
            ("info", "event 1"),
            ("info", "event 2"),
        ]


def test_a_reader_sees_what_is_written_after_it_was_opened(writer: TelemetryWriter):
    with TelemetryReader(writer.path.parent) as reader:
        for step in range(1, 4):
            writer.report(sample(step))
            assert len(reader.speed()) == step


# Alive or dead


def test_a_running_run_says_what_it_is(writer: TelemetryWriter):
    with TelemetryReader(writer.path.parent) as reader:
        info = reader.info()
    assert (info.run, info.state, info.ended_at) == ("run", "running", None)
    assert info.about == {"method": "srtg", "config": '{"lr": 0.1}', "note": None}
    assert info.started_at <= info.heartbeat_at <= time.time()


def test_a_running_run_without_a_heartbeat_is_dead(writer: TelemetryWriter):
    with TelemetryReader(writer.path.parent) as reader:
        heartbeat = reader.info().heartbeat_at
        assert reader.info(now=heartbeat + DEAD_AFTER_S - 1).state == "running"
        assert reader.info(now=heartbeat + DEAD_AFTER_S + 1).state == "dead"


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_a_closed_run_keeps_its_state_for_ever(tmp_path: Path, state):
    writer = TelemetryWriter(tmp_path / "run", {})
    writer.close(state)
    writer.close("running")
    with TelemetryReader(tmp_path / "run") as reader:
        info = reader.info(now=time.time() + 1e6)
    assert info.state == state and info.ended_at == info.heartbeat_at
    assert writer.error is None


def test_the_heartbeat_goes_on_by_itself(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(telemetry, "HEARTBEAT_EVERY_S", 0.02)
    writer = TelemetryWriter(tmp_path / "run", {})
    with TelemetryReader(tmp_path / "run") as reader:
        for _ in range(3):
            before = reader.info().heartbeat_at
            wait_until(lambda: reader.info().heartbeat_at > before)  # noqa: B023
    writer.close("finished")


def test_a_run_that_goes_on_in_the_same_folder_is_running_again_and_keeps_its_reports(tmp_path: Path):
    first = TelemetryWriter(tmp_path / "run", {"method": "srtg"})
    first.report(sample(1))
    first.close("stopped")
    second = TelemetryWriter(tmp_path / "run", {"method": "srtg"})
    second.report(sample(2))
    with TelemetryReader(tmp_path / "run") as reader:
        assert (reader.info().state, reader.info().ended_at) == ("running", None)
        assert [row["step"] for row in reader.speed()] == [1, 2]
    second.close("finished")


def test_a_writer_killed_leaves_a_readable_file_and_a_dead_run(tmp_path: Path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from loaders.telemetry import SpeedSample, TelemetryWriter\n"
        "writer = TelemetryWriter(Path(sys.argv[1]), {'method': 'srtg'})\n"
        "for step in range(10**9):\n"
        "    writer.report(SpeedSample(step, 0, 'train', 8, 16, 112, 112))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run")])
    try:
        wait_until(lambda: (tmp_path / "run" / telemetry.FILE_NAME).exists() and num_reports(tmp_path / "run") > 20)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with TelemetryReader(tmp_path / "run") as reader:
        steps = [row["step"] for row in reader.speed(limit=10**9)]
        assert steps == list(range(len(steps))) and len(steps) > 20
        assert reader.info().about == {"method": "srtg"}
        assert reader.info(now=time.time() + DEAD_AFTER_S + 1).state == "dead"
        assert [tuple(row) for row in reader._db.execute("PRAGMA quick_check")] == [("ok",)]


def num_reports(folder: Path) -> int:
    try:
        with TelemetryReader(folder) as reader:
            return len(reader.speed())
    except sqlite3.Error:
        return 0


# Never a reason to stop


def test_a_file_locked_by_another_does_not_stop_the_writer(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(telemetry, "_LOCKED_FOR_S", 0.01)
    writer = TelemetryWriter(tmp_path / "run", {})
    other = sqlite3.connect(writer.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer.report(sample(1, stages={"read": Stage(1, 1.0)}))
    writer.event("info", "lost")
    assert writer.error is not None and "locked" in writer.error and str(writer.path) in writer.error
    other.execute("ROLLBACK")
    other.close()
    writer.report(sample(2))
    writer.close("finished")
    with TelemetryReader(tmp_path / "run") as reader:
        assert [row["step"] for row in reader.speed()] == [2]
        assert reader.info().state == "finished"


def test_a_file_removed_does_not_stop_the_writer(tmp_path: Path):
    writer = TelemetryWriter(tmp_path / "run", {})
    shutil.rmtree(tmp_path / "run")
    writer.report(sample())
    writer.event("info", "lost")
    writer.close("finished")


def test_a_full_disk_does_not_stop_the_writer(tmp_path: Path):
    writer = TelemetryWriter(tmp_path / "run", {})
    pages = writer._db.execute("PRAGMA page_count").fetchone()[0]
    writer._db.execute(f"PRAGMA max_page_count={pages}")
    for _ in range(200):
        writer.event("info", "x" * 1000)
    assert writer.error is not None and "full" in writer.error
    writer.close("failed")


@pytest.mark.parametrize("there", ["a folder", "no database"])
def test_a_file_that_cannot_be_opened_does_not_stop_the_run_from_starting(tmp_path: Path, there):
    path = tmp_path / "run" / telemetry.FILE_NAME
    path.parent.mkdir()
    if there == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"something else\n" * 100)
    writer = TelemetryWriter(tmp_path / "run", {"method": "srtg"})
    writer.report(sample())
    writer.close("finished")
    assert writer.error is not None and str(path) in writer.error


def test_reports_after_the_end_are_lost_and_noted(tmp_path: Path):
    writer = TelemetryWriter(tmp_path / "run", {})
    writer.close("finished")
    writer.report(sample())
    assert writer.error is not None


# Finding and opening


def test_runs_are_found_in_a_folder_and_its_children_newest_first(tmp_path: Path):
    for age, name in enumerate(("newest", "middle", "oldest")):
        TelemetryWriter(tmp_path / name, {}).close("finished")
        os.utime(tmp_path / name / telemetry.FILE_NAME, (1e9 - age, 1e9 - age))
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").touch()
    assert [run.name for run in find_runs(tmp_path)] == ["newest", "middle", "oldest"]
    assert find_runs(tmp_path / "middle") == [tmp_path / "middle"]
    assert find_runs(tmp_path / "no run") == find_runs(tmp_path / "absent") == []


def test_a_reader_of_no_run_says_which_file_is_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=telemetry.FILE_NAME):
        TelemetryReader(tmp_path)


def test_a_reader_of_a_damaged_file_raises_a_database_error(tmp_path: Path):
    (tmp_path / telemetry.FILE_NAME).write_bytes(b"something else\n" * 100)
    with TelemetryReader(tmp_path) as reader, pytest.raises(sqlite3.DatabaseError):
        reader.info()


@pytest.mark.parametrize("name", ["per cent %20", "question?mark", "hash#tag", "späß"])
def test_a_run_may_have_any_name(tmp_path: Path, name):
    writer = TelemetryWriter(tmp_path / name, {})
    writer.report(sample())
    with TelemetryReader(tmp_path / name) as reader:
        assert reader.info().run == name and len(reader.speed()) == 1
    writer.close("finished")
