"""Frames that somebody else extracted, taken in as they are: historical frame databases and folders of jpg files.

dataset2database 1.0 to 1.2 wrote `Images(ObjId STRING, frames BLOB, size INT)` without key, index or order, an
`ObjId` of `<folder>/frame_%05d` counted from 1, and no times. Each such database, and each folder of numbered jpg
files, becomes one frames.db of ours with one level. Nothing is encoded again: the JPEG bytes are kept, byte for byte,
in the order of the numbers. Times are not known and are assumed from a frame rate; Meta says so in `source_kind`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import simplejpeg

from ingest import layout
from ingest.atomic import remove_leftovers
from ingest.catalog import Catalog, VideoKey, VideoRecord
from ingest.convert import Progress
from ingest.convert_video import fill_record, target_error
from ingest.errors import ClipmillError, VideoError
from ingest.executors import run_jobs
from ingest.layout import printable
from ingest.stores import frames_db
from ingest.stores.historical import (
    is_empty,
    is_jpg,
    numbered_files,
    numbered_rows,
    open_database,
    read_files,
    read_rows,
)
from ingest.verify import Stored, stored_videos

_SETTINGS = re.compile(r"frames-db v\d+ import jpeg fps=(?P<fps>[0-9.e+-]+) q=(?P<quality>\d+|unknown)")
_FLUSH_EVERY_S = 0.25
_TARGET_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR)


@dataclass(frozen=True)
class ImportOptions:
    """`fps`: the assumed frame rate. `quality`: the JPEG quality the frames were made with, noted in Meta; 0: unknown."""

    fps: float = 30.0
    quality: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise ClipmillError(
                f"--fps is {self.fps:g}; it must be above 0, at most 1000.", "Nothing was imported.", "Give for example 30."
            )  # fmt: skip
        if not 0 <= self.quality <= 100:
            raise ClipmillError(
                f"--quality is {self.quality}; JPEG has 1 to 100.",
                "Nothing was imported.",
                "Leave it out if it is not known: the frames are kept as they are.",
            )

    @property
    def settings(self) -> str:
        """All that decides what is written, as one line."""
        return f"{frames_db.STORE} v{frames_db.SCHEMA_VERSION} import jpeg fps={float(self.fps)!r} q={self.quality or 'unknown'}"

    @classmethod
    def parse(cls, settings: str) -> ImportOptions | None:
        """The options that gave this line, None if it is not one of an import."""
        match = _SETTINGS.fullmatch(settings)
        if match is None:
            return None
        return cls(float(match["fps"]), 0 if match["quality"] == "unknown" else int(match["quality"]))


@dataclass(frozen=True)
class LegacyVideo:
    """One folder that holds the frames of one video, as frames.db or as jpg files."""

    key: VideoKey
    folder: Path

    @property
    def source_text(self) -> str:
        return printable(str(self.folder))


@dataclass(frozen=True)
class ImportReport:
    """How an import ended. `failures` as (class, video, reason, message)."""

    progress: Progress
    seconds: float
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(reason for _, _, reason, _ in self.failures).most_common())


# Finding


def find_legacy(source: Path, root: Path) -> list[LegacyVideo]:
    """Folders below `source` with a frames.db or jpg files, in sorted order. The class is the folder above each.

    With `source` the root itself, only its `jpg/` is looked through. A folder `_` or `jpg`, or `source` itself, is no class.

    Raises: ClipmillError when there is none, two claim one name, or `source` is a part of the root.
    """
    if not source.is_dir():
        raise ClipmillError(
            f"the source {source} is not a folder.", "Nothing was imported.", "Give the folder of the frames."
        )
    top, home = source.resolve(), root.resolve()
    if top == home:
        top = home / "jpg"
    elif home in top.parents and top != home / "jpg":
        raise ClipmillError(
            f"{source} is a part of the root {root}.", "Nothing was imported.", f"Upgrade all of it: import {root} {root}"
        )  # fmt: skip
    found: dict[VideoKey, LegacyVideo] = {}
    for path, folders, files in os.walk(top, followlinks=True):
        folder = Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and folder / name != home)
        if not any(name == "frames.db" or is_jpg(name) for name in files):
            continue
        above = folder.parent.name if folder != top and folder.parent != top else ""
        video = LegacyVideo(_key(above, folder.name, in_place=home / "jpg" in folder.parents), folder)
        layout.video_dir(root, video.key.class_name, video.key.video_id)  # Refuses a name that no folder can have.
        if (other := found.setdefault(video.key, video)) is not video:
            raise ClipmillError(
                f"two folders are the video {video.key.class_name or layout.UNCLASSED}/{video.key.video_id}:"
                f" {other.source_text} and {video.source_text}.",
                "Nothing was imported: one would overwrite the other.",
                "Remove or rename one of them.",
            )
    if not found:
        raise ClipmillError(
            f"{source} holds no frames.db and no jpg file.",
            "Nothing was imported.",
            "Frames are looked for in folders like <class>/<video>/. Videos are converted: clipmill ingest convert.",
        )
    return list(found.values())


def _key(class_folder: str, video_folder: str, *, in_place: bool) -> VideoKey:
    name = _decoded if in_place else printable
    return VideoKey("" if class_folder in (layout.UNCLASSED, "jpg") else name(class_folder), name(video_folder))


def _decoded(component: str) -> str:
    """The name that a folder of ours stands for; a historical folder stands for itself."""
    name = unquote(component)
    return name if printable(name) == name and layout.encode_component(name) == component else printable(component)


# One video


def import_video(root: Path, options: ImportOptions, video: LegacyVideo) -> VideoRecord:
    """Write frames.db of one video and say how it went. A fault of the source is in the record, not raised.

    What is there already, of the same frames and options, is taken as it is. In place, so is any database of ours. A
    historical database is replaced only by a whole one, by renaming.

    Raises: ClipmillError when the target cannot be written or is full.
    """
    record = VideoRecord(video.key, "failed", video.source_text, settings=options.settings)
    path = layout.frames_db_path(root, video.key.class_name, video.key.video_id)
    try:
        _import(path, root, options, video, record)
        record.state = "ok"
    except VideoError as error:
        record.reason, record.message, record.frame = error.reason, error.message, error.frame
    except FileNotFoundError as error:
        if video.folder.exists() and error.filename is None:
            raise
        record.reason, record.message = "source gone", f"a file was removed meanwhile: {error.filename}"
    except (OSError, sqlite3.OperationalError) as error:
        if isinstance(error, OSError) and error.errno not in _TARGET_FAULTS:
            raise
        raise target_error(path.parent, root, error) from error
    finally:
        if record.state == "failed":
            _remove_empty(path.parent, root)
    return record


def _import(path: Path, root: Path, options: ImportOptions, video: LegacyVideo, record: VideoRecord) -> None:
    in_place = _is_in_place(root, video)
    if not in_place and root.resolve() / "jpg" in video.folder.parents:
        raise VideoError(
            "name", f"the folder of this video must be called {path.parent.name!r}: rename it, and import again"
        )
    try:
        record.source_bytes, record.source_mtime_ns = source_stamp(video.folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise VideoError("unreadable", f"the folder cannot be read: {error.strerror}") from None
    ours = _own_meta(video.folder / "frames.db")
    if ours and in_place:
        record.settings = str(ours.get("settings", ""))
        fill_record(record, frames_db.STORE, path, ours)
        return
    if ours:
        raise VideoError("not historical", "it is a database of Clipmill's own already: copy the dataset root instead")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with _frames(video.folder) as (kind, count, blobs):
        known = _own_meta(path)
        if known.get("settings") == options.settings and known.get("source_sha256") == _digest(blobs()):
            fill_record(record, frames_db.STORE, path, known)
            return
        _write(path, kind, count, blobs(), options, video, record)
    fill_record(record, frames_db.STORE, path, _own_meta(path))


def _write(
    path: Path,
    kind: str,
    count: int,
    blobs: Iterator[bytes],
    options: ImportOptions,
    video: LegacyVideo,
    record: VideoRecord,
) -> None:
    """Copy the frames. The first is decoded, of every other the header is read: all must be of one size."""
    first = next(blobs)
    width, height, chroma = _decoded_size(first)
    (level,) = frames_db.plan_levels(width, height, (min(width, height),))
    digest = hashlib.sha256(first)
    with frames_db.FramesDbWriter(path, [level]) as writer:
        writer.add(0, [first])
        for frame, blob in enumerate(blobs, start=1):
            size = _header_size(blob, frame)
            if size != (width, height):
                raise VideoError("sizes differ", f"{size[0]}x{size[1]} px, the first frame has {width}x{height}", frame)
            digest.update(blob)
            writer.add(round(frame * 1e6 / options.fps), [blob])
        writer.commit(
            {
                "settings": options.settings,
                "codec": "jpeg",
                "quality": options.quality or "unknown",
                "chroma": chroma,
                "source_kind": f"{kind}; times are assumed, {options.fps:g} frames per second",
                "source_name": video.folder.name.encode("utf-8", "backslashreplace").decode(),
                "source_bytes": record.source_bytes,
                "source_sha256": digest.hexdigest(),
                "fps": float(options.fps),
                "width": width,
                "height": height,
                "rotation": 0,
                "duration_s": count / options.fps,
                "frame_bytes": json.dumps(writer.num_bytes),
                "clipmill_version": version("clipmill"),
                "simplejpeg_version": simplejpeg.__version__,
            }
        )


def _decoded_size(blob: bytes) -> tuple[int, int, str]:
    """Width, height and chroma subsampling (`4:2:0`, `gray`) of a frame that decodes."""
    _header_size(blob, 0)
    try:
        height, width, _, chroma = simplejpeg.decode_jpeg_header(blob)
        simplejpeg.decode_jpeg(blob, colorspace="GRAY")
    except ValueError as error:
        raise VideoError("undecodable", f"the first frame: {error}", 0) from None
    return width, height, ":".join(chroma) if chroma.isdigit() else chroma.lower()


def _header_size(blob: object, frame: int) -> tuple[int, int]:
    if not isinstance(blob, bytes):
        raise VideoError("undecodable", f"a value of type {type(blob).__name__} where JPEG bytes should be", frame)
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(blob)
    except ValueError as error:
        raise VideoError("undecodable", f"no JPEG: {error}", frame) from None
    return width, height


def _digest(blobs: Iterator[bytes]) -> str:
    """SHA-256 of all frames in their order: the same for a database and a folder with the same frames."""
    digest = hashlib.sha256()
    for blob in blobs:
        if isinstance(blob, bytes):
            digest.update(blob)
    return digest.hexdigest()


def _is_in_place(root: Path, video: LegacyVideo) -> bool:
    return layout.video_dir(root, video.key.class_name, video.key.video_id).resolve() == video.folder.resolve()


def source_stamp(folder: Path) -> tuple[int, int]:
    """Bytes and newest change (ns) of the files that hold the frames."""
    stats = [
        os.stat(entry)  # noqa: PTH116 - one per frame of long videos
        for entry in os.scandir(folder)
        if entry.name == "frames.db" or is_jpg(entry.name)
    ]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


# Reading


@contextlib.contextmanager
def _frames(folder: Path) -> Iterator[tuple[str, int, Callable[[], Iterator[bytes]]]]:
    """What the frames are, how many, and a function that reads them in order, as often as it is called.

    A converter that died has left an empty database and all its jpg files: then these are taken.

    Raises: VideoError when there is no complete series of frames.
    """
    names = sorted(entry.name for entry in os.scandir(folder) if is_jpg(entry.name))
    path = folder / "frames.db"
    if path.exists() and not (names and is_empty(path)):
        with open_database(path) as db:
            rows = numbered_rows(db)
            _check_n_frames(folder, len(rows))
            yield "historical frames.db", len(rows), partial(read_rows, db, rows)
    else:
        files = numbered_files(names)
        yield "folder of jpg files", len(files), partial(read_files, folder, files)


def _check_n_frames(folder: Path, count: int) -> None:
    """The count beside a historical database may be absent; if it is there, it was taken from the whole database."""
    beside = folder / "n_frames"
    if not beside.exists():
        return
    text = beside.read_text(errors="replace").strip()
    if text != str(count):
        raise VideoError(
            "n_frames",
            f"n_frames says {text[:20]!r}, the database has {count} frames; if the database is right, remove n_frames",
        )


# What is ours


def _own_meta(path: Path) -> dict:
    """Meta of a finished database of ours; empty for anything else."""
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


def _remove_empty(folder: Path, root: Path) -> None:
    for path in (folder, folder.parent):
        try:
            if path != root:
                path.rmdir()
        except OSError:
            return


# The run


def import_legacy(
    source: Path,
    root: Path,
    options: ImportOptions,
    *,
    num_workers: int,
    timeout_s: float | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ImportReport:
    """Bring every historical video below `source` into `root` (which may be `source` itself) and into its catalog.

    Videos that are there already are skipped, so a second run does nothing. Jpg files are read and never removed.

    Raises: ClipmillError when nothing is found, or the target cannot be written or is too small.
    """
    videos = find_legacy(source, root)
    try:
        with Catalog.create(root) as catalog:
            return _run(catalog, root, options, videos, num_workers, timeout_s, on_progress)
    except sqlite3.OperationalError as error:
        raise target_error(layout.catalog_path(root), root, error) from error


def _run(
    catalog: Catalog,
    root: Path,
    options: ImportOptions,
    videos: list[LegacyVideo],
    num_workers: int,
    timeout_s: float | None,
    on_progress: Callable[[Progress], None],
) -> ImportReport:
    finished = {video.key: video for video in stored_videos(catalog)}
    todo = [video for video in videos if not _is_finished(video, finished.get(video.key), root, options)]
    _refuse_small_disk(root, todo, num_workers)
    progress = Progress(len(videos), skipped=len(videos) - len(todo), started_s=time.monotonic())
    failures: list[tuple[str, str, str, str]] = []
    waiting: list[VideoRecord] = []
    with catalog.transaction():
        catalog.add_classes(sorted({video.key.class_name for video in videos} - {""}))
        catalog.drop_missing({video.key.video_id for video in todo})
        catalog.add_pending((video.key, video.source_text) for video in todo)
        known = {(c, v) for c, v in catalog.db.execute(
            "SELECT class_name, video_id FROM videos JOIN labels ON labels.video = videos.id"
        )}  # fmt: skip
        keys = [video.key for video in todo if video.key.class_name]
        catalog.set_labels(
            (key, key.class_name, "", None, None) for key in keys if (key.class_name, key.video_id) not in known
        )
        run = catalog.start_run({"settings": options.settings, "workers": num_workers}, len(videos), os.getpid())

    def flush(state: str) -> None:
        with catalog.transaction():
            for record in waiting:
                catalog.record(record)
            p = progress
            catalog.update_run(run, done=p.done, failed=p.failed, skipped=p.skipped, frames=p.frames, state=state)
        waiting.clear()

    state, flushed_s = "failed", time.monotonic()
    outcomes = run_jobs(partial(import_video, root, options), todo, num_workers=num_workers, timeout_s=timeout_s)
    try:
        for outcome in outcomes:
            if outcome is not None:
                key = outcome.job.key
                record = outcome.result or VideoRecord(
                    key, "failed", outcome.job.source_text, settings=options.settings, reason=outcome.reason,
                    message=outcome.message,
                )  # fmt: skip
                waiting.append(record)
                if record.state == "ok":
                    progress.done += 1
                    progress.frames += record.num_frames
                else:
                    progress.failed += 1
                    failures.append((key.class_name, key.video_id, record.reason, record.message))
            if time.monotonic() - flushed_s > _FLUSH_EVERY_S:
                flush("running")
                flushed_s = time.monotonic()
            on_progress(progress)
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        outcomes.close()  # type: ignore[attr-defined]
        flush(state)
    return ImportReport(progress, progress.elapsed_s, sorted(failures))


def _is_finished(video: LegacyVideo, known: Stored | None, root: Path, options: ImportOptions) -> bool:
    """True if the catalog and the files agree that nothing is to be done. In place, a finished video stays as it is."""
    if known is None or not (outputs := known.of(frames_db.STORE)):
        return False
    path = layout.frames_db_path(root, video.key.class_name, video.key.video_id)
    try:
        if path.stat().st_size != outputs[0].file_bytes:
            return False
        if _is_in_place(root, video):
            return bool(_own_meta(path))
        stamp = (known.source_bytes, known.source_mtime_ns)
        return known.settings == options.settings and source_stamp(video.folder) == stamp
    except OSError:
        return False


def _refuse_small_disk(root: Path, todo: list[LegacyVideo], num_workers: int) -> None:
    """In place only the videos in hand need room twice; elsewhere all of them need it once."""
    sizes = [(source_stamp(video.folder)[0], _is_in_place(root, video)) for video in todo]
    elsewhere = sum(size for size, in_place in sizes if not in_place)
    in_hand = sum(sorted((size for size, in_place in sizes if in_place), reverse=True)[:num_workers])
    needed, free = elsewhere + in_hand, shutil.disk_usage(root).free
    if needed > free:
        raise ClipmillError(
            f"{root} has {free / 1e9:,.1f} GB left, the import needs {needed / 1e9:,.1f} GB.",
            "Nothing was imported.",
            "Make room, or choose another ROOT.",
        )
