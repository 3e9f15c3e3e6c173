"""What a run may cost: memory per video, failures, attempts, disk."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from ingest.catalog import Catalog, VideoKey, VideoRecord
from ingest.convert import ConvertReport, convert
from ingest.dataset import dataset_status
from ingest.errors import ClipmillError
from ingest.executors import run_jobs
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from ingest.space import check_space
from tests.conftest import Clipmill
from tests.ingest.jobs import allocate
from tests.ingest.videos import make_video


def run(videos: Path, root: Path, **rest) -> ConvertReport:
    return convert(plan_folders(videos), root, ConvertOptions((32,)), num_workers=1, **rest)


def states(root: Path) -> dict[str, str]:
    with Catalog.open(root) as catalog:
        return dict(catalog.db.execute("SELECT video_id, state FROM videos"))


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_worker_may_grow_by_so_much_and_no_more() -> None:
    outcomes = list(run_jobs(allocate, [64, 600, 64], num_workers=1, memory_bytes=256 << 20))
    assert [o.result for o in outcomes if o is not None] == ["64 MB", "no memory", "64 MB"]


def test_a_video_that_needs_too_much_memory_is_recorded_and_the_others_are_converted(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "small.mp4", 5)
    # 30 pictures of 6144x3456 are 950 MB decoded, and the decoder keeps 16 of them.
    make_video(videos / "huge.mp4", np.zeros((2, 3456, 6144, 3), np.uint8), options=("-refs", "1"))
    report = run(videos, tmp_path / "root", memory_bytes=70 << 20)
    assert states(tmp_path / "root") == {"huge": "failed", "small": "ok"}
    assert [(f[1], f[2]) for f in report.failures] in (
        [("huge", "memory")],
        [("huge", "crashed")],
        [("huge", "decode error")],
    )
    assert run(videos, tmp_path / "root", memory_bytes=4 << 30).failures == []


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Eight files, six of which are no videos."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(6):
        (videos / f"bad{i}.mp4").write_text("no video")
    for i in range(2):
        make_video(videos / f"good{i}.mp4", 5)
    return videos


@pytest.mark.parametrize(("most", "num_failures"), [(0, 1), (2, 3), (0.5, 5)])
def test_too_many_failures_end_the_run_with_what_is_done_kept(
    mixed: Path, tmp_path: Path, most: float, num_failures: int
) -> None:
    with pytest.raises(ClipmillError, match=rf"^{num_failures} of {num_failures} videos failed") as caught:
        run(mixed, tmp_path / "root", max_failures=most)
    assert f"{num_failures} not a video" in caught.value.what
    found = states(tmp_path / "root")
    assert list(found.values()).count("failed") == num_failures
    assert list(found.values()).count("pending") == 8 - num_failures
    with contextlib.closing(sqlite3.connect(tmp_path / "root/catalog.db")) as db:
        assert db.execute("SELECT state, failed FROM runs").fetchall() == [("failed", num_failures)]
        assert db.execute("SELECT COUNT(*) FROM failures").fetchone() == (num_failures,)


def test_as_many_failures_as_allowed_are_no_reason_to_stop(mixed: Path, tmp_path: Path) -> None:
    assert len(run(mixed, tmp_path / "root", max_failures=6).failures) == 6
    assert len(run(mixed, tmp_path / "other", max_failures=0.75).failures) == 6


def test_what_failed_three_times_is_left_alone_until_it_changes(mixed: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for _ in range(2):
        run(mixed, root)
        assert set(states(root).values()) == {"ok", "failed"}
    run(mixed, root)
    assert states(root)["bad0"] == "quarantined"
    again = run(mixed, root)
    assert (again.progress.skipped, again.progress.quarantined, again.failures) == (8, 6, [])
    assert len(run(mixed, root, retry=True).failures) == 6
    assert states(root)["bad0"] == "quarantined"
    # Other settings, or another file, are another matter.
    assert len(convert(plan_folders(mixed), root, ConvertOptions((16,)), num_workers=1).failures) == 6
    assert states(root)["bad0"] == "failed"
    make_video(mixed / "bad0.mp4", 4)
    (mixed / "bad1.mp4").write_text("no video either")
    for _ in range(3):
        run(mixed, root)
    assert (states(root)["bad0"], states(root)["bad1"], states(root)["bad2"]) == ("ok", "quarantined", "quarantined")
    with Catalog.open(root) as catalog:
        status = dataset_status(catalog)
    assert status.states == {"ok": 3, "quarantined": 5}
    assert status.reasons == {"not a video": 5}


def test_quarantine_can_be_switched_off(mixed: Path, tmp_path: Path) -> None:
    for _ in range(4):
        assert len(run(mixed, tmp_path / "root", quarantine_after=None).failures) == 6
    assert "quarantined" not in states(tmp_path / "root").values()


def test_a_success_in_between_begins_the_count_anew(tmp_path: Path) -> None:
    key, other = VideoKey("", "a"), VideoKey("", "b")
    with Catalog.create(tmp_path) as catalog:

        def record(state: str, reason: str = "", key: VideoKey = key) -> str:
            with catalog.transaction():
                catalog.record(VideoRecord(key, state, source_bytes=5, settings="s", reason=reason), 2)
            return catalog.db.execute("SELECT state FROM videos WHERE video_id = ?", (key.video_id,)).fetchone()[0]

        assert [record(state) for state in ("failed", "ok", "failed", "failed")] == [
            "failed",
            "ok",
            "failed",
            "quarantined",
        ]
        # What says nothing of the file does not count against it.
        assert [record("failed", reason, other) for reason in ("source gone", "unreadable", "crashed")] == [
            "failed"
        ] * 3


def test_the_command_takes_a_count_or_a_share(mixed: Path, tmp_path: Path, clipmill: Clipmill) -> None:
    common = ("ingest", "convert", str(mixed), str(tmp_path / "root"), "--short-side", "32", "--workers", "1")
    done = clipmill(*common, "--max-failures", "25%")
    assert done.returncode == 2
    assert "--max-failures allows 2" in done.stderr
    for wrong in ("many", "-1", "1.5", "100%"):
        assert "Give a count such as 100" in clipmill(*common, "--max-failures", wrong).stderr
    assert clipmill(*common, "--quarantine-after", "1").returncode == 1
    done = clipmill(*common)
    assert (done.returncode, "in quarantine" in done.stdout) == (1, True)


# -- an older catalog ------------------------------------------------------------------------------------------------


def test_a_catalog_of_version_1_is_read_and_upgraded(mixed: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    run(mixed, root)
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        db.execute("ALTER TABLE videos DROP COLUMN attempts")
        db.execute("ALTER TABLE videos DROP COLUMN concealed")
        db.execute("PRAGMA user_version = 1")
    with Catalog.open(root) as catalog:
        assert dataset_status(catalog).states == {"ok": 2, "failed": 6}
    report = run(mixed, root)
    assert (report.progress.skipped, len(report.failures)) == (2, 6)
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


# -- room ------------------------------------------------------------------------------------------------------------


class Usage:
    def __init__(self, free: float) -> None:
        self.free = int(free)


@pytest.mark.parametrize("stores", [("frames-db",), ("raw-frames",), ("npy",), ("frames-db", "npy", "raw-frames")])
def test_a_disk_that_is_far_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stores: tuple[str, ...]
) -> None:
    videos, root = tmp_path / "videos", tmp_path / "root"
    videos.mkdir()
    for i in range(3):
        make_video(videos / f"{i}.mp4", 50)
    options = ConvertOptions((64,), stores=stores)
    monkeypatch.setattr("ingest.space.shutil.disk_usage", lambda path: Usage(1000))
    with pytest.raises(ClipmillError, match="3 videos will take some") as caught:
        convert(plan_folders(videos), root, options, num_workers=1)
    assert "--ignore-space" in caught.value.next_step
    assert [path.name for path in root.iterdir()] == ["catalog.db"]
    assert convert(plan_folders(videos), root, options, num_workers=1, ignore_space=True).failures == []


def test_the_expectation_is_of_the_right_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written lies between the least and the tenfold of it, and nearer once videos of the settings are there."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(22):
        make_video(videos / f"{i}.mp4", 20, seed=i)
    plan, options = plan_folders(videos), ConvertOptions((64,), stores=("frames-db", "npy"))
    convert(plan, tmp_path / "root", options, num_workers=2)
    written = sum(
        path.stat().st_size
        for path in (tmp_path / "root").rglob("*")
        if path.name == "frames.db" or path.suffix == ".npy"
    )
    with Catalog.create(tmp_path / "empty") as empty, Catalog.open(tmp_path / "root") as full:
        for catalog, low, high in ((empty, 0.3, 4), (full, 0.8, 1.25)):
            for free, fits in ((low * written / 2, False), (high * written * 2, True)):
                monkeypatch.setattr("ingest.space.shutil.disk_usage", lambda path, free=free: Usage(free))
                try:
                    notes = check_space(catalog, tmp_path, options, plan.jobs)
                except ClipmillError:
                    notes = ["no"]
                assert (notes == []) == fits, (low, free / written)


def test_files_that_do_not_open_say_nothing_of_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    monkeypatch.setattr("ingest.space.shutil.disk_usage", lambda path: Usage(0))
    with Catalog.create(tmp_path / "root") as catalog:
        assert check_space(catalog, tmp_path, ConvertOptions(), plan_folders(tmp_path).jobs) == []
