"""Clips one after the other through a video, without overlap."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from loaders.sampling.base import Rng, draw_below, require, require_clip, require_frames


@dataclass(frozen=True)
class Sequential:
    """`num_frames` frames, `interval` apart; the video cut into clips that follow each other.

    interval 2, 3 frames, video of 14:  |F.F.F|F.F.F|....     span = 5. A video shorter than the span gives one frame, repeated.
    """

    num_frames: int
    interval: int = 1

    def __post_init__(self) -> None:
        require_clip(self.num_frames, self.interval)

    @property
    def span(self) -> int:
        """Frames between the first and the last frame of the clip, both included."""
        return (self.num_frames - 1) * self.interval + 1

    def starts(self, video_frames: int) -> np.ndarray:
        """First frames of all clips, int64; empty for a video shorter than the span."""
        require_frames(video_frames)
        return np.arange(0, video_frames - self.span + 1, self.span, dtype=np.int64)

    def clip(self, start: int) -> np.ndarray:
        """Frame indices of the clip from `start`, int64 (num_frames,)."""
        return start + self.interval * np.arange(self.num_frames, dtype=np.int64)

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of one of the clips, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        starts = self.starts(video_frames)
        if not len(starts):
            return np.full(self.num_frames, draw_below(rng, video_frames), np.int64)
        return self.clip(int(starts[draw_below(rng, len(starts))]))

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` of the clips, evenly chosen, int64 (num_clips, num_frames).

        One is the middle one; where there are fewer, some come twice. A short video repeats its middle frame.
        """
        starts = self.starts(video_frames)
        if not len(starts):
            return np.full((num_clips, self.num_frames), (video_frames - 1) // 2, np.int64)
        chosen = ((2 * np.arange(num_clips) + 1) * len(starts) // (2 * num_clips)).astype(np.int64)
        return np.stack([self.clip(int(start)) for start in starts[chosen]])


class _Shuffler(Rng, Protocol):
    def shuffle(self, x: Any) -> None: ...


@dataclass
class SequentialWalk:
    """A walk through the clips of many videos that remembers, for each, its order and how far it has come.

    The order (shuffled if asked) is fixed when a video is first met, and stays when `num_frames` changes later, though the
    clip may then leave the video. With `fixed`, a video gives the same clip every time until it `failed`.
    Source: SRTG's validation sampler (SequentialSampling), draw for draw on one generator.
    """

    num_frames: int
    intervals: tuple[int, ...]
    rng: _Shuffler
    shuffle: bool = False
    fixed: bool = False
    _orders: dict[Hashable, list[int]] = field(default_factory=dict)
    _places: dict[Hashable, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.intervals), "intervals are (); there is at least one")
        require_clip(self.num_frames, min(self.intervals))

    def next(self, video: Hashable, video_frames: int, *, failed: bool = False) -> np.ndarray:
        """The next clip of a video, int64 (num_frames,); `failed` says that the one before could not be read."""
        clips = Sequential(self.num_frames, int(self.rng.choice(list(self.intervals))))
        if video not in self._orders:
            self._orders[video] = clips.starts(video_frames).tolist()
            self._places[video] = -1
            if self.shuffle:
                self.rng.shuffle(self._orders[video])
        order = self._orders[video]
        if not order:
            return np.full(self.num_frames, self.rng.choice(range(video_frames)), np.int64)
        place = (self._places[video] + 1) % len(order)
        if failed or not self.fixed:
            self._places[video] = place
        return clips.clip(order[place])
