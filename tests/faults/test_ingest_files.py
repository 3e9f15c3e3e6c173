"""Every kind of odd or broken file through the command: the promised verdict, the rest converted, nothing half-valid."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ingest.convert import Progress, convert
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from ingest.stores import frames_db
from ingest.verify import verify
from tests.conftest import REPOSITORY, Clipmill
from tests.ingest.videos import ffmpeg, make_video, number_of

STORES = ("frames-db", "npy", "raw-frames")


def cut(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


def flipped(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    return path


def sound(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=frequency=440:duration=1", str(path))


def turned(path: Path) -> None:
    plain = make_video(path.with_name("plain.mp4"), 20)
    ffmpeg("-display_rotation", "90", "-i", str(plain), "-c", "copy", str(path))
    plain.unlink()


def variable(path: Path) -> None:
    make_video(path, 20, options=("-vf", "setpts='if(lt(N,10),N,2*N-10)/25/TB'", "-fps_mode", "vfr"))


Make = Callable[[Path], object]

BROKEN: dict[str, tuple[Make, str]] = {
    "truncated.mp4": (lambda path: cut(make_video(path, 40), 0.5), "truncated"),
    "truncated_too.mkv": (lambda path: cut(make_video(path, 40), 0.5), "truncated"),
    "empty.mp4": (lambda path: path.write_bytes(b""), "empty file"),
    "text.mp4": (lambda path: path.write_text("this is no video\n" * 50), "not a video"),
    "sound.mp4": (sound, "no video stream"),
}
ODD: dict[str, tuple[Make, int, tuple[int, int]]] = {
    "variable.mp4": (variable, 20, (96, 72)),
    "turned.mp4": (turned, 20, (72, 96)),
    "odd_size.mp4": (lambda path: make_video(path, 20, size=(97, 73), pix_fmt="yuv444p"), 20, (97, 73)),
    "ten_bit.mp4": (lambda path: make_video(path, 20, pix_fmt="yuv420p10le"), 20, (96, 72)),
    "full_range.mp4": (lambda path: make_video(path, 20, pix_fmt="yuvj420p"), 20, (96, 72)),
    "a name with blanks, 'quotes' \"and\" naïve 東京 letters.mp4": (lambda path: make_video(path, 20), 20, (96, 72)),
}


def query(root: Path, sql: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        return db.execute(sql).fetchall()


def test_every_odd_file_is_converted_and_every_broken_one_gets_its_verdict(tmp_path: Path, clipmill: Clipmill) -> None:
    videos, root = tmp_path / "videos", tmp_path / "root"
    videos.mkdir()
    for name, (make, _) in BROKEN.items():
        make(videos / name)
    for name, (make, _, _) in ODD.items():
        make(videos / name)
    done = clipmill(
        *("ingest", "convert", videos, root, "--short-side", "96", "48", "--store", *STORES, "--workers", "2", "--json")
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert {(video, reason) for _, video, reason, _ in report["failures"]} == {
        (Path(name).stem, reason) for name, (_, reason) in BROKEN.items()
    }
    assert report["converted"] == len(ODD)
    for name, (_, num_frames, size) in ODD.items():
        stem = Path(name).stem
        with contextlib.closing(frames_db.connect(root / "jpg/_" / stem / "frames.db")) as db:
            meta = frames_db.read_meta(db)
            blobs = frames_db.read_frames(db, meta["levels"][0], np.arange(num_frames))
        assert (meta["num_frames"], meta["width"], meta["height"]) == (num_frames, *size), name
        pictures = [cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR) for blob in blobs]
        if name != "turned.mp4":
            assert [number_of(picture) for picture in pictures] == list(range(num_frames)), name
        assert (root / "raw_frames/_" / stem / "img_00020.jpg").exists()
        assert (root / "rgb_npy" / f"{stem}.npy").exists()
    left = {path.name for path in root.rglob("*") if path.name.startswith(".")}
    assert left == set()
    assert verify(root, num_workers=1, deep=True).findings == []
    failures = query(root, "SELECT video_id, reason, message FROM failures")
    assert len(failures) == len(BROKEN)
    assert all(message for *_, message in failures)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_a_flipped_byte_is_patched_up_and_told_or_recorded_as_a_failure(tmp_path: Path, suffix: str) -> None:
    """One bit of a 96x72 video of 60 frames: the decoder conceals it. What it says of it is counted and found by doctor."""
    videos, root = tmp_path / "videos", tmp_path / "root"
    videos.mkdir()
    codec = "mpeg4" if suffix == "avi" else "libx264"
    flipped(make_video(videos / f"flipped.{suffix}", 60, codec=codec))
    make_video(videos / "whole.mp4", 10)
    report = convert(plan_folders(videos), root, ConvertOptions((48,)), num_workers=1)
    rows = dict(query(root, "SELECT video_id, state || ' ' || COALESCE(num_frames, 0) FROM videos"))
    assert rows.pop("whole") == "ok 10"
    if report.failures:
        # A transport stream says of a packet only that it is not whole.
        assert report.failures[0][2] in ("decode error", *(["truncated"] if suffix == "ts" else []))
    else:
        assert rows == {"flipped": "ok 60"}
        meta_says = frames_db.read_meta(frames_db.connect(root / "jpg/_/flipped/frames.db"))["concealed_frames"]
        assert query(root, "SELECT concealed FROM videos WHERE video_id = 'flipped'") == [(meta_says,)]
    assert verify(root, num_workers=1, deep=True).findings == []


def test_a_source_deleted_in_mid_run_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(6):
        make_video(videos / f"v{i}.mp4", 30, seed=i)

    def delete(progress: Progress) -> None:
        if progress.done == 1:
            (videos / "v5.mp4").unlink(missing_ok=True)

    options = ConvertOptions((48,), stores=STORES)
    report = convert(plan_folders(videos), tmp_path / "root", options, num_workers=1, on_progress=delete)
    assert [(failure[1], failure[2]) for failure in report.failures] == [("v5", "source gone")]
    assert report.progress.done == 5
    assert verify(tmp_path / "root", num_workers=1).findings == []


_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(catalog: Path):
    """Another process holds the catalog for writing."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _LOCK, str(catalog)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    try:
        yield holder
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait()


