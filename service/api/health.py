"""GET /healthz, /readyz: is the process alive, and can it read anything."""

from __future__ import annotations

from fastapi import APIRouter

from service.datasets import Datasets
from service.models import Health, Ready
from service.problems import Problem, problem_openapi


def health_routes(datasets: Datasets) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> Health:
        """The process answers. Needs no token, reads nothing."""
        return Health(status="ok")

    @router.get("/readyz", responses=problem_openapi(503))
    def readyz() -> Ready:
        """Ready as long as one dataset root is there, also before its catalog is; 503 when all are gone (unmounted)."""
        states = {name: _state(datasets, name) for name in datasets.names}
        if states and not datasets.any_root():
            raise Problem(503, "No dataset root can be reached: " + " ".join(states.values()))
        return Ready(status="ok", datasets=states)

    return router


def _state(datasets: Datasets, name: str) -> str:
    try:
        datasets.check(name)
    except Problem as problem:
        return problem.detail
    return "ok"
