"""The HTTP service as an ASGI app: routes, errors, guard, dashboard."""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.api.datasets import dataset_routes
from service.api.health import health_routes
from service.api.loaders import loader_routes
from service.api.metrics import metrics_routes
from service.api.stream import stream_routes
from service.datasets import Datasets
from service.frames import Frames
from service.guard import Guard
from service.inbox import Inbox
from service.problems import MEDIA_TYPE, add_problem_handlers
from service.recent import Recent
from service.runs import Runs
from service.settings import Settings

DASHBOARD = Path(__file__).parent / "dashboard"
_ABOUT = "What the dataset roots hold, and how fast the training runs read, compute and learn. Errors are problem+json."


def create_app(settings: Settings, stopping: threading.Event | None = None) -> FastAPI:
    """The app for these roots and runs. It holds no connection: every request opens what it reads, read-only.

    Once `stopping` is set, streams end.
    """
    app = FastAPI(title="Clipmill", version=_version(), description=_ABOUT, docs_url=None, redoc_url=None)
    datasets, runs = Datasets(settings.roots), Runs(settings.runs)
    add_problem_handlers(app)
    app.include_router(health_routes(datasets))
    app.include_router(metrics_routes(datasets, runs, app.version))
    app.include_router(dataset_routes(datasets, Frames(datasets)))
    app.include_router(loader_routes(runs, Inbox(settings.runs, settings.keep_days)))
    app.include_router(stream_routes(runs, stopping or threading.Event()))
    app.mount("/dashboard", _Assets(directory=DASHBOARD), name="dashboard")

    @app.get("/", include_in_schema=False)
    def dashboard() -> FileResponse:
        return FileResponse(DASHBOARD / "index.html", headers={"Cache-Control": "no-cache"})

    if settings.shared_for_s:
        app.add_middleware(Recent, shared_for_s=settings.shared_for_s)
    app.add_middleware(Guard, token=settings.token)  # Added last, it comes first: what is shared is guarded, too.
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


class _Assets(StaticFiles):
    """The dashboard's files; a browser asks each time whether its copy is still the right one."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Any:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the errors under their true content type."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in schema["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    if int(status) >= 400 and "application/json" in response.get("content", {}):
                        response["content"][MEDIA_TYPE] = response["content"].pop("application/json")
        app.openapi_schema = schema
    return app.openapi_schema


def _version() -> str:
    try:
        return version("clipmill")
    except PackageNotFoundError:
        return "0"  # Run from a folder that was not installed.
