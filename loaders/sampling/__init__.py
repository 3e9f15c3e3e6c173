"""Which frames of a video make up a clip, and which part of a frame a crop takes. Pure index arithmetic, no I/O.

What the published codes run (n x c: `ClipSpec.views`, clips times crops):

    SRTG       training    RandomInterval(16, (1, 2)), other intervals for other data sets
               validation  SequentialWalk(16, (2,), shuffle=True, fixed=True), or Sequential(16, 2) in a ClipSpec
    ResKD      TSN, TSM    SegmentClips(8 or 16); test 1 x 1, TSM TwiceSample(SegmentClips(8)) 2 x 3
               SlowOnly    SegmentClips(1, 8, 8); validation 1 x 1, test 10 x 3
               Swin        SegmentClips(1, 32, 2); validation 1 x 1, test 4 x 3
    STS        Kinetics    SegmentClips(1, 32, 2), (1, 8, 8) or (1, 13, 6); validation 1 x 1, test 10 x 3
               Something   SegmentClips(8 or 32); test 1 x 3
    ST-ABN     all         SegmentClips(32, end="stay", short="first"), or (1, 32, 2, ...); test 1 x 1
    SBP        Kinetics    Dense(32, 2); validation 1 x 1, test 4 x 3
    SBP, LSTR  online      `loaders.windows`; which frames of a window get a gradient: kept_frames

`Segments` is segment sampling without the published codes' quirks, `DenseWindow` TSM's dense sampling.
"""

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
