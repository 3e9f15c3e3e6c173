"""/api/datasets: the numbers, the filters, and what happens to one dataset when its catalog fails."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ingest.catalog import Catalog, VideoKey, VideoRecord
from service.app import create_app
from service.settings import Settings

LOCAL = "http://127.0.0.1"


def two_datasets(good: Path, bad: Path) -> TestClient:
    bad.mkdir(exist_ok=True)
    return TestClient(create_app(Settings({"motion": good, "bad": bad}, good / "runs")), base_url=LOCAL)


def listed(client: TestClient) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in client.get("/api/datasets").json()["datasets"]}


def test_list_sums_up_every_dataset(client: TestClient) -> None:
    entry = listed(client)["motion"]
    assert entry["error"] is None
    assert entry["states"] == {"ok": 4, "failed": 1, "missing": 1, "pending": 1}
    assert (entry["num_videos"], entry["num_frames"], entry["num_bytes"], entry["num_classes"]) == (7, 300, 12000, 2)
    assert entry["splits"] == {"train": {"ok": 2, "failed": 1, "missing": 1}, "val": {"ok": 1}, "test": {"ok": 1}}
    assert entry["reasons"] == {"truncated": 1, "source missing": 1}
    assert [(level["short_side"], level["num_bytes"]) for level in entry["levels"]] == [(128, 4000), (64, 1600)]
    assert entry["ingest"]["state"] == "running"
    assert entry["ingest"]["videos_per_s"] == pytest.approx(0.5)
    assert entry["ingest"]["time_left_s"] == pytest.approx(8)


def test_detail_adds_the_classes(client: TestClient) -> None:
    detail = client.get("/api/datasets/motion").json()
    assert detail["class_names"] == ["left", "right"]
    assert detail["classes"] == {"left": {"ok": 2, "failed": 1}, "right": {"ok": 2, "missing": 1}}


def test_a_split_without_a_name_has_a_word(client: TestClient, root: Path) -> None:
    with Catalog.create(root) as catalog:
        catalog.db.execute("UPDATE labels SET split = '' WHERE split = 'val'")
    assert listed(client)["motion"]["splits"]["(none)"] == {"ok": 1}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["v_0", "v_1", "v_2", "v_3", "cut", "gone", "later"]),
        ("state=failed", ["cut"]),
        ("state=failed&state=missing", ["cut", "gone"]),
        ("class=left", ["v_0", "v_2", "cut"]),
        ("class=up", ["later"]),
        ("split=train", ["v_0", "v_1", "cut", "gone"]),
        ("class=left&split=train", ["v_0", "cut"]),
        ("class=left&split=train&state=ok", ["v_0"]),
        ("q=V_", ["v_0", "v_1", "v_2", "v_3"]),
        ("q=truncat", ["cut"]),
        ("q=v%25", []),
        ("q=secret", []),
        ("state=quarantined", []),
    ],
)
def test_videos_pass_the_filters(client: TestClient, query: str, ids: list[str]) -> None:
    page = client.get(f"/api/datasets/motion/videos?{query}").json()
    assert [video["video_id"] for video in page["videos"]] == ids
    assert page["total"] == len(ids)


def test_pages_meet_without_a_gap(client: TestClient) -> None:
    pages = [client.get(f"/api/datasets/motion/videos?limit=3&offset={offset}").json() for offset in (0, 3, 6, 9)]
    assert [len(page["videos"]) for page in pages] == [3, 3, 1, 0]
    assert {page["total"] for page in pages} == {7}
    assert len({video["video_id"] for page in pages for video in page["videos"]}) == 7


def test_a_video_has_labels_and_levels_and_no_host_path(client: TestClient) -> None:
    videos = {video["video_id"]: video for video in client.get("/api/datasets/motion/videos").json()["videos"]}
    assert videos["v_0"]["labels"] == [{"label": "left", "split": "train", "start_s": None, "end_s": None}]
    assert [output["short_side"] for output in videos["v_0"]["outputs"]] == [128, 64]
    assert videos["cut"]["labels"][0]["end_s"] == 2.0
    assert videos["cut"]["source"] == "cut.mp4"
    assert videos["cut"]["message"] == "cut.mp4 ends early; see x.txt"


@pytest.mark.parametrize(
    "query", ["state=nothing", "limit=0", "limit=501", "limit=x", "offset=-1", f"offset={10**20}", f"q={'x' * 201}"]
)
def test_a_faulty_parameter_is_named(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/datasets/motion/videos?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["loc"][:2] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize(
    "path", ["nope", "nope/videos", "..", "%2e%2e", "..%2f..%2fetc", "%2fetc%2fpasswd", "motion%00", "Motion"]
)
def test_only_registered_names_are_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/api/datasets/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_unknown_name_is_told_the_known_ones(client: TestClient) -> None:
    problem = client.get("/api/datasets/nope").json()
    assert problem["known"] == ["motion"]
    assert problem["detail"] == "There is no dataset 'nope'. Known: motion."


def test_what_an_ingest_writes_is_seen(client: TestClient, root: Path) -> None:
    with Catalog.create(root) as writer:
        assert listed(client)["motion"]["states"]["ok"] == 4
        writer.record(VideoRecord(VideoKey("up", "later"), "ok", num_frames=75))
        page = client.get("/api/datasets/motion/videos?state=ok").json()
    assert page["total"] == 5


# Faults: 503 for that dataset, the others unharmed, nothing of the host told.


def assert_only_bad_fails(client: TestClient, bad: Path, words: str) -> None:
    entries = listed(client)
    assert entries["motion"]["num_videos"] == 7
    assert words in entries["bad"]["error"]
    assert entries["bad"]["num_videos"] is None
    for path in ("/api/datasets/bad", "/api/datasets/bad/videos"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"]
        assert str(bad.parent) not in answer.text
        assert "Traceback" not in answer.text
    assert client.get("/api/datasets/motion").status_code == 200
    assert words in client.get("/readyz").json()["datasets"]["bad"]


def test_no_catalog_yet_and_then_one(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    client = two_datasets(root, bad)
    assert_only_bad_fails(client, bad, "holds no catalog.db")
    Catalog.create(bad).close()
    assert listed(client)["bad"]["num_videos"] == 0


def test_garbage_in_place_of_a_catalog(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    client = two_datasets(root, bad)
    (bad / "catalog.db").write_bytes(b"not a database " * 500)
    assert_only_bad_fails(client, bad, "file is not a database")


def test_a_catalog_with_overwritten_pages(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(root, bad)
    client = two_datasets(root, bad)
    file = bad / "catalog.db"
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096))
    assert_only_bad_fails(client, bad, "malformed")


def test_a_truncated_catalog(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(root, bad)
    client = two_datasets(root, bad)
    file = bad / "catalog.db"
    file.write_bytes(file.read_bytes()[:5000])
    assert_only_bad_fails(client, bad, "cannot be read")


def test_a_database_that_is_no_catalog(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    client = two_datasets(root, bad)
    db = sqlite3.connect(bad / "catalog.db")
    db.execute("CREATE TABLE other(x)")
    db.close()
    assert_only_bad_fails(client, bad, "version 0")


def test_a_locked_catalog_and_its_release(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.datasets._LOCK_WAIT_S", 0.05)
    bad = tmp_path / "bad"
    shutil.copytree(root, bad)
    client = two_datasets(root, bad)
    holder = sqlite3.connect(bad / "catalog.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    assert_only_bad_fails(client, bad, "locked")
    assert client.get("/api/datasets/bad").headers["retry-after"] == "1"
    holder.execute("COMMIT")
    holder.close()
    assert listed(client)["bad"]["num_videos"] == 7


def test_values_of_a_wrong_type(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(root, bad)
    client = two_datasets(root, bad)
    with Catalog.create(bad) as catalog:
        catalog.db.execute("UPDATE videos SET num_frames = 'many' WHERE video_id = 'v_1'")
    assert client.get("/api/datasets/bad/videos").status_code == 503
    assert client.get("/api/datasets/motion/videos").status_code == 200


def test_a_replaced_and_a_removed_catalog_count_at_once(root: Path, tmp_path: Path) -> None:
    bad, other = tmp_path / "bad", tmp_path / "other"
    shutil.copytree(root, bad)
    Catalog.create(other).close()
    client = two_datasets(root, bad)
    assert listed(client)["bad"]["num_videos"] == 7
    (other / "catalog.db").replace(bad / "catalog.db")
    assert listed(client)["bad"]["num_videos"] == 0
    (bad / "catalog.db").unlink()
    assert "holds no catalog.db" in listed(client)["bad"]["error"]
