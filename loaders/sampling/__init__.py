"""Which frames of a video make up a clip, and which part of a frame a crop takes. Pure index arithmetic, no I/O."""

from loaders.sampling.base import Rng, Sampler
from loaders.sampling.crops import (
    Box,
    centre_crop,
    crop_grid,
    crop_offsets,
    multi_scale_crop,
    multi_scale_sizes,
    random_resized_crop,
    rescaled,
    ten_crops,
    three_crops,
)
from loaders.sampling.dense import Dense, DenseWindow
from loaders.sampling.feedback import kept_frames
from loaders.sampling.random_interval import RandomInterval
from loaders.sampling.segment_clips import SegmentClips, TwiceSample
from loaders.sampling.segments import Segments
from loaders.sampling.sequential import Sequential, SequentialWalk

__all__ = [
    "Box",
    "Dense",
    "DenseWindow",
    "RandomInterval",
    "Rng",
    "Sampler",
    "SegmentClips",
    "Segments",
    "Sequential",
    "SequentialWalk",
    "TwiceSample",
    "centre_crop",
    "crop_grid",
    "crop_offsets",
    "kept_frames",
    "multi_scale_crop",
    "multi_scale_sizes",
    "random_resized_crop",
    "rescaled",
    "ten_crops",
    "three_crops",
]
