"""Videos to frame stores: what one video takes (`convert_video`), and the run over many (`convert`)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import av
import simplejpeg

from ingest import layout
from ingest.atomic import remove_leftovers
from ingest.catalog import Catalog, Output, VideoRecord
from ingest.errors import ClipmillError, VideoError
from ingest.executors import Outcome, run_jobs
from ingest.plan import Job, Plan
from ingest.stores import frames_db
from ingest.video import Scaler, Video, displayed_size, file_digest, quarter_turns, timed_frames

STORE = "frames-db"
_FLUSH_EVERY_S = 0.25


@dataclass(frozen=True)
class ConvertOptions:
    """How frames are stored. `short_sides` in pixels, the first level being the largest; JPEG `quality` 1 to 100."""

    short_sides: tuple[int, ...] = (256,)
    quality: int = 90

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 8:
            raise ClipmillError(
                f"--short-side is {list(self.short_sides)}; each must be at least 8 px.",
                "Nothing was converted.",
                "Give for example --short-side 256 128.",
            )
        if not 1 <= self.quality <= 100:
            raise ClipmillError(
                f"--quality is {self.quality}; JPEG has 1 to 100.", "Nothing was converted.", "Give for example 90."
            )

    def settings_of(self, job: Job) -> str:
        """All that decides what is written for a job, as one line."""
        return self.settings if job.span_s is None else "{} span={:g}-{:g}".format(self.settings, *job.span_s)

    @property
    def settings(self) -> str:
        """All that decides how frames are stored, as one line: another line means the stored ones are not these."""
        sides = ",".join(str(side) for side in sorted(set(self.short_sides), reverse=True))
        return f"{STORE} v{frames_db.SCHEMA_VERSION} short_side={sides} jpeg q={self.quality} 4:2:0"


def convert_video(root: Path, options: ConvertOptions, job: Job) -> VideoRecord:
    """Write frames.db of one video and say how it went. A fault of the video is in the record, not raised.

    A database that is already there, of the same source and settings, is taken as it is (its run was killed before the
    catalog heard of it).

    Raises: ClipmillError when the target cannot be written or is full.
    """
    record = VideoRecord(job.key, "failed", job.source_text, settings=options.settings_of(job))
    path = layout.frames_db_path(root, job.key.class_name, job.key.video_id)
    try:
        _convert(path, options, job, record)
        record.state = "ok"
    except VideoError as error:
        record.reason, record.message, record.frame = error.reason, error.message, error.frame
    except FileNotFoundError as error:
        if job.source.exists():
            raise
        record.reason, record.message = "source gone", f"the file was removed during the run: {error.filename}"
    except (OSError, sqlite3.OperationalError) as error:
        if not _concerns_target(error):
            raise
        raise _target_error(path.parent, root, error) from error
    if record.state == "failed":
        _remove_empty(path.parent, root)
    return record


def _convert(path: Path, options: ConvertOptions, job: Job, record: VideoRecord) -> None:
    try:
        stat = job.source.stat()
        record.source_bytes, record.source_mtime_ns = stat.st_size, stat.st_mtime_ns
        digest = file_digest(job.source)
    except FileNotFoundError:
        raise
    except OSError as error:  # not to be taken for a fault of the target
        raise VideoError("unreadable", f"the file cannot be read: {error.strerror}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    if path.exists():
        meta = _meta_of(path)
        if (meta.get("settings"), meta.get("source_sha256")) == (record.settings, digest):
            _fill(record, path, meta)
            return
    with Video(job.source) as video:
        meta = {
            "settings": record.settings,
            "codec": "jpeg",
            "quality": options.quality,
            "chroma": "4:2:0",
            "source_name": job.source_text.rpartition("/")[2],
            "source_bytes": stat.st_size,
            "source_sha256": digest,
            "source_codec": video.info.codec,
            "source_stream": video.info.stream,
            "sample_aspect": video.info.sample_aspect,
            "fps": video.info.fps,
            "clipmill_version": version("clipmill"),
            "ffmpeg_version": av.ffmpeg_version_info,
            "simplejpeg_version": simplejpeg.__version__,
        }
        if job.span_s is not None:
            meta |= {"span_start_s": job.span_s[0], "span_end_s": job.span_s[1]}
        _write_frames(path, options, video, meta, job.span_s)
    _fill(record, path, _meta_of(path))


def _write_frames(
    path: Path, options: ConvertOptions, video: Video, meta: dict[str, object], span_s: tuple[float, float] | None
) -> None:
    """Decode once; scale, encode and store every level of every frame."""
    frames = timed_frames(video, span_s)
    first_us, first = next(frames)
    width, height = displayed_size(first)
    levels = frames_db.plan_levels(width, height, options.short_sides)
    scaler = Scaler([(level.width, level.height) for level in levels])
    with frames_db.FramesDbWriter(path, levels) as writer:
        times_us = [first_us]
        writer.add(first_us, _encode(scaler, first, options.quality))
        for now_us, frame in frames:
            times_us.append(now_us)
            writer.add(now_us, _encode(scaler, frame, options.quality))
        meta |= {
            "width": width,
            "height": height,
            "rotation": 90 * quarter_turns(first),
            "duration_s": _duration_s(times_us, video.info.fps),
            "frame_bytes": json.dumps(writer.num_bytes),
        }
        writer.commit(meta)


def _encode(scaler: Scaler, frame: av.VideoFrame, quality: int) -> list[bytes]:
    return [simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality) for y, u, v in scaler(frame)]


def _duration_s(times_us: Sequence[int], fps: float) -> float:
    """From the first frame's appearance to the last one's end, which is taken to stay as long as the one before it."""
    if len(times_us) > 1:
        last_us = times_us[-1] - times_us[-2]
    else:
        last_us = round(1e6 / fps) if fps > 0 else 0
    return (times_us[-1] - times_us[0] + last_us) / 1e6


def _meta_of(path: Path) -> dict[str, object]:
    """Meta of a database, empty if it is not a whole one."""
    try:
        db = frames_db.connect(path)
    except sqlite3.OperationalError:
        return {}
    try:
        return frames_db.read_meta(db)
    except VideoError:
        return {}
    finally:
        db.close()


def _fill(record: VideoRecord, path: Path, meta: dict) -> None:
    record.num_frames, record.fps, record.duration_s = meta["num_frames"], meta["fps"], meta["duration_s"]
    record.width, record.height = meta["width"], meta["height"]
    file_bytes = path.stat().st_size
    record.outputs = [
        Output(STORE, level.short_side, level.width, level.height, meta["num_frames"], num_bytes, file_bytes)
        for level, num_bytes in zip(meta["levels"], json.loads(meta["frame_bytes"]), strict=True)
    ]


def _concerns_target(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return True
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR)


def _clear_away(job: Job, root: Path) -> None:
    """Remove what a worker that was killed at this job has left: its temporary file, and folders with nothing in them."""
    folder = layout.video_dir(root, job.key.class_name, job.key.video_id)
    with contextlib.suppress(OSError):  # The target may be what has failed; the next run clears away too.
        remove_leftovers(folder)
        _remove_empty(folder, root)


def _target_error(path: Path, root: Path, error: Exception) -> ClipmillError:
    return ClipmillError(
        f"{path} cannot be written: {error}.",
        "The run stopped; what is finished is kept, nothing is half-written.",
        f"Make room or mend the rights on {root}, then run the same command again.",
    )


@contextlib.contextmanager
def _catalog_errors_told(root: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _target_error(layout.catalog_path(root), root, error) from error


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove the folders of a failed video that nothing was put into."""
    for path in (folder, folder.parent):
        try:
            if path != root:
                path.rmdir()
        except OSError:
            return


# The run


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
                        _clear_away(outcome.job, root)
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
                _clear_away(job, root)
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


def _is_finished(job: Job, known: tuple[str, int, int, str, int] | None, root: Path, options: ConvertOptions) -> bool:
    """True if the catalog and the two files agree that nothing is to be done. Two stats, no file opened."""
    if known is None:
        return False
    _, source_bytes, source_mtime_ns, settings, file_bytes = known
    if settings != options.settings_of(job):
        return False
    try:
        stat = job.source.stat()
        same = (stat.st_size, stat.st_mtime_ns) == (source_bytes, source_mtime_ns)
        stored = layout.frames_db_path(root, job.key.class_name, job.key.video_id)
        return same and stored.stat().st_size == file_bytes
    except OSError:
        return False


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
