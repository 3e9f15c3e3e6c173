"""Segment sampling as the published codes of ResKD, STS and ST-ABN run it: TSN's, with a short clip in every segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from loaders.sampling.base import End, Rng, indices_from, inside, require, require_clip, require_frames

Short = Literal["spread", "first"]
"""Where the segments of a video begin that has fewer places for them than segments: `spread` evenly, some twice, or all at
its `first` frame (so that the clip is one frame, repeated: ST-ABN's training and validation)."""

Tail = Literal["drop", "keep"]
"""Segments are whole frames long and the rest at the end is never drawn (`drop`), or as long as it takes to `keep` it."""

Jitter = Literal["none", "frame", "step"]
"""Frames shifted by less than an interval, each on its own (`frame`), or the j-th frame of every segment alike (`step`)."""


@dataclass(frozen=True)
class SegmentClips:
    """The places where a short clip can begin, in `num_segments` equal parts; a clip of `segment_frames` frames in each.

    2 segments, 2 frames, interval 2, video of 9 frames:   F.F...... to .....F.F. are 6 places (a clip needs 2 x 2 frames:
    `segment_frames * interval`, one interval more than from its first to its last frame), 3 for each segment.

    Many segments of one frame is TSN's sampling, one segment is dense sampling ("32 x 2"). In training a random place of
    each segment; in evaluation the middle one. `num_frames` is that of all segments together.

    Source: MMAction2's SampleFrames (ResKD, STS), with `short="first", end="stay", jitter="step"` that of TPN (ST-ABN; its
    test mode has `short="spread"`).
    """

    num_segments: int
    segment_frames: int = 1
    interval: int = 1
    end: End = "loop"
    short: Short = "spread"
    tail: Tail = "drop"
    jitter: Jitter = "none"

    def __post_init__(self) -> None:
        require(self.num_segments >= 1, f"num_segments is {self.num_segments}; there is at least one")
        require(
            self.segment_frames >= 1, f"segment_frames is {self.segment_frames}; a segment gives at least one frame"
        )
        require_clip(self.num_frames, self.interval)

    @property
    def num_frames(self) -> int:
        return self.num_segments * self.segment_frames

    @property
    def span(self) -> int:
        """Frames that a segment's clip is taken to need."""
        return self.segment_frames * self.interval

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        starts = self.random_starts(video_frames, rng)
        return self.indices(starts, video_frames, self.shifts(rng))

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips, int64 (num_clips, num_frames), without jitter.

        Of many segments, clip c takes the (2c+1)/(2n)-th of each; of one, the c-th of n segments takes its place.
        """
        if self.num_segments == 1:
            starts = self.middle_starts(video_frames, num_clips)[:, None]
        else:
            starts = np.stack([self._starts(video_frames, (2 * c + 1) / (2 * num_clips)) for c in range(num_clips)])
        return np.stack([self.indices(each, video_frames) for each in starts])

    def random_starts(self, video_frames: int, rng: Rng) -> np.ndarray:
        """First frames of the segments' clips in training, int64 (num_segments,)."""
        require_frames(video_frames)
        count = self.num_segments
        places = video_frames - self.span + 1
        if self.tail == "keep":
            if places < 1:
                return np.zeros(count, np.int64)
            length = places / count
            return np.trunc(np.arange(count) * length + rng.uniform(0, length, count)).astype(np.int64)
        length = places // count
        if length > 0:
            return np.arange(count) * length + rng.choice(length, count)
        if video_frames > max(count, self.span):
            return np.sort(rng.choice(places, count)).astype(np.int64)
        if length == 0 and self.short == "spread":
            return np.around(np.arange(count) * (places / count)).astype(np.int64)
        return np.zeros(count, np.int64)

    def middle_starts(self, video_frames: int, count: int | None = None) -> np.ndarray:
        """First frames of the clips in the middle of `count` segments (num_segments unless said), int64 (count,)."""
        return self._starts(video_frames, 0.5, count)

    def first_starts(self, video_frames: int) -> np.ndarray:
        """First frames of the clips at the beginning of the segments, int64 (num_segments,)."""
        return self._starts(video_frames, 0.0)

    def shifts(self, rng: Rng) -> np.ndarray | None:
        """A draw of the jitter, int64 (num_frames,); None where there is none."""
        if self.jitter == "none":
            return None
        if self.jitter == "frame":
            return np.asarray(rng.choice(self.interval, self.num_frames), np.int64)
        return np.tile(np.asarray(rng.choice(self.interval, self.segment_frames), np.int64), self.num_segments)

    def indices(self, starts: np.ndarray, video_frames: int, shifts: np.ndarray | None = None) -> np.ndarray:
        """Frame indices of the clips that begin at `starts` (K,), int64 (K * segment_frames,)."""
        if shifts is None:
            return indices_from(starts, self.segment_frames, self.interval, video_frames, self.end).reshape(-1)
        shifts = shifts.reshape(len(starts), self.segment_frames)
        if self.end == "stay":  # A shift that leaves the video is not made.
            frames = indices_from(starts, self.segment_frames, self.interval, video_frames, self.end)
            return np.where(frames + shifts < video_frames, frames + shifts, frames).reshape(-1)
        wanted = starts[:, None] + self.interval * np.arange(self.segment_frames) + shifts
        return inside(wanted, video_frames, self.end).reshape(-1)

    def _starts(self, video_frames: int, part: float, count: int | None = None) -> np.ndarray:
        """Places at the given part (0 to 1) of each segment."""
        require_frames(video_frames)
        count = count or self.num_segments
        places = video_frames - self.span + 1
        if places < 1 or (self.short == "first" and places <= count):
            return np.zeros(count, np.int64)
        length = places / count
        return (np.arange(count) * length + length * part).astype(np.int64)


@dataclass(frozen=True)
class TwiceSample:
    """`SegmentClips` whose two test views are the middles and the beginnings of the segments.

    4 segments of 12 frames:  |.a.|.a.|.a.|.a.|  and  |b..|b..|b..|b..|. Source: ResKD's TSM test (twice_sample).
    """

    segments: SegmentClips

    @property
    def num_frames(self) -> int:
        return self.segments.num_frames

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        return self.segments.draw(video_frames, rng)

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of the two clips, int64 (2, num_frames); one clip is the first of them. Raises: ValueError for more."""
        require(num_clips in (1, 2), f"num_clips is {num_clips}; twice-sampling has 1 or 2")
        segments = self.segments
        starts = (segments.middle_starts(video_frames), segments.first_starts(video_frames))
        return np.stack([segments.indices(each, video_frames) for each in starts[:num_clips]])
