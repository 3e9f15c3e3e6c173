"""Videos to frame stores, one video: one decode feeds every store that is asked for."""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import simplejpeg

from ingest import layout
from ingest.atomic import remove_leftovers
from ingest.catalog import Output, VideoKey, VideoRecord
from ingest.errors import ClipmillError, VideoError
from ingest.plan import Job
from ingest.rates import RateSampler
from ingest.stores import frames_db, frames_npy
from ingest.video import Scaler, Video, displayed_size, file_digest, quarter_turns, timed_frames, to_rgb

STORES = (frames_db.STORE, frames_npy.STORE)


@dataclass(frozen=True)
class ConvertOptions:
    """What is stored, and how.

    `frames-db`: JPEG of `quality` (1 to 100) on levels of `short_sides` px, every frame, or `fps` a second.
    `npy`: decoded RGB at the largest of the short sides, `npy_fps` a second.
    """

    short_sides: tuple[int, ...] = (256,)
    quality: int = 90
    stores: tuple[str, ...] = (frames_db.STORE,)
    fps: float | None = None
    npy_fps: float = 4.0

    def __post_init__(self) -> None:
        nothing = "Nothing was converted."
        if not self.short_sides or min(self.short_sides) < 8:
            what = f"--short-side is {list(self.short_sides)}; each must be at least 8 px."
            raise ClipmillError(what, nothing, "Give for example --short-side 256 128.")
        if not 1 <= self.quality <= 100:
            raise ClipmillError(f"--quality is {self.quality}; JPEG has 1 to 100.", nothing, "Give for example 90.")
        if not self.stores or set(self.stores) - set(STORES):
            what = f"--store is {' '.join(self.stores) or 'empty'}; there are: {', '.join(STORES)}."
            raise ClipmillError(what, nothing, f"Give one or more of them, for example --store {' '.join(STORES)}.")
        if min(self.npy_fps, self.fps or 1.0) <= 0:
            raise ClipmillError("a rate of frames per second must be above zero.", nothing, "Give for example --fps 4.")

    def store_settings(self, store: str, job: Job) -> str:
        """All that decides what one store holds of a job, as one line: another line means other content."""
        if store == frames_db.STORE:
            sides = ",".join(str(side) for side in sorted(set(self.short_sides), reverse=True))
            line = f"{store} v{frames_db.SCHEMA_VERSION} short_side={sides} jpeg q={self.quality} 4:2:0"
            line += f" fps={self.fps:g}" if self.fps else ""
        else:
            line = f"{store} v{frames_npy.VERSION} short_side={max(self.short_sides)} rgb fps={self.npy_fps:g}"
        return line if job.span_s is None else "{} span={!r}-{!r}".format(line, *job.span_s)

    def settings_of(self, job: Job) -> str:
        """The lines of all stores, as one."""
        return " | ".join(self.store_settings(store, job) for store in STORES if store in self.stores)

    @property
    def settings(self) -> str:
        """The settings of a whole video."""
        return self.settings_of(Job(VideoKey("", ""), Path()))


def store_path(root: Path, key: VideoKey, store: str) -> Path:
    """The file in which a store keeps a video."""
    if store == frames_db.STORE:
        return layout.frames_db_path(root, key.class_name, key.video_id)
    return layout.npy_path(root, key.video_id)


def convert_video(root: Path, options: ConvertOptions, job: Job) -> VideoRecord:
    """Write every store of one video and say how it went. A fault of the video is in the record, not raised.

    A database that is already there, of the same source and settings, is taken as it is (its run was killed before the
    catalog heard of it, or another store is added now).

    Raises: ClipmillError when the target cannot be written or is full.
    """
    record = VideoRecord(job.key, "failed", job.source_text, settings=options.settings_of(job))
    try:
        _convert(root, options, job, record)
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
        folder = store_path(root, job.key, options.stores[0]).parent
        raise target_error(folder, root, error) from error
    if record.state == "failed":
        _remove_empty(root, job)
    return record


def _convert(root: Path, options: ConvertOptions, job: Job, record: VideoRecord) -> None:
    try:
        stat = job.source.stat()
        record.source_bytes, record.source_mtime_ns = stat.st_size, stat.st_mtime_ns
        digest = file_digest(job.source)
    except FileNotFoundError:
        raise
    except OSError as error:  # not to be taken for a fault of the target
        raise VideoError("unreadable", f"the file cannot be read: {error.strerror}") from None
    todo = []
    for store in (store for store in STORES if store in options.stores):
        path = store_path(root, job.key, store)
        path.parent.mkdir(parents=True, exist_ok=True)
        if store == frames_db.STORE:
            remove_leftovers(path.parent)
            meta = _meta_of(path)
            if (meta.get("settings"), meta.get("source_sha256")) == (options.store_settings(store, job), digest):
                _fill_from_database(record, path, meta)
                continue
        todo.append(store)
    if todo:
        with Video(job.source) as video:
            source = {
                "source_name": job.source_text.rpartition("/")[2],
                "source_bytes": stat.st_size,
                "source_sha256": digest,
            }
            _write(root, options, job, record, video, todo, source)


