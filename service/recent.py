"""Shares answers: whoever asks for the status within a moment of another gets the same bytes. Plain ASGI."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHARED_FOR_S = 0.25
_SHARED = re.compile(r"/(metrics|readyz|api/(datasets|loaders)(/[^/]+)?)")
_MOST_ANSWERS = 256
_MOST_BYTES = 4 * 2**20


@dataclass
class _Answer:
    headers: list[tuple[bytes, bytes]]
    body: bytes
    until: float


class Recent:
    """Keeps the good answers of `app` to status reads for `shared_for_s` seconds; errors are never kept.

    A hundred open pages and monitors cost one reading, and those who ask while it is made wait for it together.
    """

    def __init__(
        self, app: ASGIApp, shared_for_s: float = SHARED_FOR_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app, self._shared_for_s, self._clock = app, shared_for_s, clock
        self._answers: dict[tuple[str, ...], _Answer] = {}
        self._making: dict[tuple[str, ...], asyncio.Lock] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not _SHARED.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        key = (scope["path"], scope["query_string"].decode("latin-1"), accept.decode("latin-1"))
        if (answer := self._fresh(key)) is None:
            async with self._making.setdefault(key, asyncio.Lock()):
                if (answer := self._fresh(key)) is None:
                    await self._make(key, scope, receive, send)
                    return
        await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _fresh(self, key: tuple[str, ...]) -> _Answer | None:
        answer = self._answers.get(key)
        return answer if answer is not None and self._clock() < answer.until else None

    async def _make(self, key: tuple[str, ...], scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, body = 0, [], b""

        async def send_and_note(message: Message) -> None:
            nonlocal status, headers, body
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            self._forget_old()
            if status == 200 and len(body) <= _MOST_BYTES // 4:
                self._answers[key] = _Answer(headers, body, self._clock() + self._shared_for_s)

    def _forget_old(self) -> None:
        """Bound the memory: names that do not exist and odd headers must not pile up here."""
        now = self._clock()
        self._answers = {key: answer for key, answer in self._answers.items() if now < answer.until}
        if len(self._answers) >= _MOST_ANSWERS or sum(len(a.body) for a in self._answers.values()) > _MOST_BYTES:
            self._answers.clear()
        if len(self._making) > _MOST_ANSWERS:
            self._making = {key: lock for key, lock in self._making.items() if lock.locked()}
