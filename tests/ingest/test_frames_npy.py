"""The 4 fps array: NumPy reads it, it is what the video shows, and one pass writes what separate passes write."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ingest.convert import ConvertReport, convert
from ingest.errors import ClipmillError, VideoError
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from ingest.stores import frames_db, frames_npy
from ingest.stores.frames_npy import FramesNpyWriter, open_frames
from tests.ingest.videos import make_video, number_of

BOTH = (frames_db.STORE, frames_npy.STORE)


def run(videos: Path, root: Path, **options) -> ConvertReport:
    return convert(plan_folders(videos), root, ConvertOptions(**{"short_sides": (72, 36)} | options), num_workers=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "c").mkdir()
    make_video(folder / "c" / "a.mp4", 48, fps=24)
    make_video(folder / "c" / "odd.mkv", 30, size=(90, 51), fps=30, pix_fmt="yuv444p")
    return folder


def files(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and "catalog" not in p.name
    }


def test_array_holds_the_middle_frame_of_every_quarter_second_as_rgb(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, stores=(frames_npy.STORE,))
    frames = open_frames(tmp_path / "rgb_npy" / "a.npy")
    assert (frames.dtype, frames.shape) == (np.uint8, (8, 72, 96, 3))
    assert [number_of(frame) for frame in frames] == [3, 9, 15, 21, 27, 33, 39, 45]
    assert np.array_equal(frames, np.load(tmp_path / "rgb_npy" / "a.npy"))
    assert open_frames(tmp_path / "rgb_npy" / "odd.npy").shape == (4, 51, 90, 3)
    assert not (tmp_path / "jpg").exists()


def test_colours_are_those_of_the_video(tmp_path: Path) -> None:
    patches = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 100, 50]], np.uint8)
    picture = np.repeat(np.repeat(patches.reshape(2, 2, 3), 36, 0), 48, 1)
    (tmp_path / "v").mkdir()
    make_video(tmp_path / "v" / "x.mp4", np.repeat(picture[None], 10, 0))
    run(tmp_path / "v", tmp_path / "root", stores=(frames_npy.STORE,))
    frame = open_frames(tmp_path / "root" / "rgb_npy" / "x.npy")[0].astype(int)
    assert np.abs(frame[18::36, 24::48].reshape(-1, 3) - patches).max() <= 6


def test_one_pass_writes_what_separate_passes_write(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "one", stores=BOTH)
    run(videos, tmp_path / "two", stores=(frames_db.STORE,))
    run(videos, tmp_path / "two", stores=BOTH)
    run(videos, tmp_path / "three", stores=(frames_npy.STORE,))
    one = files(tmp_path / "one")
    assert one == files(tmp_path / "two")
    assert files(tmp_path / "three").items() <= one.items()


def test_adding_the_array_leaves_the_database_alone_and_a_third_run_does_nothing(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, stores=(frames_db.STORE,))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("frames.db")}
    assert run(videos, tmp_path, stores=BOTH).progress.done == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("frames.db")} == before
    assert run(videos, tmp_path, stores=BOTH).progress.skipped == 2
    (tmp_path / "rgb_npy" / "a.npy").unlink()
    assert run(videos, tmp_path, stores=BOTH).progress.done == 1


def test_database_at_a_lower_rate_keeps_the_true_times(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, fps=4.0)
    db = frames_db.connect(tmp_path / "jpg" / "c" / "a" / "frames.db")
    assert frames_db.read_meta(db)["num_frames"] == 8
    assert frames_db.read_pts_us(db).tolist() == [round(i / 24 * 1e6) for i in range(3, 48, 6)]
    db.close()


def test_an_interrupted_or_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), FramesNpyWriter(tmp_path / "x.npy", 4, 6) as writer:
        writer.add(np.zeros((4, 6, 3), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["cut", "longer", "no header", "other dtype"])
def test_check_and_reader_find_a_damaged_array(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "x.npy"
    with FramesNpyWriter(path, 4, 6) as writer:
        for i in range(5):
            writer.add(np.full((4, 6, 3), i, np.uint8))
        writer.commit()
    assert list(frames_npy.check(path, 5)) == []
    assert list(frames_npy.check(path, 6))
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-1], "longer": whole + b"x", "no header": whole[128:], "other dtype": b""}[fault])
    if fault == "other dtype":
        np.save(path, np.zeros((5, 4, 6, 3), np.float32))
    assert list(frames_npy.check(path, 5))
    if fault != "longer":
        with pytest.raises(VideoError):
            open_frames(path)


def test_threads_do_not_parse_headers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, load, parsing = tmp_path / "a.npy", np.load, threading.Lock()
    np.save(path, np.zeros((2, 4, 4, 3), np.uint8))

    def alone(*given, **options) -> np.ndarray:
        assert parsing.acquire(blocking=False), "two at once"
        time.sleep(0.002)
        parsing.release()
        return load(*given, **options)

    monkeypatch.setattr(np, "load", alone)
    with ThreadPoolExecutor(4) as pool:
        assert [len(frames) for frames in pool.map(open_frames, [path] * 20)] == [2] * 20


def test_frames_of_another_shape_are_refused(tmp_path: Path) -> None:
    with FramesNpyWriter(tmp_path / "x.npy", 4, 6) as writer, pytest.raises(ValueError, match=r"uint8 \(4, 6, 3\)"):
        writer.add(np.zeros((4, 6), np.uint8))


def test_one_id_in_two_classes_cannot_share_the_folder_of_arrays(videos: Path, tmp_path: Path) -> None:
    for name in ("c", "d"):
        (tmp_path / "v" / name).mkdir(parents=True)
        shutil.copy(videos / "c" / "a.mp4", tmp_path / "v" / name / "a.mp4")
    assert run(tmp_path / "v", tmp_path / "root", stores=(frames_db.STORE,)).progress.done == 2
    with pytest.raises(ClipmillError, match="two videos have the id 'a'"):
        run(tmp_path / "v", tmp_path / "root", stores=BOTH)


def test_a_video_too_short_for_one_slot_fails_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    make_video(tmp_path / "v" / "x.mp4", 2, fps=25)
    report = run(tmp_path / "v", tmp_path / "root", stores=(frames_npy.STORE,))
    assert [failure[2] for failure in report.failures] == ["no frames"]
    assert not [path for path in (tmp_path / "root").rglob("*") if "catalog" not in path.name]
