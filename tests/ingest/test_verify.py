"""What verify finds: faults are put into real databases, one at a time, and each must be named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ingest.annotations.labels_csv import read_labels_csv
from ingest.catalog import Catalog, VideoKey
from ingest.checks_cli import verify as command
from ingest.convert import convert
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from ingest.stores.frames_npy import FramesNpyWriter
from ingest.verify import Finding, findings_from_json, last_verification, stored_videos, verify, verify_video
from tests.conftest import SmallDataset

OPTIONS = ConvertOptions((64, 32))


@pytest.fixture(scope="module")
def converted(small_dataset: SmallDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify") / "root"
    plan = plan_labels(small_dataset.videos, read_labels_csv(small_dataset.labels))
    plan.jobs = [job for job in plan.jobs if job.key.video_id in ("vid00", "vid01", "vid03")]
    names = {job.key for job in plan.jobs}
    plan.labels = [label for label in plan.labels if label[0] in names]
    assert convert(plan, root, OPTIONS, num_workers=2).progress.done == 3
    return root


@pytest.fixture
def root(converted: Path, tmp_path: Path) -> Path:
    """A finished root that the test may spoil."""
    shutil.copytree(converted, tmp_path / "root")
    return tmp_path / "root"


def database(root: Path, video_id: str = "vid00") -> Path:
    (path,) = root.glob(f"jpg/*/{video_id}/frames.db")
    return path


def change(path: Path, sql: str, *values: object) -> None:
    """Run a statement on a database as any SQLite tool would."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(sql, values)


