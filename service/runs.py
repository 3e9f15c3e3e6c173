"""Reads the telemetry of the runs below the runs folder, while the runs write it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.telemetry import STATES, RunInfo, Stage, TelemetryReader, file_name, find_ranks, find_runs
from service.cache import FileCache
from service.models import Event, RankNow, Run, RunDetail, Speed, SpeedSample, StageSum
from service.problems import Problem, unknown, without_paths, without_paths_deep
from service.verdict import Recent, recent, stragglers, verdict

RUN_STATES = (*STATES, "dead")
_SHOWN_EVENTS = 50
_RECENT_REPORTS = 10
_INTERNAL = ("pushed", "num_pushes", "last_event")


@dataclass(frozen=True)
class RankState:
    """What one telemetry file says; whether the run is dead depends on the clock, too."""

    info: RunInfo
    newest: dict[str, Any] | None
    recent: Recent
    stages: dict[str, Stage]
    stages_now: dict[str, Stage]


class Runs:
    """The runs by name. A name is looked up in the listing of the folder, never made into a path.

    Methods raise Problem: 404 for an unknown run, 503 while its telemetry is locked or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states: FileCache[RankState] = FileCache(cheap=True)
        self._histories: FileCache[list[dict[str, Any]]] = FileCache()

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
        self._forget_all_but(folders.values())
        out = []
        for name, folder in folders.items():
            try:
                out.append(Run(**self._summary(name, folder)))
            except Problem as problem:
                out.append(Run(run=name, error=problem.detail))
        return sorted(out, key=lambda run: -(run.started_at or 0.0))

    def detail(self, name: str) -> RunDetail:
        folder = self._folder_of(name)
        state = self._state(name, folder)
        about = {key: _decoded(value) for key, value in state.info.about.items() if key not in _INTERNAL}
        with _reading(name, folder) as reader:
            events = reader.events(_SHOWN_EVENTS)
            return RunDetail(
                **self._summary(name, folder),
                config=without_paths_deep(about.pop("config", None)),
                about=without_paths_deep(about),
                stages=_stage_sums(state.stages, state.stages_now),
                ranks=self._ranks(name, folder),
                events=[Event(**event | {"message": without_paths(str(event["message"]))}) for event in events],
            )

    def speed(self, name: str, after: int, limit: int, phase: str | None) -> Speed:
        """The newest `limit` reports with an id above `after`."""
        with _reading(name, self._folder_of(name)) as reader:
            samples = reader.speed(after_id=after, limit=limit, phase=phase)
            newest = reader.speed(limit=1)
            return _speed(name, reader.info(), newest, samples)

    def history(self, name: str, num_points: int, phase: str | None) -> Speed:
        """The whole run in about `num_points` reports per phase."""
        folder = self._folder_of(name)

        def read() -> list[dict[str, Any]]:
            with _reading(name, folder) as reader:  # Its own: it may run in the background, after this request.
                return reader.history(num_points, phase)

        samples = self._histories.get(f"{folder}|{num_points}|{phase}", folder / file_name(), read)
        with _reading(name, folder) as reader:
            return _speed(name, reader.info(), samples[-1:], samples)

    def stages(self, name: str) -> tuple[dict[str, Stage], dict[str, Stage]]:
        """What the loader's stages have done over the run, and in the newest report."""
        state = self._state(name, self._folder_of(name))
        return state.stages, state.stages_now

    def _summary(self, name: str, folder: Path) -> dict[str, Any]:
        state = self._state(name, folder)
        info = state.info.at(time.time())
        age_s = _age(info)
        return {
            "run": name,
            "state": info.state,
            "method": _text(info.about.get("method")),
            "dataset": _text(info.about.get("dataset")),
            "started_at": info.started_at,
            "heartbeat_at": info.heartbeat_at,
            "heartbeat_age_s": age_s,
            "ended_at": info.ended_at,
            "pushed": bool(info.about.get("pushed")),
            "num_ranks": max(len(find_ranks(folder)), 1),
            "verdict": verdict(info.state, age_s, state.recent, state.stages_now or state.stages),
            "latest": SpeedSample.model_validate(state.newest) if state.newest else None,
        }

    def _ranks(self, name: str, folder: Path) -> list[RankNow]:
        """All ranks side by side; one whose file cannot be read is there with its error."""
        found: dict[int, RankState | Problem] = {}
        for rank in find_ranks(folder):
            try:
                found[rank] = self._state(name, folder, rank)
            except Problem as problem:
                found[rank] = problem
        slow = stragglers({rank: s.recent for rank, s in found.items() if isinstance(s, RankState)})
        out = []
        for rank, state in found.items():
            if isinstance(state, Problem):
                out.append(RankNow(rank=rank, error=state.detail))
                continue
            info = state.info.at(time.time())
            latest = SpeedSample.model_validate(state.newest) if state.newest else None
            out.append(
                RankNow(rank=rank, state=info.state, heartbeat_age_s=_age(info), straggler=rank in slow, latest=latest)
            )
        return out

    def _state(self, name: str, folder: Path, rank: int = 0) -> RankState:
        """What the file of one rank says, kept for a moment."""

        def read() -> RankState:
            with _reading(name, folder, rank) as reader:
                newest = reader.speed(limit=_RECENT_REPORTS)
                training = [row for row in newest if row["phase"] == "train"]
                return RankState(
                    # At time 0 nothing is dead: what is kept must not depend on the clock.
                    reader.info(now=0.0),
                    # A validation has no backward pass: while it lasts, how training goes is what one wants to see.
                    next(reversed(training or newest), None),
                    recent(training or newest),
                    reader.stages(),
                    reader.stages_now(),
                )

        return self._states.get(f"{folder}|{rank}", folder / file_name(rank), read)

    def _forget_all_but(self, folders: Any) -> None:
        known = {str(folder) for folder in folders}
        for cache in (self._states, self._histories):
            cache.keep_only(lambda key: key.partition("|")[0] in known)

    def _folder_of(self, name: str) -> Path:
        folders = self.folders()
        if name not in folders:
            raise unknown("run", name, folders)
        return folders[name]


@contextmanager
def _reading(name: str, folder: Path, rank: int = 0) -> Iterator[TelemetryReader]:
    try:
        with TelemetryReader(folder, rank=rank) as reader:
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


def _speed(name: str, info: RunInfo, newest: list[dict[str, Any]], samples: list[dict[str, Any]]) -> Speed:
    return Speed(
        run=name,
        state=info.state,
        started_at=info.started_at,
        heartbeat_age_s=_age(info),
        last_id=max([row["id"] for row in newest + samples], default=0),
        samples=[SpeedSample.model_validate(row) for row in samples],
    )


def _age(info: RunInfo) -> float | None:
    """Seconds since the last sign of life of a run that should be giving them; None for one that has ended."""
    return max(time.time() - info.heartbeat_at, 0.0) if info.ended_at is None else None


def _stage_sums(stages: dict[str, Stage], newest: dict[str, Stage]) -> list[StageSum]:
    """In order of their seconds, the most first. Waiting is not work: it has no share."""
    total = sum(stage.seconds for name, stage in stages.items() if name != "wait") or 1.0
    sums = []
    for name, s in stages.items():
        now = newest.get(name, s)
        share = None if name == "wait" else s.seconds / total
        times = {"p50_s": now.p50_s, "p90_s": now.p90_s, "p99_s": now.p99_s}
        sums.append(StageSum(stage=name, count=s.count, seconds=s.seconds, num_bytes=s.num_bytes, share=share, **times))
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
        except (ValueError, RecursionError):
            return value
    return value
