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
from typing import Any

from ingest import layout
from ingest.atomic import temporary_path, write_text
from ingest.catalog import Catalog, VideoKey, VideoRecord
from ingest.convert import Progress
from ingest.convert_video import ConvertOptions, convert_video
from ingest.errors import ClipmillError, VideoError
from ingest.executors import run_jobs
from ingest.legacy import ImportOptions, LegacyVideo, fill_record, import_video
from ingest.plan import Job
from ingest.stores import frames_db, frames_npy
from ingest.verify import SETTINGS_SEPARATOR, Finding, Stored, stored_videos, verify_video

_SPAN = r"(?: span=(?P<start>[0-9.e+]+)-(?P<end>[0-9.e+]+))?"
_DATABASE = re.compile(
    r"frames-db v\d+ short_side=(?P<sides>\d+(?:,\d+)*) jpeg q=(?P<quality>\d+) 4:2:0(?: fps=(?P<fps>[0-9.e+-]+))?"
    + _SPAN
)
_ARRAY = re.compile(r"npy v\d+ short_side=(?P<side>\d+) rgb fps=(?P<fps>[0-9.e+-]+)" + _SPAN)
_ESCAPED_BYTE = re.compile(rb"\\x([0-9a-f]{2})")

REMADE, COUNTED, CORRECTED = "made again", "n_frames written", "catalog corrected"
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
    """One video to make again.

    `replaced`: frames.db must not be taken for a finished one. `deep`: decode what comes out, as that is how it was found.
    """

    job: Job
    options: ConvertOptions | ImportOptions
    replaced: bool
    deep: bool


def parse_settings(settings: str, key: VideoKey, source: Path) -> tuple[ConvertOptions | ImportOptions, Job] | None:
    """The options and the job that gave a settings line; None when this version writes something else for it."""
    job = Job(key, source)
    if imported := ImportOptions.parse(settings):
        return imported, job
    given: dict[str, Any] = {"stores": ()}
    for line in settings.split(SETTINGS_SEPARATOR):
        if match := _DATABASE.fullmatch(line):
            given["short_sides"] = tuple(int(side) for side in match["sides"].split(","))
            given["quality"], given["fps"] = int(match["quality"]), float(match["fps"]) if match["fps"] else None
            given["stores"] += (frames_db.STORE,)
        elif match := _ARRAY.fullmatch(line):
            given.setdefault("short_sides", (int(match["side"]),))
            given["npy_fps"] = float(match["fps"])
            given["stores"] += (frames_npy.STORE,)
        else:
            return None
        if match["start"]:
            job = replace(job, span_s=(float(match["start"]), float(match["end"])))
    options = ConvertOptions(**given)
    return (options, job) if options.settings_of(job) == settings else None


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
            _give_up(catalog, stored, path, error.reason, error.message, report)


def _agree(catalog: Catalog, root: Path, stored: Stored, path: Path) -> bool:
    """Where the database is whole, n_frames and the catalog shall say what it says. False if it is not."""
    try:
        with contextlib.closing(frames_db.connect(path)) as db:
            meta = frames_db.read_meta(db)
    except (sqlite3.OperationalError, VideoError):
        return False
    write_text(path.with_name("n_frames"), str(meta["num_frames"]))
    others = [line for line in stored.settings.split(SETTINGS_SEPARATOR) if line.startswith(frames_npy.STORE)]
    record = VideoRecord(stored.key, "ok", stored.source, stored.source_bytes, stored.source_mtime_ns)
    record.settings = SETTINGS_SEPARATOR.join([str(meta.get("settings", "")), *others])
    fill_record(record, path, meta)
    record.outputs += (output for output in stored.outputs if output.store != frames_db.STORE)
    if verify_video(root, False, _stored(record)):
        return False
    with catalog.transaction():
        catalog.record(record)
    return True


def _task(stored: Stored, path: Path, what: set[str]) -> _Task:
    """Raises: VideoError when the video cannot be made again."""
    parsed = parse_settings(stored.settings, stored.key, _path_of(stored.source))
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
    return _Task(job, options, replaced=not what <= {"array"}, deep="undecodable" in what)


def _path_of(text: str) -> Path:
    """The source as a path. Bytes that are no UTF-8 stand escaped in the catalog."""
    path = Path(text)
    if not path.exists() and "\\x" in text:
        raw = _ESCAPED_BYTE.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
        path = Path(os.fsdecode(raw))
    return path


def _make_again(root: Path, task: _Task) -> VideoRecord:
    """In a worker: put the broken database aside and write a new one; if that is not whole either, put it back."""
    path = layout.frames_db_path(root, *_names(task.job.key))
    aside = temporary_path(path.with_name("frames.db.broken"))  # Cleared away by the next run if this one is killed.
    if task.replaced and path.exists():
        path.rename(aside)
    whole = False
    try:
        if isinstance(task.options, ImportOptions):
            record = import_video(root, task.options, LegacyVideo(task.job.key, task.job.source))
        else:
            record = convert_video(root, task.options, task.job)
        if record.state == "ok" and (found := verify_video(root, task.deep, _stored(record))):
            record.state, record.reason, record.message = "failed", "still broken", found[0].message
        whole = record.state == "ok"
        return record
    finally:
        if whole:
            aside.unlink(missing_ok=True)
        elif aside.exists():
            aside.replace(path)


def _stored(record: VideoRecord) -> Stored:
    return Stored(
        record.key, record.source, record.source_bytes, record.source_mtime_ns, record.settings, record.num_frames,
        record.fps, record.duration_s, tuple(record.outputs),
    )  # fmt: skip


def _settle(
    catalog: Catalog, root: Path, task: _Task, stored: Stored, record: VideoRecord, report: RepairReport
) -> None:
    if record.state != "ok":
        path = layout.frames_db_path(root, *_names(task.job.key))
        _give_up(catalog, stored, path, record.reason, record.message, report, record.frame)
        return
    record.source = stored.source
    with catalog.transaction():
        catalog.record(record)
    changed = record.source_bytes != stored.source_bytes
    note = "the source is another file than it was" if changed else ""
    report.mended.append(Mended(*_names(task.job.key), REMADE, note))


def _give_up(
    catalog: Catalog,
    stored: Stored,
    path: Path,
    reason: str,
    message: str,
    report: RepairReport,
    frame: int | None = None,
) -> None:
    """A line of the ledger. A video whose database is gone as well is no longer counted as finished."""
    key = stored.key
    gone = not path.exists()
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
    if gone:
        path.with_name("n_frames").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
    report.not_mended.append(NotMended(*_names(key), reason, message, gone))
