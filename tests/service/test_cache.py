"""FileCache: how long a sum over a file is used again."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from service.cache import FileCache


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    path.write_text("a")
    return path


def test_an_untouched_file_is_read_every_15_seconds(file: Path) -> None:
    clock, reads = Clock(), []
    cache: FileCache[int] = FileCache(clock)
    for now in (100, 101, 114, 115.5, 116):
        clock.now = now
        cache.get("x", file, lambda: reads.append(clock.now) or len(reads))
    assert reads == [100, 115.5]


def test_a_growing_file_is_read_once_a_second(file: Path) -> None:
    clock, reads = Clock(), []
    cache: FileCache[int] = FileCache(clock)
    for i, now in enumerate((100, 100.5, 101.1, 101.9, 102.2)):
        clock.now = now
        file.with_name("x.db-wal").write_text("w" * (i + 1))
        cache.get("x", file, lambda: reads.append(clock.now) or len(reads))
    assert reads == [100, 101.1, 102.2]


def test_a_dear_sum_takes_a_tenth_of_a_core_at_most(file: Path) -> None:
    clock, reads = Clock(), []
    cache: FileCache[int] = FileCache(clock, in_background=lambda work: work())

    def dear() -> int:
        reads.append(clock.now)
        clock.now += 0.5
        return 0

    for i, now in enumerate((100, 102, 105, 106)):
        clock.now = now
        file.write_text("a" * (i + 2))
        cache.get("x", file, dear)
    assert reads == [100, 106]


def test_nobody_waits_for_a_dear_sum_that_is_there(file: Path) -> None:
    clock, due = Clock(), []
    cache: FileCache[float] = FileCache(clock, in_background=due.append)

    def dear() -> float:
        clock.now += 0.1
        return clock.now

    first = cache.get("x", file, dear)
    clock.now = 120.0
    assert [cache.get("x", file, dear) for _ in range(3)] == [first] * 3
    assert len(due) == 1  # Three asked, one computes.
    due.pop()()
    assert cache.get("x", file, dear) == pytest.approx(120.1)
    clock.now = 300.0  # So long unasked is too old to be shown.
    assert cache.get("x", file, dear) == pytest.approx(300.1)
    assert due == []


def test_a_background_sum_that_fails_is_told_to_the_next_who_asks(file: Path) -> None:
    clock, due = Clock(), []
    cache: FileCache[int] = FileCache(clock, in_background=due.append)

    def dear() -> int:
        clock.now += 0.1
        return 1

    cache.get("x", file, dear)
    clock.now = 120.0
    assert cache.get("x", file, lambda: 1 // 0) == 1
    due.pop()()
    with pytest.raises(ZeroDivisionError):
        cache.get("x", file, lambda: 1 // 0)


def test_those_who_wait_for_an_error_share_it(file: Path) -> None:
    """A locked catalog takes half a second to say so: ten that ask at once must not wait five."""
    cache: FileCache[int] = FileCache()
    begun, told, calls = threading.Event(), threading.Event(), []

    def locked() -> int:
        calls.append(1)
        begun.set()
        told.wait(10)
        raise TimeoutError

    def ask() -> None:
        with pytest.raises(TimeoutError):
            cache.get("x", file, locked)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    threads[0].start()
    begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.5)  # They have asked by then; one that has not computes for itself, and the count below shows it.
    told.set()
    for thread in threads:
        thread.join()
    assert len(calls) < 10


def test_another_file_and_none_count_at_once(file: Path) -> None:
    cache: FileCache[str] = FileCache(Clock())
    assert cache.get("x", file, file.read_text) == "a"
    other = file.with_name("y.db")
    other.write_text("b")
    other.replace(file)
    assert cache.get("x", file, file.read_text) == "b"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        cache.get("x", file, file.read_text)


def test_errors_are_not_kept(file: Path) -> None:
    cache: FileCache[int] = FileCache(Clock())
    with pytest.raises(ZeroDivisionError):
        cache.get("x", file, lambda: 1 // 0)
    assert cache.get("x", file, lambda: 1) == 1


def test_values_of_files_that_are_gone_are_forgotten(file: Path) -> None:
    cache: FileCache[int] = FileCache(Clock())
    cache.get("x", file, lambda: 1)
    cache.keep_only(lambda key: key == "y")
    assert cache.get("x", file, lambda: 2) == 2
