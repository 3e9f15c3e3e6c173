"""Loaders from the config: training, validation and test."""

from __future__ import annotations

from typing import Literal

from loaders import ClipDataset, ClipLoader, ClipSpec, RandomInterval, Segments
from loaders.sampling import Sampler
from trainers.config import Config, DataConfig

Split = Literal["train", "val", "test"]


def clip_spec(data: DataConfig, split: Split) -> ClipSpec:
    """What a clip of a split is: jittered in training, fixed views otherwise."""
    sampler: Sampler
    if data.sampling == "segments":
        sampler = Segments(data.num_frames)
    else:
        sampler = RandomInterval(data.num_frames, data.intervals)
    if split == "train":
        return ClipSpec(sampler, data.size, data.size, data.short_side, flip=data.flip, colour=data.colour)
    side = data.eval_short_side or data.short_side[0]
    views = data.val_views if split == "val" else data.test_views
    return ClipSpec(sampler, data.size, data.size, (side, side), views=views, colour=data.colour)


def make_loader(config: Config, split: Split, *, rank: int = 0, world_size: int = 1) -> ClipLoader:
    """The loader of a split. Raises: ClipmillError when the split is empty."""
    data = config.data
    name = {"train": data.train_split, "val": data.val_split, "test": data.test_split}[split]
    return ClipLoader(
        ClipDataset(data.root, name),
        clip_spec(data, split),
        batch_size=data.batch_size,
        seed=config.seed,
        workers=data.workers,
        num_workers=data.num_workers,
        depth=data.depth,
        rank=rank,
        world_size=world_size,
    )
