"""GET /api/loaders[/{run}[/speed]]: how fast the runs read, compute and learn."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.models import RunDetail, RunList, Speed
from service.problems import problem_openapi
from service.runs import Runs

MAX_SAMPLES = 5000


def loader_routes(runs: Runs) -> APIRouter:
    router = APIRouter(prefix="/api/loaders", tags=["loaders"])

    @router.get("")
    def list_runs() -> RunList:
        """Every run of the runs folder, the newest first, with its latest report."""
        return RunList(runs=runs.all())

    @router.get("/{run}", responses=problem_openapi(404, 503))
    def get_run(run: str) -> RunDetail:
        """One run: what it says of itself, its latest report, its loader's stages, its newest events."""
        return runs.detail(run)

    @router.get("/{run}/speed", responses=problem_openapi(404, 503))
    def get_speed(
        run: str,
        after: Annotated[int, Query(ge=0, le=2**53, description="Id of the last report that you have")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_SAMPLES, description="The newest so many")] = 1000,
        phase: Annotated[str | None, Query(description="Reports of this phase only (train, val, test)")] = None,
    ) -> Speed:
        """Reports of a run over time; ask with `after` for what is new."""
        return runs.speed(run, after, limit, phase)

    return router
