"""The stores while a video is decoded into them: each takes the frames it wants, and publishes what it has made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np

from ingest import layout
from ingest.catalog import Output, VideoKey
from ingest.errors import VideoError
from ingest.options import ConvertOptions
from ingest.pictures import CHROMA, ENCODER_VERSIONS, SUFFIXES, Pictures
from ingest.plan import Job
from ingest.rates import RateSampler
from ingest.stores import frames_db, frames_npy, raw_frames
from ingest.video import displayed_size


@dataclass(frozen=True)
class Target:
    """Where a conversion writes to. What is unfinished lies in `scratch`, a local folder, if there is one."""

    root: Path
    scratch: Path | None = None


def store_path(root: Path, key: VideoKey, store: str) -> Path:
    """The file in which a store keeps a video; for raw-frames the one that tells of the others."""
    if store == frames_db.STORE:
        return layout.frames_db_path(root, key.class_name, key.video_id)
    if store == raw_frames.STORE:
        return layout.raw_frames_dir(root, key.class_name, key.video_id) / raw_frames.MANIFEST
    return layout.npy_path(root, key.video_id)


def parent_of(root: Path, key: VideoKey, store: str) -> Path:
    """The folder that must be there before a store can write a video, and that its temporary files lie in."""
    path = store_path(root, key, store).parent
    return path.parent if store == raw_frames.STORE else path


class Sink(Protocol):
    """One store while a video is decoded into it."""

    def push(self, now_us: int, frame: av.VideoFrame) -> None:
        """Take one decoded frame and the time at which it is shown."""

    def finish(self, end_us: int, about: dict[str, Any]) -> list[Output]:
        """Publish the store, and say what it holds."""

    def __enter__(self) -> Sink: ...
    def __exit__(self, *error: object) -> None: ...


def open_sink(
    store: str, target: Target, options: ConvertOptions, job: Job, size: tuple[int, int], pictures: Pictures
) -> Sink:
    """The sink of a store for a video whose upright pictures measure `size` (width, height) pixels."""
    return _SINKS[store](target, options, job, size, pictures)


def upright_size(first: av.VideoFrame, sample_aspect: str, options: ConvertOptions) -> tuple[int, int]:
    """Width and height of the pictures before scaling: rotated, and with square pixels if the options ask for them.

    An aspect beyond 1:10 is taken for an error of the file.
    """
    pixel = Fraction(sample_aspect) if options.aspect == "square" else Fraction(1)
    return displayed_size(first, pixel if Fraction(1, 10) <= pixel <= 10 else Fraction(1))


def database_outputs(path: Path, levels: list[frames_db.Level], num_frames: int, num_bytes: list[int]) -> list[Output]:
    file_bytes = path.stat().st_size
    return [
        Output(frames_db.STORE, level.short_side, level.width, level.height, num_frames, bytes_here, file_bytes)
        for level, bytes_here in zip(levels, num_bytes, strict=True)
    ]


class _PictureSink:
    """Encoded pictures at the rate of `--fps`, whatever they are written into."""

    store = ""

    def __init__(self, options: ConvertOptions, job: Job, pictures: Pictures) -> None:
        self._options, self._pictures = options, pictures
        self._sampler = _sampler(options.fps, job) if options.fps else None
        self._about = {
            "settings": options.store_settings(self.store, job),
            "codec": options.codec,
            "chroma": CHROMA[options.codec],
            "aspect": options.aspect,
        }
        if options.codec != "png":
            self._about["quality"] = options.quality  # type: ignore[assignment]

    def push(self, now_us: int, frame: av.VideoFrame) -> None:
        if self._sampler is None:
            self._add(now_us, frame)
        else:
            for time_us, shown in self._sampler.push(now_us, frame):
                self._add(time_us, shown)

    def _add(self, time_us: int, frame: av.VideoFrame) -> None:
        raise NotImplementedError

    def _complete(self, end_us: int, about: dict[str, Any]) -> dict[str, Any]:
        """Take the frames that are left; what the store says of itself."""
        if self._sampler is not None:
            for time_us, shown in self._sampler.finish(end_us):
                self._add(time_us, shown)
        return about | self._about | {"fps": self._options.fps or about["source_fps"]} | ENCODER_VERSIONS


class _DatabaseSink(_PictureSink):
    """Frames into frames.db, on every level."""

    store = frames_db.STORE

    def __init__(
        self, target: Target, options: ConvertOptions, job: Job, size: tuple[int, int], pictures: Pictures
    ) -> None:
        super().__init__(options, job, pictures)
        self._path = store_path(target.root, job.key, self.store)
        self._levels = frames_db.plan_levels(*size, options.short_sides)
        self._writer = frames_db.FramesDbWriter(self._path, self._levels, target.scratch)

    def _add(self, time_us: int, frame: av.VideoFrame) -> None:
        blobs = [self._pictures.encoded(frame, (level.width, level.height)) for level in self._levels]
        self._writer.add(time_us, blobs)

    def finish(self, end_us: int, about: dict[str, Any]) -> list[Output]:
        meta = self._complete(end_us, about)
        writer = self._writer
        _require_frames(writer.num_frames, self._options.fps)
        writer.commit(meta | {"frame_bytes": json.dumps(writer.num_bytes)})
        return database_outputs(self._path, self._levels, writer.num_frames, writer.num_bytes)

    def __enter__(self) -> _DatabaseSink:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


class _FolderSink(_PictureSink):
    """Frames of the largest level into a folder, a file each."""

    store = raw_frames.STORE

    def __init__(
        self, target: Target, options: ConvertOptions, job: Job, size: tuple[int, int], pictures: Pictures
    ) -> None:
        super().__init__(options, job, pictures)
        self._path = store_path(target.root, job.key, self.store)
        (self._level,) = frames_db.plan_levels(*size, [max(options.short_sides)])
        self._writer = raw_frames.RawFramesWriter(self._path.parent, SUFFIXES[options.codec], target.scratch)

    def _add(self, time_us: int, frame: av.VideoFrame) -> None:
        self._writer.add(time_us, self._pictures.encoded(frame, (self._level.width, self._level.height)))

    def finish(self, end_us: int, about: dict[str, Any]) -> list[Output]:
        meta = self._complete(end_us, about)
        writer, level = self._writer, self._level
        _require_frames(writer.num_frames, self._options.fps)
        writer.commit(meta | {"level": {"short_side": level.short_side, "width": level.width, "height": level.height}})
        size = (level.short_side, level.width, level.height, writer.num_frames, writer.num_bytes)
        return [Output(self.store, *size, self._path.stat().st_size)]

    def __enter__(self) -> _FolderSink:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


class _ArraySink:
    """Frames into an array: sampled, scaled, as RGB."""

    def __init__(
        self, target: Target, options: ConvertOptions, job: Job, size: tuple[int, int], pictures: Pictures
    ) -> None:
        self._path, self._options, self._pictures = (
            store_path(target.root, job.key, frames_npy.STORE),
            options,
            pictures,
        )
        (self._level,) = frames_db.plan_levels(*size, [max(options.short_sides)])
        self._sampler = _sampler(options.npy_fps, job)
        self._writer = frames_npy.FramesNpyWriter(self._path, self._level.height, self._level.width, target.scratch)
        self._last: tuple[int, np.ndarray] | None = None

    def push(self, now_us: int, frame: av.VideoFrame) -> None:
        for time_us, shown in self._sampler.push(now_us, frame):
            self._add(time_us, shown)

    def _add(self, time_us: int, frame: av.VideoFrame) -> None:
        if self._last is None or self._last[0] != time_us:  # A frame that fills several slots is scaled once.
            self._last = time_us, self._pictures.rgb(frame, (self._level.width, self._level.height))
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

    def __exit__(self, *_: object) -> None:
        self._writer.__exit__()


_SINKS: dict[str, type[_DatabaseSink] | type[_ArraySink] | type[_FolderSink]] = {
    frames_db.STORE: _DatabaseSink,
    frames_npy.STORE: _ArraySink,
    raw_frames.STORE: _FolderSink,
}


def _sampler(fps: float, job: Job) -> RateSampler[av.VideoFrame]:
    return RateSampler(fps, 0 if job.span_s is None else round(job.span_s[0] * 1e6))


def _require_frames(num_frames: int, fps: float | None) -> None:
    if num_frames == 0:
        raise VideoError("no frames", f"the video is too short for a single frame at {fps:g} a second")
