"""A plain video file as a store: frames by their number, decoded when they are asked for.

For trying without converting, and to measure what converting gains. A frame is found by seeking to the key frame before
it and decoding up to it, so a clip costs as much as all the frames between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from ingest.errors import VideoError
from ingest.scaling import Scaler, to_rgb
from ingest.video import Video, displayed_size

STORE = "video-file"


class VideoFile:
    """Random access to the frames of one video file. Not for several threads at once.

    Raises: VideoError as `ingest.video.Video` does.
    """

    def __init__(self, path: Path) -> None:
        self._video = Video(path)
        # Presentation times tell which frame is which, whatever the order of decoding. AVI and raw streams have none.
        times, keys = self._video.packet_times()
        self._times = sorted(times)
        self._keys = sorted(keys) if len(set(times)) == len(times) else []
        self._scaler: Scaler | None = None

    @property
    def num_frames(self) -> int:
        """Frames that the container holds; damaged ones among them may not come out."""
        return len(self._times)

    def read(self, frames: Sequence[int]) -> list[np.ndarray]:
        """RGB uint8 (H, W, 3), upright, of the given 0-based frames in that order. Numbers may repeat.

        Raises: VideoError when the file breaks off or lacks one of them.
        """
        wanted = sorted({int(frame) for frame in frames})
        found: dict[int, np.ndarray] = {}
        while len(found) < len(wanted):
            self._read_run(wanted[len(found) :], found)
        return [found[int(frame)] for frame in frames]

    def _read_run(self, wanted: list[int], found: dict[int, np.ndarray]) -> None:
        """Frames that one seek reaches: until the next one wanted lies behind a key frame further on."""
        if wanted[-1] >= self.num_frames:
            raise VideoError("missing frame", f"the file has {self.num_frames} frames", wanted[-1])
        start = self._key_before(wanted[0])
        self._video.seek_to(None if start is None else self._times[start])
        waiting = wanted[::-1]
        place = start or 0
        for frame in self._video.frames():
            if self._keys and frame.pts is not None:
                place = bisect_right(self._times, frame.pts) - 1
            if place == waiting[-1]:
                found[waiting.pop()] = self._picture(frame)
                if not waiting or (self._key_before(waiting[-1]) or 0) > place:
                    return
            elif place > waiting[-1]:
                raise VideoError("missing frame", "the decoder does not give this frame", waiting[-1])
            place += 1
        raise VideoError("missing frame", "the decoder ends before this frame", waiting[-1])

    def _key_before(self, frame: int) -> int | None:
        """Number of the last key frame at or before a frame; None if only the beginning is known for one."""
        place = bisect_right(self._keys, self._times[frame]) - 1
        return None if place <= 0 else bisect_right(self._times, self._keys[place]) - 1

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        if self._scaler is None:
            self._scaler = Scaler(displayed_size(frame))
        return to_rgb(*self._scaler(frame))

    def close(self) -> None:
        self._video.close()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
