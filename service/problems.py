"""Errors as application/problem+json (RFC 9457): a title, a status, a sentence; never a stack trace, never a path."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Token required",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Name taken",
    413: "Too large",
    421: "Wrong host",
    422: "Invalid request",
    500: "Internal error",
    503: "Not readable now",
    507: "No room",
}
_MAX_NAMES = 50
_ABSOLUTE_PATH = re.compile(r"(?<![\w.\-/])(?:[A-Za-z]:)?/(?:[^/\s'\"<>|]*/)*(?=[^/\s'\"<>|])")
_log = logging.getLogger("clipmill.service")


class ProblemModel(BaseModel):
    """An error: `known` lists the names there are after a 404, `errors` the faulty parameters after a 422."""

    type: str = Field(default="about:blank", examples=["about:blank"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no dataset 'ucf'. Known: hmdb51, ucf101."])
    known: list[str] | None = None
    errors: list[dict[str, Any]] | None = None


class Problem(Exception):
    """An answer that is an error. `detail` is one or two sentences for the caller."""

    def __init__(self, status: int, detail: str, known: Iterable[str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.known = None if known is None else list(known)[:_MAX_NAMES]


def unknown(kind: str, name: str, known: Iterable[str]) -> Problem:
    """404 for a name that is not registered; says which are."""
    names = list(known)
    listed = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
    return Problem(404, f"There is no {kind} {name[:100]!r}. Known: {listed or 'none yet'}.", names)


def without_paths(text: str, places: Mapping[str, Path] | None = None) -> str:
    """The sentence `text`, host paths cut to their last component; one below `places` begins with the place's name."""
    for name, path in (places or {}).items():
        text = text.replace(str(path), name)
    return _ABSOLUTE_PATH.sub("", text)


def without_paths_deep(value: Any) -> Any:
    """The same for a JSON value, where a string that begins with a slash is one path (it may hold blanks)."""
    if isinstance(value, dict):
        return {without_paths(_whole_characters(str(key))): without_paths_deep(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths_deep(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it.
    if not isinstance(value, str):
        return value
    value = _whole_characters(value)
    return value.rstrip("/").rpartition("/")[2] if value.startswith("/") else without_paths(value)


def _whole_characters(text: str) -> str:
    """JSON may hold halves of characters, which no answer can."""
    return text.encode("utf-8", "replace").decode()


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None, **extra: Any) -> JSONResponse:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.known is not None:
        body["known"] = problem.known
    return JSONResponse(body | extra, problem.status, headers, MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of the app leave it as a problem."""

    def on_problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return problem_response(error, {"Retry-After": "1"} if error.status == 503 else None)

    def on_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        detail = (
            "There is nothing at this address; GET /openapi.json lists what is."
            if error.status_code == 404
            else error.detail
        )
        return problem_response(Problem(error.status_code, detail), error.headers)

    def on_invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [{key: e[key] for key in ("type", "loc", "msg")} for e in error.errors()]
        detail = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in errors)
        return problem_response(Problem(422, detail), errors=errors)

    def on_bug(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem_response(Problem(500, "The service failed on this request; its log says where."))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_bug)


def problem_openapi(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` argument of a route that can answer with these problems (422 always)."""
    return {status: {"model": ProblemModel, "description": TITLES[status]} for status in (*statuses, 422)}
