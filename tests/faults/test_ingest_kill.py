"""Ingest that is killed, interrupted or runs out of disk: what is there is whole, and the same command ends the job."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.convert import Progress, convert
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from ingest.stores import frames_db
from tests.conftest import REPOSITORY
from tests.ingest.videos import make_video

NUM_VIDEOS = 24
NUM_KILLS = 20


class Ingest:
    """The command on one folder of videos and one root, in a process group of its own."""

    def __init__(self, videos: Path, root: Path, *options: str) -> None:
        self.root = root
        command = [sys.executable, "-m", "clipmill", "ingest", "convert", str(videos), str(root), "--workers", "2"]
        self.command = [*command, "--short-side", "96", "48", "--ignore-space", *options]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=REPOSITORY,
        )
        return self.process

    def finish(self) -> subprocess.CompletedProcess[str]:
        process = self.start()
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(self.command, process.returncode, stdout, stderr)

    def group(self) -> list[int]:
        """Processes of the group that still run (one that is dead and not waited for does not)."""
        assert self.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                    if int(group) == self.process.pid and state != "Z":
                        found.append(int(entry.name))
        return found

    def workers(self) -> list[int]:
        """The worker processes: they are the ones that were spawned with a pipe to talk through."""
        spawned = []
        for pid in self.group():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    spawned.append(pid)
        return spawned


def wait_until(condition: Callable[[], object], most_s: float = 30) -> None:
    end = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def databases(root: Path) -> dict[str, bytes]:
    """Contents of every frames.db by name, each found whole: structure, counts, checksums, n_frames."""
    found = {}
    for path in sorted(root.glob("jpg/*/*/frames.db")):
        assert list(frames_db.check(path)) == [], path
        found[path.parent.name] = path.read_bytes()
    return found


def num_databases(root: Path) -> int:
    return sum(1 for _ in root.glob("jpg/*/*/frames.db"))


def assert_complete(root: Path, whole: dict[str, bytes]) -> None:
    """The same bytes as an uninterrupted run, nothing besides them, and a catalog that knows it all."""
    assert databases(root) == whole
    names = {path.name for path in root.rglob("*") if path.is_file() and path.is_relative_to(root / "jpg")}
    assert names == {"frames.db", "n_frames"}
    assert {path.name for path in root.iterdir()} == {"jpg", "catalog.db"}
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT state, COUNT(*) FROM videos GROUP BY state").fetchall() == [("ok", len(whole))]
        assert db.execute("SELECT COUNT(*) FROM outputs").fetchone() == (2 * len(whole),)
        assert db.execute("SELECT state FROM runs ORDER BY id DESC LIMIT 1").fetchone() == ("finished",)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(NUM_VIDEOS):
        (folder / f"class{i % 3}").mkdir(exist_ok=True)
        make_video(folder / f"class{i % 3}" / f"vid{i:02d}.mp4", 60 + 5 * (i % 7), size=(160, 120), seed=i)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The databases of a run that nobody disturbed, and how long it took in seconds."""
    root = tmp_path_factory.mktemp("uninterrupted")
    start = time.monotonic()
    done = Ingest(videos, root).finish()
    duration_s = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    whole = databases(root)
    assert len(whole) == NUM_VIDEOS
    assert_complete(root, whole)
    return whole, duration_s


@pytest.mark.slow
def test_killed_at_20_moments_what_is_there_is_whole_and_a_re_run_completes_it(
    videos: Path, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    whole, duration_s = uninterrupted
    rng = random.Random(20)
    ingest = Ingest(videos, tmp_path / "root0")
    counts: list[int] = []
    num_runs = 0
    while len(counts) < NUM_KILLS:
        num_runs += 1
        assert num_runs < 5 * NUM_KILLS
        begun = databases(ingest.root)
        if len(begun) > NUM_VIDEOS * 3 // 4:  # little left to be killed at: begin anew
            ingest, begun = Ingest(videos, tmp_path / f"root{num_runs}"), {}
        process = ingest.start()
        # By what has been done and not by the clock alone: how fast the machine is now is anyone's guess.
        more = len(begun) + rng.choice([0, 1, 1, 2, 3])
        while process.poll() is None and num_databases(ingest.root) < more:
            time.sleep(0.005)
        time.sleep(rng.random() * (duration_s / 2 if more == len(begun) else duration_s / NUM_VIDEOS))
        if process.poll() is not None:
            process.communicate()
            continue
        # One time in four only the parent is killed: the workers must go by themselves.
        if len(counts) % 4 == 3:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        wait_until(lambda ingest=ingest: not ingest.group(), most_s=5)
        found = databases(ingest.root)
        assert all(whole[name] == content for name, content in found.items())
        counts.append(len(found))
    assert len(set(counts)) > 3, counts  # the moments were spread over the work
    for root in tmp_path.iterdir():
        done = Ingest(videos, root).finish()
        assert done.returncode == 0, done.stderr
        assert_complete(root, whole)


@pytest.mark.parametrize("victim", ["parent", "group"])
def test_killed_while_a_database_is_being_written(
    videos: Path, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path, victim: str
) -> None:
    ingest = Ingest(videos, tmp_path)
    process = ingest.start()
    wait_until(lambda: len(list(tmp_path.glob("jpg/*/*/.frames.db.*.tmp"))) == 2)
    if victim == "parent":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not ingest.group(), most_s=5)
    assert len(databases(tmp_path)) < NUM_VIDEOS
    assert ingest.finish().returncode == 0
    assert_complete(tmp_path, uninterrupted[0])


