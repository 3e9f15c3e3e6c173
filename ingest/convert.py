"""Videos to frame stores, the run over many: convert what is not finished, record what fails, skip the rest."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from ingest.atomic import remove_leftovers
from ingest.catalog import Catalog, Finished, VideoKey, VideoRecord
from ingest.convert_video import clear_away, convert_video, remove_empty_folders, target_error
from ingest.errors import ClipmillError
from ingest.executors import Executor, Outcome, run_jobs
from ingest.layout import encode_component, npy_path, raw_frames_dir, raw_frames_root
from ingest.options import ConvertOptions
from ingest.plan import Job, Plan, Shard
from ingest.sinks import Target, store_path
from ingest.space import check_space
from ingest.stores import frames_npy, raw_frames

_FLUSH_EVERY_S = 0.25
QUARANTINE_AFTER = 3


@dataclass
class Progress:
    """Counts of a run as it goes on. `skipped` were finished before; `frames` were written by this run."""

    total: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    missing: int = 0
    quarantined: int = 0
    frames: int = 0
    started_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

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
    notes: list[str] = field(default_factory=list)


def convert(
    plan: Plan,
    root: Path,
    options: ConvertOptions,
    *,
    num_workers: int,
    timeout_s: float | None = None,
    memory_bytes: int | None = None,
    max_failures: float | None = None,
    quarantine_after: int | None = QUARANTINE_AFTER,
    retry: bool = False,
    scratch: Path | None = None,
    shard: Shard | None = None,
    ignore_space: bool = False,
    executor: Executor = run_jobs,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ConvertReport:
    """Bring the root up to the plan: convert what is not finished, record what fails or is missing, skip the rest.

    Every finished video is durable before the catalog says so; killed at any moment, the same call goes on from there.
    A video may take `timeout_s` and let its worker grow by `memory_bytes`. More failures than `max_failures` (a count,
    or, below 1, a share of what is to be done) end the run. A video that has failed `quarantine_after` times is left
    alone until its source or the settings change, or with `retry`. `scratch`: local folder to build in. With `shard`,
    only that part of the plan is done, into a catalog of its own that `ingest.merge` takes in.

    Raises: ClipmillError when the target cannot be written, has no room from the start, or too many videos fail;
    KeyboardInterrupt passes through with the catalog in order.
    """
    if shard is not None:
        plan.keep_shard(shard)
    target = Target(root, _made(scratch))
    with _catalog_errors_told(root), Catalog.create(root, str(shard) if shard else "") as catalog:
        merged = _merged(root, shard)
        finished = merged | catalog.finished()
        plan.keep(finished)
        _refuse_shared_names(plan, options)
        _clear_shared_folders(target)
        with catalog.transaction():
            catalog.add_classes(plan.class_names)
            catalog.drop_missing(plan.found_ids)
            catalog.add_pending((job.key, job.source_text) for job in plan.jobs if job.key not in merged)
            for key in plan.missing:
                catalog.record(
                    VideoRecord(key, "missing", reason="no file", message="the labels name it, no file has its id")
                )
            catalog.set_labels(label for label in plan.labels if label[0] not in merged)
        progress = Progress(len(plan.jobs), missing=len(plan.missing))
        todo = []
        for job in plan.jobs:
            known = finished.get(job.key)
            if known is not None and not (known.quarantined and retry) and _is_finished(job, known, root, options):
                progress.quarantined += known.quarantined
            else:
                todo.append(job)
        progress.skipped = len(plan.jobs) - len(todo)
        notes = [] if ignore_space else check_space(catalog, root, options, todo)
        progress.started_s = time.monotonic()
        run = catalog.start_run({"settings": options.settings, "workers": num_workers}, len(plan.jobs), os.getpid())
        writer = _RunWriter(catalog, run, progress, quarantine_after, _limit(max_failures, len(todo)))
        state = "failed"
        left = {job.key: job for job in todo}
        outcomes = executor(
            partial(convert_video, target, options),
            todo,
            num_workers=num_workers,
            timeout_s=timeout_s,
            memory_bytes=memory_bytes,
        )
        try:
            on_progress(progress)
            for outcome in outcomes:
                if outcome is not None:
                    del left[outcome.job.key]
                    if outcome.result is None:
                        clear_away(outcome.job, target)
                    writer.add(_record_of(outcome, options))
                writer.flush(due=True)
                on_progress(progress)
                writer.refuse_too_many_failures(root)
            state = "finished"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            outcomes.close()  # type: ignore[attr-defined]
            for job in islice(left.values(), num_workers):  # Jobs are given in order: these the workers had in hand.
                clear_away(job, target)
            if todo:  # A worker that died at its first attempt may have left something where others lie too.
                with contextlib.suppress(OSError):
                    _clear_shared_folders(target)
                remove_empty_folders(root, [job.key for job in left.values()] + writer.failed)
            writer.flush(state=state)
        if raw_frames.STORE in options.stores and shard is None:
            write_raw_lists(root, catalog)
    missing = [(key.class_name, key.video_id) for key in plan.missing]
    return ConvertReport(progress, progress.elapsed_s, writer.failures, missing, notes)


def write_raw_lists(root: Path, catalog: Catalog) -> None:
    """Write the lists of raw frames of everything that the catalog has: one per split, and all.txt for no split."""
    index = {name: i for i, name in enumerate(catalog.class_names())}
    found: dict[tuple[str, str, str, int], set[int]] = {}
    for class_name, video_id, count, split, label in catalog.db.execute(
        "SELECT class_name, video_id, outputs.num_frames, COALESCE(split, ''), label FROM videos"
        " JOIN outputs ON outputs.video = videos.id AND outputs.store = ? LEFT JOIN labels ON labels.video = videos.id"
        " WHERE state = 'ok' ORDER BY class_name, video_id",
        (raw_frames.STORE,),
    ):
        path = raw_frames_dir(Path(), class_name, video_id).relative_to(raw_frames_root(Path())).as_posix()
        labels = found.setdefault((encode_component(split) if split else "", path, video_id, count), set())
        if label in index:
            labels.add(index[label])
    raw_frames.write_lists(
        raw_frames_root(root), ((split, path, count, sorted(ls)) for (split, path, _, count), ls in found.items())
    )


class _RunWriter:
    """Writes records to the catalog a few times a second, not once per video: a commit costs more than a record."""

    def __init__(
        self, catalog: Catalog, run: int, progress: Progress, quarantine_after: int | None, max_failures: int | None
    ) -> None:
        self._catalog, self._run, self._progress = catalog, run, progress
        self._quarantine_after, self._max_failures = quarantine_after, max_failures
        self._waiting: list[VideoRecord] = []
        self._flushed_s = time.monotonic()
        self.failures: list[tuple[str, str, str, str]] = []
        self.failed: list[VideoKey] = []

    def add(self, record: VideoRecord) -> None:
        self._waiting.append(record)
        if record.state == "ok":
            self._progress.done += 1
            self._progress.frames += record.num_frames
        else:
            self._progress.failed += 1
            self._progress.reasons[record.reason] += 1
            self.failed.append(record.key)
            self.failures.append((record.key.class_name, record.key.video_id, record.reason, record.message))

    def flush(self, state: str = "running", *, due: bool = False) -> None:
        if due and time.monotonic() - self._flushed_s < _FLUSH_EVERY_S:
            return
        p = self._progress
        with self._catalog.transaction():
            for record in self._waiting:
                self._catalog.record(record, self._quarantine_after)
            self._catalog.update_run(
                self._run, done=p.done, failed=p.failed, skipped=p.skipped, frames=p.frames, state=state
            )
        self._waiting.clear()
        self._flushed_s = time.monotonic()

    def refuse_too_many_failures(self, root: Path) -> None:
        p, most = self._progress, self._max_failures
        if most is not None and p.failed > most:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in p.reasons.most_common(3))
            raise ClipmillError(
                f"{p.failed:,} of {p.done + p.failed:,} videos failed, --max-failures allows {most:,}: {reasons}.",
                "The run stopped; what is finished is kept, every failure is recorded.",
                f"See them: clipmill ingest status {root}. Then mend the cause, or allow more.",
            )


@contextlib.contextmanager
def _catalog_errors_told(root: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise target_error(root / "catalog.db", root, error) from error


def _made(scratch: Path | None) -> Path | None:
    """The scratch folder, there and without what dead processes have left in it."""
    if scratch is None:
        return None
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        remove_leftovers(scratch)
    except OSError as error:
        raise ClipmillError(
            f"the scratch folder {scratch} cannot be written: {error.strerror}.",
            "Nothing was converted.",
            "Give another local folder as --scratch, or leave it out.",
        ) from None
    return scratch


def _merged(root: Path, shard: Shard | None) -> dict[VideoKey, Finished]:
    """What the one catalog knows already, for a run that writes to the catalog of its shard."""
    if shard is None or not (root / "catalog.db").exists():
        return {}
    with Catalog.open(root) as catalog:
        return catalog.finished()


def _clear_shared_folders(target: Target) -> None:
    """Once per run, as these folders may hold a hundred thousand videos each."""
    remove_leftovers(npy_path(target.root, "any").parent)
    home = raw_frames_root(target.root)
    if home.is_dir():
        for folder in home.iterdir():
            if folder.is_dir():
                remove_leftovers(folder)


def _is_finished(job: Job, known: Finished, root: Path, options: ConvertOptions) -> bool:
    """True if the catalog and the files agree that nothing is to be done. A stat per file, no file opened."""
    if known.settings != options.settings_of(job):
        return False
    try:
        stat = job.source.stat()
        same = (stat.st_size, stat.st_mtime_ns) == (known.source_bytes, known.source_mtime_ns)
        return same and (
            known.quarantined
            or all(
                store_path(root, job.key, store).stat().st_size == known.file_bytes.get(store)
                for store in options.stores
            )
        )
    except OSError:
        return False


def _limit(max_failures: float | None, num_jobs: int) -> int | None:
    if max_failures is None:
        return None
    return math.floor(max_failures * num_jobs) if 0 < max_failures < 1 else int(max_failures)


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
    record = VideoRecord(job.key, "failed", job.source_text, settings=options.settings_of(job))
    record.reason, record.message = outcome.reason, outcome.message
    with contextlib.suppress(OSError):
        stat = job.source.stat()
        record.source_bytes, record.source_mtime_ns = stat.st_size, stat.st_mtime_ns
    return record
