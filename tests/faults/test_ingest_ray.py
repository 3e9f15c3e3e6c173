"""Ingest on a Ray cluster of two workers: the same stores, catalog and ledger, whatever dies on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.convert import Progress, convert
from ingest.errors import ClipmillError
from ingest.executors import Outcome
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from ingest.ray_executor import on_ray
from tests.ingest.jobs import Task, run
from tests.ingest.videos import make_video

ray = pytest.importorskip("ray", reason="needs the extra `ray`")

OPTIONS = ConvertOptions((96, 48), stores=("frames-db", "npy", "raw-frames"))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests: it takes seconds to start."""
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(12):
        make_video(folder / f"vid{i:02d}.mp4", 60, size=(160, 120), seed=i)
    (folder / "bad.mp4").write_text("no video")
    return folder


def stores(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("catalog.db")
    }


def catalog(root: Path) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(root / "catalog.db")) as db:
        videos = "SELECT video_id, state, reason, message, num_frames, settings FROM videos ORDER BY 1"
        outputs = "SELECT store, short_side, num_frames, num_bytes, file_bytes FROM outputs ORDER BY 1, 2, 4"
        return [*db.execute(videos), *db.execute(outputs), *db.execute("SELECT video_id, reason FROM failures")]


def workers() -> list[int]:
    """Processes that are at work on a task."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cmdline").read_bytes().startswith(b"ray::_work"):
                    found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_nothing(videos: Path, tmp_path: Path) -> None:
    convert(plan_folders(videos), tmp_path / "local", OPTIONS, num_workers=2)
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        end = time.monotonic() + 0.2  # The next tasks are at work meanwhile.
        while progress.done >= 3 and not killed and time.monotonic() < end:
            if found := workers():
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])

    report = convert(
        plan_folders(videos), tmp_path / "ray", OPTIONS, num_workers=2, executor=on_ray(), on_progress=kill
    )
    assert killed
    assert [(f[1], f[2]) for f in report.failures] == [("bad", "not a video")]
    assert stores(tmp_path / "ray") == stores(tmp_path / "local")
    assert catalog(tmp_path / "ray") == catalog(tmp_path / "local")
    again = convert(plan_folders(videos), tmp_path / "ray", OPTIONS, num_workers=2, executor=on_ray())
    assert (again.progress.skipped, again.progress.done) == (12, 0)


def test_crashes_and_hangs_cost_their_own_job(tmp_path: Path) -> None:
    actions = {"a": "kill once", "b": "kill", "c": "sleep", "d": "hang deaf", "e": "sleep"}
    tasks = [Task(name, action, tmp_path) for name, action in actions.items()]
    found: dict[str, Outcome] = {
        outcome.job.name: outcome for outcome in on_ray()(run, tasks, num_workers=2, timeout_s=6) if outcome is not None
    }
    assert {name: outcome.result for name, outcome in found.items() if outcome.result} == {
        name: f"{name} done" for name in "ace"
    }
    assert {name: outcome.reason for name, outcome in found.items() if outcome.reason} == {
        "b": "crashed",
        "d": "timeout",
    }
    assert len(Task("b", "", tmp_path).attempts()) == 2


def test_an_error_of_the_function_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        list(on_ray()(run, [Task("a", "raise", tmp_path)], num_workers=1))


def test_a_target_that_cannot_be_written_ends_the_run_as_it_does_locally(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "jpg").write_text("a file where a folder must be")
    with pytest.raises(ClipmillError, match="cannot be written"):
        convert(plan_folders(videos), tmp_path, OPTIONS, num_workers=2, executor=on_ray())


def test_closing_the_run_ends_its_tasks(tmp_path: Path) -> None:
    outcomes = on_ray()(run, [Task(f"j{i}", "hang", tmp_path) for i in range(4)], num_workers=2)
    while len(list(tmp_path.iterdir())) < 2:
        next(outcomes)
    at_work = [int(path.suffix[1:]) for path in tmp_path.iterdir()]
    outcomes.close()  # type: ignore[attr-defined]
    assert not set(at_work) & set(workers())
