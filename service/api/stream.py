"""GET /api/loaders/{run}/stream: the reports of a run as they come, as server-sent events."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from service.api.loaders import MAX_SAMPLES
from service.problems import Problem, problem_openapi
from service.runs import Runs

EVERY_S = 1.0
MAX_STREAMS = 100
_LOOKS_PER_S = 5  # How often a stream looks whether the service stops.
_KEEP_ALIVE_EVERY_S = 15.0

_EXAMPLE = (
    'id: 42\nevent: reports\ndata: {"api_version":1,"run":"srtg-r3d18","state":"running","last_id":42,"samples":[]}\n\n'
)


def stream_routes(runs: Runs, stopping: threading.Event) -> APIRouter:
    router = APIRouter(prefix="/api/loaders", tags=["loaders"])
    streams = _Open()

    @router.get(
        "/{run}/stream",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}}},
            **problem_openapi(404, 503),
        },
    )
    async def stream(
        run: str,
        request: Request,
        after: Annotated[int, Query(ge=0, le=2**53, description="Id of the last report that you have")] = 0,
        last_event_id: Annotated[
            str | None, Header(max_length=20, description="Sent by a browser that returns")
        ] = None,
    ) -> StreamingResponse:
        """Events: `run` (as GET /api/loaders/{run}), `reports` (as .../speed, only what is new), `problem`.

        An event's id is that of its last report; a caller that returns with it as `Last-Event-ID` misses nothing.
        """
        if last_event_id and last_event_id.isascii() and last_event_id.isdigit():
            after = min(int(last_event_id), 2**53)
        await run_sync(runs.detail, run)  # An unknown run is a 404, not a stream.
        if streams.count >= MAX_STREAMS:
            raise Problem(503, f"{MAX_STREAMS} streams are open already. Close some, or ask /speed now and then.")
        body = _events(runs, run, after, stopping, streams)
        return StreamingResponse(body, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    return router


class _Open:
    """How many streams are open. Only the event loop changes it."""

    count = 0


async def _events(runs: Runs, run: str, after: int, stopping: threading.Event, streams: _Open) -> AsyncIterator[str]:
    streams.count += 1
    try:
        last_about, silent_s = "", 0.0
        yield "retry: 2000\n\n"
        while not stopping.is_set():
            try:
                detail = await run_sync(runs.detail, run)
                speed = await run_sync(runs.speed, run, after, MAX_SAMPLES, None)
            except Problem as problem:
                yield _event("problem", json.dumps({"status": problem.status, "detail": problem.detail}), after)
                if problem.status == 404:
                    return
            else:
                begun_anew = speed.last_id < after
                if begun_anew:
                    after = 0
                about = detail.model_dump_json(
                    exclude={"heartbeat_age_s": True, "ranks": {"__all__": {"heartbeat_age_s"}}}
                )
                if about != last_about:
                    last_about, silent_s = about, 0.0
                    yield _event("run", detail.model_dump_json(), after)
                if speed.samples and not begun_anew:
                    after, silent_s = speed.last_id, 0.0
                    yield _event("reports", speed.model_dump_json(), after)
            for _ in range(int(EVERY_S * _LOOKS_PER_S)):
                if stopping.is_set():
                    return
                await anyio.sleep(1 / _LOOKS_PER_S)
            silent_s += EVERY_S
            if silent_s >= _KEEP_ALIVE_EVERY_S:
                silent_s = 0.0
                yield ": still here\n\n"
    finally:
        streams.count -= 1


def _event(name: str, data: str, last_id: int) -> str:
    """One event. `data` is JSON on one line."""
    return f"id: {last_id}\nevent: {name}\ndata: {data}\n\n"
