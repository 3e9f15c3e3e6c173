"""Historical databases and folders of jpg files taken in: the same bytes under the same ids, or a failure with a reason."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import typer
from typer.testing import CliRunner

from ingest.catalog import Catalog, VideoKey, VideoRecord
from ingest.checks_cli import import_ as command
from ingest.errors import ClipmillError
from ingest.executors import Outcome
from ingest.legacy import ImportOptions, ImportReport, LegacyVideo, find_legacy, import_legacy, import_video
from ingest.stores import frames_db
from ingest.verify import verify

EXAMPLES = Path(__file__).resolve().parent / "examples_legacy"
OPTIONS = ImportOptions()


def jpeg(number: int, width: int = 16, height: int = 12) -> bytes:
    """A small picture that no other number has."""
    rng = np.random.default_rng(number)
    return simplejpeg.encode_jpeg(rng.integers(0, 255, (height, width, 3), np.uint8), 80)


def make_database(
    folder: Path, rows: list[tuple[object, object]], *, create: str = "ObjId STRING, frames BLOB, size INT"
) -> Path:
    """A database as dataset2database writes it: no key, no index, rows as they come. `rows`: (ObjId, blob)."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / "frames.db")) as db, db:
        db.execute(f"CREATE TABLE Images({create})")
        db.executemany("INSERT INTO Images VALUES(?,?,16)", rows)
    return folder


def shuffled(folder_name: str, count: int) -> list[tuple[object, object]]:
    order = np.random.default_rng(0).permutation(count)
    return [(f"{folder_name}/frame_{i + 1:05d}", jpeg(int(i))) for i in order]


def stored_blobs(path: Path) -> list[bytes]:
    with contextlib.closing(frames_db.connect(path)) as db:
        meta = frames_db.read_meta(db)
        return frames_db.read_frames(db, meta["levels"][0], np.arange(meta["num_frames"]))


def run_here(function: Callable, jobs: Iterable, **_: object) -> Iterator[Outcome]:
    """`run_jobs` without processes: for tests of what a job does, not of where it runs."""
    for job in jobs:
        yield Outcome(job, function(job))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("verify", "legacy"):
        monkeypatch.setattr(f"ingest.{module}.run_jobs", run_here)


def run(source: Path, root: Path, options: ImportOptions = OPTIONS) -> ImportReport:
    return import_legacy(source, root, options, num_workers=1)


def take(folder: Path, root: Path, options: ImportOptions = OPTIONS) -> VideoRecord:
    """Import one folder without processes."""
    (video,) = find_legacy(folder, root)
    return import_video(root, options, video)


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every stored file: one that is written anew has others."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.glob("jpg/**/*")
        if path.is_file()
    }


@pytest.fixture
def historical(tmp_path: Path) -> Path:
    """A historical root: jpg/<class>/<video>/frames.db."""
    shutil.copytree(EXAMPLES / "historical", tmp_path / "old" / "jpg")
    return tmp_path / "old"


# -- the real databases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in place", "elsewhere"])
def test_the_historical_query_gives_the_same_bytes_by_the_same_ids(
    historical: Path, tmp_path: Path, where: str
) -> None:
    root = historical if where == "in place" else tmp_path / "root"
    report = run(historical, root)
    assert (report.progress.done, report.progress.frames, report.failures) == (3, 33 + 10 + 16, [])
    recorded = json.loads((EXAMPLES / "part_0.json").read_text())["sha256"]
    path = root / "jpg" / "clsA" / "part_0" / "frames.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        slots = ",".join("?" * len(recorded))
        query = f"SELECT ObjId, frames FROM Images WHERE ObjId IN ({slots})"
        rows = db.execute(query, list(recorded)).fetchall()
        (plan,) = (row[3] for row in db.execute("EXPLAIN QUERY PLAN " + query, list(recorded)))
        sizes = db.execute("SELECT DISTINCT size FROM Images").fetchall()
    assert {name: hashlib.sha256(blob).hexdigest() for name, blob in rows} == recorded
    assert re.match(r"SEARCH .* USING INDEX", plan)
    assert sizes == [(478,)]
    assert path.with_name("n_frames").read_text() == "33"
    assert verify(root, num_workers=1, deep=True).findings == []