def _write(
    root: Path,
    options: ConvertOptions,
    job: Job,
    record: VideoRecord,
    video: Video,
    stores: list[str],
    source: dict[str, Any],
) -> None:
    """Decode once, hand every frame to every store, then publish the stores one after the other."""
    frames = timed_frames(video, job.span_s)
    first_us, first = next(frames)
    record.fps, (record.width, record.height) = video.info.fps, displayed_size(first)
    with ExitStack() as stack:
        sinks: list[Sink] = []
        for store in stores:
            sink = _SINKS[store](store_path(root, job.key, store), options, job, first)
            sinks.append(sink)
            stack.enter_context(sink)
        before_us, last_us = None, first_us
        for now_us, frame in chain([(first_us, first)], frames):
            before_us, last_us = (None if now_us == first_us else last_us), now_us
            for each in sinks:
                each.push(now_us, frame)
        end_us = last_us + _shown_us(before_us, last_us, video.info.fps)
        record.duration_s = (end_us - first_us) / 1e6
        about = source | {
            "source_codec": video.info.codec,
            "source_stream": video.info.stream,
            "sample_aspect": video.info.sample_aspect,
            "width": record.width,
            "height": record.height,
            "rotation": 90 * quarter_turns(first),
            "duration_s": record.duration_s,
            "fps": options.fps or video.info.fps,
            "source_fps": video.info.fps,
            "clipmill_version": version("clipmill"),
            "ffmpeg_version": av.ffmpeg_version_info,
            "simplejpeg_version": simplejpeg.__version__,
        }
        if job.span_s is not None:
            about |= {"span_start_s": job.span_s[0], "span_end_s": job.span_s[1]}
        for each in sinks:
            outputs = each.finish(end_us, about)
            record.outputs += outputs
            if not record.num_frames or outputs[0].store == frames_db.STORE:
                record.num_frames = outputs[0].num_frames


def _shown_us(before_us: int | None, last_us: int, fps: float) -> int:
    """How long the last frame is shown: as long as the one before it was."""
    if before_us is not None:
        return last_us - before_us
    return round(1e6 / fps) if fps > 0 else 0


class Sink(Protocol):
    """One store while a video is decoded into it."""

    def push(self, now_us: int, frame: av.VideoFrame) -> None:
        """Take one decoded frame and the time at which it is shown."""

    def finish(self, end_us: int, about: dict[str, Any]) -> list[Output]:
        """Publish the store, and say what it holds."""


class _DatabaseSink:
    """Frames into frames.db: scaled to every level, encoded."""

    def __init__(self, path: Path, options: ConvertOptions, job: Job, first: av.VideoFrame) -> None:
        self._path, self._options = path, options
        self._settings = options.store_settings(frames_db.STORE, job)
        self._levels = frames_db.plan_levels(*displayed_size(first), options.short_sides)
        self._scaler = Scaler([(level.width, level.height) for level in self._levels])
        self._sampler = _sampler(options.fps, job) if options.fps else None
        self._writer = frames_db.FramesDbWriter(path, self._levels)

    def push(self, now_us: int, frame: av.VideoFrame) -> None:
        if self._sampler is None:
            self._add(now_us, frame)
        else:
            for time_us, shown in self._sampler.push(now_us, frame):
                self._add(time_us, shown)

    def _add(self, time_us: int, frame: av.VideoFrame) -> None:
        blobs = [simplejpeg.encode_jpeg_yuv_planes(y, u, v, self._options.quality) for y, u, v in self._scaler(frame)]
        self._writer.add(time_us, blobs)

    def finish(self, end_us: int, about: dict[str, Any]) -> list[Output]:
        if self._sampler is not None:
            for time_us, shown in self._sampler.finish(end_us):
                self._add(time_us, shown)
        writer = self._writer
        _require_frames(writer.num_frames, self._options.fps)
        own = {"settings": self._settings, "codec": "jpeg", "quality": self._options.quality, "chroma": "4:2:0"}
        writer.commit(about | own | {"frame_bytes": json.dumps(writer.num_bytes)})
        return _database_outputs(self._path, self._levels, writer.num_frames, writer.num_bytes)

    def __enter__(self) -> _DatabaseSink:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


