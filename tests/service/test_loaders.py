"""/api/loaders: runs that live, end, die, break, come late; their reports by id."""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from loaders.telemetry import SpeedSample, TelemetryWriter
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import sample

LOCAL = "http://127.0.0.1"


def listed(client: TestClient) -> dict[str, dict[str, Any]]:
    return {run["run"]: run for run in client.get("/api/loaders").json()["runs"]}


def test_list_tells_state_and_latest_report(client: TestClient) -> None:
    runs = listed(client)
    assert list(runs) == ["live", "done", "lost"]  # Started last, first.
    assert {name: run["state"] for name, run in runs.items()} == {"live": "running", "done": "finished", "lost": "dead"}
    latest = runs["live"]["latest"]
    assert (latest["step"], latest["read"], latest["forward"], latest["backward"]) == (50, 400.0, 180.0, 90.0)
    assert (latest["batch_size"], latest["num_frames"], latest["height_px"], latest["width_px"]) == (16, 8, 112, 96)
    assert (runs["live"]["method"], runs["live"]["dataset"]) == ("srtg", "motion")


def test_a_run_without_heartbeat_is_dead_and_an_ended_one_is_not(client: TestClient) -> None:
    runs = listed(client)
    assert runs["lost"]["heartbeat_age_s"] > 3500
    assert runs["live"]["heartbeat_age_s"] < 60
    assert runs["done"]["heartbeat_age_s"] is None
    assert runs["done"]["ended_at"] is not None


def test_detail_has_stages_config_and_events_without_host_paths(client: TestClient) -> None:
    answer = client.get("/api/loaders/live")
    run = answer.json()
    stages = [(stage["stage"], stage["count"], stage["seconds"], stage["share"]) for stage in run["stages"]]
    assert stages == [("decode", 800, 15.0, 0.75), ("read", 800, 5.0, 0.25)]
    assert run["config"] == {"data": {"root": "motion"}, "lr": 0.1}
    assert run["events"][0]["message"] == "clip v_1 of motion was replaced"
    assert "/secret" not in answer.text


def test_speed_by_id(client: TestClient) -> None:
    first = client.get("/api/loaders/live/speed?limit=2").json()
    assert [sample["step"] for sample in first["samples"]] == [40, 50]
    assert first["last_id"] == 5
    assert (first["run"], first["state"]) == ("live", "running")
    assert client.get("/api/loaders/live/speed?after=5").json()["samples"] == []
    assert [s["id"] for s in client.get("/api/loaders/live/speed?after=3").json()["samples"]] == [4, 5]
    assert [s["step"] for s in client.get("/api/loaders/live/speed?phase=val").json()["samples"]] == [30]
    assert client.get("/api/loaders/live/speed?after=99").json()["last_id"] == 5  # Below what was asked: begun anew.


def test_a_loss_that_is_not_finite_is_null(client: TestClient) -> None:
    losses = {s["step"]: s["loss"] for s in client.get("/api/loaders/live/speed").json()["samples"]}
    assert losses == {10: 1.0, 20: None, 30: 1.0, 40: 1.0, 50: 1.0}


