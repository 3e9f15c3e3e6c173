"""Sums over an SQLite file, kept while the file stays as it was: many readers cost one reading."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_FRESH_S = 1.0
_KEPT_S = 15.0
_MOST_OF_A_CORE = 0.1
_DEAR_S = 0.05
_MEANWHILE_S = 30.0

Signature = tuple[Any, ...]


def signature(path: Path) -> Signature:
    """What changes when somebody writes to the database at `path` (and its WAL), or puts another one there."""
    parts: list[Any] = []
    for file in (path, path.with_name(path.name + "-wal")):
        try:
            stat = file.stat()
            parts.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            parts.append(None)
    return tuple(parts)


@dataclass
class _Kept(Generic[T]):
    value: T
    at: float
    cost_s: float
    signature: Signature


def in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="clipmill-refresh", daemon=True).start()


class FileCache(Generic[T]):
    """Values computed from files, one per key.

    A value is used again for a second, whatever happens to the file's content, and longer where computing it takes
    longer, so that it never takes more than a tenth of a core. While the file stays untouched it is used for 15 s
    (not for ever: whether an ingest is dead also depends on the clock). Another file at the path, or none, counts at
    once. An error goes to those who waited while it happened and is not kept for others: else each of them would wait
    for a locked file in turn.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        cheap: bool = False,
        in_background: Callable[[Callable[[], None]], None] = in_background,
    ) -> None:
        self._clock, self._cheap, self._in_background = clock, cheap, in_background
        self._refreshing: set[str] = set()
        self._kept: dict[str, _Kept[T]] = {}
        self._failed: dict[str, tuple[float, Exception]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: str, path: Path, compute: Callable[[], T]) -> T:
        asked = self._clock()
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            now, seen = self._clock(), signature(path)
            kept = self._kept.get(key)
            if kept is not None and self._usable(kept, now, seen):
                return kept.value
            if kept is not None and self._usable_meanwhile(kept, now, seen):
                self._refresh(key, path, compute)
                return kept.value
            failed_at, error = self._failed.get(key, (-1.0, None))
            if error is not None and failed_at > asked:
                raise error
            self._kept.pop(key, None)
            self._failed.pop(key, None)
            try:
                value = compute()
            except Exception as failure:
                self._failed[key] = (self._clock(), failure)
                raise
            self._kept[key] = _Kept(value, self._clock(), self._clock() - now, seen)
            return value

    def _refresh(self, key: str, path: Path, compute: Callable[[], T]) -> None:
        """Compute anew without holding anybody up. If that fails, whoever asks next finds out for himself."""
        if key in self._refreshing:
            return
        self._refreshing.add(key)

        def refresh() -> None:
            now, seen = self._clock(), signature(path)
            try:
                value = compute()
                self._kept[key] = _Kept(value, self._clock(), self._clock() - now, seen)
            except Exception:
                self._kept.pop(key, None)
            finally:
                self._refreshing.discard(key)

        self._in_background(refresh)

    def keep_only(self, wanted: Callable[[str], bool]) -> None:
        """Forget the values of the other keys: their files are gone."""
        with self._lock:
            for key in [key for key in self._locks if not wanted(key)]:
                for kept in (self._kept, self._failed, self._locks):
                    kept.pop(key, None)

    @staticmethod
    def _usable_meanwhile(kept: _Kept[T], now: float, seen: Signature) -> bool:
        same_file = seen[0] is not None and kept.signature[0] is not None and seen[0][0] == kept.signature[0][0]
        due_s = max(_KEPT_S, kept.cost_s / _MOST_OF_A_CORE)
        return same_file and kept.cost_s >= _DEAR_S and now - kept.at < due_s + _MEANWHILE_S

    def _usable(self, kept: _Kept[T], now: float, seen: Signature) -> bool:
        age = now - kept.at
        if seen == kept.signature:
            return age < max(_KEPT_S, kept.cost_s / _MOST_OF_A_CORE)
        if self._cheap:
            return False
        same_file = seen[0] is not None and kept.signature[0] is not None and seen[0][0] == kept.signature[0][0]
        return same_file and age < max(_FRESH_S, kept.cost_s / _MOST_OF_A_CORE)
