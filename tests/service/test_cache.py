"""FileCache: how long a sum over a file is used again."""

from __future__ import annotations

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
    cache: FileCache[int] = FileCache(clock)

    def dear() -> int:
        reads.append(clock.now)
        clock.now += 0.5
        return 0

    for i, now in enumerate((100, 102, 105, 106)):
        clock.now = now
        file.write_text("a" * (i + 2))
        cache.get("x", file, dear)
    assert reads == [100, 106]


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
