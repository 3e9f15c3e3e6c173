"""One frame from each of equal segments, without the published codes' quirks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from loaders.sampling.base import Rng, require_clip, require_frames


@dataclass(frozen=True)
class Segments:
    """The video in `num_frames` equal segments, one frame of each.

    4 segments of 12 frames:  |.F.|F..|..F|.F.|     training: a random frame; evaluation: the middle one. A video with
    fewer frames than segments repeats frames. Source: TSN (arXiv 1608.00859, section 3).
    """

    num_frames: int

    def __post_init__(self) -> None:
        require_clip(self.num_frames)

    def _edges(self, video_frames: int) -> np.ndarray:
        return np.arange(self.num_frames + 1) * video_frames / self.num_frames

    def draw(self, video_frames: int, rng: Rng) -> np.ndarray:
        """Frame indices of a training clip, int64 (num_frames,). Raises: ValueError if the video has no frames."""
        require_frames(video_frames)
        edges = self._edges(video_frames)
        inside = np.array([rng.uniform(low, high) for low, high in pairwise(edges)])
        return np.minimum(inside.astype(np.int64), video_frames - 1)

    def views(self, video_frames: int, num_clips: int) -> np.ndarray:
        """Indices of `num_clips` clips, int64 (num_clips, num_frames): clip c takes the (2c+1)/(2n)-th of each segment."""
        require_frames(video_frames)
        edges = self._edges(video_frames)
        parts = (2 * np.arange(num_clips) + 1) / (2 * num_clips)
        return (edges[None, :-1] + parts[:, None] * np.diff(edges)[None]).astype(np.int64)
