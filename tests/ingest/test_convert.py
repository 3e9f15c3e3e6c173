"""A run over many videos: what it leaves on disk and in the catalog, and what the next run has left to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.annotations.labels_csv import read_labels_csv
from ingest.atomic import temporary_path
from ingest.catalog import Catalog, VideoKey
from ingest.convert import ConvertReport, convert
from ingest.convert_video import convert_video
from ingest.dataset import dataset_status
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import Job, Plan, plan_folders, plan_labels
from ingest.sinks import Target
from ingest.stores import frames_db
from tests.conftest import SmallDataset
from tests.ingest.videos import count_frames, ffmpeg, make_video, number_of

OPTIONS = ConvertOptions((64, 32))
NOBODY = 65534
REAL_VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "videos"


def run(plan: Plan, root: Path, options: ConvertOptions = OPTIONS, **rest) -> ConvertReport:
    return convert(plan, root, options, num_workers=2, **rest)


def databases(root: Path) -> dict[str, Path]:
    """Every frames.db below the root by the name of its folder; each is checked to be whole."""
    found = {path.parent.name: path for path in sorted(root.glob("jpg/*/*/frames.db"))}
    for path in found.values():
        assert list(frames_db.check(path)) == []
    return found


def stamps(root: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every stored file: one that is written anew has others."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.glob("jpg/**/*") if path.is_file()}


def temporary_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.suffix == ".tmp"]


def query(root: Path, sql: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        return db.execute(sql).fetchall()


def states(root: Path) -> dict[str, str]:
    return dict(query(root, "SELECT video_id, state FROM videos"))


@pytest.fixture(scope="module")
def sources(small_dataset: SmallDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good videos of two classes; a copy, as tests change it and put it back."""
    folder = tmp_path_factory.mktemp("sources")
    for i in (0, 1, 3, 4):
        path = small_dataset.videos / small_dataset.classes[i % 3] / f"vid{i:02d}.mp4"
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy2(path, folder / path.parent.name)
    return folder


