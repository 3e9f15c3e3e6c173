"""<id>.npy: the frames of one video at a low rate, decoded: uint8 (T, H, W, 3), RGB. Writer, reader and check.

NumPy's own format, version 1.0, so that `np.load(path, mmap_mode="r")` opens it. The header is padded to a fixed length
and written last, over a placeholder: frames are appended as they come, and no video is ever in memory as a whole.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ingest.atomic import Writeback, publish, temporary_path
from ingest.errors import VideoError

STORE = "npy"
VERSION = 1
_HEADER_BYTES = 128
_MAGIC = b"\x93NUMPY\x01\x00"
_opening = threading.Lock()


class FramesNpyWriter:
    """Writes one array under a temporary name, in `scratch` if given; `commit` makes it appear, whole."""

    def __init__(self, path: Path, height: int, width: int, scratch: Path | None = None) -> None:
        self.path, self._shape = path, (height, width, 3)
        self.num_frames = 0
        self._temporary = temporary_path(path, scratch)
        self._file = self._temporary.open("wb")
        self._file.write(bytes(_HEADER_BYTES))
        self._writeback = Writeback(self._temporary, path)

    def add(self, frame: np.ndarray) -> None:
        """Append one frame, uint8 (H, W, 3). Raises: ValueError for another shape or dtype."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"frames here are uint8 {self._shape}, got {frame.dtype} {frame.shape}")
        self._file.write(np.ascontiguousarray(frame).data)
        self.num_frames += 1
        self._writeback.grown(frame.nbytes)

    def commit(self) -> None:
        """Write the header and give the file its name, durably."""
        self._file.seek(0)
        self._file.write(_header((self.num_frames, *self._shape)))
        self._file.close()
        publish(self._temporary, self.path)

    def __enter__(self) -> FramesNpyWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._writeback.close()
        self._temporary.unlink(missing_ok=True)


def open_array(path: Path) -> np.ndarray:
    """Any array file as a read-only memory map. Raises: OSError, ValueError or EOFError when it is none.

    One thread at a time: NumPy has Python's parser read the header, and in Python 3.11 threads that parse at once now and
    then get a SystemError ("AST constructor recursion depth mismatch").
    """
    with _opening:
        return np.load(path, mmap_mode="r", allow_pickle=False)


def open_frames(path: Path) -> np.ndarray:
    """The array as a read-only memory map, uint8 (T, H, W, 3).

    Raises: VideoError when it is not a whole array of frames.
    """
    try:
        frames = open_array(path)
    except (OSError, ValueError, EOFError) as error:
        raise VideoError("not whole", f"{path.name}: {error}") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise VideoError("not whole", f"{path.name}: {frames.dtype} {frames.shape} is no array of RGB frames")
    return frames


def check(path: Path, num_frames: int) -> Iterator[str]:
    """Everything wrong with an array that should hold `num_frames` frames, a line each; nothing when it is whole."""
    try:
        frames = open_frames(path)
    except VideoError as error:
        yield error.message
        return
    if len(frames) != num_frames:
        yield f"{len(frames)} frames, not {num_frames}"
    if (extra := os.stat(path).st_size - _HEADER_BYTES - frames.nbytes) != 0:  # noqa: PTH116 - as cheap as can be
        yield f"{extra} bytes more than its header says"


def _header(shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    room = _HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"
