"""What repair does with each sort of damage: the broken video is made again, its neighbours keep their very inodes."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ingest.atomic import temporary_path
from ingest.catalog import Catalog, VideoKey
from ingest.checks_cli import repair as command
from ingest.convert import convert
from ingest.errors import ClipmillError
from ingest.legacy import ImportOptions, import_legacy
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from ingest.repair import CORRECTED, COUNTED, REMADE, RepairReport, repair
from ingest.verify import Finding, verify
from tests.conftest import SmallDataset
from tests.ingest.test_legacy import EXAMPLES, run_here, stamps
from tests.ingest.test_verify import change, check, cut, database, flip


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, for speed; tests marked otherwise have real workers."""
    if "workers" not in request.fixturenames:
        for module in ("verify", "repair", "legacy"):
            monkeypatch.setattr(f"ingest.{module}.run_jobs", run_here)


@pytest.fixture
def workers() -> None:
    """Asked for by tests that want real worker processes."""


OPTIONS = ConvertOptions((64, 32), stores=("frames-db", "npy"), npy_fps=5)


@pytest.fixture(scope="module")
def made(small_dataset: SmallDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`videos` and the `root` that was made of them: vid00, vid01 and vid03."""
    folder = tmp_path_factory.mktemp("repair")
    for i in (0, 1, 3):
        path = small_dataset.videos / small_dataset.classes[i % 3] / f"vid{i:02d}.mp4"
        (folder / "videos" / path.parent.name).mkdir(exist_ok=True, parents=True)
        shutil.copy2(path, folder / "videos" / path.parent.name)
    report = convert(plan_folders(folder / "videos"), folder / "root", OPTIONS, num_workers=2)
    assert report.progress.done == 3
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A finished root that the test may spoil, its sources beside it."""
    shutil.copytree(made, tmp_path / "copy")
    root = tmp_path / "copy" / "root"
    change(root / "catalog.db", "UPDATE videos SET source = replace(source, ?, ?)", str(made), str(tmp_path / "copy"))
    return root


def source(root: Path, video_id: str = "vid00") -> Path:
    (path,) = root.parent.glob(f"videos/*/{video_id}.mp4")
    return path


def mend(root: Path, *, deep: bool = False) -> RepairReport:
    """Verify and repair; then all that was mended is whole, and nothing lies about."""
    report = repair(root, verify(root, num_workers=1, deep=deep).findings, num_workers=1)
    broken = {VideoKey(video.class_name, video.video_id) for video in report.not_mended if not video.forgotten}
    assert set(verify(root, num_workers=1, deep=deep).broken) == broken
    assert list(root.rglob("*.tmp")) == []
    return report


def outcome(report: RepairReport) -> list[tuple[str, str]]:
    return [(video.video_id, video.action) for video in report.mended] + [
        (video.video_id, video.reason) for video in report.not_mended
    ]


def others(root: Path, video_id: str = "vid00") -> dict:
    arrays = {path.name: path.stat().st_ino for path in root.glob("rgb_npy/*") if path.stem != video_id}
    return {name: stamp for name, stamp in stamps(root).items() if video_id not in name} | arrays


def rows(root: Path, sql: str) -> list[tuple]:
    with Catalog.open(root) as catalog:
        return catalog.db.execute(sql).fetchall()


def delete_row(root: Path) -> None:
    change(database(root), "DELETE FROM Images_32 WHERE frame = 9")


def wrong_count(root: Path) -> None:
    change(database(root), "UPDATE Meta SET value = 29 WHERE key = 'num_frames'")


def cut_database(root: Path) -> None:
    cut(database(root))


def no_folder(root: Path) -> None:
    shutil.rmtree(database(root).parent)


@pytest.mark.parametrize(
    "spoil",
    [lambda root: flip(database(root), "Images", 29), delete_row, wrong_count, cut_database, no_folder],
    ids=["flipped", "row", "count", "cut", "gone"],
)
def test_the_broken_video_is_made_again_and_no_other_is_touched(root: Path, made: Path, spoil) -> None:
    before = others(root)
    spoil(root)
    assert outcome(mend(root)) == [("vid00", REMADE)]
    assert others(root) == before
    for path in database(made / "root").parent.iterdir():  # byte for byte what it was
        assert (database(root).parent / path.name).read_bytes() == path.read_bytes()
    assert rows(root, "SELECT COUNT(*) FROM failures") == [(0,)]
    assert outcome(mend(root)) == []


def test_a_broken_array_is_made_again_and_the_database_beside_it_is_left(root: Path, made: Path, workers: None) -> None:
    before = stamps(root)
    cut(root / "rgb_npy" / "vid01.npy")
    assert outcome(mend(root)) == [("vid01", REMADE)]
    assert stamps(root) == before
    assert (root / "rgb_npy" / "vid01.npy").read_bytes() == (made / "root" / "rgb_npy" / "vid01.npy").read_bytes()


def test_what_needs_no_source_is_mended_without_one(root: Path) -> None:
    for video_id in ("vid00", "vid01"):
        source(root, video_id).unlink()
    database(root).with_name("n_frames").write_text("7")
    change(root / "catalog.db", "UPDATE videos SET num_frames = 7, settings = 'x' WHERE video_id = 'vid01'")
    before = {path: path.stat().st_ino for path in root.glob("jpg/*/*/frames.db")}
    assert outcome(mend(root)) == [("vid00", COUNTED), ("vid01", CORRECTED)]
    assert {path: path.stat().st_ino for path in root.glob("jpg/*/*/frames.db")} == before
    assert rows(root, "SELECT num_frames FROM videos WHERE video_id = 'vid01'") == [(32,)]


def test_a_row_without_outputs_is_filled_from_a_whole_database(root: Path) -> None:
    before = others(root, "vid01")
    change(root / "catalog.db", "DELETE FROM outputs WHERE video = (SELECT id FROM videos WHERE video_id = 'vid01')")
    assert outcome(mend(root)) == [("vid01", CORRECTED)]
    assert others(root, "vid01") == before


def test_a_row_without_outputs_whose_database_is_broken_is_made_again(root: Path) -> None:
    change(root / "catalog.db", "DELETE FROM outputs WHERE video = (SELECT id FROM videos WHERE video_id = 'vid00')")
    flip(database(root), "Images", 3)
    assert outcome(mend(root)) == [("vid00", REMADE)]


def test_what_comes_out_broken_again_is_not_called_mended(tmp_path: Path) -> None:
    old, root = tmp_path / "old", tmp_path / "root"
    shutil.copytree(EXAMPLES / "historical" / "clsA", old / "jpg" / "clsA")
    change(database(old, "part_0"), "UPDATE Images SET frames = substr(frames, 1, 2000) WHERE ObjId LIKE '%00004'")
    import_legacy(old, root, ImportOptions(), num_workers=1)
    before = database(root, "part_0").stat().st_ino
    report = mend(root, deep=True)
    assert outcome(report) == [("part_0", "still broken")]
    assert report.not_mended[0].message.startswith("level 360, frame 3: ")
    assert database(root, "part_0").stat().st_ino == before


def test_a_broken_database_whose_source_is_gone_stays_and_is_said(root: Path) -> None:
    flip(database(root), "Images", 3)
    source(root).unlink()
    before = stamps(root)
    report = mend(root)
    assert outcome(report) == [("vid00", "source gone")]
    assert report.not_mended[0].message == f"there is no {source_text(root)}"
    assert stamps(root) == before
    assert rows(root, "SELECT state FROM videos WHERE video_id = 'vid00'") == [("ok",)]
    assert rows(root, "SELECT video_id, reason FROM failures") == [("vid00", "source gone")]


def source_text(root: Path) -> str:
    ((text,),) = rows(root, "SELECT source FROM videos WHERE video_id = 'vid00'")
    return text


def test_a_row_without_database_and_source_is_forgotten(root: Path) -> None:
    no_folder(root)
    source(root).unlink()
    report = mend(root)
    assert outcome(report) == [("vid00", "source gone")]
    assert report.not_mended[0].forgotten
    assert rows(root, "SELECT state, reason FROM videos WHERE video_id = 'vid00'") == [("failed", "no database")]
    assert rows(root, "SELECT COUNT(*) FROM outputs JOIN videos ON id = video WHERE video_id = 'vid00'") == [(0,)]
    assert verify(root, num_workers=1).videos == 2


def test_a_source_that_no_longer_converts_leaves_the_broken_database_in_place(root: Path) -> None:
    flip(database(root), "Images", 3)
    source(root).write_text("no video")
    before = database(root).read_bytes()
    assert outcome(mend(root)) == [("vid00", "not a video")]
    assert database(root).read_bytes() == before


def test_a_changed_source_is_used_and_said(root: Path) -> None:
    flip(database(root), "Images", 3)
    shutil.copy(source(root, "vid03"), source(root))
    report = mend(root)
    assert outcome(report) == [("vid00", REMADE)]
    assert "another file" in report.mended[0].note
    assert rows(root, "SELECT num_frames FROM videos WHERE video_id = 'vid00'") == [(36,)]


def test_a_picture_broken_by_its_encoder_is_decoded_again_after_the_repair(root: Path) -> None:
    blob = b"\xff\xd8 no picture \xff\xd9"
    change(database(root), "UPDATE Images SET frames = ? WHERE frame = 4", blob)
    change(database(root), "UPDATE Frames SET crc32_64 = ? WHERE frame = 4", zlib.crc32(blob))
    assert {finding.kind for finding in check(root, deep=True)} == {"catalog", "undecodable"}
    assert outcome(mend(root, deep=True)) == [("vid00", REMADE)]


def test_settings_that_this_version_does_not_write_are_said(root: Path) -> None:
    change(root / "catalog.db", "UPDATE videos SET settings = 'frames-db v1 short_side=64 jpeg q=90 4:1:0'")
    flip(database(root), "Images", 3)
    report = repair(root, [Finding("apple", "vid00", "damaged", "")], num_workers=1)
    assert outcome(report) == [("vid00", "unknown settings")]


def test_a_report_that_names_what_is_not_there_or_was_not_looked_at(root: Path) -> None:
    findings = [Finding("fig", "vid99", "damaged", ""), Finding("apple", "vid00", "timeout", ""),
                Finding("apple", "x", "extra", "")]  # fmt: skip
    before = stamps(root)
    report = repair(root, findings, num_workers=1)
    assert outcome(report) == [("vid00", "not looked at"), ("vid99", "not in the catalog")]
    assert (report.extra, stamps(root)) == (1, before)
    with pytest.raises(ClipmillError, match=r"no catalog\.db"):
        repair(root.parent, findings, num_workers=1)


def test_what_a_killed_repair_has_put_aside_is_cleared_away(root: Path) -> None:
    path = database(root)
    flip(path, "Images", 3)
    dead = next(pid for pid in range(2**22 - 1, 0, -1) if not Path(f"/proc/{pid}").exists())
    name = temporary_path(path.with_name("frames.db.broken")).name.replace(f"-{os.getpid()}.", f"-{dead}.")
    path.rename(path.with_name(name))
    assert outcome(mend(root)) == [("vid00", REMADE)]


def test_an_imported_video_is_imported_again_unless_it_is_its_own_source(tmp_path: Path) -> None:
    old, root = tmp_path / "old", tmp_path / "root"
    shutil.copytree(EXAMPLES / "historical" / "clsA", old / "jpg" / "clsA")
    for target in (root, old):
        import_legacy(old, target, ImportOptions(25, 80), num_workers=1)
        if target == root:
            flip(database(root, "part_0"), "Images", 3)
            assert outcome(mend(root)) == [("part_0", REMADE)]
    flip(database(old, "part_0"), "Images", 3)
    report = mend(old)
    assert outcome(report) == [("part_0", "source gone")]
    assert "backup" in report.not_mended[0].message


def test_a_source_whose_name_is_no_utf8_is_found(tmp_path: Path, small_dataset: SmallDataset) -> None:
    path = tmp_path / "videos" / os.fsdecode(b"caf\xe9.mp4")
    path.parent.mkdir()
    shutil.copy(small_dataset.videos / "apple" / "vid00.mp4", path)
    root = tmp_path / "root"
    convert(plan_folders(path.parent), root, ConvertOptions((32,)), num_workers=1)
    shutil.rmtree(root / "jpg")
    assert outcome(mend(root)) == [("caf\\xe9", REMADE)]


def test_the_command_mends_from_a_report_or_says_what_it_would(root: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("repair")(command)
    runner = CliRunner()
    flip(database(root), "Images", 3)
    (tmp_path / "report.json").write_text(verify(root, num_workers=1).to_json())
    before = stamps(root)
    done = runner.invoke(app, [str(root), "--dry-run"])
    assert (done.exit_code, stamps(root)) == (1, before)
    assert done.stdout.splitlines()[-1].startswith("To be mended: 1 video.")
    done = runner.invoke(app, [str(root), "--from-json", str(tmp_path / "report.json"), "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "made again: 1"
    assert done.stdout.splitlines()[-1].endswith(f"Next: clipmill ingest verify {root}")
    done = runner.invoke(app, [str(root)])
    assert (done.exit_code, done.stdout) == (0, "Nothing to mend.\n")
    cut_database(root)
    source(root).unlink()
    done = runner.invoke(app, [str(root)])
    assert done.exit_code == 1
    assert "not mended, source gone: 1" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1].endswith(f"clipmill ingest convert SRC {root}")
    report = json.loads(runner.invoke(app, [str(root), "--json"]).stdout)
    assert report["reasons"] == {"source gone": 1}
