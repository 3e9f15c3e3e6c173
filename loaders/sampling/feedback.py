"""Which frames of a window get a gradient when an online detector is trained end to end with partial feedback (SBP)."""

from __future__ import annotations

import numpy as np

from loaders.sampling.base import Rng, require, require_frames


def kept_frames(num_frames: int, keep_ratio: float, jitter: Rng | None = None) -> np.ndarray:
    """Frames whose features are computed with a gradient, int64, rising; all others are computed without.

    keep ratio 0.4 (stride 2), 7 frames:  K.K.K.K. A stride that is no shorter than the window keeps its middle frame. With
    `jitter`, one frame of every stride at random, in which case two strides at the end may keep the same one.
    A ratio above 0.5 keeps all. Source: SBP's partial feedback (CVPR 2022 code, FrameSampler).
    """
    require_frames(num_frames)
    require(0 < keep_ratio <= 1, f"keep_ratio is {keep_ratio}; it lies above 0 and is at most 1")
    stride = int(1 / keep_ratio)
    if stride >= num_frames:
        return np.array([num_frames // 2], np.int64)
    kept = np.arange(0, num_frames, stride, dtype=np.int64)
    if jitter is not None:
        kept = np.clip(kept + jitter.choice(stride, len(kept)), 0, num_frames - 1)
    return kept
