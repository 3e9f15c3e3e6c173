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


class FileCache(Generic[T]):
    """Values computed from files, one per key.

    A value is used again for a second, whatever happens to the file's content, and longer where computing it takes
    longer, so that it never takes more than a tenth of a core. While the file stays untouched it is used for 15 s
    (not for ever: whether a run is dead also depends on the clock). Another file at the path, or none, counts at once.
    Errors are not kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept[T]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: str, path: Path, compute: Callable[[], T]) -> T:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            now, seen = self._clock(), signature(path)
            kept = self._kept.get(key)
            if kept is not None and self._usable(kept, now, seen):
                return kept.value
            self._kept.pop(key, None)
            value = compute()
            self._kept[key] = _Kept(value, self._clock(), self._clock() - now, seen)
            return value

    def keep_only(self, keys: set[str]) -> None:
        """Forget the values of files that are gone."""
        with self._lock:
            for key in self._kept.keys() - keys:
                self._kept.pop(key, None)
                self._locks.pop(key, None)

    @staticmethod
    def _usable(kept: _Kept[T], now: float, seen: Signature) -> bool:
        age = now - kept.at
        if seen == kept.signature:
            return age < max(_KEPT_S, kept.cost_s / _MOST_OF_A_CORE)
        same_file = seen[0] is not None and kept.signature[0] is not None and seen[0][0] == kept.signature[0][0]
        return same_file and age < max(_FRESH_S, kept.cost_s / _MOST_OF_A_CORE)
