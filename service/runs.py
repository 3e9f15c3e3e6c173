"""Reads the telemetry of the runs below the runs folder, while the runs write it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loaders.telemetry import FILE_NAME, STATES, RunInfo, Stage, TelemetryReader, find_runs
from service.cache import FileCache
from service.models import Event, Run, RunDetail, Speed, SpeedSample, StageSum
from service.problems import Problem, unknown, without_paths, without_paths_deep

RUN_STATES = (*STATES, "dead")
_SHOWN_EVENTS = 50


class Runs:
    """The runs by name. A name is looked up in the listing of the folder, never made into a path.

    Methods raise Problem: 404 for an unknown run, 503 while its telemetry is locked or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stages: FileCache[dict[str, Stage]] = FileCache()

    def folders(self) -> dict[str, Path]:
        """Name -> folder of every run there is now; none while the runs folder does not exist."""
        try:
            found = find_runs(self._folder)
        except OSError:
            found = []  # A run was removed while we looked: the next request sees the rest.
        named: dict[str, Path] = {}
        for path in found:
            named.setdefault(_shown(path.name or "run"), path)
        return named

    def all(self) -> list[Run]:
        """Every run in short, the one that was started last first. One that cannot be read is listed with its error."""
        folders = self.folders()
        self._stages.keep_only({str(folder) for folder in folders.values()})
        out = []
        for name, folder in folders.items():
            try:
                with _reading(name, folder) as reader:
                    out.append(Run(**_summary(name, reader)))
            except Problem as problem:
                out.append(Run(run=name, error=problem.detail))
        return sorted(out, key=lambda run: -(run.started_at or 0.0))

    def detail(self, name: str) -> RunDetail:
        folder = self._folder_of(name)
        with _reading(name, folder) as reader:
            about = {key: _decoded(value) for key, value in reader.info().about.items()}
            return RunDetail(
                **_summary(name, reader),
                config=without_paths_deep(about.pop("config", None)),
                about=without_paths_deep(about),
                stages=_stage_sums(self._summed(folder, reader)),
                events=[
                    Event(**event | {"message": without_paths(str(event["message"]))})
                    for event in reader.events(_SHOWN_EVENTS)
                ],
            )

    def speed(self, name: str, after: int, limit: int, phase: str | None) -> Speed:
        with _reading(name, self._folder_of(name)) as reader:
            info = reader.info()
            newest = reader.speed(limit=1)
            samples = reader.speed(after_id=after, limit=limit, phase=phase)
            return Speed(
                run=name,
                state=info.state,
                started_at=info.started_at,
                heartbeat_age_s=_age(info),
                last_id=max([row["id"] for row in newest + samples], default=0),
                samples=[SpeedSample.model_validate(row) for row in samples],
            )

    def stages(self, name: str) -> dict[str, Stage]:
        """Sums over the run by stage, kept for a moment: a long run has many rows."""
        folder = self._folder_of(name)
        with _reading(name, folder) as reader:
            return self._summed(folder, reader)

    def _summed(self, folder: Path, reader: TelemetryReader) -> dict[str, Stage]:
        return self._stages.get(str(folder), folder / FILE_NAME, reader.stages)

    def _folder_of(self, name: str) -> Path:
        folders = self.folders()
        if name not in folders:
            raise unknown("run", name, folders)
        return folders[name]


@contextmanager
def _reading(name: str, folder: Path) -> Iterator[TelemetryReader]:
    try:
        with TelemetryReader(folder) as reader:
            yield reader
    except FileNotFoundError:
        raise Problem(503, f"Run {name!r}: its telemetry file was just removed.") from None
    except sqlite3.Error as error:
        text = without_paths(str(error))
        if isinstance(error, sqlite3.OperationalError) and "locked" in text:
            raise Problem(
                503, f"Run {name!r}: another program holds its telemetry locked. Ask again in a moment."
            ) from None
        raise Problem(503, f"Run {name!r}: its telemetry cannot be read: {text}. The run itself goes on.") from None
    except (ValueError, TypeError, KeyError, IndexError):
        raise Problem(
            503, f"Run {name!r}: its telemetry holds values of a wrong type. The run itself goes on."
        ) from None


def _summary(name: str, reader: TelemetryReader) -> dict[str, Any]:
    info = reader.info()
    newest = reader.speed(limit=1)
    return {
        "run": name,
        "state": info.state,
        "method": _text(info.about.get("method")),
        "dataset": _text(info.about.get("dataset")),
        "started_at": info.started_at,
        "heartbeat_at": info.heartbeat_at,
        "heartbeat_age_s": _age(info),
        "ended_at": info.ended_at,
        "latest": SpeedSample.model_validate(newest[0]) if newest else None,
    }


def _age(info: RunInfo) -> float | None:
    """Seconds since the last sign of life of a run that should be giving them; None for one that has ended."""
    return max(time.time() - info.heartbeat_at, 0.0) if info.ended_at is None else None


def _stage_sums(stages: dict[str, Stage]) -> list[StageSum]:
    """In order of their seconds, the most first."""
    total = sum(stage.seconds for stage in stages.values()) or 1.0
    sums = [
        StageSum(stage=name, count=s.count, seconds=s.seconds, num_bytes=s.num_bytes, share=s.seconds / total)
        for name, s in stages.items()
    ]
    return sorted(sums, key=lambda stage: -stage.seconds)


def _text(value: Any) -> str | None:
    return None if value is None else str(without_paths_deep(_shown(str(value))))


def _shown(name: str) -> str:
    """A file name that is not UTF-8, as text that JSON can carry."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _decoded(value: Any) -> Any:
    """What the writer stored as JSON, as the value it was."""
    if isinstance(value, str) and value[:1] in "{[" and value:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
