"""Shared answers: for how long, for whom, never errors, never more than a bound; and that the guard comes first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from starlette.types import Message

from service import recent
from service.app import create_app
from service.recent import Recent
from service.settings import Settings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Counting:
    """An app that says how often it was asked; `status` and `wait_s` of its next answers."""

    def __init__(self) -> None:
        self.calls, self.status, self.wait_s = 0, 200, 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        body = str(self.calls).encode()
        await asyncio.sleep(self.wait_s)
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"x-count", body)]})
        await send({"type": "http.response.body", "body": body})


async def ask(
    app: Any, path: str = "/api/datasets", query: bytes = b"", method: str = "GET", accept: bytes = b""
) -> str:
    """Body and count header of an answer, which must agree."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": [(b"accept", accept)]}
    await app(scope, None, send)
    assert dict(sent[0]["headers"])[b"x-count"] == sent[1]["body"]
    return sent[1]["body"].decode()


def run(*questions: dict[str, Any], app: Any) -> list[str]:
    async def all_of_them() -> list[str]:
        return [await ask(app, **question) for question in questions]

    return asyncio.run(all_of_them())


def test_within_a_moment_the_same_answer_then_a_new_one() -> None:
    clock, app = Clock(), Counting()
    shared = Recent(app, 0.25, clock)
    assert run({}, {}, app=shared) == ["1", "1"]
    clock.now = 0.24
    assert run({}, app=shared) == ["1"]
    clock.now = 0.26
    assert run({}, {}, app=shared) == ["2", "2"]


def test_another_address_query_or_format_is_another_answer() -> None:
    shared = Recent(Counting(), 0.25, Clock())
    questions = [
        {},
        {"query": b"a=1"},
        {"path": "/api/datasets/a"},
        {"path": "/metrics"},
        {"path": "/metrics", "accept": b"x"},
    ]
    assert run(*questions, app=shared) == ["1", "2", "3", "4", "5"]
    assert run(*questions, app=shared) == ["1", "2", "3", "4", "5"]


def test_what_is_no_status_read_passes() -> None:
    shared = Recent(Counting(), 0.25, Clock())
    questions = [{"method": "POST"}, {"method": "HEAD"}, {"path": "/api/loaders/a/stream"}, {"path": "/api/loaders/a/speed"},
                 {"path": "/"}, {"path": "/healthz"}]  # fmt: skip
    assert run(*questions, *questions, app=shared) == [str(i + 1) for i in range(12)]


def test_errors_are_not_kept() -> None:
    app = Counting()
    shared = Recent(app, 0.25, Clock())
    app.status = 503
    assert run({}, {}, app=shared) == ["1", "2"]
    app.status = 200
    assert run({}, {}, app=shared) == ["3", "3"]


def test_those_who_ask_meanwhile_wait_for_one_reading() -> None:
    app = Counting()
    shared = Recent(app, 60, Clock())

    async def at_once() -> list[str]:
        app.wait_s = 0.05
        return await asyncio.gather(*(ask(shared) for _ in range(50)))

    assert asyncio.run(at_once()) == ["1"] * 50


def test_memory_is_bounded() -> None:
    shared = Recent(Counting(), 60, Clock())
    run(*({"query": str(i).encode()} for i in range(3000)), app=shared)
    assert len(shared._answers) <= recent._MOST_ANSWERS
    assert len(shared._making) <= recent._MOST_ANSWERS + 1


def test_the_guard_comes_before_what_is_shared(root: Path, runs: Path) -> None:
    token = "0123456789abcdef0123"
    client = TestClient(
        create_app(Settings({"motion": root}, runs, token=token, shared_for_s=60)), base_url="http://localhost"
    )
    headers = {"Authorization": f"Bearer {token}"}
    first = client.get("/api/datasets", headers=headers)
    assert client.get("/api/datasets").status_code == 401
    again = client.get("/api/datasets", headers=headers)
    assert again.content == first.content
    for answer in (first, again):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
