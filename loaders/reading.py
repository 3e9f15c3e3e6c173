"""Reads frames of a dataset, whatever they are stored in: encoded pictures, or decoded ones where nothing is encoded."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ingest.errors import VideoError
from ingest.stores import frames_db, frames_npy, historical, raw_frames, video_file
from ingest.stores.frames_db import Level
from loaders.dataset import ClipDataset

Picture = bytes | np.ndarray
"""A JPEG, PNG or WebP file, or RGB uint8 (H, W, 3)."""

# Of all threads together: well below the 1,024 files that a process may have open on most systems.
_MOST_OPEN = 256
# A decoder holds megabytes of pictures, and threads of its own.
_MOST_DECODERS = 8
# A frame is read once, so a cache of pages (2 MB per connection if SQLite has its way) only costs: every connection
# would fill memory of its own, which no processor's cache holds.
_CACHE_PAGES = 8


class OpenVideo(Protocol):
    """One opened video of one thread."""

    def read(self, level: Level, frames: np.ndarray) -> Sequence[Picture]: ...
    def close(self) -> None: ...


class FrameReader:
    """Reads frames of a dataset, for `num_threads` threads.

    What is opened is kept per thread; the least recently used is closed.
    """

    def __init__(self, dataset: ClipDataset, num_threads: int = 1) -> None:
        self._dataset = dataset
        self._open = _OPEN[dataset.store]
        most = _MOST_DECODERS if dataset.store == video_file.STORE else _MOST_OPEN
        self._num_kept = max(most // num_threads, 1)
        self._local = threading.local()
        self._all: list[OrderedDict[int, OpenVideo]] = []

    def read(self, video: int, level: Level, frames: np.ndarray) -> Sequence[Picture]:
        """Pictures of the given frames, in that order.

        Raises: VideoError naming the video, when it is gone, damaged or lacks a frame.
        """
        try:
            return self._opened(video).read(level, frames)
        except (sqlite3.Error, OSError, IndexError) as error:
            self._forget(video)
            raise VideoError(
                "unreadable", f"{self._dataset.name(video)}: {error} ({self._dataset.path(video)})"
            ) from error
        except VideoError as error:
            self._forget(video)
            raise VideoError(error.reason, f"{self._dataset.name(video)}: {error.message}", error.frame) from error

    def _opened(self, video: int) -> OpenVideo:
        opened: OrderedDict[int, OpenVideo] | None = getattr(self._local, "opened", None)
        if opened is None:
            opened = self._local.opened = OrderedDict()
            self._all.append(opened)
        if (one := opened.get(video)) is None:
            one = opened[video] = self._open(self._dataset.path(video))
            if len(opened) > self._num_kept:
                opened.popitem(last=False)[1].close()
        else:
            opened.move_to_end(video)
        return one

    def _forget(self, video: int) -> None:
        """What has failed is opened anew the next time: it may have been mended."""
        opened: OrderedDict[int, OpenVideo] = self._local.__dict__.get("opened", OrderedDict())
        if (one := opened.pop(video, None)) is not None:
            one.close()

    def close(self) -> None:
        """Close everything. Only once no thread reads any more."""
        for opened in self._all:
            while opened:
                opened.popitem()[1].close()


class _Database:
    def __init__(self, path: Path) -> None:
        self._db = frames_db.connect(path)
        self._db.execute(f"PRAGMA cache_size={_CACHE_PAGES}")

    def read(self, level: Level, frames: np.ndarray) -> Sequence[Picture]:
        return frames_db.read_frames(self._db, level, frames)

    def close(self) -> None:
        self._db.close()


class _Array:
    """The header is parsed once; frames are parts of the memory map."""

    def __init__(self, path: Path) -> None:
        self._frames = frames_npy.open_frames(path)

    def read(self, level: Level, frames: np.ndarray) -> Sequence[Picture]:
        return [self._frames[int(frame)] for frame in frames]

    def close(self) -> None:
        del self._frames


class _RawFrames:
    def __init__(self, folder: Path) -> None:
        self._folder, self._suffix = folder, str(raw_frames.read_meta(folder)["suffix"])

    def read(self, level: Level, frames: np.ndarray) -> Sequence[Picture]:
        return [(self._folder / raw_frames.frame_name(int(frame), self._suffix)).read_bytes() for frame in frames]

    def close(self) -> None:
        pass


class _Historical:
    def __init__(self, folder: Path) -> None:
        self._frames = historical.open_frames(folder)

    def read(self, level: Level, frames: np.ndarray) -> Sequence[Picture]:
        return self._frames.read(frames.tolist())

    def close(self) -> None:
        self._frames.close()


class _VideoFile:
    def __init__(self, path: Path) -> None:
        self._file = video_file.VideoFile(path)

    def read(self, level: Level, frames: np.ndarray) -> Sequence[Picture]:
        return self._file.read(frames.tolist())

    def close(self) -> None:
        self._file.close()


_OPEN: dict[str, Callable[[Path], OpenVideo]] = {
    frames_db.STORE: _Database,
    frames_npy.STORE: _Array,
    raw_frames.STORE: _RawFrames,
    historical.STORE: _Historical,
    video_file.STORE: _VideoFile,
}
