"""Videos to frame stores, one video: one decode feeds every store that is asked for."""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import av

from ingest.atomic import remove_leftovers
from ingest.catalog import Output, VideoKey, VideoRecord
from ingest.errors import ClipmillError, VideoError
from ingest.options import STORES, ConvertOptions
from ingest.pictures import Pictures
from ingest.plan import Job
from ingest.sinks import Sink, Target, database_outputs, open_sink, parent_of, store_path, upright_size
from ingest.stores import frames_db, frames_npy, raw_frames
from ingest.video import Video, file_digest, quarter_turns, timed_frames

_version_of = cache(version)


def convert_video(target: Target, options: ConvertOptions, job: Job) -> VideoRecord:
    """Write every store of one video and say how it went. A fault of the video is in the record, not raised.

    What is already there, of the same source and settings, is taken as it is (its run was killed before the catalog
    heard of it, or another store is added now).

    Raises: ClipmillError when the target cannot be written or is full.
    """
    root = target.root
    record = VideoRecord(job.key, "failed", job.source_text, settings=options.settings_of(job))
    try:
        try:
            _convert(target, options, job, record)
        except FileNotFoundError:
            if not job.source.exists():
                raise
            # Another run has just removed a folder that was still empty: it is made once more.
            record.outputs.clear()
            _convert(target, options, job, record)
        record.state = "ok"
    except VideoError as error:
        record.reason, record.message, record.frame = error.reason, error.message, error.frame
    except FileNotFoundError as error:
        if job.source.exists():
            raise
        record.reason, record.message = "source gone", f"the file was removed during the run: {error.filename}"
    except MemoryError:
        record.reason, record.message = "memory", "the decoder asked for more memory than --memory-limit allows"
    except (OSError, sqlite3.OperationalError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            record.reason, record.message = "memory", "the decoder asked for more memory than --memory-limit allows"
        elif _concerns_target(error):
            raise target_error(parent_of(root, job.key, options.stores[0]), root, error) from error
        else:
            raise
    if record.state == "failed":
        record.outputs.clear()
        _remove_own_folder(root, job)
    return record


def _convert(target: Target, options: ConvertOptions, job: Job, record: VideoRecord) -> None:
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
        folder, path = parent_of(target.root, job.key, store), store_path(target.root, job.key, store)
        folder.mkdir(parents=True, exist_ok=True)
        if store == frames_db.STORE:  # The others share folders, which the run clears before it starts.
            remove_leftovers(folder)
        if store != frames_npy.STORE:
            meta = _meta_of(store, path)
            if (meta.get("settings"), meta.get("source_sha256")) == (options.store_settings(store, job), digest):
                fill_record(record, store, path, meta)
                continue
        todo.append(store)
    if todo:
        with Video(job.source) as video:
            source = {
                "source_name": job.source_text.rpartition("/")[2],
                "source_bytes": stat.st_size,
                "source_sha256": digest,
            }
            _write(target, options, job, record, video, todo, source)


def _write(
    target: Target,
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
    info = video.info
    record.fps = info.fps
    record.width, record.height = size = upright_size(first, info.sample_aspect, options)
    pictures = Pictures(options.codec, options.quality)
    concealed = 0
    with ExitStack() as stack:
        sinks: list[Sink] = []
        for store in stores:
            sinks.append(stack.enter_context(open_sink(store, target, options, job, size, pictures)))
        before_us, last_us = None, first_us
        for now_us, frame in chain([(first_us, first)], frames):
            before_us, last_us = (None if now_us == first_us else last_us), now_us
            concealed += frame.is_corrupt
            for each in sinks:
                each.push(now_us, frame)
        end_us = last_us + _shown_us(before_us, last_us, info.fps)
        record.duration_s, record.concealed = (end_us - first_us) / 1e6, concealed
        about = source | {
            "source_codec": info.codec,
            "source_stream": info.stream,
            "source_fps": info.fps,
            "sample_aspect": info.sample_aspect,
            "width": record.width,
            "height": record.height,
            "rotation": 90 * quarter_turns(first),
            "duration_s": record.duration_s,
            "concealed_frames": concealed,
            "clipmill_version": _version_of("clipmill"),
            "ffmpeg_version": av.ffmpeg_version_info,
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


# What is there already


def _meta_of(store: str, path: Path) -> dict[str, Any]:
    """What a store says of itself, empty if there is no whole one."""
    try:
        if store == raw_frames.STORE:
            return raw_frames.read_meta(path.parent)
        with contextlib.closing(frames_db.connect(path)) as db:
            return frames_db.read_meta(db)
    except (sqlite3.OperationalError, VideoError):
        return {}


def fill_record(record: VideoRecord, store: str, path: Path, meta: dict[str, Any]) -> None:
    """Put what a whole store says of itself into the record of its video."""
    record.fps, record.duration_s = meta.get("source_fps", meta["fps"]), meta["duration_s"]
    record.width, record.height = meta["width"], meta["height"]
    record.concealed = meta.get("concealed_frames", 0)
    count = meta["num_frames"]
    if store == raw_frames.STORE:
        level, num_bytes = meta["level"], sum(meta["frames"]["num_bytes"])
        size = (level["short_side"], level["width"], level["height"], count, num_bytes, path.stat().st_size)
        record.outputs.append(Output(store, *size))
        record.num_frames = record.num_frames or count
    else:
        record.outputs += database_outputs(path, meta["levels"], count, json.loads(meta["frame_bytes"]))
        record.num_frames = count


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


def clear_away(job: Job, target: Target) -> None:
    """Remove what a worker that was killed at this job has left: temporary files, and folders with nothing in them."""
    folders = [parent_of(target.root, job.key, store) for store in STORES]
    for folder in [*folders, *([target.scratch] if target.scratch else [])]:
        with contextlib.suppress(OSError):  # The target may be what has failed; the next run clears away too.
            remove_leftovers(folder)
    _remove_own_folder(target.root, job)


def _remove_own_folder(root: Path, job: Job) -> None:
    """Remove the folder of a failed video if nothing was put into it. Those above may be wanted by others just now."""
    with contextlib.suppress(OSError):
        parent_of(root, job.key, frames_db.STORE).rmdir()


def remove_empty_folders(root: Path, keys: Iterable[VideoKey]) -> None:
    """Remove the folders above failed videos in which nothing lies, once nobody writes any more."""
    folders = {parent_of(root, key, store) for key in keys for store in STORES}
    for folder in sorted(
        folders | {path.parent for path in folders} | {path.parent.parent for path in folders}, reverse=True
    ):
        if root in folder.parents:
            with contextlib.suppress(OSError):
                folder.rmdir()