def test_a_catalog_locked_for_a_while_only_delays_the_run(tmp_path: Path) -> None:
    videos, root = tmp_path / "videos", tmp_path / "root"
    videos.mkdir()
    make_video(videos / "a.mp4", 10)
    convert(plan_folders(videos), root, ConvertOptions((48,)), num_workers=1)
    make_video(videos / "b.mp4", 10)
    with locked(root / "catalog.db") as holder:
        assert holder.stdin is not None
        timer = threading.Timer(1.5, holder.stdin.close)
        timer.start()
        report = convert(plan_folders(videos), root, ConvertOptions((48,)), num_workers=1)
        timer.join()
    assert (report.progress.done, report.progress.skipped) == (1, 1)


def test_a_catalog_that_stays_locked_is_a_clear_error_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, root = tmp_path / "videos", tmp_path / "root"
    videos.mkdir()
    for i in range(4):
        make_video(videos / f"v{i}.mp4", 20, seed=i)
    monkeypatch.setattr("ingest.catalog.LOCK_TIMEOUT_S", 0.5)
    plan, options = plan_folders(videos), ConvertOptions((48,))
    holding = contextlib.ExitStack()

    def lock(progress: Progress) -> None:
        if progress.done == 2:
            holding.enter_context(locked(root / "catalog.db"))

    with holding, pytest.raises(ClipmillError, match="locked") as caught:
        convert(plan, root, options, num_workers=1, on_progress=lock)
    assert "same command again" in caught.value.next_step
    assert not [path for path in root.rglob("*") if path.name.startswith(".")]
    assert convert(plan_folders(videos), root, options, num_workers=1).failures == []
    assert verify(root, num_workers=1).findings == []


def test_a_folder_of_videos_that_goes_away_is_told(tmp_path: Path, clipmill: Clipmill) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "a.mp4", 5)
    assert clipmill("ingest", "convert", videos, tmp_path / "root", "--short-side", "48").returncode == 0
    shutil.rmtree(videos)
    done = clipmill("ingest", "convert", videos, tmp_path / "root", "--short-side", "48", cwd=REPOSITORY)
    assert (done.returncode, "is not a folder" in done.stderr) == (2, True)


def test_failing_videos_do_not_take_the_folders_of_others_away(tmp_path: Path) -> None:
    """Every second video fails, in the same instant in which another begins in the same, still empty, folders."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(24):
        (videos / f"v{i:02d}.mp4").write_text("no video") if i % 2 else make_video(videos / f"v{i:02d}.mp4", 10)
    for attempt in range(3):
        report = convert(
            plan_folders(videos), tmp_path / f"root{attempt}", ConvertOptions((48,), stores=STORES), num_workers=4
        )
        assert (report.progress.done, report.progress.failed) == (12, 12)
    report = convert(
        plan_folders(videos), tmp_path / "none", ConvertOptions((48,), fps=1e-3, stores=STORES), num_workers=2
    )
    assert report.progress.done == 0
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["catalog.db"]
