"""Dense sampling: frames at a fixed interval, from anywhere in the video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loaders.sampling.base import Rng, draw_below, indices_from, require, require_clip, require_frames


@dataclass(frozen=True)
class Dense:
    """`num_frames` frames, `interval` apart, somewhere in the video; past its end the last frame repeats.

    interval 2, 4 frames:  F.F.F.F.     span = 8: one interval more than from the first to the last frame, as published.
    Training draws any start but the very last one; a video not longer than the span starts at 0. Source: SBP's Kinetics.
    """

    num_frames: int
    interval: int = 1

    def __post_init__(self) -> None:
        require_clip(self.num_frames, self.interval)

    @property
    def span(self) -> int:
        """Frames that a clip is taken to need."""
        return self.num_frames * self.interval

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        room = self._room(video_frames)
        return self._clips(np.array([draw_below(rng, room) if room else 0]), video_frames)[0]

    def centre(self, video_frames: int) -> np.ndarray:
        """Indices of the clip in the middle of the video, int64 (num_frames,)."""
        return self._clips(np.array([self._room(video_frames) // 2]), video_frames)[0]

    def uniform(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips that begin every (frames - span) // num_clips frames, int64 (num_clips, num_frames)."""
        return self._clips(self._room(video_frames) // num_clips * np.arange(num_clips), video_frames)

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips, int64 (num_clips, num_frames): one is the centre, more are `uniform`."""
        return self.uniform(video_frames, num_clips) if num_clips > 1 else self.centre(video_frames)[None]

    def _room(self, video_frames: int) -> int:
        require_frames(video_frames)
        return max(video_frames - self.span, 0)

    def _clips(self, starts: np.ndarray, video_frames: int) -> np.ndarray:
        wanted = starts.astype(np.int64)[:, None] + self.interval * np.arange(self.num_frames)
        return np.minimum(wanted, video_frames - 1)


@dataclass(frozen=True)
class DenseWindow:
    """Short clips spread over a window of `window` consecutive frames: `num_starts` of them, every window // num_starts.

    4 starts, window 8:  F.F.F.F.     Past the end the video begins again; the window of a video that is not longer starts
    at 0. Each start gives `segment_frames` frames, `interval` apart. Source: MMAction2's DenseSampleFrames (TSM).
    """

    num_starts: int
    window: int = 64
    segment_frames: int = 1
    interval: int = 1

    def __post_init__(self) -> None:
        require(self.num_starts >= 1, f"num_starts is {self.num_starts}; there is at least one")
        require(
            self.window >= self.num_starts, f"a window of {self.window} frames has no room for {self.num_starts} starts"
        )
        require_clip(self.num_frames, self.interval)

    @property
    def num_frames(self) -> int:
        return self.num_starts * self.segment_frames

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        places = self._places(video_frames)
        # The very last place is never drawn, as published.
        return self._clip(draw_below(rng, places - 1) if places > 1 else 0, video_frames)

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips, int64 (num_clips, num_frames), windows from the first place to the last.

        One clip is that of the window in the middle.
        """
        last = self._places(video_frames) - 1
        begins = np.linspace(0, last, num_clips).astype(np.int64) if num_clips > 1 else [last // 2]
        return np.stack([self._clip(int(begin), video_frames) for begin in begins])

    def _places(self, video_frames: int) -> int:
        require_frames(video_frames)
        return max(1, 1 + video_frames - self.window)

    def _clip(self, begin: int, video_frames: int) -> np.ndarray:
        starts = (begin + self.window // self.num_starts * np.arange(self.num_starts)) % video_frames
        return indices_from(starts, self.segment_frames, self.interval, video_frames, "loop").reshape(-1)