@pytest.fixture(scope="module")
def converted(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("converted")
    assert run(plan_folders(sources), root).progress.done == 4
    return root


@pytest.fixture
def root(converted: Path, tmp_path: Path) -> Path:
    """A finished root that the test may change."""
    shutil.copytree(converted, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker can start: what runs all the same decodes nothing."""
    monkeypatch.setattr("ingest.executors._Worker", None)


# -- the outcome -------------------------------------------------------------------------------------------------------


def test_every_frame_of_every_video_is_stored_on_every_level(small_dataset: SmallDataset, tmp_path: Path) -> None:
    report = run(plan_labels(small_dataset.videos, read_labels_csv(small_dataset.labels)), tmp_path)
    assert (report.progress.done, report.progress.frames) == (12, small_dataset.total_frames)
    assert (report.failures, report.missing) == ([], [])
    found = databases(tmp_path)
    assert set(found) == set(small_dataset.num_frames)
    for video_id, num_frames in small_dataset.num_frames.items():
        assert found[video_id].parent.parent.name == small_dataset.class_of(video_id)
        assert found[video_id].with_name("n_frames").read_text() == str(num_frames)
        db = frames_db.connect(found[video_id])
        levels = frames_db.read_meta(db)["levels"]
        assert [(level.short_side, level.width, level.height) for level in levels] == [(64, 85, 64), (32, 43, 32)]
        for level in levels:
            jpegs = frames_db.read_frames(db, level, np.arange(num_frames))
            assert [number_of(jpeg) for jpeg in jpegs] == list(range(num_frames))
        assert frames_db.read_pts_us(db).tolist() == [40_000 * i for i in range(num_frames)]
    assert temporary_files(tmp_path) == []
    assert sorted(path.name for path in found["vid00"].parent.iterdir()) == ["frames.db", "n_frames"]

    with Catalog.open(tmp_path) as catalog:
        status = dataset_status(catalog)
        assert catalog.class_names() == ["apple", "pear tree", "plum"]
    assert (status.num_videos, status.num_frames, status.states) == (12, small_dataset.total_frames, {"ok": 12})
    assert status.splits == {"train": {"ok": 4}, "val": {"ok": 4}, "test": {"ok": 4}}
    assert status.classes == {name: {"ok": 4} for name in small_dataset.classes}
    assert [(level.short_side, level.num_videos, level.num_frames) for level in status.levels] == [
        (64, 12, small_dataset.total_frames), (32, 12, small_dataset.total_frames),
    ]  # fmt: skip
    assert status.num_bytes == sum(path.stat().st_size for path in found.values())
    assert status.duration_s == pytest.approx(small_dataset.total_frames / 25)
    assert status.run is not None
    assert (status.run.state, status.run.done, status.run.failed) == ("finished", 12, 0)


def test_meta_says_where_the_frames_come_from_and_how_they_were_made(converted: Path, sources: Path) -> None:
    meta = frames_db.read_meta(frames_db.connect(databases(converted)["vid00"]))
    source = sources / "apple" / "vid00.mp4"
    assert (meta["codec"], meta["quality"], meta["fps"]) == ("jpeg", 90, 25.0)
    assert (meta["width"], meta["height"], meta["num_frames"], meta["rotation"]) == (96, 72, 30, 0)
    assert (meta["source_name"], meta["source_bytes"]) == ("vid00.mp4", source.stat().st_size)
    assert (len(meta["source_sha256"]), meta["duration_s"]) == (64, pytest.approx(1.2))
    assert {"clipmill_version", "ffmpeg_version", "simplejpeg_version", "settings"} <= set(meta)
    assert str(sources) not in str(meta)


def test_a_class_keeps_its_index_when_others_come_later(sources: Path, tmp_path: Path) -> None:
    with Catalog.create(tmp_path) as catalog:
        catalog.add_classes(["pear tree"])
    run(plan_folders(sources), tmp_path)
    assert query(tmp_path, "SELECT idx, name FROM classes ORDER BY idx") == [(0, "pear tree"), (1, "apple")]


def test_failures_are_recorded_with_their_reason_and_the_rest_is_converted(sources: Path, tmp_path: Path) -> None:
    bad, root = tmp_path / "videos", tmp_path / "root"
    shutil.copytree(sources, bad)
    (bad / "broken").mkdir()
    (bad / "apple" / "empty.mp4").touch()
    (bad / "broken" / "text.mp4").write_text("no video at all")
    data = (sources / "apple" / "vid00.mp4").read_bytes()
    (bad / "broken" / "cut.mp4").write_bytes(data[: len(data) // 2])
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", str(bad / "broken" / "sound.mp4"))
    (bad / "broken" / "dangling.mp4").symlink_to(tmp_path / "nowhere")

    report = run(plan_folders(bad), root)
    reasons = {"empty": "empty file", "text": "not a video", "cut": "truncated", "sound": "no video stream",
               "dangling": "source gone"}  # fmt: skip
    assert (report.progress.done, report.progress.failed) == (4, 5)
    assert {video_id: reason for _, video_id, reason, _ in report.failures} == reasons
    assert dict(query(root, "SELECT video_id, reason FROM videos WHERE state = 'failed'")) == reasons
    assert dict(query(root, "SELECT video_id, reason FROM failures")) == reasons
    assert all(message for (message,) in query(root, "SELECT message FROM failures"))
    assert set(databases(root)) == {"vid00", "vid01", "vid03", "vid04"}
    assert not (root / "jpg" / "broken").exists()

    (bad / "broken" / "text.mp4").write_bytes(data)  # mended
    report = run(plan_folders(bad), root)
    assert (report.progress.done, report.progress.failed, report.progress.skipped) == (1, 4, 4)
    assert states(root)["text"] == "ok"
    assert query(root, "SELECT reason FROM videos WHERE video_id = 'text'") == [("",)]
    assert query(root, "SELECT COUNT(*) FROM failures") == [(9,)]  # the ledger only grows


@contextlib.contextmanager
def stepped_down(*folders: Path) -> Iterator[None]:
    """Without root's rights, under which every file can be read and written. The folders stay reachable."""
    changed = [(path, path.stat().st_mode) for folder in folders for path in [folder, *folder.parents]]
    if os.geteuid() != 0:
        yield
        return
    for path, mode in changed:
        path.chmod(mode | 0o055)  # the group is still root's
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in reversed(changed):
            path.chmod(mode)


def test_a_source_that_may_not_be_read_is_a_fault_of_the_video_not_of_the_target(tmp_path: Path) -> None:
    source = make_video(tmp_path / "secret.mp4", 5)
    source.chmod(0)
    target = tmp_path / "root"
    target.mkdir()
    target.chmod(0o777)
    with stepped_down(tmp_path):
        record = convert_video(Target(target), OPTIONS, Job(VideoKey("a", "secret"), source))
    assert (record.state, record.reason) == ("failed", "unreadable")
    assert "Permission denied" in record.message


# -- the next run ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_workers")
def test_a_second_run_converts_nothing_and_touches_nothing(sources: Path, root: Path) -> None:
    before = stamps(root)
    report = run(plan_folders(sources), root)
    assert (report.progress.done, report.progress.skipped, report.progress.failed) == (0, 4, 0)
    assert stamps(root) == before
    assert query(root, "SELECT state, done, skipped FROM runs ORDER BY id") == [("finished", 4, 0), ("finished", 0, 4)]


@pytest.mark.parametrize("options", [ConvertOptions((64,)), ConvertOptions((64, 32), quality=50)], ids=str)
def test_other_settings_convert_again(sources: Path, root: Path, options: ConvertOptions) -> None:
    before = databases(root)["vid00"].stat().st_size
    assert run(plan_folders(sources), root, options).progress.done == 4
    assert databases(root)["vid00"].stat().st_size < before
    assert run(plan_folders(sources), root, options).progress.skipped == 4
    sides = {side for (side,) in query(root, "SELECT DISTINCT short_side FROM outputs")}
    assert sides == set(options.short_sides)


@pytest.mark.usefixtures("no_workers")
def test_the_same_settings_in_another_order_are_the_same(sources: Path, root: Path) -> None:
    assert run(plan_folders(sources), root, ConvertOptions((32, 64, 32))).progress.skipped == 4


def test_a_changed_source_is_converted_again_alone(sources: Path, root: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(sources, videos)
    before = stamps(root)
    make_video(videos / "apple" / "vid00.mp4", 17, seed=99)
    report = run(plan_folders(videos), root)
    assert (report.progress.done, report.progress.skipped) == (1, 3)
    assert databases(root)["vid00"].with_name("n_frames").read_text() == "17"
    changed = {path.parent.name for path, stamp in stamps(root).items() if before[path] != stamp}
    assert changed == {"vid00"}


def test_a_source_with_a_new_date_and_the_same_bytes_is_not_decoded_again(
    sources: Path, root: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(sources, videos)
    os.utime(videos / "apple" / "vid00.mp4", ns=(1, 1))
    before = stamps(root)
    assert run(plan_folders(videos), root).progress.done == 1
    assert stamps(root) == before
    assert run(plan_folders(videos), root).progress.skipped == 4


def test_without_catalog_the_databases_are_taken_in_without_decoding(sources: Path, root: Path) -> None:
    before = stamps(root)
    for path in root.glob("catalog.db*"):
        path.unlink()
    report = run(plan_folders(sources), root)
    assert (report.progress.done, report.progress.failed) == (4, 0)
    assert stamps(root) == before
    assert set(states(root).values()) == {"ok"}
    (frames,) = query(root, "SELECT SUM(num_frames) FROM videos")[0]
    assert frames == sum(int(path.read_text()) for path in root.glob("jpg/*/*/n_frames"))


def test_a_database_that_went_away_or_was_cut_is_made_again(sources: Path, root: Path) -> None:
    found = databases(root)
    whole = {name: path.read_bytes() for name, path in found.items()}
    found["vid00"].unlink()
    with found["vid01"].open("r+b") as file:
        file.truncate(5000)
    assert run(plan_folders(sources), root).progress.done == 2
    assert {name: path.read_bytes() for name, path in databases(root).items()} == whole


def test_what_a_dead_process_left_behind_is_cleared_away(sources: Path, root: Path) -> None:
    folder = databases(root)["vid00"].parent
    (folder / "frames.db").unlink()
    mine = temporary_path(folder / "frames.db").name
    dead = folder / mine.replace(f"-{os.getpid()}.", "-4194304.")  # larger than any process id
    alive = folder / mine.replace(f"-{os.getpid()}.", "-1.")
    other_machine = folder / ".frames.db.elsewhere-7.tmp"
    for path in (dead, alive, other_machine):
        path.write_bytes(b"half")
    run(plan_folders(sources), root)
    assert not dead.exists()
    assert alive.exists()
    assert other_machine.exists()
    os.utime(other_machine, (time.time() - 25 * 3600,) * 2)
    (folder / "frames.db").unlink()
    run(plan_folders(sources), root)
    assert not other_machine.exists()


def test_missing_videos_are_recorded_and_found_later(sources: Path, tmp_path: Path) -> None:
    videos, root, labels = tmp_path / "videos", tmp_path / "root", tmp_path / "labels.csv"
    shutil.copytree(sources, videos)
    labels.write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "apple,vid00,,,train\napple,vid03,,,train\napple,late,0,10,val\npear tree,later,,,test\n"
    )
    report = run(plan_labels(videos, read_labels_csv(labels)), root)
    assert report.missing == [("apple", "late"), ("pear tree", "later")]
    assert states(root) == {"vid00": "ok", "vid03": "ok", "late": "missing", "later": "missing"}
    with Catalog.open(root) as catalog:
        assert dataset_status(catalog).splits["val"] == {"missing": 1}

    make_video(videos / "late_000000_000010.mp4", 9)  # under the longer name
    make_video(videos / "later.mp4", 8)
    report = run(plan_labels(videos, read_labels_csv(labels)), root)
    assert (report.missing, report.progress.done, report.progress.skipped) == ([], 2, 2)
    assert states(root) == {"vid00": "ok", "vid03": "ok", "late_000000_000010": "ok", "later": "ok"}
    with Catalog.open(root) as catalog:
        assert dataset_status(catalog).splits == {"train": {"ok": 2}, "val": {"ok": 1}, "test": {"ok": 1}}


def test_sources_may_be_deleted_once_they_are_converted(sources: Path, tmp_path: Path) -> None:
    videos, root, labels = tmp_path / "videos", tmp_path / "root", tmp_path / "labels.csv"
    shutil.copytree(sources, videos)
    make_video(videos / "long_000000_000010.mp4", 9)
    labels.write_text(
        "label,youtube_id,time_start,time_end,split\napple,vid00,,,train\napple,vid03,,,train\nplum,long,0,10,val\n"
    )
    run(plan_labels(videos, read_labels_csv(labels)), root)
    before = stamps(root)
    (videos / "long_000000_000010.mp4").unlink()
    next(videos.rglob("vid03.mp4")).unlink()
    report = run(plan_labels(videos, read_labels_csv(labels)), root)
    assert (report.missing, report.failures, report.progress.skipped) == ([], [], 1)
    assert states(root) == {"vid00": "ok", "vid03": "ok", "long_000000_000010": "ok"}
    assert stamps(root) == before
    with Catalog.open(root) as catalog:
        assert dataset_status(catalog).splits == {"train": {"ok": 2}, "val": {"ok": 1}}


def test_changed_labels_replace_the_old_ones_without_decoding(sources: Path, root: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    for split in ("train", "test"):
        labels.write_text(f"label,youtube_id,split\napple,vid00,{split}\napple,vid03,{split}\n")
        assert run(plan_labels(sources, read_labels_csv(labels)), root).progress.done == 0
    assert query(root, "SELECT DISTINCT split FROM labels WHERE label = 'apple'") == [("test",)]
    assert query(root, "SELECT COUNT(*) FROM labels WHERE label = 'apple'") == [(2,)]


# -- names -------------------------------------------------------------------------------------------------------------


def test_videos_with_any_name_are_converted_under_that_name(tmp_path: Path) -> None:
    names = ["a b", 'it\'s "so"', "50% off", "日本", "x:y", "x;y&z", "*?[1]", ".."[:1] + "dots.v1.2", "new\nline"]
    names.append(os.fsdecode(b"caf\xe9"))
    plain = make_video(tmp_path / "plain.mp4", 5)
    for name in names:
        folder = tmp_path / "videos" / name.lstrip(".")
        folder.mkdir(parents=True)
        shutil.copy(plain, folder / f"{name.lstrip('.')}.mp4")
    report = run(plan_folders(tmp_path / "videos"), tmp_path / "root")
    assert report.failures == []
    assert len(databases(tmp_path / "root")) == len(names)
    assert set(states(tmp_path / "root")) == {name.lstrip(".") for name in names[:-1]} | {"caf\\xe9"}


def test_a_label_with_a_slash_is_one_folder(sources: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label,id\npush/pull,vid00\n")
    run(plan_labels(sources, read_labels_csv(labels)), tmp_path / "root")
    assert (tmp_path / "root" / "jpg" / "push%2Fpull" / "vid00" / "frames.db").exists()
    assert query(tmp_path / "root", "SELECT class_name FROM videos") == [("push/pull",)]


# -- runs that end otherwise -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 minutes or so that take many seconds to convert; made at once, by repeating packets."""
    folder = tmp_path_factory.mktemp("long")
    short = make_video(folder / "short.mp4", 250)
    (folder / "videos" / "long").mkdir(parents=True)
    path = folder / "videos" / "long" / "long.mp4"
    ffmpeg("-stream_loop", "120", "-i", str(short), "-c", "copy", str(path))
    return path


def test_a_video_that_takes_too_long_is_recorded_and_leaves_nothing(long_video: Path, tmp_path: Path) -> None:
    shutil.copytree(long_video.parents[1], tmp_path / "videos")
    make_video(tmp_path / "videos" / "short.mp4", 5)
    report = run(plan_folders(tmp_path / "videos"), tmp_path / "root", timeout_s=2.5)
    assert [(failure[1], failure[2]) for failure in report.failures] == [("long", "timeout")]
    assert states(tmp_path / "root") == {"long": "failed", "short": "ok"}
    assert [path.name for path in (tmp_path / "root" / "jpg").iterdir()] == ["_"]
    assert temporary_files(tmp_path / "root") == []


def test_an_interrupted_run_says_so_in_the_catalog_and_leaves_nothing_half(long_video: Path, tmp_path: Path) -> None:
    def interrupt(progress: object) -> None:
        if temporary_files(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan_folders(long_video.parents[1]), tmp_path, on_progress=interrupt)
    assert query(tmp_path, "SELECT state FROM runs") == [("interrupted",)]
    assert states(tmp_path) == {"long": "pending"}
    assert temporary_files(tmp_path) == []


def test_a_target_that_cannot_hold_folders_stops_the_run_with_the_cure(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "jpg").write_text("a file where a folder must be")
    with pytest.raises(ClipmillError) as caught:
        run(plan_folders(sources), tmp_path)
    assert "cannot be written" in caught.value.what
    assert caught.value.consequence
    assert str(tmp_path) in caught.value.next_step
    assert query(tmp_path, "SELECT state FROM runs") == [("failed",)]


def test_a_catalog_that_is_none_is_not_overwritten(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"my precious notes" * 300)
    with pytest.raises(ClipmillError, match=r"catalog\.db cannot be used"):
        run(plan_folders(sources), tmp_path)
    assert (tmp_path / "catalog.db").read_bytes() == b"my precious notes" * 300


def test_a_catalog_of_another_version_is_refused(sources: Path, root: Path) -> None:
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ClipmillError, match="catalog of version 99"):
        run(plan_folders(sources), root)
    with pytest.raises(ClipmillError, match="catalog of version 99"):
        Catalog.open(root)


def test_a_root_on_read_only_storage_can_be_read(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with stepped_down(root), Catalog.open(root) as catalog:
        assert dataset_status(catalog).states == {"ok": 4}
    root.chmod(0o755)


@pytest.mark.parametrize(("sides", "quality"), [((), 90), ((4,), 90), ((64, -1), 90), ((64,), 0), ((64,), 101)])
def test_options_out_of_range_are_refused(sides: tuple[int, ...], quality: int) -> None:
    with pytest.raises(ClipmillError, match=r"--short-side|--quality"):
        ConvertOptions(sides, quality)


# -- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not REAL_VIDEOS.is_dir(), reason="no folder of real videos beside the repository")
def test_real_videos_have_as_many_frames_as_ffmpeg_counts(tmp_path: Path) -> None:
    for i, path in enumerate(sorted(REAL_VIDEOS.iterdir())):
        (tmp_path / "videos" / f"class{i % 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / f"class{i % 3}" / path.name).symlink_to(path)
    plan = plan_folders(tmp_path / "videos")
    report = run(plan, tmp_path / "root", ConvertOptions((128,)))
    assert report.failures == []
    databases(tmp_path / "root")
    for job in plan.jobs:
        with av.open(str(job.source)) as container:  # the largest picture, most frames first
            video = list(container.streams.video)
            best = max(range(len(video)), key=lambda i: (video[i].width * video[i].height, video[i].frames))
        stored = tmp_path / "root" / "jpg" / job.key.class_name / job.key.video_id / "n_frames"
        assert int(stored.read_text()) == count_frames(job.source, best), job.key.video_id
