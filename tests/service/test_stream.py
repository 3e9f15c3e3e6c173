"""GET /api/loaders/{run}/stream: events as they come, return without a gap, an end when the service stops."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from loaders.telemetry import TelemetryWriter
from service.api import stream
from tests.service.conftest import sample
from tests.service.test_serve import serving


@contextmanager
def listening(url: str, last_event_id: str | None = None) -> Iterator[Any]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        yield answer


def events(answer: Any) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(name, id, data) of each event, as a browser would read them."""
    fields: dict[str, str] = {}
    for line in answer:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "event" in fields:
            yield fields.pop("event"), int(fields.pop("id")), json.loads(fields.pop("data"))


def reports(answer: Any) -> Iterator[tuple[int, list[int]]]:
    return ((i, [s["step"] for s in data["samples"]]) for name, i, data in events(answer) if name == "reports")


@pytest.fixture
def service(root: Path, runs: Path) -> Iterator[tuple[Any, str]]:
    with serving("--root", root, "--runs", runs) as running:
        yield running


def test_what_is_there_comes_first_then_what_is_new(service: tuple[Any, str], runs: Path) -> None:
    writer = TelemetryWriter(runs / "far", {"method": "srtg"})
    writer.report(sample(1))
    with listening(f"{service[1]}api/loaders/far/stream") as answer:
        found = events(answer)
        name, _, run = next(found)
        assert (name, run["method"], run["latest"]["step"]) == ("run", "srtg", 1)
        assert next(found)[2]["samples"][0]["step"] == 1
        writer.report(sample(2))
        steps = next(data["samples"] for name, _, data in found if name == "reports")
        assert [s["step"] for s in steps] == [2]
        writer.close("finished")
        assert next(data["state"] for name, _, data in found if name == "run" and data["ended_at"]) == "finished"


def test_who_returns_misses_nothing_and_gets_nothing_twice(service: tuple[Any, str], runs: Path) -> None:
    url = f"{service[1]}api/loaders/done/stream"
    with listening(url) as answer:
        last, steps = next(reports(answer))
    assert steps == [10]
    writer = TelemetryWriter(runs / "done", {})
    writer.report(sample(20))
    with listening(url, last_event_id=str(last)) as answer:
        assert next(reports(answer)) == (2, [20])
    with listening(f"{url}?after=1") as answer:
        assert next(reports(answer)) == (2, [20])
    writer.close("finished")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_do_not_hold_up_the_end(service: tuple[Any, str], number: signal.Signals) -> None:
    process, url = service
    with listening(f"{url}api/loaders/done/stream") as answer:
        next(reports(answer))
        process.send_signal(number)
        assert answer.read() is not None  # It ends; it is not cut off.
        assert process.wait(timeout=20) == 0
    assert process.stderr.read() == ""


def test_a_run_that_breaks_is_told_in_the_stream(service: tuple[Any, str], runs: Path) -> None:
    with listening(f"{service[1]}api/loaders/done/stream") as answer:
        found = events(answer)
        next(found)
        (runs / "done" / "telemetry.db").write_bytes(b"x" * 5000)
        problem = next(data for name, _, data in found if name == "problem")
        assert problem["status"] == 503 and "cannot be read" in problem["detail"]
        for file in (runs / "done").iterdir():
            file.unlink()
        (runs / "done").rmdir()
        assert next(data for name, _, data in found if name == "problem" and data["status"] == 404)
        assert list(found) == []


def test_unknown_runs_and_odd_ids(client: TestClient, service: tuple[Any, str]) -> None:
    assert client.get("/api/loaders/nope/stream").status_code == 404
    assert client.get("/api/loaders/live/stream?after=-1").status_code == 422
    for odd in ("nonsense", "-5", "9" * 20, "²"):
        with listening(f"{service[1]}api/loaders/done/stream", last_event_id=odd.encode().decode("latin-1")) as answer:
            assert next(events(answer))[0] == "run"


def test_there_is_a_most_of_streams_and_closed_ones_make_room(root: Path, runs: Path) -> None:
    with serving("--root", root, "--runs", runs) as (_, url):
        answers = [
            urllib.request.urlopen(f"{url}api/loaders/done/stream", timeout=30) for _ in range(stream.MAX_STREAMS)
        ]
        for answer in answers:
            next(events(answer))
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}api/loaders/done/stream", timeout=30)
        assert refused.value.code == 503
        for answer in answers:
            answer.close()
        for _ in range(200):
            try:
                with listening(f"{url}api/loaders/done/stream") as again:
                    assert next(events(again))[0] == "run"
                break
            except urllib.error.HTTPError:
                time.sleep(0.05)
        else:
            raise AssertionError("the places were not given back")