@pytest.mark.usefixtures("here")
def test_meta_and_catalog_say_what_is_known_and_what_is_assumed(historical: Path) -> None:
    run(historical, historical, ImportOptions(25, 75))
    path = historical / "jpg" / "clsA" / "part_0" / "frames.db"
    with contextlib.closing(frames_db.connect(path)) as db:
        meta = frames_db.read_meta(db)
        assert frames_db.read_pts_us(db).tolist() == [40_000 * i for i in range(33)]
    assert meta["source_kind"] == "historical frames.db; times are assumed, 25 frames per second"
    assert (meta["fps"], meta["duration_s"], meta["quality"], meta["chroma"]) == (25.0, 33 / 25, 75, "4:2:0")
    assert [(level.short_side, level.width, level.height) for level in meta["levels"]] == [(360, 478, 360)]
    assert str(historical) not in str(meta)
    with Catalog.open(historical) as catalog:
        assert catalog.class_names() == ["Basketball", "clsA"]
        rows = catalog.db.execute(
            "SELECT class_name, video_id, state, num_frames, width, height, fps, label, split FROM videos"
            " JOIN labels ON labels.video = videos.id ORDER BY video_id"
        ).fetchall()
        (state, done) = catalog.db.execute("SELECT state, done FROM runs").fetchone()
    assert rows[0] == ("clsA", "part_0", "ok", 33, 478, 360, 25.0, "clsA", "")
    assert [row[:4] for row in rows[1:]] == [("Basketball", "v_B_g01", "ok", 10), ("Basketball", "v_B_g02", "ok", 16)]
    assert (state, done) == ("finished", 3)


