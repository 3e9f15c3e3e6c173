"""Contact sheets and frames, out of a root that a real ingest made; and what a damaged or foreign store does."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from fastapi.testclient import TestClient

from service.app import create_app
from service.frames import middles, spread
from service.settings import Settings
from tests.conftest import Clipmill, SmallDataset

LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, small_dataset: SmallDataset, clipmill: Clipmill) -> Path:
    root = tmp_path_factory.mktemp("frames") / "small set"
    done = clipmill(
        "ingest", "convert", small_dataset.videos, root, "--labels", small_dataset.labels,
        "--short-side", "72", "--store", "frames-db", "raw-frames",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def pictures(ingested: Path, tmp_path: Path) -> tuple[TestClient, Path]:
    root = Path(shutil.copytree(ingested, tmp_path / "small set"))
    return TestClient(create_app(Settings({"small set": root}, tmp_path)), base_url=LOCAL), root


def test_a_sheet_and_its_frames(pictures: tuple[TestClient, Path]) -> None:
    client, _ = pictures
    sheet = client.get("/api/datasets/small set/sheet?count=3&frames_per_clip=2").json()
    assert (sheet["total"], sheet["seed"], len(sheet["clips"])) == (12, 0, 3)
    assert len({clip["class_name"] for clip in sheet["clips"]}) > 1
    for clip in sheet["clips"]:
        assert len(clip["frames"]) == 2 and clip["labels"][0]["label"] == clip["class_name"]
        for address in clip["frames"]:
            image = client.get(address)
            assert image.headers["content-type"] == "image/jpeg"
            assert image.headers["cache-control"].startswith("private")
            assert simplejpeg.decode_jpeg(image.content).shape == (72, 96, 3)


def test_another_seed_shows_others_and_filters_hold(pictures: tuple[TestClient, Path]) -> None:
    client, _ = pictures
    ids = [
        tuple(clip["id"] for clip in client.get(f"/api/datasets/small set/sheet?count=3&seed={seed}").json()["clips"])
        for seed in (0, 0, 1, 2, 3)
    ]
    assert ids[0] == ids[1] and len(set(ids)) > 1
    plums = client.get("/api/datasets/small set/sheet?class=plum&split=test").json()
    assert {clip["class_name"] for clip in plums["clips"]} == {"plum"} and plums["total"] == 4
    assert client.get("/api/datasets/small set/sheet?q=nothing").json()["clips"] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("999/frames/0", 404), ("1/frames/999", 404), ("1/frames/-1", 422), ("x/frames/0", 422),
        ("1/frames/..%2f..", 404), (f"{10**30}/frames/0", 422),
    ],
)  # fmt: skip
def test_what_is_not_there(pictures: tuple[TestClient, Path], path: str, status: int) -> None:
    answer = pictures[0].get(f"/api/datasets/small set/videos/{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_damaged_store_is_a_503_and_the_other_videos_are_there(pictures: tuple[TestClient, Path]) -> None:
    client, root = pictures
    clip, other = client.get("/api/datasets/small set/sheet?count=2").json()["clips"]
    database = root / "jpg" / clip["class_name"] / clip["video_id"] / "frames.db"
    for damage in (b"x" * 5000, b""):
        database.write_bytes(damage)
        answer = client.get(clip["frames"][0])
        assert answer.status_code == 503 and str(root) not in answer.text
    database.unlink()
    assert client.get(clip["frames"][0]).status_code == 503
    assert client.get(other["frames"][0]).status_code == 200


def test_a_frame_that_is_no_image_is_not_sent(pictures: tuple[TestClient, Path]) -> None:
    client, root = pictures
    clip = client.get("/api/datasets/small set/sheet?count=1").json()["clips"][0]
    with sqlite3.connect(root / "jpg" / clip["class_name"] / clip["video_id"] / "frames.db") as db:
        db.execute("UPDATE Images SET frames = CAST('<script>alert(1)</script>' AS BLOB)")
    db.close()
    assert client.get(clip["frames"][0]).status_code == 503


def test_frames_of_a_folder_of_files(pictures: tuple[TestClient, Path]) -> None:
    client, root = pictures
    with sqlite3.connect(root / "catalog.db") as db:
        db.execute("DELETE FROM outputs WHERE store = 'frames-db'")
    db.close()
    shutil.rmtree(root / "jpg")
    clip = client.get("/api/datasets/small set/sheet?count=1").json()["clips"][0]
    assert client.get(clip["frames"][0]).headers["content-type"] == "image/jpeg"
    assert client.get(f"/api/datasets/small set/videos/{clip['id']}/frames/999").status_code == 404
    with sqlite3.connect(root / "catalog.db") as db:
        db.execute("DELETE FROM outputs")
    db.close()
    assert "no single frames" in client.get(clip["frames"][0]).json()["detail"]


def test_a_name_out_of_the_catalog_is_no_path(pictures: tuple[TestClient, Path], tmp_path: Path) -> None:
    client, root = pictures
    shutil.copytree(root / "jpg" / "plum", tmp_path / "outside")
    with sqlite3.connect(root / "catalog.db") as db:
        db.execute("UPDATE videos SET class_name = '../../outside' WHERE id = 1")
        db.execute("UPDATE videos SET video_id = ? WHERE id = 1", (next((tmp_path / "outside").iterdir()).name,))
    db.close()
    assert client.get("/api/datasets/small set/videos/1/frames/0").status_code == 503


def test_a_large_frame_is_scaled_down(pictures: tuple[TestClient, Path]) -> None:
    client, root = pictures
    clip = client.get("/api/datasets/small set/sheet?count=1").json()["clips"][0]
    large = simplejpeg.encode_jpeg(np.zeros((1080, 1920, 3), np.uint8))
    with sqlite3.connect(root / "jpg" / clip["class_name"] / clip["video_id"] / "frames.db") as db:
        db.execute("UPDATE Images SET frames = ?", (large,))
    db.close()
    height, width, _ = simplejpeg.decode_jpeg(client.get(clip["frames"][0]).content).shape
    assert 64 <= height <= 192 and width / height == pytest.approx(16 / 9, abs=0.02)


@pytest.mark.parametrize(
    ("total", "count", "places"), [(0, 3, []), (2, 3, [0, 1]), (3, 3, [0, 1, 2]), (10, 2, [0, 5]), (10, 3, [0, 3, 6])]
)
def test_places_are_spread(total: int, count: int, places: list[int]) -> None:
    assert spread(total, count, 0) == places


def test_shifted_places_are_places() -> None:
    for seed in range(20):
        places = spread(1000, 12, seed)
        assert len(set(places)) == 12 and min(places) >= 0 and max(places) < 1000


@pytest.mark.parametrize(("frames", "count", "found"), [(0, 4, []), (1, 4, [0]), (8, 4, [1, 3, 5, 7]), (75, 1, [37])])
def test_middles(frames: int, count: int, found: list[int]) -> None:
    assert middles(frames, count) == found