def flip(path: Path, table: str, frame: int) -> None:
    """Flip one bit in the middle of one frame's bytes, in the file itself."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        (blob,) = db.execute(f"SELECT frames FROM {table} WHERE frame = ?", (frame,)).fetchone()
    data = bytearray(path.read_bytes())
    pieces = (blob[at : at + 16] for at in range(len(blob) - 20, len(blob) // 2, -16))  # past the tables all share
    piece = next(piece for piece in pieces if data.count(piece) == 1)
    data[data.find(piece) + 8] ^= 1
    path.write_bytes(data)


def check(root: Path, video_id: str = "vid00", *, deep: bool = False) -> list[Finding]:
    """What is found on one video, without processes."""
    with Catalog.open(root) as catalog:
        (stored,) = [video for video in stored_videos(catalog) if video.key.video_id == video_id]
    return verify_video(root, deep, stored)


def kinds(found: list[Finding]) -> list[str]:
    return [finding.kind for finding in found]


@pytest.mark.parametrize("deep", [False, True], ids=["plain", "deep"])
def test_a_whole_root_has_no_finding_and_the_catalog_remembers(root: Path, deep: bool) -> None:
    seen = []
    report = verify(root, num_workers=1, deep=deep, on_progress=lambda p: seen.append((p.done, p.failed)))
    assert (report.videos, report.frames, report.findings, report.notes) == (3, 30 + 32 + 36, [], [])
    assert seen[-1] == (3, 0)
    with Catalog.open(root) as catalog:
        last = last_verification(catalog)
    assert last is not None
    assert (last.deep, last.videos, last.frames, last.problems) == (deep, 3, 98, 0)


def test_a_root_never_verified_says_so(root: Path) -> None:
    with Catalog.open(root) as catalog:
        assert last_verification(catalog) is None


@pytest.mark.parametrize("table", ["Images", "Images_32"])
@pytest.mark.parametrize("frame", [0, 17, 29], ids=["first", "middle", "last"])
def test_a_flipped_bit_in_any_frame_of_any_level_is_found(root: Path, table: str, frame: int) -> None:
    flip(database(root), table, frame)
    (finding,) = check(root)
    side = 64 if table == "Images" else 32
    assert (finding.kind, finding.message) == ("damaged", f"level {side}, frame {frame}: checksum differs")
    assert finding.where == "apple/vid00"


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("DELETE FROM Images WHERE frame = 7", "29 frames, not 30"),
        ("DELETE FROM Images_32 WHERE frame = 29", "29 frames, not 30"),
        ("DELETE FROM Frames WHERE frame = 3", "Frames has 29 rows"),
        ("UPDATE Meta SET value = 31 WHERE key = 'num_frames'", "not the frames 0 to 30"),
        ("UPDATE Images SET ObjId = 'other/frame_00003' WHERE frame = 2", "frame 2: its id is"),
        ("UPDATE Images SET size = 84 WHERE frame = 2", "column size of 1 frames"),
        ("UPDATE Frames SET pts_us = 0 WHERE frame = 5", "frame 5 comes at 0 us"),
        ("UPDATE Frames SET pts_us = 'soon' WHERE frame = 5", "times"),
        ("DROP TABLE Images_32", "no such table"),
        ("DELETE FROM Meta WHERE key = 'levels'", "KeyError"),
        ("PRAGMA user_version = 0", "user_version is 0"),
    ],
)
def test_a_database_that_was_meddled_with_is_damaged(root: Path, sql: str, word: str) -> None:
    change(database(root), sql)
    found = check(root)
    assert set(kinds(found)) == {"damaged"}
    assert any(word in finding.message for finding in found), found


def test_a_file_cut_short_emptied_or_gone_is_found(root: Path) -> None:
    path = database(root)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = check(root)
    assert set(kinds(found)) == {"damaged"}
    assert f"{len(data) // 2:,} bytes, written were {len(data):,}" in found[-1].message
    path.write_bytes(data[:-1])
    assert kinds(check(root)) == ["damaged"] * 2
    path.write_bytes(b"")
    assert "damaged" in kinds(check(root))
    path.unlink()
    assert kinds(check(root)) == ["no database"]


@pytest.mark.parametrize("text", ["29", "", None])
def test_a_wrong_n_frames_beside_a_whole_database_is_a_kind_of_its_own(root: Path, text: str | None) -> None:
    beside = database(root).with_name("n_frames")
    beside.unlink()
    if text is not None:
        beside.write_text(text)
    assert kinds(check(root)) == ["n_frames"]


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("UPDATE videos SET num_frames = 29", "num_frames: the catalog says 29, the database 30"),
        ("UPDATE videos SET settings = 'other'", "settings"),
        ("UPDATE videos SET duration_s = 9", "duration_s"),
        ("UPDATE outputs SET width = 86 WHERE short_side = 64", "64 (86x64)"),
        ("UPDATE outputs SET num_frames = 1 WHERE short_side = 32", "frames of the levels"),
        ("UPDATE outputs SET num_bytes = num_bytes + 1 WHERE short_side = 32", "bytes of the levels"),
        ("UPDATE outputs SET file_bytes = 1", "bytes of frames.db: the catalog says 1"),
        ("DELETE FROM outputs WHERE short_side = 32", "levels"),
        ("DELETE FROM outputs", "names no output"),
    ],
)
def test_a_catalog_that_says_something_else_is_found(root: Path, sql: str, word: str) -> None:
    change(root / "catalog.db", sql)
    found = check(root)
    assert set(kinds(found)) == {"catalog"}
    assert any(word in finding.message for finding in found), found


def replace_frame(path: Path, frame: int, blob: bytes) -> None:
    """Another picture with its right checksum, as a broken encoder would have left it."""
    change(path, "UPDATE Images SET frames = ? WHERE frame = ?", blob, frame)
    change(path, "UPDATE Frames SET crc32_64 = ? WHERE frame = ?", zlib.crc32(blob), frame)


def test_only_the_deep_look_finds_a_picture_that_was_broken_when_it_was_stored(root: Path) -> None:
    path = database(root)
    with contextlib.closing(sqlite3.connect(path)) as db:
        (blob,) = db.execute("SELECT frames FROM Images WHERE frame = 4").fetchone()
        (small,) = db.execute("SELECT frames FROM Images_32 WHERE frame = 4").fetchone()
    half = blob[: len(blob) // 2]
    replace_frame(path, 4, half + bytes(len(blob) - len(half)))  # same length: the catalog agrees
    assert check(root) == []
    (finding,) = check(root, deep=True)
    assert finding.kind == "undecodable"
    assert finding.message.startswith("level 64, frame 4: ")
    replace_frame(path, 4, small + bytes(len(blob) - len(small)))
    found = check(root, deep=True)
    assert "level 64, frame 4: 43x32 px, not 85x64" in [finding.message for finding in found]


def test_many_findings_of_one_video_are_counted_not_listed(root: Path) -> None:
    change(database(root), "UPDATE Frames SET crc32_64 = 0, crc32_32 = 0")
    found = check(root)
    assert len(found) == 21
    assert found[-1].message == "... and 40 more of this video"


def test_databases_that_the_catalog_does_not_count_are_extra(root: Path) -> None:
    shutil.copytree(root / "jpg" / "apple", root / "jpg" / "fig")
    os.rename(root / "jpg" / "fig" / "vid00", root / "jpg" / "fig" / os.fsdecode(b"caf\xe9"))  # noqa: PTH104
    change(root / "catalog.db", "UPDATE videos SET state = 'pending' WHERE video_id = 'vid01'")
    report = verify(root, num_workers=1)
    assert [(f.class_name, f.kind) for f in report.findings] == [
        ("fig", "extra"),
        ("fig", "extra"),
        ("pear tree", "extra"),
    ]
    assert report.findings[0].video_id == "caf\\xe9"
    assert "the catalog says pending" in report.findings[2].message
    assert (report.broken, report.counts) == ([], {"extra": 3})


def test_findings_of_a_run_name_the_broken_videos_and_survive_json(root: Path, tmp_path: Path) -> None:
    flip(database(root, "vid03"), "Images", 3)
    shutil.rmtree(database(root, "vid01").parent)
    report = verify(root, num_workers=2)
    assert report.broken == [VideoKey("apple", "vid03"), VideoKey("pear tree", "vid01")]
    (tmp_path / "report.json").write_text(report.to_json())
    assert findings_from_json(tmp_path / "report.json") == report.findings
    assert json.loads(report.to_json())["counts"] == {"damaged": 1, "no database": 1}
    with Catalog.open(root) as catalog:
        last = last_verification(catalog)
    assert last is not None
    assert last.problems == 2
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ClipmillError, match="no report"):
        findings_from_json(tmp_path / "other.json")


def write_array(root: Path, num_frames: int = 6) -> Path:
    """An array of a lower rate for vid00, in the catalog as well."""
    path = root / "rgb_npy" / "vid00.npy"
    path.parent.mkdir(exist_ok=True)
    with FramesNpyWriter(path, 32, 43) as writer:
        for i in range(num_frames):
            writer.add(np.full((32, 43, 3), i, np.uint8))
        writer.commit()
    size = path.stat().st_size
    values = "(SELECT id FROM videos WHERE video_id = 'vid00'), 'npy', 32, 43, 32, ?, ?, ?"
    change(root / "catalog.db", f"INSERT INTO outputs VALUES({values})", num_frames, size, size)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def other_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"(6, 32, 43, 3)", b"(6, 43, 32, 3)"))


def fewer(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"(6, 32, 43, 3)", b"(5, 32, 43, 3)"))


@pytest.mark.parametrize("spoil", [cut, lengthen, other_shape, fewer, Path.unlink])
def test_an_array_that_is_cut_or_gone_or_of_another_shape_is_found(root: Path, spoil) -> None:
    path = write_array(root)
    assert check(root, deep=True) == []
    spoil(path)
    assert set(kinds(check(root))) == {"array"}


def test_other_stores_are_named_as_not_looked_into(root: Path) -> None:
    change(root / "catalog.db", "UPDATE outputs SET store = 'other' WHERE short_side = 32 AND video = 1")
    report = verify(root, num_workers=1)
    assert report.notes == ["not looked into: 1 outputs of the store other"]


def test_nothing_to_verify_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match=r"no catalog\.db"):
        verify(tmp_path, num_workers=1)
    assert not (tmp_path / "catalog.db").exists()
    change(root / "catalog.db", "DELETE FROM videos")
    shutil.rmtree(root / "jpg")
    with pytest.raises(ClipmillError, match="no finished video"):
        verify(root, num_workers=1)


def test_a_damaged_catalog_is_an_error(root: Path) -> None:
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray((root / "catalog.db").read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (root / "catalog.db").write_bytes(data)
    with pytest.raises(ClipmillError, match="damaged"):
        verify(root, num_workers=1)


def test_the_command_names_what_is_broken_and_what_comes_next(root: Path) -> None:
    app = typer.Typer()
    app.command("verify")(command)
    runner = CliRunner()
    done = runner.invoke(app, [str(root), "--workers", "1"])
    assert done.exit_code == 0
    assert done.stdout.startswith("3 videos, 98 frames: every byte read in")
    assert (
        done.stdout.splitlines()[-1] == f"All is whole. To decode every frame too: clipmill ingest verify {root} --deep"
    )
    flip(database(root), "Images", 3)
    done = runner.invoke(app, [str(root), "--workers", "1", "--deep"])
    assert done.exit_code == 1
    assert "apple/vid00: damaged: level 64, frame 3: checksum differs" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == f"Broken: 1 video. Next: clipmill ingest repair {root} --deep"
    done = runner.invoke(app, [str(root), "--workers", "1", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["counts"]) == (1, {"damaged": 1})
    assert isinstance(runner.invoke(app, [str(root.parent)]).exception, ClipmillError)


def test_a_root_that_cannot_be_written_is_verified_all_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Catalog:
        raise ClipmillError(f"{path} cannot be written")

    monkeypatch.setattr(Catalog, "create", refuse)
    report = verify(root, num_workers=1)
    assert report.findings == []
    assert "does not remember" in report.notes[0]