@pytest.mark.parametrize("where", ["in place", "elsewhere"])
def test_a_second_import_does_nothing_and_starts_no_worker(
    historical: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = historical if where == "in place" else tmp_path / "root"
    run(historical, root)
    before = stamps(root)
    with Catalog.create(root) as catalog:  # labels that came later stay
        catalog.db.execute("UPDATE labels SET split = 'train'")
    monkeypatch.setattr("ingest.executors._Worker", None)
    report = run(historical, root)
    assert (report.progress.done, report.progress.skipped) == (0, 3)
    assert stamps(root) == before
    with Catalog.open(root) as catalog:
        assert catalog.db.execute("SELECT DISTINCT split FROM labels").fetchall() == [("train",)]


@pytest.mark.usefixtures("here")
def test_a_lost_catalog_is_made_again_without_writing_a_database(historical: Path) -> None:
    run(historical, historical)
    before = stamps(historical)
    for path in historical.glob("catalog.db*"):
        path.unlink()
    report = run(historical, historical)
    assert (report.progress.done, report.progress.frames) == (3, 59)
    assert stamps(historical) == before


@pytest.mark.usefixtures("here")
def test_elsewhere_the_source_is_left_as_it_was_and_a_changed_one_is_taken_again(
    historical: Path, tmp_path: Path
) -> None:
    before = stamps(historical)
    run(historical, tmp_path / "root")
    assert stamps(historical) == before
    folder = historical / "jpg" / "Basketball" / "v_B_g01"
    shutil.rmtree(folder)
    make_database(folder, shuffled("v_B_g01", 5))
    report = run(historical, tmp_path / "root")
    assert (report.progress.done, report.progress.skipped) == (1, 2)
    assert len(stored_blobs(tmp_path / "root" / "jpg" / "Basketball" / "v_B_g01" / "frames.db")) == 5
    report = run(historical, tmp_path / "root", ImportOptions(25))  # other settings: all anew
    assert (report.progress.done, report.progress.skipped) == (3, 0)


def test_killed_in_the_middle_every_database_is_the_old_one_or_a_whole_new_one(historical: Path) -> None:
    for i in range(30):
        shutil.copytree(historical / "jpg" / "clsA" / "part_0", historical / "jpg" / "clsB" / f"copy{i}")
    code = (
        "import sys; from pathlib import Path; from ingest.legacy import *\n"
        "import_legacy(Path(sys.argv[1]), Path(sys.argv[1]), ImportOptions(), num_workers=1)"
    )
    command = [sys.executable, "-c", code, str(historical)]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
    deadline = time.monotonic() + 60
    while sum(is_ours(path) for path in historical.glob("jpg/*/*/frames.db")) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    counts = [len(list(ids(path))) for path in historical.glob("jpg/*/*/frames.db")]
    assert sorted(counts) == [10, 16] + [33] * 31
    assert not all(is_ours(path) for path in historical.glob("jpg/*/*/frames.db"))
    report = run(historical, historical)
    assert (report.failures, report.progress.done + report.progress.skipped) == ([], 33)
    assert verify(historical, num_workers=1).findings == []
    assert list(historical.rglob("*.tmp")) == []


def is_ours(path: Path) -> bool:
    with contextlib.closing(frames_db.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone() == (1,)


def ids(path: Path) -> Iterator[str]:
    with contextlib.closing(frames_db.connect(path)) as db:
        yield from (name for (name,) in db.execute("SELECT ObjId FROM Images"))


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name_of", "create"),
    [
        (lambda i: f"{i + 1:05d}", "ObjId STRING, frames BLOB, size INT"),  # NUMERIC affinity: '00012' becomes 12
        (lambda i: f"{i}.0", "ObjId STRING, frames BLOB, size INT"),
        (lambda i: float(i + 1), "ObjId REAL, frames BLOB, size INT"),
        (lambda i: f"a/b/frame_{i + 1:05d}.jpg", "ObjId TEXT PRIMARY KEY, frames BLOB, size INT"),
        (lambda i: f"other name/frame_{i + 1}".encode(), "ObjId BLOB, frames BLOB, size INT"),
    ],
    ids=["number", "decimal", "real", "path", "bytes"],
)
def test_ids_of_every_sort_are_put_in_the_order_of_their_numbers(tmp_path: Path, name_of, create: str) -> None:
    rows = [(name_of(i), jpeg(i)) for i in reversed(range(12))]
    folder = make_database(tmp_path / "src" / "cls" / "vid", rows, create=create)
    record = take(folder.parent.parent, tmp_path / "root")
    assert (record.state, record.reason, record.num_frames) == ("ok", "", 12)
    path = tmp_path / "root" / "jpg" / "cls" / "vid" / "frames.db"
    assert stored_blobs(path) == [jpeg(i) for i in range(12)]
    assert sorted(ids(path)) == [f"vid/frame_{i + 1:05d}" for i in range(12)]


def test_frames_beyond_the_five_digits_come_in_order(tmp_path: Path) -> None:
    tiny = simplejpeg.encode_jpeg(np.zeros((8, 8, 1), np.uint8), 10, colorspace="GRAY")
    count = 100_003
    numbers = [*range(99_990, count), *range(99_990)]
    rows = [(f"vid/frame_{i + 1:05d}", tiny + i.to_bytes(4, "big")) for i in numbers]  # bytes behind a JPEG's end
    folder = make_database(tmp_path / "src" / "cls" / "vid", rows)
    assert take(folder.parent.parent, tmp_path / "root").num_frames == count
    path = tmp_path / "root" / "jpg" / "cls" / "vid" / "frames.db"
    with contextlib.closing(frames_db.connect(path)) as db:
        level = frames_db.read_meta(db)["levels"][0]
        found = frames_db.read_frames(db, level, np.array([0, 9_999, 99_998, 99_999, 100_000, count - 1]))
        name = db.execute("SELECT ObjId FROM Images WHERE frame = 99999").fetchone()
    assert [int.from_bytes(blob[-4:], "big") for blob in found] == [0, 9_999, 99_998, 99_999, 100_000, count - 1]
    assert name == ("vid/frame_100000",)


@pytest.mark.parametrize("name", ["img_{:05d}.jpg", "{}.JPEG", "frame{:06d}.jpg", "take 2_{:d}.jpg"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_of_jpg_files_is_taken_in_by_their_numbers(tmp_path: Path, name: str, first: int) -> None:
    folder = tmp_path / "src" / "cls" / "vid"
    folder.mkdir(parents=True)
    for i in range(11):
        (folder / name.format(i + first)).write_bytes(jpeg(i))
        (folder / f"flow_x_{i:05d}.jpg").write_bytes(b"flow")
    record = take(tmp_path / "src", tmp_path / "root")
    assert (record.state, record.reason, record.num_frames) == ("ok", "", 11)
    path = tmp_path / "root" / "jpg" / "cls" / "vid" / "frames.db"
    assert stored_blobs(path) == [jpeg(i) for i in range(11)]
    assert len(list(folder.iterdir())) == 22  # nothing is removed
    with contextlib.closing(frames_db.connect(path)) as db:
        assert frames_db.read_meta(db)["source_kind"].startswith("folder of jpg files; times are assumed")


@pytest.mark.usefixtures("here")
def test_where_a_dead_converter_left_an_empty_database_the_jpg_files_beside_it_are_taken(tmp_path: Path) -> None:
    root = tmp_path / "old"
    for video_id, rows in (("a", 0), ("b", 4)):
        folder = make_database(root / "jpg" / "cls" / video_id, shuffled(video_id, rows))
        for i in range(6):
            (folder / f"frame_{i + 1:05d}.jpg").write_bytes(jpeg(i))
    report = run(root, root)
    assert report.failures == []
    assert [len(stored_blobs(root / "jpg" / "cls" / v / "frames.db")) for v in "ab"] == [6, 4]


# -- what is broken ----------------------------------------------------------------------------------------------------


def no_table(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "frames.db")) as db:
        db.execute("DROP TABLE Images")
        db.execute("VACUUM")


def sql(statement: str, *values: object):
    def spoil(folder: Path) -> None:
        with contextlib.closing(sqlite3.connect(folder / "frames.db")) as db, db:
            db.execute(statement, values)

    return spoil


def file(name: str, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


AT_4 = "WHERE ObjId LIKE '%/frame_00004'"
AT_1 = "WHERE ObjId LIKE '%/frame_00001'"


@pytest.mark.parametrize(
    ("spoil", "reason", "word", "frame"),
    [
        (sql("DELETE FROM Images"), "empty database", "no row", None),
        (no_table, "no Images table", "no table Images", None),
        (file("frames.db", b""), "no Images table", "no table Images", None),
        (file("frames.db", b"no database at all " * 99), "not a database", "not a database", None),
        (sql(f"UPDATE Images SET frames = x'FFD8FF00' {AT_1}"), "undecodable", "no JPEG", 0),
        (sql(f"UPDATE Images SET frames = ? {AT_1}", jpeg(0)[:-60]), "undecodable", "first frame", 0),
        (sql(f"UPDATE Images SET frames = 'text' {AT_4}"), "undecodable", "type str", 3),
        (sql(f"UPDATE Images SET frames = NULL {AT_4}"), "undecodable", "NoneType", 3),
        (sql(f"UPDATE Images SET frames = ? {AT_4}", jpeg(1, 18)), "sizes differ", "18x12 px, the first", 3),
        (sql(f"DELETE FROM Images {AT_4}"), "gaps", "1 of the frames 1 to 8 are missing: 4", 3),
        (sql(f"DELETE FROM Images {AT_1}"), "gaps", "missing: 1", 0),
        (sql(f"UPDATE Images SET ObjId = 'vid/frame_00005' {AT_4}"), "number twice", "5 is there twice", None),
        (sql(f"UPDATE Images SET ObjId = 'vid/frame' {AT_4}"), "no number", "'vid/frame'", None),
        (file("n_frames", b"9"), "n_frames", "says '9', the database has 8", None),
        (file("frames.db-journal", b"x" * 600), "unfinished", "its writer was killed", None),
        (sql("CREATE TABLE Meta(key, value)"), "not historical", "damaged", None),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 16 else "",
)
def test_a_broken_database_is_a_failure_with_its_reason_and_stays_as_it_is(
    tmp_path: Path, spoil, reason: str, word: str, frame: int | None
) -> None:
    root = tmp_path / "old"
    folder = make_database(root / "jpg" / "cls" / "vid", shuffled("vid", 8))
    spoil(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    record = take(root, root)
    assert (record.state, record.reason, record.frame) == ("failed", reason, frame)
    assert word in record.message
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("names", "reason", "word"),
    [
        (["img_1.jpg", "img_2.jpg", "img_4.jpg"], "gaps", "missing: 3"),
        (["img_7.jpg", "img_8.jpg"], "gaps", "6 of the frames 1 to 8 are missing: 1, 2, 3, 4, 5 and others"),
        (["img_1.jpg", "img_01.jpg"], "number twice", "1 is there twice"),
        (["img_1.jpg", "cover.jpg"], "no number", "'cover.jpg'"),
        (["img_1.jpg", "left_1.jpg"], "several series", "'img_', 'left_'"),
        (["flow_x_1.jpg", "flow_y_1.jpg"], "no frames", "only optical flow"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 16 else "",
)
def test_a_folder_that_is_no_complete_series_is_a_failure(
    tmp_path: Path, names: list[str], reason: str, word: str
) -> None:
    folder = tmp_path / "src" / "cls" / "vid"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(jpeg(0))
    record = take(tmp_path / "src", tmp_path / "root")
    assert (record.state, record.reason) == ("failed", reason)
    assert word in record.message
    assert not (tmp_path / "root" / "jpg" / "cls").exists()


@pytest.mark.usefixtures("here")
def test_failures_are_in_the_catalog_and_the_ledger_and_the_rest_is_imported(tmp_path: Path) -> None:
    make_database(tmp_path / "src" / "a" / "good", shuffled("good", 3))
    make_database(tmp_path / "src" / "a" / "empty", [])
    make_database(tmp_path / "src" / "loose", shuffled("loose", 3))
    root = tmp_path / "root"
    report = run(tmp_path / "src", root)
    assert (report.progress.done, report.progress.failed) == (2, 1)
    assert (report.failures[0][:3], report.reasons) == (("a", "empty", "empty database"), {"empty database": 1})
    with Catalog.open(root) as catalog:
        states = catalog.db.execute("SELECT class_name, video_id, state FROM videos ORDER BY 1, 2").fetchall()
        ledger = catalog.db.execute("SELECT video_id, reason FROM failures").fetchall()
    assert states == [("", "loose", "ok"), ("a", "empty", "failed"), ("a", "good", "ok")]
    assert ledger == [("empty", "empty database")]
    assert (root / "jpg" / "_" / "loose" / "frames.db").exists()
    assert sorted(path.name for path in (root / "jpg" / "a").iterdir()) == ["good"]


# -- names and places --------------------------------------------------------------------------------------------------


def test_classes_are_the_folders_above_wherever_the_videos_lie(tmp_path: Path) -> None:
    for folder in ("data/HACS_videos/jpg/Archery/v1", "jpg/_/v2", "Dance/v3", "v4", ".hidden/v5", "new/jpg/x/v6"):
        make_database(tmp_path / folder, shuffled("v", 1))
    found = find_legacy(tmp_path, tmp_path / "new")
    assert {video.key for video in found} == {
        VideoKey("Archery", "v1"), VideoKey("", "v2"), VideoKey("Dance", "v3"), VideoKey("", "v4"),
    }  # fmt: skip
    assert find_legacy(tmp_path / "new" / "jpg", tmp_path / "new")[0].key == VideoKey("x", "v6")


@pytest.mark.usefixtures("here")
def test_names_that_a_path_cannot_hold_are_kept_in_the_catalog(tmp_path: Path) -> None:
    source = tmp_path / "src"
    make_database(source / "50% off" / os.fsdecode(b"caf\xe9"), shuffled("v", 2))
    root = tmp_path / "root"
    assert run(source, root).failures == []
    assert (root / "jpg" / "50%25 off" / "caf%5Cxe9" / "frames.db").exists()
    assert {video.key for video in find_legacy(root, root)} == {VideoKey("50% off", "caf\\xe9")}
    assert run(root, root).progress.skipped == 1
    record = take_in_place(source.rename(tmp_path / "other"), tmp_path / "old")
    assert (record.state, record.reason) == ("failed", "name")
    assert "'caf%5Cxe9'" in record.message


def take_in_place(folders: Path, root: Path) -> VideoRecord:
    root.mkdir()
    folders.rename(root / "jpg")
    return take(root, root)


def test_what_cannot_be_run_is_an_error_with_a_way_out(historical: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipmillError, match="not a folder"):
        run(tmp_path / "nowhere", tmp_path / "root")
    with pytest.raises(ClipmillError, match=r"no frames\.db and no jpg"):
        run(tmp_path / "empty", tmp_path / "root")
    with pytest.raises(ClipmillError, match="a part of the root"):
        run(historical / "jpg" / "clsA", historical)
    for parent in ("one", "two"):
        make_database(tmp_path / "twice" / parent / "cls" / "vid", shuffled("vid", 1))
    with pytest.raises(ClipmillError, match="one would overwrite the other"):
        run(tmp_path / "twice", tmp_path / "root")
    assert not (tmp_path / "root").exists()
    for options in ({"fps": 0}, {"fps": float("nan")}, {"quality": 101}):
        with pytest.raises(ClipmillError, match="--"):
            ImportOptions(**options)


def test_a_target_without_room_is_refused_beforehand(
    historical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr("ingest.legacy.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ClipmillError, match="Make room"):
        run(historical, tmp_path / "root")
    assert not (tmp_path / "root" / "jpg").exists()


@pytest.mark.usefixtures("here")
def test_a_database_of_ours_is_not_taken_for_a_historical_one(historical: Path, tmp_path: Path) -> None:
    run(historical, historical)
    report = run(historical, tmp_path / "root")
    assert report.reasons == {"not historical": 3}


@pytest.mark.parametrize("options", [ImportOptions(), ImportOptions(30000 / 1001, 95), ImportOptions(1e-3)])
def test_the_settings_line_holds_the_options(options: ImportOptions) -> None:
    assert ImportOptions.parse(options.settings) == options
    assert ImportOptions.parse("frames-db v1 short_side=256 jpeg q=90 4:2:0") is None


def test_a_video_whose_folder_went_away_is_a_failure_of_that_video(tmp_path: Path) -> None:
    record = import_video(tmp_path / "root", OPTIONS, LegacyVideo(VideoKey("a", "b"), tmp_path / "gone"))
    assert (record.state, record.reason) == ("failed", "source gone")


@pytest.mark.usefixtures("here")
def test_the_command_says_what_it_took_in_and_what_it_assumed(historical: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("import")(command)
    runner = CliRunner()
    root = tmp_path / "root"
    done = runner.invoke(app, [str(historical), str(root), "--dry-run", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["videos"], root.exists()) == (0, 3, False)
    done = runner.invoke(app, [str(historical), str(root), "--fps", "25"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("imported: 3 videos, 59 frames")
    assert "assumed: 25 frames per second" in done.stdout
    assert done.stdout.splitlines()[-1] == f"All there. Next: clipmill ingest verify {root} --deep"
    make_database(historical / "jpg" / "clsA" / "empty", [])
    done = runner.invoke(app, [str(historical), str(root), "--fps", "25"])
    assert done.exit_code == 1
    assert "clsA/empty: empty database: its table Images has no row" in done.stdout.splitlines()
    report = json.loads(runner.invoke(app, [str(historical), str(root), "--fps", "25", "--json"]).stdout)
    assert (report["imported"], report["skipped"], report["reasons"]) == (0, 3, {"empty database": 1})
