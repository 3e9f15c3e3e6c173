"""MMAction2's frame samplers by its settings: what the checks of ResKD and STS share."""

from __future__ import annotations

from typing import Any

import numpy as np

from loaders.sampling import DenseWindow, SegmentClips, TwiceSample
from tests.golden.vectors import no_unknown

_KEYS = (
    "clip_len|frame_interval|num_clips|temporal_jitter|twice_sample|out_of_bound_opt|test_mode|keep_tail_frames",
    "sample_range|num_sample_positions",
)


def sample_frames(cfg: dict[str, Any], video_frames: int, seed: int | None) -> np.ndarray:
    """Indices of SampleFrames, or of DenseSampleFrames where `cfg` has its settings; `seed` is NumPy's, None without draws."""
    no_unknown(cfg, *_KEYS)
    rng = np.random.RandomState(seed)
    frames, interval, count = cfg["clip_len"], cfg.get("frame_interval", 1), cfg.get("num_clips", 1)
    test = cfg.get("test_mode", False)
    if "sample_range" in cfg:
        window = DenseWindow(count, cfg["sample_range"], frames, interval)
        views = cfg.get("num_sample_positions", 10)
        return window.views(video_frames, views).reshape(-1) if test else window.draw(video_frames, rng)
    segments = SegmentClips(
        count,
        frames,
        interval,
        end=cfg.get("out_of_bound_opt", "loop"),
        tail="keep" if cfg.get("keep_tail_frames", False) else "drop",
        jitter="frame" if cfg.get("temporal_jitter", False) else "none",
    )
    if not test:
        return segments.draw(video_frames, rng)
    # A video shorter than a clip is not sampled twice there; ours always has both views.
    twice = cfg.get("twice_sample", False) and video_frames >= segments.span
    if segments.jitter == "none":
        return (TwiceSample(segments) if twice else segments).views(video_frames, 1 + twice).reshape(-1)
    starts = [segments.middle_starts(video_frames), *([segments.first_starts(video_frames)] if twice else [])]
    shifts = rng.choice(interval, segments.num_frames * len(starts))
    return segments.indices(np.concatenate(starts), video_frames, shifts)
