"""Frame sampling: which frames of a video make up a clip. Pure index arithmetic, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np


class Rng(Protocol):
    """What sampling draws from: numpy's Generator, and its legacy RandomState for the reference vectors."""

    def choice(self, a: Any) -> Any: ...
    def uniform(self, low: float, high: float) -> float: ...


@dataclass(frozen=True)
class RandomInterval:
    """`num_frames` frames, an interval apart that is drawn from `intervals`, from a random start.

    interval 2, 4 frames:  F.F.F.F     a video too short for it gives one frame, repeated.
    Source: the training sampler of SRTG's published code (RandomSampling at speed 1).
    """

    num_frames: int
    intervals: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        _require(self.num_frames >= 1, f"num_frames is {self.num_frames}; a clip has at least one frame")
        _require(
            bool(self.intervals) and min(self.intervals) >= 1, f"intervals are {self.intervals}; each is at least 1"
        )

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        _require_frames(video_frames)
        interval = int(rng.choice(list(self.intervals)))
        if self.num_frames == 1:
            return np.array([rng.choice(range(video_frames))], np.int64)
        fastest = min(1.0, (video_frames - 1) / ((self.num_frames - 1) * interval))
        if fastest < 1.0:
            return np.full(self.num_frames, rng.choice(range(video_frames)), np.int64)
        factor = rng.uniform(1.0, fastest) * interval
        length = (self.num_frames - 1) * factor
        start = rng.uniform(0, video_frames - 1 - length)
        return np.trunc(np.linspace(start, start + length, self.num_frames)).astype(np.int64)

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips spread evenly over the video, int64 (num_clips, num_frames).

        One clip is the middle one. The interval is the median of `intervals`; past the end the last frame repeats.
        """
        _require_frames(video_frames)
        interval = sorted(self.intervals)[len(self.intervals) // 2]
        room = max(video_frames - 1 - (self.num_frames - 1) * interval, 0)
        starts = np.linspace(0, room, num_clips) if num_clips > 1 else np.array([room / 2])
        indices = starts.round().astype(np.int64)[:, None] + interval * np.arange(self.num_frames)
        return np.minimum(indices, video_frames - 1)


@dataclass(frozen=True)
class Segments:
    """The video in `num_frames` equal segments, one frame of each.

    4 segments of 12 frames:  |.F.|F..|..F|.F.|     training: a random frame; evaluation: the middle one. A video with
    fewer frames than segments repeats frames. Source: TSN (arXiv 1608.00859, section 3).
    """

    num_frames: int

    def __post_init__(self) -> None:
        _require(self.num_frames >= 1, f"num_frames is {self.num_frames}; a clip has at least one frame")

    def _edges(self, video_frames: int) -> np.ndarray:
        return np.arange(self.num_frames + 1) * video_frames / self.num_frames

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        _require_frames(video_frames)
        edges = self._edges(video_frames)
        inside = np.array([rng.uniform(low, high) for low, high in pairwise(edges)])
        return np.minimum(inside.astype(np.int64), video_frames - 1)

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips, int64 (num_clips, num_frames): clip c takes the (2c+1)/(2n)-th of each segment."""
        _require_frames(video_frames)
        edges = self._edges(video_frames)
        parts = (2 * np.arange(num_clips) + 1) / (2 * num_clips)
        return (edges[None, :-1] + parts[:, None] * np.diff(edges)[None]).astype(np.int64)


Sampler = RandomInterval | Segments


def crop_offsets(room: int, num_crops: int) -> list[int]:
    """Offsets of `num_crops` crops spread evenly over `room` spare pixels; one crop is the centre one."""
    if num_crops == 1:
        return [room // 2]
    return [round(room * i / (num_crops - 1)) for i in range(num_crops)]


def _require_frames(video_frames: int) -> None:
    _require(video_frames >= 1, f"a clip needs at least one frame, the video has {video_frames}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