def test_a_killed_worker_costs_nothing(
    videos: Path, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    ingest = Ingest(videos, tmp_path)
    process = ingest.start()
    wait_until(lambda: list(tmp_path.glob("jpg/*/*/.frames.db.*.tmp")))
    os.kill(ingest.workers()[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert_complete(tmp_path, uninterrupted[0])


@pytest.mark.parametrize("moment", ["at the start", "in the middle"])
def test_ctrl_c_stops_with_a_word_and_the_same_command_goes_on(
    videos: Path, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path, moment: str
) -> None:
    ingest = Ingest(videos, tmp_path)
    process = ingest.start()
    if moment == "at the start":
        wait_until((tmp_path / "catalog.db").exists)
    else:
        wait_until(lambda: len(list(tmp_path.glob("jpg/*/*/frames.db"))) > 2)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    if moment == "in the middle":
        assert "Interrupted. Finished videos are kept, nothing is half-written." in stderr
        assert f"Go on with: clipmill ingest convert {videos} {tmp_path}" in stderr
        with contextlib.closing(sqlite3.connect(tmp_path / "catalog.db")) as db:
            assert db.execute("SELECT state FROM runs").fetchall() == [("interrupted",)]
    wait_until(lambda: not ingest.group(), most_s=5)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]
    assert 2 * (moment != "at the start") < len(databases(tmp_path)) + 1 <= NUM_VIDEOS
    assert ingest.finish().returncode == 0
    assert_complete(tmp_path, uninterrupted[0])


def test_two_runs_at_once_do_each_other_no_harm(
    videos: Path, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    runs = [Ingest(videos, tmp_path), Ingest(videos, tmp_path)]
    processes = [run.start() for run in runs]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert_complete(tmp_path, uninterrupted[0])


# -- no room -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many bytes, mounted for the test; called again, it is given another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(num_bytes: int) -> Path:
        options = f"size={num_bytes},mode=700" + (",remount" if os.path.ismount(folder) else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here (it takes root's rights)")
        return folder

    yield mounted
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_stopped_for_want_of_room(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr or "cannot be used" in done.stderr
    assert "full" in done.stderr or "No space left" in done.stderr
    assert "same command again" in done.stderr


@pytest.mark.parametrize("percent", [3, 20, 50, 80])
def test_a_full_disk_stops_the_run_cleanly_and_room_lets_it_finish(
    videos: Path,
    uninterrupted: tuple[dict[str, bytes], float],
    small_disk: Callable[[int], Path],
    percent: int,
) -> None:
    whole, _ = uninterrupted
    needed = sum(map(len, whole.values()))
    disk = small_disk(needed * percent // 100)
    ingest = Ingest(videos, disk)
    assert_stopped_for_want_of_room(ingest.finish())
    found = databases(disk)
    assert all(whole[name] == content for name, content in found.items())
    assert len(found) < NUM_VIDEOS
    assert not [path for path in disk.rglob("*") if path.suffix == ".tmp"]
    wait_until(lambda: not ingest.group(), most_s=5)
    assert_stopped_for_want_of_room(ingest.finish())  # again, with the disk as full as it was left
    assert all(whole[name] == content for name, content in databases(disk).items())

    small_disk(2 * needed)
    done = ingest.finish()
    assert done.returncode == 0, done.stderr
    assert_complete(disk, whole)


def test_a_disk_that_something_else_has_filled_is_told_and_freeing_it_lets_the_run_finish(
    videos: Path, uninterrupted: tuple[dict[str, bytes], float], small_disk: Callable[[int], Path]
) -> None:
    whole, _ = uninterrupted
    disk = small_disk(2 * sum(map(len, whole.values())))
    (disk / "root").mkdir()
    with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    ingest = Ingest(videos, disk / "root")
    assert_stopped_for_want_of_room(ingest.finish())
    assert databases(disk / "root") == {}
    (disk / "other").unlink()
    done = ingest.finish()
    assert done.returncode == 0, done.stderr
    assert_complete(disk / "root", whole)


@pytest.mark.parametrize("num_done", [0, 3])
def test_a_disk_that_something_else_fills_during_the_run_stops_it_cleanly(
    videos: Path, uninterrupted: tuple[dict[str, bytes], float], small_disk: Callable[[int], Path], num_done: int
) -> None:
    """Not even the catalog can be written then."""
    whole, _ = uninterrupted
    disk = small_disk(2 * sum(map(len, whole.values())))
    plan, options = plan_folders(videos), ConvertOptions((96, 48))

    def fill(progress: Progress) -> None:
        if progress.done >= num_done:
            with contextlib.suppress(OSError), (disk / "other").open("ab", buffering=0) as other:
                while True:
                    other.write(bytes(4096))

    with pytest.raises(ClipmillError, match="cannot be written") as caught:
        convert(plan, disk, options, num_workers=2, ignore_space=True, on_progress=fill)
    assert "same command again" in caught.value.next_step
    databases(disk)
    (disk / "other").unlink()
    assert convert(plan, disk, options, num_workers=2).failures == []
    assert_complete(disk, whole)
