"""frames.db: the schema that others read, what comes out of it, and that damage does not go unnoticed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ingest.errors import VideoError
from ingest.stores.frames_db import (
    PAGE_BYTES,
    FramesDbWriter,
    Level,
    check,
    connect,
    plan_levels,
    read_frames,
    read_meta,
    read_pts_us,
)

NUM_FRAMES = 150
LEVELS = plan_levels(96, 72, (72, 40, 24))


def blob_of(level: Level, frame: int) -> bytes:
    """Stands for an encoded image: any bytes, of a length that crosses the page size now and then."""
    return np.random.default_rng((level.short_side, frame)).bytes(300 + 97 * (frame % 150))


def write(path: Path, num_frames: int = NUM_FRAMES, levels: list[Level] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FramesDbWriter(path, levels or LEVELS) as writer:
        for frame in range(num_frames):
            writer.add(frame * 40_000, [blob_of(level, frame) for level in writer.levels])
        writer.commit({"codec": "jpeg", "quality": 90})
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("frames_db") / "some video" / "frames.db")


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    shutil.copytree(written.parent, tmp_path / written.parent.name)
    return tmp_path / written.parent.name / "frames.db"


def sql(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()


# -- the schema ------------------------------------------------------------------------------------------------------


def test_tables_and_columns_are_those_of_the_format(written: Path) -> None:
    db = connect(written)
    images = [("ObjId", "TEXT", 0), ("frames", "BLOB", 0), ("size", "INTEGER", 0), ("frame", "INTEGER", 1)]
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == {"Images", "Images_40", "Images_24", "Frames", "Meta"}
    for table in ("Images", "Images_40", "Images_24"):
        assert [(c[1], c[2], c[5]) for c in db.execute(f"PRAGMA table_info({table})")] == images
    assert [(c[1], c[2], c[5]) for c in db.execute("PRAGMA table_info(Frames)")] == [
        ("frame", "INTEGER", 1), ("pts_us", "INTEGER", 0),
        ("crc32_72", "INTEGER", 0), ("crc32_40", "INTEGER", 0), ("crc32_24", "INTEGER", 0),
    ]  # fmt: skip
    assert [c[1] for c in db.execute("PRAGMA table_info(Meta)")] == ["key", "value"]
    assert db.execute("PRAGMA user_version").fetchone() == (1,)


def test_ids_count_from_1_frames_from_0_and_size_is_the_width(written: Path) -> None:
    db = connect(written)
    for level in LEVELS:
        rows = db.execute(f"SELECT ObjId, size, frame FROM {level.table} ORDER BY frame").fetchall()
        assert rows == [(f"some video/frame_{i + 1:05d}", level.width, i) for i in range(NUM_FRAMES)]
    assert [(level.table, level.width, level.height) for level in LEVELS] == [
        ("Images", 96, 72), ("Images_40", 53, 40), ("Images_24", 32, 24),
    ]  # fmt: skip


def test_the_same_id_cannot_be_stored_twice(copy: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        sql(copy, "INSERT INTO Images VALUES ('some video/frame_00001', x'00', 1, 999)")


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.table)
def test_the_historical_query_returns_the_right_frames_by_an_index_search(written: Path, level: Level) -> None:
    db = connect(written)
    wanted = [140, 3, 77]
    ids = ", ".join(f"'some video/frame_{i + 1:05d}'" for i in wanted)
    query = f"SELECT ObjId, frames FROM {level.table} WHERE ObjId IN ({ids})"
    assert dict(db.execute(query)) == {f"some video/frame_{i + 1:05d}": blob_of(level, i) for i in wanted}
    (step,) = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert step.startswith(f"SEARCH {level.table} USING INDEX")
    assert "ObjId=?" in step


def test_each_level_lies_contiguous_and_in_order_one_after_the_other(written: Path) -> None:
    data, positions = written.read_bytes(), []
    for level in LEVELS:
        # The head of a blob lies in its row's page; overflow pages follow that page.
        positions.append([data.index(blob_of(level, frame)[:64]) for frame in range(NUM_FRAMES)])
    page = [[position // PAGE_BYTES for position in level] for level in positions]
    for pages in page:
        assert pages == sorted(pages)
    for before, after in pairwise(page):
        assert before[-1] < after[0]


def test_frame_numbers_survive_vacuum(copy: Path) -> None:
    sql(copy, "DELETE FROM Images_40 WHERE frame = 0")  # so that renumbering would show
    sql(copy, "VACUUM")
    db = connect(copy)
    assert [frame for (frame,) in db.execute("SELECT frame FROM Images_40 ORDER BY frame")] == list(
        range(1, NUM_FRAMES)
    )
    assert read_frames(db, LEVELS[1], np.array([5, 149])) == [blob_of(LEVELS[1], 5), blob_of(LEVELS[1], 149)]


def test_meta_holds_what_the_writer_was_told_and_its_own(written: Path) -> None:
    meta = read_meta(connect(written))
    assert meta == {"codec": "jpeg", "quality": 90, "schema_version": 1, "num_frames": NUM_FRAMES, "levels": LEVELS}
    raw = dict(connect(written).execute("SELECT key, value FROM Meta"))
    assert json.loads(raw["levels"])[1] == {"short_side": 40, "width": 53, "height": 40, "table": "Images_40"}


def test_n_frames_holds_the_count_and_nothing_else(written: Path) -> None:
    assert written.with_name("n_frames").read_bytes() == b"150"


def test_more_than_99999_frames_keep_their_order(tmp_path: Path) -> None:
    level = Level(8, 8, 8, "Images")
    path = tmp_path / "long" / "frames.db"
    path.parent.mkdir()
    with FramesDbWriter(path, [level]) as writer:
        for frame in range(100_002):
            writer.add(frame, [frame.to_bytes(4, "big")])
        writer.commit({})
    db = connect(path)
    assert read_frames(db, level, np.array([99_998, 100_001, 9])) == [
        n.to_bytes(4, "big") for n in (99_998, 100_001, 9)
    ]
    query = "SELECT frame FROM Images WHERE ObjId = 'long/frame_100001'"
    assert db.execute(query).fetchone() == (100_000,)
    assert list(check(path)) == []


# -- levels ----------------------------------------------------------------------------------------------------------


def sizes(levels: list[Level]) -> list[tuple[int, int, int]]:
    return [(level.short_side, level.width, level.height) for level in levels]


def test_levels_come_largest_first_keep_the_aspect_and_never_enlarge() -> None:
    assert sizes(plan_levels(340, 256, (128, 256))) == [(256, 340, 256), (128, 170, 128)]
    assert sizes(plan_levels(256, 340, (128,))) == [(128, 128, 170)]
    assert sizes(plan_levels(1920, 1080, (256,))) == [(256, 455, 256)]
    assert sizes(plan_levels(100, 100, (64,))) == [(64, 64, 64)]
    assert sizes(plan_levels(160, 120, (512, 256, 64))) == [(120, 160, 120), (64, 85, 64)]


def test_the_same_short_side_twice_is_one_level() -> None:
    assert len(plan_levels(340, 256, (128, 128))) == 1


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [[0], [149], [10, 11, 12, 13], [13, 12, 11, 10], [0, 149, 70], [5, 5, 5], [3, 99, 3, 0], list(range(NUM_FRAMES))],
    ids=str,
)
def test_frames_come_in_the_order_asked_repeats_included(written: Path, frames: list[int]) -> None:
    db = connect(written)
    for level in LEVELS:
        assert read_frames(db, level, np.array(frames)) == [blob_of(level, i) for i in frames]


@pytest.mark.parametrize("frames", [[150], [148, 149, 150], [0, 75, 400], [-1, 0]], ids=str)
def test_a_frame_that_is_not_there_is_named(written: Path, frames: list[int]) -> None:
    with pytest.raises(VideoError, match="missing frame") as caught:
        read_frames(connect(written), LEVELS[1], np.array(frames))
    assert caught.value.frame == next(i for i in frames if not 0 <= i < NUM_FRAMES)


def test_time_stamps_come_back(written: Path) -> None:
    times_us = read_pts_us(connect(written))
    assert times_us.dtype == np.int64
    assert times_us.tolist() == [40_000 * i for i in range(NUM_FRAMES)]


def test_a_reader_cannot_write(written: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connect(written).execute("DELETE FROM Images")


@pytest.mark.parametrize("name", ["100%25 sure?", "a#b&c=d", "überraschung 日本", b"latin-\xe9"], ids=repr)
def test_paths_with_special_characters_can_be_opened(tmp_path: Path, name: str | bytes) -> None:
    path = write(tmp_path / os.fsdecode(name) / "v" / "frames.db", 3)
    assert read_frames(connect(path), LEVELS[0], np.array([2])) == [blob_of(LEVELS[0], 2)]
    assert list(check(path)) == []


# -- writing: whole or absent ----------------------------------------------------------------------------------------


def test_nothing_is_there_before_commit_and_nothing_stays_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "frames.db"
    with pytest.raises(RuntimeError, match="boom"), FramesDbWriter(path, LEVELS) as writer:
        for frame in range(100):
            writer.add(frame, [blob_of(level, frame) for level in LEVELS])
        assert not path.exists()
        assert [file.name.startswith(".frames.db.") for file in tmp_path.iterdir()] == [True]
        raise RuntimeError("boom")
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_replacing_leaves_the_old_database_as_it_was(copy: Path) -> None:
    before = {file.name: file.read_bytes() for file in copy.parent.iterdir()}
    with pytest.raises(RuntimeError), FramesDbWriter(copy, LEVELS) as writer:
        writer.add(0, [b"a", b"b", b"c"])
        raise RuntimeError
    assert {file.name: file.read_bytes() for file in copy.parent.iterdir()} == before


def test_levels_too_large_for_memory_wait_on_disk_and_give_the_same_bytes(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.stores.frames_db._WAITING_BYTES", 50_000)
    again = write(tmp_path / written.parent.name / "frames.db")
    assert again.read_bytes() == written.read_bytes()


def test_a_disk_that_is_full_when_a_level_goes_there_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ingest.stores.frames_db._WAITING_BYTES", 50_000)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "frames.db")
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = write(tmp_path / written.parent.name / "frames.db")
    assert again.read_bytes() == written.read_bytes()


# -- check: finds every damage -----------------------------------------------------------------------------------------


def test_check_is_content_with_a_whole_database(written: Path) -> None:
    assert list(check(written)) == []


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.table)
@pytest.mark.parametrize("frame", [0, 77, 149])
def test_check_finds_one_flipped_bit_in_a_frame_of_any_level(copy: Path, level: Level, frame: int) -> None:
    data = bytearray(copy.read_bytes())
    data[data.index(blob_of(level, frame)[:200]) + 100] ^= 0x10
    copy.write_bytes(data)
    assert list(check(copy)) == [f"level {level.short_side}, frame {frame}: checksum differs"]


@pytest.mark.parametrize("table", ["Images", "Images_40", "Frames"])
def test_check_finds_a_missing_row(copy: Path, table: str) -> None:
    sql(copy, f"DELETE FROM {table} WHERE frame = 12")
    assert any("149" in line for line in check(copy))


def test_check_finds_two_frames_swapped(copy: Path) -> None:
    seven, eight = (blob_of(LEVELS[0], i).hex() for i in (7, 8))
    sql(
        copy,
        f"UPDATE Images SET frames = x'{eight}' WHERE frame = 7",
        f"UPDATE Images SET frames = x'{seven}' WHERE frame = 8",
    )
    assert list(check(copy)) == ["level 72, frame 7: checksum differs", "level 72, frame 8: checksum differs"]


def test_check_finds_an_id_under_which_nobody_looks(copy: Path) -> None:
    sql(copy, "UPDATE Images_24 SET ObjId = 'some video/frame_99999' WHERE frame = 7")
    assert list(check(copy)) == ["level 24, frame 7: its id is 'some video/frame_99999'"]


@pytest.mark.parametrize("content", [b"149", b"", b"150\n", b"\xff\xfe\x00", None], ids=repr)
def test_check_finds_a_wrong_n_frames(copy: Path, content: bytes | None) -> None:
    copy.with_name("n_frames").unlink()
    if content is not None:
        copy.with_name("n_frames").write_bytes(content)
    (problem,) = check(copy)
    assert problem.startswith("n_frames says ")
    assert problem.endswith("Meta says 150")


@pytest.mark.parametrize("part", [0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_check_finds_a_truncated_file(copy: Path, part: float) -> None:
    with copy.open("r+b") as file:
        file.truncate(int(copy.stat().st_size * part))
    assert list(check(copy))


def test_check_finds_a_database_that_was_not_finished(copy: Path) -> None:
    sql(copy, "PRAGMA user_version = 0")
    assert list(check(copy)) == ["not whole: user_version is 0, not 1"]


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE Frames", "DROP TABLE Meta", "DROP TABLE Images_24", "DELETE FROM Meta WHERE key = 'num_frames'",
     "DELETE FROM Meta WHERE key = 'levels'", "UPDATE Meta SET value = 'x' WHERE key = 'num_frames'",
     "UPDATE Images SET frames = 'text' WHERE frame = 3"],
)  # fmt: skip
def test_check_finds_what_is_missing_or_of_another_kind(copy: Path, statement: str) -> None:
    sql(copy, statement)
    assert list(check(copy))


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 100], ids=["absent", "empty", "text"])
def test_check_finds_a_file_that_is_no_database(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "frames.db"
    if content is not None:
        path.write_bytes(content)
    assert list(check(path))


def test_wherever_a_byte_is_wrong_check_says_so_or_the_frames_are_right(written: Path, copy: Path) -> None:
    """A byte changed at 400 random places: check never fails itself, and what it calls whole reads as it was written."""
    rng = np.random.default_rng(0)
    small = write(copy.parent.parent / "small" / "frames.db", 24, plan_levels(96, 72, (72, 24)))
    whole = small.read_bytes()
    num_found = 0
    for place in rng.choice(np.flatnonzero(np.frombuffer(whole, np.uint8)), 400, replace=False):  # 0: mostly unused
        data = bytearray(whole)
        data[place] ^= int(rng.integers(1, 256))
        small.write_bytes(data)
        if list(check(small)):
            num_found += 1
            continue
        db = connect(small)
        for level in read_meta(db)["levels"]:
            blobs = [blob_of(level, i) for i in range(24)]
            assert read_frames(db, level, np.arange(24)) == blobs, f"byte {place}"
            ids = ", ".join(f"'small/frame_{i + 1:05d}'" for i in range(24))
            rows = db.execute(f"SELECT frames FROM {level.table} WHERE ObjId IN ({ids}) ORDER BY frame").fetchall()
            assert rows == [(blob,) for blob in blobs], f"byte {place}"
        db.close()
    assert num_found > 300
