"""GET /api/loaders[/{run}[/speed]]: how fast the runs read, compute and learn. POST .../speed: runs elsewhere say so."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.inbox import Inbox
from service.models import Push, Receipt, RunDetail, RunList, Speed
from service.problems import problem_openapi
from service.runs import Runs

MAX_SAMPLES = 5000


def loader_routes(runs: Runs, inbox: Inbox) -> APIRouter:
    router = APIRouter(prefix="/api/loaders", tags=["loaders"])

    @router.get("")
    def list_runs() -> RunList:
        """Every run of the runs folder, the one that was started last first, with its latest report and a verdict."""
        return RunList(runs=runs.all())

    @router.get("/{run}", responses=problem_openapi(404, 503))
    def get_run(run: str) -> RunDetail:
        """One run: what it says of itself, its latest report, its loader's stages, its ranks, its newest events."""
        return runs.detail(run)

    @router.get("/{run}/speed", responses=problem_openapi(404, 503))
    def get_speed(
        run: str,
        after: Annotated[int, Query(ge=0, le=2**53, description="Id of the last report that you have")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_SAMPLES, description="The newest so many")] = 1000,
        phase: Annotated[str | None, Query(description="Reports of this phase only (train, val, test)")] = None,
        points: Annotated[
            int | None,
            Query(
                ge=1,
                le=MAX_SAMPLES,
                description="Instead: the whole run in about so many rows per phase, means over equal stretches of time",
            ),
        ] = None,
    ) -> Speed:
        """Reports of a run over time; ask with `after` for what is new, with `points` for all of it in short."""
        return runs.history(run, points, phase) if points else runs.speed(run, after, limit, phase)

    @router.post("/{run}/speed", responses=problem_openapi(401, 403, 409, 413, 503, 507))
    def push_speed(run: str, push: Push) -> Receipt:
        """Take in what a run on another machine reports. Needs the token, as `Authorization: Bearer TOKEN`."""
        return inbox.take(run, push)

    return router
