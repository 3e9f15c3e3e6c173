"""POST /api/loaders/{run}/speed: taken in once, shown like a local run, refused where it must be; and a real relay."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from loaders.telemetry import SpeedSample, Stage, TelemetryReader, TelemetryWriter
from service.app import create_app
from service.guard import MAX_BODY_BYTES
from service.inbox import Inbox, is_pushed
from service.models import Push
from service.settings import Settings
from tests.service.test_serve import get, serving

PROJECT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
REPORT = {"step": 10, "batch_size": 16, "num_frames": 8, "height_px": 112, "width_px": 96, "read": 400.0}


@pytest.fixture
def runs_folder(runs: Path) -> Path:
    return runs


@pytest.fixture
def guarded(root: Path, runs: Path) -> TestClient:
    return TestClient(create_app(Settings({"motion": root}, runs, token=TOKEN)), base_url="http://127.0.0.1")


def send(client: TestClient, run: str = "far", **message: Any) -> Any:
    return client.post(f"/api/loaders/{run}/speed", json=message, headers=BEARER)


def test_a_pushed_run_is_shown_like_a_local_one(guarded: TestClient, runs: Path) -> None:
    stages = {"decode": {"count": 160, "seconds": 3.0, "num_bytes": 9, "p50_s": 0.01, "p99_s": 0.05}}
    about = {"method": "lstr", "dataset": "thumos14", "config": {"data": {"root": "/far/away/thumos"}}, "pushed": 0}
    answer = send(guarded, about=about, samples=[REPORT | {"id": 3, "stages": stages, "occupancy": 0.5}])
    assert answer.json() == {"api_version": 1, "run": "far", "last_id": 3, "last_event": 0, "taken": 1}
    run = guarded.get("/api/loaders/far", headers=BEARER).json()
    assert (run["state"], run["method"], run["dataset"], run["pushed"]) == ("running", "lstr", "thumos14", True)
    assert (run["latest"]["step"], run["latest"]["occupancy"], run["latest"]["phase"]) == (10, 0.5, "train")
    assert run["config"] == {"data": {"root": "thumos"}}
    assert run["stages"][0]["p99_s"] == 0.05
    listed = guarded.get("/api/loaders", headers=BEARER).json()["runs"]
    assert {entry["run"]: entry["pushed"] for entry in listed} == {
        "far": True, "live": False, "done": False, "lost": False,
    }  # fmt: skip


def test_a_message_that_comes_twice_counts_once(guarded: TestClient) -> None:
    message = {"file": "f", "samples": [REPORT | {"id": 1, "stages": {"read": {"count": 5, "seconds": 1.0}}}],
               "events": [{"id": 1, "at": 5.0, "message": "hello"}]}  # fmt: skip
    assert [send(guarded, **message).json()["taken"] for _ in range(2)] == [1, 0]
    run = guarded.get("/api/loaders/far", headers=BEARER).json()
    assert run["stages"][0]["count"] == 5
    assert [event["message"] for event in run["events"]] == ["hello"]


def test_another_file_begins_the_run_anew(guarded: TestClient) -> None:
    send(guarded, file="one", samples=[REPORT | {"id": 1}, REPORT | {"id": 2}])
    assert send(guarded, file="two", samples=[REPORT | {"id": 1, "step": 99}]).json()["last_id"] == 1
    samples = guarded.get("/api/loaders/far/speed", headers=BEARER).json()["samples"]
    assert [sample["step"] for sample in samples] == [99]


def test_reports_without_ids_are_numbered(guarded: TestClient) -> None:
    assert [send(guarded, samples=[REPORT]).json()["last_id"] for _ in range(3)] == [1, 2, 3]


def test_a_sender_that_falls_silent_is_dead_and_one_that_ends_is_not(guarded: TestClient) -> None:
    send(guarded, silent_s=20.0)
    send(guarded, "ended", state="finished", ended_at=time.time() - 100, silent_s=100.0)
    states = {run["run"]: run["state"] for run in guarded.get("/api/loaders", headers=BEARER).json()["runs"]}
    assert (states["far"], states["ended"]) == ("dead", "finished")
    send(guarded)
    assert guarded.get("/api/loaders/far", headers=BEARER).json()["state"] == "running"


def test_ranks_side_by_side_and_the_straggler(guarded: TestClient) -> None:
    for rank, read in ((0, 400.0), (1, 410.0), (2, 40.0), (3, 390.0)):
        send(guarded, rank=rank, samples=[REPORT | {"read": read, "forward": 200.0}])
    run = guarded.get("/api/loaders/far", headers=BEARER).json()
    assert [(r["rank"], r["straggler"]) for r in run["ranks"]] == [(0, False), (1, False), (2, True), (3, False)]
    assert [r["latest"]["read"] for r in run["ranks"]] == [400.0, 410.0, 40.0, 390.0]
    assert run["num_ranks"] == 4


def test_a_rank_that_cannot_be_read_leaves_the_others(guarded: TestClient, runs: Path) -> None:
    for rank in (0, 1):
        send(guarded, rank=rank, samples=[REPORT])
    for suffix in ("-wal", "-shm"):
        (runs / "far" / f"telemetry.rank0001.db{suffix}").unlink(missing_ok=True)
    (runs / "far" / "telemetry.rank0001.db").write_bytes(b"x" * 5000)
    ranks = guarded.get("/api/loaders/far", headers=BEARER).json()["ranks"]
    assert ranks[0]["error"] is None and "not a database" in ranks[1]["error"]


# Refused


def test_a_run_of_this_machine_is_never_written(guarded: TestClient, runs: Path) -> None:
    before = {name: (runs / name / "telemetry.db").read_bytes() for name in ("done", "lost")}
    for name in ("live", "done", "lost"):
        for rank in (0, 1):
            assert send(guarded, name, rank=rank, samples=[REPORT]).status_code == 409
    (runs / "notes").mkdir()
    (runs / "notes" / "todo.txt").write_text("mine")
    assert send(guarded, "notes", samples=[REPORT]).status_code == 409
    assert {name: (runs / name / "telemetry.db").read_bytes() for name in before} == before


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", ".hidden", "a%2fb", "..%2f..%2fetc", "a b", "x" * 101, "späß", "a%00", "-rf", "a%0a"]
)
def test_a_name_that_is_no_plain_folder_name(guarded: TestClient, runs: Path, name: str) -> None:
    before = sorted(path.name for path in (*runs.parent.iterdir(), *runs.iterdir()))
    assert send(guarded, name, samples=[REPORT]).status_code in (404, 405, 422)
    assert sorted(path.name for path in (*runs.parent.iterdir(), *runs.iterdir())) == before


def test_without_a_token_nothing_is_taken(client: TestClient, guarded: TestClient, runs: Path) -> None:
    message = {"samples": [REPORT]}
    assert client.post("/api/loaders/far/speed", json=message).status_code == 403  # None is set.
    assert guarded.post("/api/loaders/far/speed", json=message).status_code == 401
    basic = guarded.post("/api/loaders/far/speed", json=message, auth=("me", TOKEN))
    assert basic.status_code == 403  # A foreign page could make a browser send that.
    assert not (runs / "far").exists()


@pytest.mark.parametrize(
    "message",
    [
        {"samples": [{"step": 1}]},
        {"samples": [REPORT | {"step": -1}]},
        {"samples": [REPORT | {"step": 10**30}]},
        {"samples": [REPORT | {"id": 0}]},
        {"samples": [REPORT | {"at": -1.0}]},
        {"samples": [REPORT | {"stages": {"x" * 65: {"count": 1, "seconds": 1.0}}}]},
        {"samples": [REPORT | {"stages": {str(i): {"count": 1, "seconds": 1.0} for i in range(65)}}]},
        {"samples": [REPORT] * 2001},
        {"rank": -1},
        {"rank": 10_000},
        {"state": "dead"},
        {"about": {str(i): 0 for i in range(101)}},
        {"events": [{"at": 1.0, "message": "x" * 4001}]},
        {"file": ""},
        [],
    ],
)
def test_a_message_that_is_none(guarded: TestClient, runs: Path, message: Any) -> None:
    answer = guarded.post("/api/loaders/far/speed", json=message, headers=BEARER)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert not (runs / "far").exists()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"null", b'{"a":' * 5000, b'{"about": {"a": 1e999}}'])
def test_a_body_that_is_no_message(guarded: TestClient, body: bytes) -> None:
    headers = BEARER | {"Content-Type": "application/json"}
    answer = guarded.post("/api/loaders/far/speed", content=body, headers=headers)
    assert answer.status_code in (200, 400, 422)  # 1e999 is a number that JSON allows.


def test_odd_values_in_what_a_run_says_of_itself(guarded: TestClient) -> None:
    about = {
        "half \ud800": "half \ud800",
        "big": 10**30,
        "deep": [[["\ud800"]]],
        "none": None,
        "state": "dead",
        "run": "me",
    }
    body = json.dumps({"about": about, "samples": [REPORT]}).encode()
    headers = BEARER | {"Content-Type": "application/json"}
    assert guarded.post("/api/loaders/far/speed", content=body, headers=headers).status_code == 200
    run = guarded.get("/api/loaders/far", headers=BEARER)
    assert run.status_code == 200
    assert (run.json()["run"], run.json()["state"]) == ("far", "running")
    assert guarded.get("/metrics", headers=BEARER).status_code == 200


def test_a_body_that_is_too_large(guarded: TestClient) -> None:
    headers = BEARER | {"Content-Type": "application/json"}
    large = b" " * (MAX_BODY_BYTES + 1)
    said = guarded.post("/api/loaders/far/speed", content=large, headers=headers)
    chunks = (large[i : i + 65536] for i in range(0, len(large), 65536))
    unsaid = guarded.post("/api/loaders/far/speed", content=chunks, headers=headers)
    for answer in (said, unsaid):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_place_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    client = TestClient(
        create_app(Settings({"motion": root}, tmp_path / "file", token=TOKEN)), base_url="http://localhost"
    )
    answer = send(client, samples=[REPORT])
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text


def test_a_locked_file_is_a_503_and_later_taken(
    guarded: TestClient, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loaders.telemetry._LOCKED_FOR_S", 0.05)
    send(guarded, samples=[REPORT | {"id": 1}])
    holder = sqlite3.connect(runs / "far" / "telemetry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert send(guarded, samples=[REPORT | {"id": 2}]).status_code == 503
    holder.execute("ROLLBACK")
    holder.close()
    assert send(guarded, samples=[REPORT | {"id": 2}]).json()["last_id"] == 2


# Retention


def test_pushed_runs_that_are_silent_for_long_go_and_local_ones_stay(guarded: TestClient, runs: Path) -> None:
    keep_days = 30.0
    send(guarded, "old", silent_s=40 * 86400.0)
    send(guarded, "mixed", silent_s=40 * 86400.0)
    send(guarded, "young", silent_s=20 * 86400.0)
    (runs / "mixed" / "notes.txt").write_text("mine")
    with sqlite3.connect(runs / "lost" / "telemetry.db") as db:
        db.execute("UPDATE run SET value = 0 WHERE key = 'heartbeat_at'")
    db.close()
    Inbox(runs, keep_days).take("new", Push())
    assert sorted(path.name for path in runs.iterdir()) == ["done", "live", "lost", "mixed", "new", "young"]
    assert [path.name for path in (runs / "mixed").iterdir()] == ["notes.txt"]


def test_what_is_pushed_is_marked_so(guarded: TestClient, runs: Path) -> None:
    send(guarded, samples=[REPORT])
    assert is_pushed(runs / "far" / "telemetry.db")
    assert not is_pushed(runs / "done" / "telemetry.db")
    assert not is_pushed(runs / "none.db")


# The real thing: a training's files, `clipmill push`, a service in another process


def test_clipmill_push_sends_runs_to_a_service(root: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    writer = TelemetryWriter(tmp_path / "here" / "far", {"method": "srtg"})
    for step in range(1200):
        writer.report(SpeedSample(step, 0, "train", 2, 4, 8, 8, stages={"read": Stage(2, 0.5)}))
    writer.event("info", "started")
    writer.close("finished")
    with serving("--root", root, "--runs", tmp_path / "there", "--token-file", token) as (_, url):
        command = [sys.executable, "-m", "clipmill", "push", os.fspath(tmp_path / "here"), "--once", "--to", url]
        for expected in ("Sent 1200 reports.", "Sent 0 reports."):
            done = subprocess.run(
                [*command, "--token-file", token], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr
        with pytest.raises(Exception, match="401"):
            get(f"{url}api/loaders/far")
    with TelemetryReader(tmp_path / "there" / "far") as there, TelemetryReader(tmp_path / "here" / "far") as here:
        assert there.speed(limit=10_000) == here.speed(limit=10_000)
        assert there.stages() == here.stages() == {"read": Stage(2400, 600.0)}
        assert (there.info().state, there.info().started_at) == ("finished", here.info().started_at)
        assert [event["message"] for event in there.events()] == ["started"]


def test_clipmill_push_says_what_is_wrong(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    TelemetryWriter(tmp_path / "runs" / "a", {}).close("finished")
    command = [sys.executable, "-m", "clipmill", "push", tmp_path / "runs", "--once", "--token-file", token]
    done = subprocess.run(
        [*command, "--to", "http://127.0.0.1:9"], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "refused" in done.stderr and "Traceback" not in done.stderr
