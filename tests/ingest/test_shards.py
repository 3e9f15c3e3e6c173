"""Many machines without a manager: shards with catalogs of their own, merged into one."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import pytest

from ingest.annotations.read import read_annotations
from ingest.catalog import Catalog
from ingest.convert import convert
from ingest.dataset import dataset_status
from ingest.errors import ClipmillError
from ingest.merge import merge_shards
from ingest.options import ConvertOptions
from ingest.plan import Plan, Shard, plan_labels
from ingest.stores import frames_db
from ingest.verify import verify
from tests.conftest import Clipmill, SmallDataset

OPTIONS = ConvertOptions((32, 16), stores=("frames-db", "raw-frames"))


def plan_of(dataset: SmallDataset) -> Plan:
    return plan_labels(dataset.videos, read_annotations(dataset.labels, "labels-csv"))


def content(root: Path) -> dict[str, list[tuple]]:
    """All that the catalog says, without what is of the run: ids, times."""
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        queries = {
            "classes": "SELECT idx, name FROM classes ORDER BY 1",
            "videos": "SELECT class_name, video_id, source, source_bytes, settings, state, reason, num_frames, width,"
            " height, fps, duration_s FROM videos ORDER BY 1, 2",
            "labels": "SELECT class_name, video_id, label, split, start_s, end_s FROM labels JOIN videos"
            " ON videos.id = video ORDER BY 1, 2, 3, 4, 5",
            "outputs": "SELECT class_name, video_id, store, short_side, outputs.num_frames, num_bytes, file_bytes"
            " FROM outputs JOIN videos ON videos.id = video ORDER BY 1, 2, 3, 4",
        }
        return {name: db.execute(query).fetchall() for name, query in queries.items()}


def databases(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("frames.db")}


@pytest.fixture(scope="module")
def whole(small_dataset: SmallDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    convert(plan_of(small_dataset), root, OPTIONS, num_workers=2)
    return root


@pytest.mark.parametrize("count", [1, 3, 5])
def test_shards_together_are_the_whole(small_dataset: SmallDataset, whole: Path, tmp_path: Path, count: int) -> None:
    for index in reversed(range(count)):
        convert(plan_of(small_dataset), tmp_path, OPTIONS, num_workers=1, shard=Shard(index, count))
    report = merge_shards(tmp_path)
    assert (report.shards, report.videos, report.failed, report.waiting) == (count, 12, 0, [])
    assert content(tmp_path) == content(whole)
    assert databases(tmp_path) == databases(whole)
    lists = [path.relative_to(whole) for path in whole.glob("raw_frames/*.txt")]
    assert lists
    assert all((tmp_path / path).read_text() == (whole / path).read_text() for path in lists)
    assert [path.name for path in tmp_path.glob("catalog*")] == ["catalog.db"]
    assert verify(tmp_path, num_workers=1).findings == []


def test_every_video_falls_to_one_shard_whatever_else_is_there(small_dataset: SmallDataset) -> None:
    keys = [job.key for job in plan_of(small_dataset).jobs]
    for count in (1, 2, 7):
        assert [sum(Shard(i, count).holds(key) for i in range(count)) for key in keys] == [1] * len(keys)


def test_merging_part_by_part_and_again_changes_nothing_that_is_there(
    small_dataset: SmallDataset, whole: Path, tmp_path: Path
) -> None:
    convert(plan_of(small_dataset), tmp_path, OPTIONS, num_workers=1, shard=Shard(0, 2))
    copy = (tmp_path / "catalog.shard-0-of-2.db").read_bytes()
    assert merge_shards(tmp_path).waiting == ["1/2"]
    (tmp_path / "catalog.shard-0-of-2.db").write_bytes(copy)  # As if the merge was killed before it was removed.
    convert(plan_of(small_dataset), tmp_path, OPTIONS, num_workers=1, shard=Shard(1, 2))
    assert merge_shards(tmp_path).waiting == []
    assert content(tmp_path) == content(whole)
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.db")) as db:
        assert db.execute("SELECT COUNT(*) FROM runs").fetchone() == (2,)


def test_a_shard_does_nothing_again_before_or_after_the_merge(small_dataset: SmallDataset, tmp_path: Path) -> None:
    def again() -> tuple[int, int]:
        p = convert(plan_of(small_dataset), tmp_path, OPTIONS, num_workers=1, shard=Shard(0, 2)).progress
        return p.done, p.skipped

    done, _ = again()
    assert done > 2
    assert again() == (0, done)
    merge_shards(tmp_path)
    assert again() == (0, done)
    assert merge_shards(tmp_path).failed == 0
    with Catalog.open(tmp_path) as catalog:
        assert dataset_status(catalog).states == {"ok": done}


def test_failures_and_missing_videos_come_along(small_dataset: SmallDataset, tmp_path: Path) -> None:
    videos = tmp_path / "videos" / "apple"
    videos.mkdir(parents=True)
    (videos / "vid00.mp4").write_text("no video")
    plan = lambda: plan_labels(tmp_path / "videos", read_annotations(small_dataset.labels, "labels-csv"))  # noqa: E731
    for index in range(2):
        convert(plan(), tmp_path / "root", OPTIONS, num_workers=1, shard=Shard(index, 2))
    assert merge_shards(tmp_path / "root").failed == 12
    with Catalog.open(tmp_path / "root") as catalog:
        assert dataset_status(catalog).states == {"failed": 1, "missing": 11}
        assert catalog.db.execute("SELECT video_id, reason FROM failures").fetchall() == [("vid00", "not a video")]


def test_a_shard_that_is_being_written_is_not_merged(small_dataset: SmallDataset, tmp_path: Path) -> None:
    convert(plan_of(small_dataset), tmp_path, OPTIONS, num_workers=1, shard=Shard(0, 2))
    path = tmp_path / "catalog.shard-0-of-2.db"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE runs SET state = 'running', updated_at = ?", (time.time(),))
    with pytest.raises(ClipmillError, match="still being written"):
        merge_shards(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE runs SET updated_at = ?", (time.time() - 3600,))  # Its run was killed an hour ago.
    assert merge_shards(tmp_path).shards == 1


def test_shards_of_other_labels_are_not_merged(small_dataset: SmallDataset, tmp_path: Path) -> None:
    convert(plan_of(small_dataset), tmp_path, OPTIONS, num_workers=1)
    convert(plan_of(small_dataset), tmp_path, OPTIONS, num_workers=1, shard=Shard(0, 1))
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.shard-0-of-1.db")) as db, db:
        db.execute("UPDATE classes SET name = 'zebra' WHERE idx = 0")
    with pytest.raises(ClipmillError, match="another order"):
        merge_shards(tmp_path)
    assert (tmp_path / "catalog.shard-0-of-1.db").exists()


def test_nothing_to_merge_and_no_catalog_are_told(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="no catalog of a shard"):
        merge_shards(tmp_path)
    (tmp_path / "catalog.shard-0-of-2.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(ClipmillError, match="cannot be read"):
        merge_shards(tmp_path)


def test_the_commands(small_dataset: SmallDataset, tmp_path: Path, clipmill: Clipmill) -> None:
    common = ("ingest", "convert", str(small_dataset.videos), str(tmp_path), "--short-side", "32", "--workers", "1")
    done = clipmill(*common, "--shard", "1/2")
    assert (done.returncode, f"clipmill ingest merge {tmp_path}" in done.stdout) == (0, True)
    merged = clipmill("ingest", "merge", str(tmp_path), "--json")
    assert (merged.returncode, json.loads(merged.stdout)["waiting"]) == (1, ["0/2"])
    for wrong in ("2/2", "one", "1", "-1/2"):
        done = clipmill(*common, "--shard", wrong)
        assert done.returncode == 2
        assert "0/" in done.stderr


def test_the_database_of_a_shard_needs_no_shared_memory(small_dataset: SmallDataset, tmp_path: Path) -> None:
    """No write-ahead log, which does not work over a network file system."""
    with Catalog.create(tmp_path, "0/2") as catalog:
        assert catalog.db.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    assert frames_db.STORE
