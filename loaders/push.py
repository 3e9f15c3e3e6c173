"""Sends the telemetry of runs on this machine to a service on another one.

What is sent are the rows of the telemetry files, by their ids, and the service answers up to which id it has them. So
nothing is lost while the network or the service is down, nothing counts twice, and a training knows nothing of it:
`clipmill push RUNS --to URL` follows a runs folder from a process of its own, `Pusher` does so from a thread.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ingest.errors import ClipmillError
from loaders.telemetry import TelemetryReader, find_ranks, find_runs

EVERY_S = 2.0
_REPORTS_AT_ONCE = 500
_EVENTS_AT_ONCE = 100
_TIMEOUT_S = 10.0
_REFUSED_FOR_S = 60.0


class PushError(Exception):
    """The service did not take it. `final`: it would not the next time either."""

    def __init__(self, what: str, *, final: bool) -> None:
        super().__init__(what)
        self.final = final


class PushClient:
    """Speaks to one service. `send` posts one message and returns the service's answer.

    Raises: ClipmillError for an address that is not http or https.
    """

    def __init__(self, url: str, token: str, timeout_s: float = _TIMEOUT_S) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ClipmillError(f"{url} is not an http address.", "Nothing was sent.", "Try: --to http://HOST:8000")
        self._url, self._token, self._timeout_s = url.rstrip("/"), token, timeout_s

    def send(self, run: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Raises: PushError when the service cannot be reached or refuses."""
        request = urllib.request.Request(
            f"{self._url}/api/loaders/{quote(run, safe='')}/speed",
            json.dumps(_plain(message), allow_nan=False).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            said = _detail(error.read(4096)) or error.reason
            raise PushError(f"{error.code}: {said}", final=400 <= error.code < 500 and error.code != 429) from None
        except (OSError, ValueError) as error:  # No route, timeout, half an answer.
            raise PushError(str(getattr(error, "reason", error)), final=False) from None


class Follower:
    """Follows the telemetry file of one rank: `push()` sends what the service does not have yet."""

    def __init__(self, folder: Path, rank: int, client: PushClient, name: str | None = None) -> None:
        self.folder, self.rank, self._client = folder, rank, client
        self._run = name or folder.name
        self._file: str | None = None
        self._has: tuple[int, int] | None = None  # Ids of the last report and event there; None: to be asked.
        self._ended_as: tuple[str, Any] | None = None

    def push(self) -> int:
        """Send all there is, in messages of a bounded size. Returns the number of reports sent.

        Raises: PushError; sqlite3.Error and FileNotFoundError when the file cannot be read now.
        """
        sent = 0
        with TelemetryReader(self.folder, rank=self.rank) as reader:
            while (message := self._next(reader)) is not None:
                asking = self._has is None
                answer = self._client.send(self._run, message)
                self._has = int(answer["last_id"]), int(answer["last_event"])
                sent += len(message["samples"])
                if not asking and len(message["samples"]) < _REPORTS_AT_ONCE:
                    self._ended_as = (message["state"], message["ended_at"]) if message["ended_at"] else None
                    break
        return sent

    def _next(self, reader: TelemetryReader) -> dict[str, Any] | None:
        """The next message; None for a run that has ended and is known to have. The first one only asks."""
        info = reader.info()
        state = "running" if info.state == "dead" else info.state  # Whether it is dead, the receiver's clock tells.
        file = info.file or "unnamed"
        if file != self._file:  # Another run began in this folder, or this is the first look.
            self._file, self._has, self._ended_as = file, None, None
        if self._ended_as == (state, info.ended_at):
            return None
        reports = reader.reports_after(self._has[0], _REPORTS_AT_ONCE) if self._has else []
        return {
            "file": file,
            "rank": self.rank,
            "about": dict(info.about),
            "state": state,
            "started_at": info.started_at,
            "ended_at": info.ended_at,
            "silent_s": max(time.time() - info.heartbeat_at, 0.0),
            "samples": [
                report | {"stages": {name: asdict(stage) for name, stage in reader.stages_of(report).items()}}
                for report in reports
            ],
            "events": reader.events(_EVENTS_AT_ONCE, after_id=self._has[1]) if self._has else [],
        }


class Pusher:
    """A thread that keeps following every run below `runs`, every `every_s` seconds, until `close`.

    Never raises into a training: `error` says what went wrong last, None while all is well.
    """

    def __init__(self, runs: Path, client: PushClient, every_s: float = EVERY_S) -> None:
        self.error: str | None = None
        self._follow = RunsFollower(runs, client)
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_pushing, name="clipmill-push", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the rest and stop; one more try is made, no more."""
        self._closing.set()
        self._thread.join()

    def _keep_pushing(self) -> None:
        while True:
            last = self._closing.is_set()
            _, problems = self._follow.push()
            self.error = problems[0] if problems else None
            if last:
                return
            self._closing.wait(self._every_s)

    def __enter__(self) -> Pusher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunsFollower:
    """Follows every rank of every run below a folder; runs may come and go."""

    def __init__(self, runs: Path, client: PushClient) -> None:
        self._runs, self._client = runs, client
        self._followers: dict[tuple[Path, int], Follower] = {}
        self._refused: dict[tuple[Path, int], float] = {}

    def push(self) -> tuple[int, list[str]]:
        """One round: (reports sent, what went wrong). A run that is refused is left alone for a minute."""
        sent, problems = 0, []
        for folder in find_runs(self._runs):
            for rank in find_ranks(folder):
                key = (folder, rank)
                if time.monotonic() < self._refused.get(key, 0.0):
                    continue
                follower = self._followers.setdefault(key, Follower(folder, rank, self._client))
                try:
                    sent += follower.push()
                except PushError as error:
                    problems.append(f"{folder.name}: {error}")
                    if not error.final:
                        return sent, problems  # The service is away: no use in asking for the others.
                    self._refused[key] = time.monotonic() + _REFUSED_FOR_S
                except (sqlite3.Error, FileNotFoundError, ValueError, TypeError) as error:
                    problems.append(f"{folder.name}: its telemetry cannot be read now: {error}")
        return sent, problems


def _plain(value: Any) -> Any:
    """The same as JSON can say it: a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
