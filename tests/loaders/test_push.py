"""Pushing: what is sent, what happens when the network or the service is away, and that nothing counts twice.

The receiver here is a real HTTP server on loopback that keeps what it got; the service's own is in tests/service/test_push.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import ClipmillError
from loaders import push
from loaders.push import Follower, PushClient, Pusher, PushError, RunsFollower
from loaders.telemetry import SpeedSample, Stage, TelemetryWriter

TOKEN = "0123456789abcdef0123"


class Receiver:
    """Keeps every message; answers with the ids it has. `fail_with`: the status of the next answers instead."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.authorizations: set[str] = set()
        self.fail_with: int | None = None
        self.drop_answers = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                receiver.authorizations.add(self.headers["authorization"])
                if receiver.fail_with:
                    self._answer(receiver.fail_with, {"detail": "not today"})
                    return
                receiver.paths.append(self.path)
                receiver.messages.append(body)
                if receiver.drop_answers:
                    receiver.drop_answers -= 1
                    self.connection.close()  # It has the message, the sender does not know.
                    return
                self._answer(
                    200, {"last_id": receiver.last(body, "samples"), "last_event": receiver.last(body, "events")}
                )

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def last(self, like: dict[str, Any], kind: str) -> int:
        mine = [m for m in self.messages if (m["file"], m["rank"]) == (like["file"], like["rank"])]
        return max((row["id"] for m in mine for row in m[kind]), default=0)

    def steps(self) -> list[int]:
        return [sample["step"] for message in self.messages for sample in message["samples"]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[TelemetryWriter]:
    made = TelemetryWriter(tmp_path / "runs" / "a", {"method": "srtg", "config": {"lr": 0.1}})
    yield made
    made.close("stopped")


def report(step: int, **more: object) -> SpeedSample:
    return SpeedSample(step, 0, "train", 2, 4, 8, 8, **more)  # type: ignore[arg-type]


def follower(writer: TelemetryWriter, receiver: Receiver) -> Follower:
    return Follower(writer.path.parent, 0, PushClient(receiver.url, TOKEN))


def test_what_is_sent(writer: TelemetryWriter, receiver: Receiver) -> None:
    writer.report(report(1, loss=float("nan"), read=2.5, stages={"read": Stage(8, 0.5, 100, p50_s=0.1)}))
    writer.event("info", "started")
    assert follower(writer, receiver).push() == 1
    asked, sent = receiver.messages
    assert (asked["samples"], asked["events"]) == ([], [])
    assert (sent["rank"], sent["state"], sent["ended_at"]) == (0, "running", None)
    assert sent["about"] == {"method": "srtg", "config": '{"lr": 0.1}'}
    assert 0 <= sent["silent_s"] < 60
    (sample,) = sent["samples"]
    assert (sample["id"], sample["step"], sample["loss"], sample["read"]) == (1, 1, None, 2.5)
    assert sample["stages"]["read"] == {
        "count": 8, "seconds": 0.5, "num_bytes": 100, "p50_s": 0.1, "p90_s": None, "p99_s": None,
    }  # fmt: skip
    assert sent["events"][0]["message"] == "started"
    assert receiver.paths == ["/api/loaders/a/speed"] * 2
    assert receiver.authorizations == {f"Bearer {TOKEN}"}


def test_only_what_is_new_is_sent_and_a_sign_of_life_when_nothing_is(
    writer: TelemetryWriter, receiver: Receiver
) -> None:
    following = follower(writer, receiver)
    for step in (1, 2):
        writer.report(report(step))
        assert following.push() == 1
    assert following.push() == 0
    assert receiver.steps() == [1, 2]
    assert len(receiver.messages) == 4


def test_a_follower_begun_anew_goes_on_where_the_service_is(writer: TelemetryWriter, receiver: Receiver) -> None:
    writer.report(report(1))
    follower(writer, receiver).push()
    writer.report(report(2))
    follower(writer, receiver).push()
    assert receiver.steps() == [1, 2]


def test_a_lost_answer_costs_nothing(writer: TelemetryWriter, receiver: Receiver) -> None:
    following = follower(writer, receiver)
    following.push()
    writer.report(report(1))
    receiver.drop_answers = 1
    with pytest.raises(PushError) as lost:
        following.push()
    assert not lost.value.final
    writer.report(report(2))
    following.push()
    sent = [sample["id"] for message in receiver.messages for sample in message["samples"]]
    assert sent == [1, 1, 2]  # By its id the service knows that the first came twice.


def test_a_service_that_is_away_gets_all_of_it_later(writer: TelemetryWriter, receiver: Receiver) -> None:
    following = follower(writer, receiver)
    receiver.fail_with = 503
    for step in range(1, 4):
        writer.report(report(step))
        with pytest.raises(PushError, match="503: not today"):
            following.push()
    receiver.fail_with = None
    assert following.push() == 3
    assert receiver.steps() == [1, 2, 3]


def test_many_reports_go_in_parts(writer: TelemetryWriter, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_REPORTS_AT_ONCE", 4)
    for step in range(10):
        writer.report(report(step))
    assert follower(writer, receiver).push() == 10
    assert [len(message["samples"]) for message in receiver.messages] == [0, 4, 4, 2]


def test_the_end_of_a_run_is_sent_once(tmp_path: Path, receiver: Receiver) -> None:
    writer = TelemetryWriter(tmp_path / "a", {})
    following = follower(writer, receiver)
    following.push()
    writer.close("finished")
    following.push()
    seen = len(receiver.messages)
    assert receiver.messages[-1]["state"] == "finished" and receiver.messages[-1]["ended_at"]
    following.push()
    assert len(receiver.messages) == seen
    again = TelemetryWriter(tmp_path / "a", {})  # Resumed: it lives again.
    following.push()
    assert receiver.messages[-1]["state"] == "running"
    again.close("finished")


def test_a_new_file_in_the_same_folder_is_told_apart(tmp_path: Path, receiver: Receiver) -> None:
    following = None
    for step in (1, 2):
        writer = TelemetryWriter(tmp_path / "a", {})
        writer.report(report(step))
        following = following or follower(writer, receiver)
        assert following.push() == 1
        writer.close("stopped")
        writer.path.unlink()
    assert len({message["file"] for message in receiver.messages}) == 2
    assert receiver.steps() == [1, 2]


@pytest.mark.parametrize(
    ("status", "final"), [(401, True), (409, True), (413, True), (429, False), (500, False), (503, False)]
)
def test_what_is_worth_trying_again(receiver: Receiver, status: int, final: bool) -> None:
    receiver.fail_with = status
    with pytest.raises(PushError) as refused:
        PushClient(receiver.url, TOKEN).send("a", {})
    assert refused.value.final is final


def test_nobody_listens_and_no_address() -> None:
    with pytest.raises(PushError) as refused:
        PushClient("http://127.0.0.1:9", TOKEN).send("a", {})
    assert not refused.value.final
    for url in ("file:///etc/passwd", "gpu-box:8000", "ftp://x"):
        with pytest.raises(ClipmillError, match="not an http address"):
            PushClient(url, TOKEN)


def test_every_run_and_rank_of_a_folder_is_followed(tmp_path: Path, receiver: Receiver) -> None:
    writers = [TelemetryWriter(tmp_path / name, {}, rank=rank) for name, rank in (("a", 0), ("a", 1), ("b", 0))]
    for writer in writers:
        writer.report(report(1))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "telemetry.db").write_bytes(b"x" * 5000)
    following = RunsFollower(tmp_path, PushClient(receiver.url, TOKEN))
    sent, problems = following.push()
    assert sent == 3
    assert len(problems) == 1 and problems[0].startswith("broken: its telemetry cannot be read now")
    assert {(path, message["rank"]) for path, message in zip(receiver.paths, receiver.messages, strict=True)} == {
        ("/api/loaders/a/speed", 0), ("/api/loaders/a/speed", 1), ("/api/loaders/b/speed", 0),
    }  # fmt: skip
    for writer in writers:
        writer.close("finished")


def test_a_refused_run_is_left_alone_for_a_while(tmp_path: Path, receiver: Receiver) -> None:
    writer = TelemetryWriter(tmp_path / "a", {})
    following = RunsFollower(tmp_path, PushClient(receiver.url, TOKEN))
    receiver.fail_with = 409
    assert following.push() == (0, ["a: 409: not today"])
    receiver.fail_with = None
    assert following.push() == (0, [])
    assert receiver.messages == []
    writer.close("finished")


def test_the_thread_sends_while_a_run_goes_on_and_the_rest_at_the_end(tmp_path: Path, receiver: Receiver) -> None:
    writer = TelemetryWriter(tmp_path / "a", {})
    with Pusher(tmp_path, PushClient(receiver.url, TOKEN), every_s=600) as pusher:
        writer.report(report(1))
        writer.close("finished")
    assert pusher.error is None
    assert receiver.steps() == [1]
    assert receiver.messages[-1]["state"] == "finished"


def test_the_thread_never_raises(tmp_path: Path) -> None:
    TelemetryWriter(tmp_path / "a", {}).close("finished")
    with Pusher(tmp_path, PushClient("http://127.0.0.1:9", TOKEN), every_s=0.01) as pusher:
        pass
    assert pusher.error is not None and pusher.error.startswith("a: ")
