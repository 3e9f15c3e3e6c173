"""Makes again what verify found broken, from the sources and with the settings of the catalog, and nothing else.

A database that cannot be made again (its source is gone, or does not convert any more) is left where it is: most of its
frames may still be good, and it is for its owner to throw it away.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from ingest import layout
from ingest.atomic import remove, temporary_path, write_text
from ingest.catalog import Catalog, VideoKey, VideoRecord
from ingest.convert import Progress
from ingest.convert_video import convert_video, fill_record
from ingest.errors import ClipmillError, VideoError
from ingest.executors import run_jobs
from ingest.legacy import ImportOptions, LegacyVideo, import_video
from ingest.options import SETTINGS_SEPARATOR, ConvertOptions, parse_settings
from ingest.plan import Job
from ingest.sinks import Target, store_path
from ingest.stores import frames_db, frames_npy, raw_frames
from ingest.verify import Finding, Stored, stored_videos, verify_video

_ESCAPED_BYTE = re.compile(rb"\\x([0-9a-f]{2})")

REMADE, COUNTED, CORRECTED = "made again", "n_frames written", "catalog corrected"
_KINDS = {
    frames_db.STORE: {"no database", "damaged", "n_frames", "catalog", "undecodable"},
    frames_npy.STORE: {"array"},
    raw_frames.STORE: {"raw frames"},
}
"""Which store a finding speaks of."""
_NOT_LOOKED_AT = {"crashed", "timeout", "unreadable"}


@dataclass(frozen=True)
class Mended:
    """One video that is whole again, and what was done; `note` says what the user should know (a changed source)."""

    class_name: str
    video_id: str
    action: str
    note: str = ""


@dataclass(frozen=True)
class NotMended:
    """One video that could not be mended. `forgotten`: its database is gone, so the catalog no longer counts it."""

    class_name: str
    video_id: str
    reason: str
    message: str
    forgotten: bool = False


@dataclass(frozen=True)
class RepairReport:
    """What became of every video with a finding. Those without were not touched."""

    seconds: float
    mended: list[Mended] = field(default_factory=list)
    not_mended: list[NotMended] = field(default_factory=list)
    extra: int = 0

    @property
    def actions(self) -> dict[str, int]:
        return dict(Counter(video.action for video in self.mended).most_common())

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(video.reason for video in self.not_mended).most_common())

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"actions": self.actions, "reasons": self.reasons}, indent=2)


@dataclass(frozen=True)
class _Task:
    """Stores of one video to make again; its other stores stay. `deep`: decode what comes out, as it was found that way."""

    job: Job
    options: ConvertOptions | ImportOptions
    stored: Stored
    stores: tuple[str, ...]
    deep: bool


def _parse(settings: str, job: Job) -> tuple[ConvertOptions | ImportOptions, Job] | None:
    """The options and the job that gave a settings line; None when this version writes something else for it."""
    if imported := ImportOptions.parse(settings):
        return imported, job
    return parse_settings(settings, job)


def repair(
    root: Path,
    findings: Sequence[Finding],
    *,
    num_workers: int,
    timeout_s: float | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RepairReport:
    """Mend the videos that the findings of `verify` name; all others keep their files, to the very inode.

    Raises: ClipmillError when the root or its catalog cannot be written.
    """
    kinds: dict[VideoKey, set[str]] = {}
    for finding in findings:
        if finding.kind != "extra":
            kinds.setdefault(finding.key, set()).add(finding.kind)
    with Catalog.open(root) as catalog:  # Not made where there is none.
        known = {video.key: video for video in stored_videos(catalog)}
    progress = Progress(len(kinds), started_s=time.monotonic())
    report = RepairReport(0.0, extra=sum(finding.kind == "extra" for finding in findings))
    try:
        with Catalog.create(root) as catalog:
            tasks = list(_plan(catalog, root, kinds, known, report))
            progress.done, progress.failed = len(report.mended), len(report.not_mended)
            on_progress(progress)
            outcomes = run_jobs(partial(_make_again, root), tasks, num_workers=num_workers, timeout_s=timeout_s)
            with contextlib.closing(outcomes):  # type: ignore[type-var]
                for outcome in outcomes:
                    if outcome is not None:
                        job = outcome.job.job
                        record = outcome.result or VideoRecord(
                            job.key, "failed", job.source_text, reason=outcome.reason, message=outcome.message
                        )
                        _settle(catalog, root, outcome.job, known[job.key], record, report)
                        progress.done, progress.failed = len(report.mended), len(report.not_mended)
                        progress.frames += record.num_frames
                    on_progress(progress)
    except sqlite3.OperationalError as error:
        raise ClipmillError(
            f"{layout.catalog_path(root)} cannot be written: {error}.",
            "The repair stopped; what is mended is kept.",
            f"Make room or mend the rights on {root}, then run the same command again.",
        ) from error
    mended, not_mended = sorted(report.mended, key=_name), sorted(report.not_mended, key=_name)
    return RepairReport(progress.elapsed_s, mended, not_mended, report.extra)


def _names(key: VideoKey) -> tuple[str, str]:
    return key.class_name, key.video_id


def _name(video: Mended | NotMended) -> tuple[str, str]:
    return video.class_name, video.video_id


def _plan(
    catalog: Catalog,
    root: Path,
    kinds: dict[VideoKey, set[str]],
    known: dict[VideoKey, Stored],
    report: RepairReport,
) -> Iterator[_Task]:
    """Do at once what needs no source; say what cannot be done; give the rest."""
    for key, what in kinds.items():
        stored = known.get(key)
        if stored is None:
            report.not_mended.append(
                NotMended(*_names(key), "not in the catalog", "the catalog has no such finished video")
            )
            continue
        path = layout.frames_db_path(root, *_names(key))
        if what <= {"n_frames", "catalog"} and _agree(catalog, root, stored, path):
            report.mended.append(Mended(*_names(key), CORRECTED if "catalog" in what else COUNTED))
            continue
        try:
            if what & _NOT_LOOKED_AT:
                raise VideoError("not looked at", f"verify could not tell what is wrong ({', '.join(sorted(what))})")
            yield _task(stored, path, what)
        except VideoError as error:
            _give_up(catalog, root, stored, error.reason, error.message, report)


def _agree(catalog: Catalog, root: Path, stored: Stored, path: Path) -> bool:
    """Where the database is whole, n_frames and the catalog shall say what it says. False if it is not."""
    try:
        with contextlib.closing(frames_db.connect(path)) as db:
            meta = frames_db.read_meta(db)
    except (sqlite3.OperationalError, VideoError):
        return False
    write_text(path.with_name("n_frames"), str(meta["num_frames"]))
    lines = stored.settings.split(SETTINGS_SEPARATOR)
    others = [line for line in lines if not line.startswith(frames_db.STORE)]
    record = VideoRecord(stored.key, "ok", stored.source, stored.source_bytes, stored.source_mtime_ns)
    record.settings = SETTINGS_SEPARATOR.join([str(meta.get("settings", "")), *others])
    fill_record(record, frames_db.STORE, path, meta)
    record.outputs += (output for output in stored.outputs if output.store != frames_db.STORE)
    if verify_video(root, False, _stored(record)):
        return False
    with catalog.transaction():
        catalog.record(record)
    return True


def _task(stored: Stored, path: Path, what: set[str]) -> _Task:
    """Raises: VideoError when the video cannot be made again."""
    parsed = _parse(stored.settings, Job(stored.key, _path_of(stored.source)))
    if parsed is None:
        raise VideoError(
            "unknown settings",
            f"this Clipmill does not write {stored.settings!r}; convert again with the settings you want",
        )
    options, job = parsed
    if isinstance(options, ImportOptions) and job.source.resolve() == path.parent.resolve():
        raise VideoError("source gone", "it was upgraded in place, so it is its own source: take it from a backup")
    if not job.source.exists():
        hint = "" if job.source.is_absolute() else ": a relative path, so run repair from the folder it starts in"
        raise VideoError("source gone", f"there is no {stored.source}{hint}")
    stores = tuple(store for store in _KINDS if what & _KINDS[store])
    if isinstance(options, ConvertOptions):
        stores = tuple(store for store in options.stores if store in stores) or options.stores
        options = replace(options, stores=stores)
    return _Task(job, options, stored, stores, deep=bool(what & {"undecodable", "raw frames"}))


def _path_of(text: str) -> Path:
    """The source as a path. Bytes that are no UTF-8 stand escaped in the catalog."""
    path = Path(text)
    if not path.exists() and "\\x" in text:
        raw = _ESCAPED_BYTE.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
        path = Path(os.fsdecode(raw))
    return path


def _make_again(root: Path, task: _Task) -> VideoRecord:
    """In a worker: put what is broken aside and write it anew; if that is not whole either, put the old back."""
    broken = [_place(root, task.job.key, store) for store in task.stores]
    asides = {}
    for path in broken:
        if path.exists():  # Where this run is killed, the next one clears the temporary name away.
            asides[path] = path.rename(temporary_path(path.with_name(f"{path.name}.broken")))
    whole = False
    try:
        if isinstance(task.options, ImportOptions):
            record = import_video(root, task.options, LegacyVideo(task.job.key, task.job.source))
        else:
            record = convert_video(Target(root), task.options, task.job)
            _add_the_others(record, task)
        if record.state == "ok" and (found := verify_video(root, task.deep, _stored(record))):
            record.state, record.reason, record.message = "failed", "still broken", found[0].message
        whole = record.state == "ok"
        return record
    finally:
        for path, aside in asides.items():
            if not whole:
                remove(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                aside.rename(path)
            remove(aside)


def _place(root: Path, key: VideoKey, store: str) -> Path:
    """The file or the folder that a store consists of."""
    path = store_path(root, key, store)
    return path.parent if store == raw_frames.STORE else path


def _add_the_others(record: VideoRecord, task: _Task) -> None:
    """What was not made again is as it was."""
    stored, others = task.stored, [o for o in task.stored.outputs if o.store not in task.stores]
    if record.state == "ok" and others:
        record.settings = stored.settings
        record.outputs += others
        if frames_db.STORE not in task.stores:
            record.num_frames = stored.num_frames


def _stored(record: VideoRecord) -> Stored:
    return Stored(
        record.key, record.source, record.source_bytes, record.source_mtime_ns, record.settings, record.num_frames,
        record.fps, record.duration_s, tuple(record.outputs),
    )  # fmt: skip


def _settle(
    catalog: Catalog, root: Path, task: _Task, stored: Stored, record: VideoRecord, report: RepairReport
) -> None:
    if record.state != "ok":
        _give_up(catalog, root, stored, record.reason, record.message, report, record.frame)
        return
    record.source = stored.source
    with catalog.transaction():
        catalog.record(record)
    changed = record.source_bytes != stored.source_bytes
    note = "the source is another file than it was" if changed else ""
    report.mended.append(Mended(*_names(task.job.key), REMADE, note))


def _give_up(
    catalog: Catalog,
    root: Path,
    stored: Stored,
    reason: str,
    message: str,
    report: RepairReport,
    frame: int | None = None,
) -> None:
    """A line of the ledger. A video that a store has lost altogether is no longer counted as finished."""
    key = stored.key
    gone = not all(_place(root, key, output.store).exists() for output in stored.outputs)
    with catalog.transaction():
        if gone:
            record = VideoRecord(key, "failed", stored.source, stored.source_bytes, settings=stored.settings)
            record.reason, record.message, record.frame = "no database", f"{reason}: {message}", frame
            catalog.record(record)
        else:
            catalog.db.execute(
                "INSERT INTO failures(at, class_name, video_id, source, reason, message, frame) VALUES(?,?,?,?,?,?,?)",
                (time.time(), key.class_name, key.video_id, stored.source, reason, f"repair: {message}", frame),
            )
    path = layout.frames_db_path(root, *_names(key))
    if not path.exists():
        path.with_name("n_frames").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
    report.not_mended.append(NotMended(*_names(key), reason, message, gone))
