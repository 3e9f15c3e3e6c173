"""Videos to frame stores, the run over many: convert what is not finished, record what fails, skip the rest."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from ingest.atomic import remove_leftovers
from ingest.catalog import Catalog, Finished, VideoRecord
from ingest.convert_video import ConvertOptions, clear_away, convert_video, store_path, target_error
from ingest.errors import ClipmillError
from ingest.executors import Outcome, run_jobs
from ingest.layout import catalog_path, npy_path
from ingest.plan import Job, Plan
from ingest.stores import frames_npy

_FLUSH_EVERY_S = 0.25


@contextlib.contextmanager
def _catalog_errors_told(root: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise target_error(catalog_path(root), root, error) from error


@dataclass
class Progress:
    """Counts of a run as it goes on. `skipped` were finished before; `frames` were written by this run."""

    total: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    missing: int = 0
    frames: int = 0
    started_s: float = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    @property
    def time_left_s(self) -> float | None:
        worked = self.done + self.failed
        return self.elapsed_s / worked * (self.total - self.skipped - worked) if worked else None


@dataclass(frozen=True)
class ConvertReport:
    """How a run ended. `failures` are this run's, as (class, video, reason, message)."""

    progress: Progress
    seconds: float
    failures: list[tuple[str, str, str, str]]
    missing: list[tuple[str, str]]


def convert(
    plan: Plan,
    root: Path,
    options: ConvertOptions,
    *,
    num_workers: int,
    timeout_s: float | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ConvertReport:
    """Bring the root up to the plan: convert what is not finished, record what fails or is missing, skip the rest.

    Every finished video is durable before the catalog says so; killed at any moment, the same call goes on from there.

    Raises: ClipmillError when the target cannot be written; KeyboardInterrupt passes through with the catalog in order.
    """
    with _catalog_errors_told(root), Catalog.create(root) as catalog:
        finished = catalog.finished()
        plan.keep(finished)
        _refuse_shared_names(plan, options)
        remove_leftovers(npy_path(root, "any").parent)  # Once: the folder may hold a hundred thousand arrays.
        with catalog.transaction():
            catalog.add_classes(plan.class_names)
            catalog.drop_missing(plan.found_ids)
            catalog.add_pending((job.key, job.source_text) for job in plan.jobs)
            for key in plan.missing:
                catalog.record(
                    VideoRecord(key, "missing", reason="no file", message="the labels name it, no file has its id")
                )
            catalog.set_labels(plan.labels)
        todo = [job for job in plan.jobs if not _is_finished(job, finished.get(job.key), root, options)]
        progress = Progress(len(plan.jobs), skipped=len(plan.jobs) - len(todo), missing=len(plan.missing))
        progress.started_s = time.monotonic()
        run = catalog.start_run({"settings": options.settings, "workers": num_workers}, len(plan.jobs), os.getpid())
        writer = _RunWriter(catalog, run, progress)
        state = "failed"
        left = {job.key: job for job in todo}
        outcomes = run_jobs(partial(convert_video, root, options), todo, num_workers=num_workers, timeout_s=timeout_s)
        try:
            on_progress(progress)
            for outcome in outcomes:
                if outcome is not None:
                    del left[outcome.job.key]
                    if outcome.result is None:
                        clear_away(outcome.job, root)
                    writer.add(_record_of(outcome, options))
                writer.flush(due=True)
                on_progress(progress)
            state = "finished"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            outcomes.close()  # type: ignore[attr-defined]
            for job in islice(left.values(), num_workers):  # Jobs are given in order: these the workers had in hand.
                clear_away(job, root)
            writer.flush(state=state)
    missing = [(key.class_name, key.video_id) for key in plan.missing]
    return ConvertReport(progress, progress.elapsed_s, writer.failures, missing)


class _RunWriter:
    """Writes records to the catalog a few times a second, not once per video: a commit costs more than a record."""

    def __init__(self, catalog: Catalog, run: int, progress: Progress) -> None:
        self._catalog, self._run, self._progress = catalog, run, progress
        self._waiting: list[VideoRecord] = []
        self._flushed_s = time.monotonic()
        self.failures: list[tuple[str, str, str, str]] = []

    def add(self, record: VideoRecord) -> None:
        self._waiting.append(record)
        if record.state == "ok":
            self._progress.done += 1
            self._progress.frames += record.num_frames
        else:
            self._progress.failed += 1
            self.failures.append((record.key.class_name, record.key.video_id, record.reason, record.message))

    def flush(self, state: str = "running", *, due: bool = False) -> None:
        if due and time.monotonic() - self._flushed_s < _FLUSH_EVERY_S:
            return
        p = self._progress
        with self._catalog.transaction():
            for record in self._waiting:
                self._catalog.record(record)
            self._catalog.update_run(
                self._run, done=p.done, failed=p.failed, skipped=p.skipped, frames=p.frames, state=state
            )
        self._waiting.clear()
        self._flushed_s = time.monotonic()


def _is_finished(job: Job, known: Finished | None, root: Path, options: ConvertOptions) -> bool:
    """True if the catalog and the files agree that nothing is to be done. A stat per file, no file opened."""
    if known is None or known.settings != options.settings_of(job):
        return False
    try:
        stat = job.source.stat()
        return (stat.st_size, stat.st_mtime_ns) == (known.source_bytes, known.source_mtime_ns) and all(
            store_path(root, job.key, store).stat().st_size == known.file_bytes.get(store) for store in options.stores
        )
    except OSError:
        return False


def _refuse_shared_names(plan: Plan, options: ConvertOptions) -> None:
    """Arrays lie in one folder for all classes: there an id must be the only one of its name."""
    if frames_npy.STORE not in options.stores:
        return
    seen: dict[str, Job] = {}
    for job in plan.jobs:
        if (other := seen.setdefault(job.key.video_id, job)) is not job:
            raise ClipmillError(
                f"two videos have the id {job.key.video_id!r}: {other} and {job}.",
                "Nothing was converted: their arrays would overwrite each other, as all lie in rgb_npy.",
                "Rename one of them, or leave --store npy out.",
            )


def _record_of(outcome: Outcome[Job, VideoRecord], options: ConvertOptions) -> VideoRecord:
    if outcome.result is not None:
        return outcome.result
    job = outcome.job
    return VideoRecord(
        job.key,
        "failed",
        job.source_text,
        settings=options.settings_of(job),
        reason=outcome.reason,
        message=outcome.message,
    )
