"""Frames at an interval that is drawn for every clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loaders.sampling.base import Rng, draw_below, require, require_clip, require_frames


@dataclass(frozen=True)
class RandomInterval:
    """`num_frames` frames, an interval apart that is drawn from `intervals`, from a random start.

    interval 2, 4 frames:  F.F.F.F     a video too short for it gives one frame, repeated.
    `speed` (slowest, fastest) also stretches the interval by a random factor, up to what the video has room for; at 0.5 an
    interval of 1 shows frames twice. Source: the training sampler of SRTG's published code (RandomSampling).
    """

    num_frames: int
    intervals: tuple[int, ...] = (1,)
    speed: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        require_clip(self.num_frames)
        require(
            bool(self.intervals) and min(self.intervals) >= 1, f"intervals are {self.intervals}; each is at least 1"
        )
        slowest, fastest = self.speed
        require(0 < slowest <= fastest, f"speed is {self.speed}; it is (slowest, fastest), above 0")

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        require_frames(video_frames)
        interval = self.intervals[draw_below(rng, len(self.intervals))]
        if self.num_frames == 1:
            return np.array([draw_below(rng, video_frames)], np.int64)
        slowest, fastest = self.speed
        fastest = min(fastest, (video_frames - 1) / ((self.num_frames - 1) * interval))
        if fastest < slowest:
            return np.full(self.num_frames, draw_below(rng, video_frames), np.int64)
        factor = rng.uniform(slowest, fastest) * interval
        length = (self.num_frames - 1) * factor
        start = rng.uniform(0, video_frames - 1 - length)
        return _spread(start, start + length, self.num_frames).astype(np.int64)

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips spread evenly over the video, int64 (num_clips, num_frames).

        One clip is the middle one. The interval is the median of `intervals`; past the end the last frame repeats.
        """
        require_frames(video_frames)
        interval = sorted(self.intervals)[len(self.intervals) // 2]
        room = max(video_frames - 1 - (self.num_frames - 1) * interval, 0)
        starts = np.linspace(0, room, num_clips) if num_clips > 1 else np.array([room / 2])
        indices = starts.round().astype(np.int64)[:, None] + interval * np.arange(self.num_frames)
        return np.minimum(indices, video_frames - 1)


def _spread(first: float, last: float, count: int) -> np.ndarray:
    """`np.linspace` to the last bit, which the published code uses and truncates, in half the time. `count` is at least 2."""
    places = np.arange(count) * ((last - first) / (count - 1)) + first
    places[-1] = last
    return places
