"""What every frame sampler has in common: its interface, its source of chance, and what lies past a video's end."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np


class Rng(Protocol):
    """What sampling draws from: numpy's Generator, and its legacy RandomState for the reference vectors.

    `choice(n)` is an integer of 0 to n - 1; with a size, an array of them.
    """

    def choice(self, a: Any, size: int | None = None) -> Any: ...
    def uniform(self, low: float, high: float, size: int | None = None) -> Any: ...


def draw_below(rng: Rng, n: int) -> int:
    """An integer of 0 to n - 1: what `choice(n)` draws, of a Generator by the method that takes a quarter of the time."""
    return int(rng.integers(n)) if isinstance(rng, np.random.Generator) else int(rng.choice(n))


class Sampler(Protocol):
    """What a `ClipSpec` needs: clips of `num_frames` frames, random ones in training, fixed views otherwise."""

    @property
    def num_frames(self) -> int: ...

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        ...

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Frame indices of `num_clips` clips of one video, int64 (num_clips, num_frames)."""
        ...


End = Literal["loop", "repeat_last", "stay"]
"""What an index past the last frame becomes, in a video of 6 frames at interval 2 from frame 1:

    wanted       1 3 5 7 9
    loop         1 3 5 1 3     the video begins again
    repeat_last  1 3 5 5 5     the clip's last frame inside the video
    stay         1 3 3 3 3     the same, but no step lands on the video's very last frame (ST-ABN's code)
"""


def indices_from(starts: np.ndarray, num_frames: int, interval: int, video_frames: int, end: End) -> np.ndarray:
    """Indices of clips that begin at `starts` (K,), kept inside the video by `end`: int64 (K, num_frames)."""
    wanted = starts.astype(np.int64)[:, None] + interval * np.arange(num_frames)
    if end == "stay":
        steps = np.maximum(-(-(video_frames - 1 - starts) // interval) - 1, 0).astype(np.int64)
        return starts.astype(np.int64)[:, None] + interval * np.minimum(np.arange(num_frames), steps[:, None])
    return inside(wanted, video_frames, end)


def inside(wanted: np.ndarray, video_frames: int, end: End) -> np.ndarray:
    """(K, T) indices with those past the end replaced: looped, or by the largest of the clip that is inside."""
    if end == "loop":
        return wanted % video_frames
    last = np.where(wanted < video_frames, wanted, 0).max(axis=1, keepdims=True)
    return np.where(wanted < video_frames, wanted, last)


def require_frames(video_frames: int) -> None:
    require(video_frames >= 1, f"a clip needs at least one frame, the video has {video_frames}")


def require_clip(num_frames: int, interval: int = 1) -> None:
    require(num_frames >= 1, f"num_frames is {num_frames}; a clip has at least one frame")
    require(interval >= 1, f"interval is {interval}; it is at least 1")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