@pytest.mark.parametrize("query", ["limit=0", "limit=5001", "after=-1", "after=x", f"after={10**20}"])
def test_a_faulty_parameter_is_named(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/loaders/live/speed?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize(
    "path", ["nope", "nope/speed", "..", "%2e%2e", "..%2fmotion", "../motion/speed", "%2ftmp", "live%2f..", "."]
)
def test_only_runs_of_the_folder_are_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/api/loaders/{path}")
    assert answer.status_code == 404 or answer.url.path != f"/api/loaders/{path}"
    assert "/tmp" not in answer.text


def test_an_unknown_run_is_told_the_known_ones(client: TestClient) -> None:
    assert sorted(client.get("/api/loaders/nope").json()["known"]) == ["done", "live", "lost"]


def test_a_runs_folder_that_appears_later(root: Path, tmp_path: Path) -> None:
    client = TestClient(create_app(Settings({"motion": root}, tmp_path / "later")), base_url=LOCAL)
    assert client.get("/api/loaders").json() == {"api_version": 1, "runs": []}
    assert client.get("/api/loaders/a").json()["detail"] == "There is no run 'a'. Known: none yet."
    writer = TelemetryWriter(tmp_path / "later" / "a", {"method": "srtg"})
    try:
        assert listed(client)["a"]["latest"] is None
        writer.report(SpeedSample(1, 0, "train", 2, 4, 8, 8))
        assert listed(client)["a"]["latest"]["read"] is None
    finally:
        writer.close("finished")
    assert listed(client)["a"]["state"] == "finished"


def test_the_runs_folder_may_be_one_run(root: Path, runs: Path) -> None:
    client = TestClient(create_app(Settings({"motion": root}, runs / "done")), base_url=LOCAL)
    assert list(listed(client)) == ["done"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"garbage " * 900, "not a database"), (b"", "no such table")],
)
def test_a_broken_run_leaves_the_others(client: TestClient, runs: Path, content: bytes, words: str) -> None:
    (runs / "broken").mkdir()
    (runs / "broken" / "telemetry.db").write_bytes(content)
    entries = listed(client)
    assert words in entries["broken"]["error"]
    assert entries["broken"]["state"] is None
    assert entries["live"]["state"] == "running"
    for path in ("/api/loaders/broken", "/api/loaders/broken/speed"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert words in answer.json()["detail"]
        assert str(runs) not in answer.text


def test_overwritten_pages_and_wrong_types(client: TestClient, runs: Path) -> None:
    for name in ("pages", "types"):
        shutil.copytree(runs / "done", runs / name)
    file = runs / "pages" / "telemetry.db"
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096))
    with sqlite3.connect(runs / "types" / "telemetry.db") as db:
        db.execute("UPDATE run SET value = 'soon', key = 'heartbeat_at' WHERE key = 'heartbeat_at'")
        db.execute("UPDATE run SET value = 'running' WHERE key = 'state'")
    db.close()
    entries = listed(client)
    assert "malformed" in entries["pages"]["error"]
    assert "wrong type" in entries["types"]["error"]
    assert entries["live"]["error"] is None


def test_a_locked_run(client: TestClient, runs: Path) -> None:
    holder = sqlite3.connect(runs / "done" / "telemetry.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    assert "locked" in client.get("/api/loaders/done/speed").json()["detail"]
    holder.close()
    assert client.get("/api/loaders/done/speed").status_code == 200


def test_a_long_run_is_drawn_while_it_is_written_and_its_history_made_anew(client: TestClient, runs: Path) -> None:
    """What is dear is made in the background, after its request: it must not use what the request has closed."""
    with sqlite3.connect(runs / "done" / "telemetry.db") as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(speed)") if row[1] not in ("id", "at", "step")]
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)"
            f" INSERT INTO speed(at, step, {', '.join(columns)}) SELECT at + i, step + i, {', '.join(columns)}"
            " FROM n, (SELECT * FROM speed LIMIT 1)"
        )
    db.close()
    writer = TelemetryWriter(runs / "done", {})
    for i in range(60):
        writer.report(SpeedSample(70_000 + i, 0, "train", 2, 4, 8, 8))
        speed = client.get("/api/loaders/done/speed?points=200").json()
        assert 200 <= len(speed["samples"]) <= 203
        time.sleep(0.05)
    writer.close("finished")


def test_after_a_validation_the_latest_report_is_still_one_of_training(root: Path, tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path / "runs" / "a", {"method": "srtg"})
    try:
        writer.report(sample(10))
        writer.report(replace(sample(10, phase="val"), backward=None))
        client = TestClient(create_app(Settings({"motion": root}, tmp_path / "runs")), base_url=LOCAL)
        latest = listed(client)["a"]["latest"]
        assert (latest["phase"], latest["backward"]) == ("train", 90.0)
    finally:
        writer.close("finished")