class _ArraySink:
    """Frames into an array: sampled, scaled, as RGB."""

    def __init__(self, path: Path, options: ConvertOptions, job: Job, first: av.VideoFrame) -> None:
        self._path, self._options = path, options
        (self._level,) = frames_db.plan_levels(*displayed_size(first), [max(options.short_sides)])
        self._scaler = Scaler([(self._level.width, self._level.height)])
        self._sampler = _sampler(options.npy_fps, job)
        self._writer = frames_npy.FramesNpyWriter(path, self._level.height, self._level.width)
        self._last: tuple[int, np.ndarray] | None = None

    def push(self, now_us: int, frame: av.VideoFrame) -> None:
        for time_us, shown in self._sampler.push(now_us, frame):
            self._add(time_us, shown)

    def _add(self, time_us: int, frame: av.VideoFrame) -> None:
        if self._last is None or self._last[0] != time_us:  # A frame that fills several slots is scaled once.
            self._last = time_us, to_rgb(*self._scaler(frame)[0])
        self._writer.add(self._last[1])

    def finish(self, end_us: int, about: dict[str, Any]) -> list[Output]:
        for time_us, shown in self._sampler.finish(end_us):
            self._add(time_us, shown)
        level, num_frames = self._level, self._writer.num_frames
        _require_frames(num_frames, self._options.npy_fps)
        self._writer.commit()
        num_bytes = num_frames * level.height * level.width * 3
        size = (level.short_side, level.width, level.height, num_frames, num_bytes, self._path.stat().st_size)
        return [Output(frames_npy.STORE, *size)]

    def __enter__(self) -> _ArraySink:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


_SINKS: dict[str, type[_DatabaseSink] | type[_ArraySink]] = {
    frames_db.STORE: _DatabaseSink,
    frames_npy.STORE: _ArraySink,
}


def _sampler(fps: float, job: Job) -> RateSampler[av.VideoFrame]:
    return RateSampler(fps, 0 if job.span_s is None else round(job.span_s[0] * 1e6))


def _require_frames(num_frames: int, fps: float | None) -> None:
    if num_frames == 0:
        raise VideoError("no frames", f"the video is too short for a single frame at {fps:g} a second")


def _meta_of(path: Path) -> dict[str, Any]:
    """Meta of a database, empty if there is no whole one."""
    try:
        with contextlib.closing(frames_db.connect(path)) as db:
            return frames_db.read_meta(db)
    except (sqlite3.OperationalError, VideoError):
        return {}


def _fill_from_database(record: VideoRecord, path: Path, meta: dict[str, Any]) -> None:
    record.num_frames, record.fps = meta["num_frames"], meta.get("source_fps", meta["fps"])
    record.duration_s = meta["duration_s"]
    record.width, record.height = meta["width"], meta["height"]
    num_bytes = json.loads(meta["frame_bytes"])
    record.outputs += _database_outputs(path, meta["levels"], meta["num_frames"], num_bytes)


def _database_outputs(path: Path, levels: list[frames_db.Level], num_frames: int, num_bytes: list[int]) -> list[Output]:
    file_bytes = path.stat().st_size
    return [
        Output(frames_db.STORE, level.short_side, level.width, level.height, num_frames, bytes_here, file_bytes)
        for level, bytes_here in zip(levels, num_bytes, strict=True)
    ]


# What goes wrong with the target


def _concerns_target(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return True
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR)


def target_error(path: Path, root: Path, error: Exception) -> ClipmillError:
    return ClipmillError(
        f"{path} cannot be written: {error}.",
        "The run stopped; what is finished is kept, nothing is half-written.",
        f"Make room or mend the rights on {root}, then run the same command again.",
    )


def clear_away(job: Job, root: Path) -> None:
    """Remove what a worker that was killed at this job has left: temporary files, and folders with nothing in them."""
    for store in STORES:
        with contextlib.suppress(OSError):  # The target may be what has failed; the next run clears away too.
            remove_leftovers(store_path(root, job.key, store).parent)
    _remove_empty(root, job)


def _remove_empty(root: Path, job: Job) -> None:
    """Remove the folders of a failed video that nothing was put into."""
    folder = layout.video_dir(root, job.key.class_name, job.key.video_id)
    for path in (folder, folder.parent, layout.npy_path(root, job.key.video_id).parent):
        with contextlib.suppress(OSError):
            path.rmdir()
