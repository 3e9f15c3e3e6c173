"""Loaders from the config: training, validation and test."""

from __future__ import annotations

from typing import Literal

from ingest.annotations.read import read_annotations
from ingest.errors import ClipmillError
from loaders import ClipDataset, ClipLoader, ClipSpec, RandomInterval, Segments
from loaders.augment import Recipe, recipe_by_name, recipe_from_config
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
        return ClipSpec(
            sampler,
            data.size,
            data.size,
            data.short_side,
            flip=data.flip,
            colour=data.colour,
            augment=_recipe(data),
            executor=data.executor,
            geometry=data.geometry,
        )
    side = data.eval_short_side or data.short_side[0]
    views = data.val_views if split == "val" else data.test_views
    return ClipSpec(sampler, data.size, data.size, (side, side), views=views, colour=data.colour)


def dataset(data: DataConfig, split: str | None) -> ClipDataset:
    """The videos of a split, from the store that the config names. Raises: ClipmillError when there is none."""
    if data.store == "video-file":
        found = read_annotations(data.labels, data.labels_format) if data.labels else None
        return ClipDataset.of_videos(data.root, found, split if found else None)
    if data.store == "historical":
        return ClipDataset.of_historical(data.root)
    return ClipDataset(data.root, split, store=data.store)


def _recipe(data: DataConfig) -> Recipe | None:
    if data.augment is None:
        return None
    try:
        return recipe_by_name(data.augment) if isinstance(data.augment, str) else recipe_from_config(data.augment)
    except ValueError as error:
        raise ClipmillError(f"data.augment: {error}.", "Nothing was run.", "Mend the recipe in the config.") from None


def make_loader(config: Config, split: Split, *, rank: int = 0, world_size: int = 1) -> ClipLoader:
    """The loader of a split. Raises: ClipmillError when the split is empty."""
    data = config.data
    name = {"train": data.train_split, "val": data.val_split, "test": data.test_split}[split]
    return ClipLoader(
        dataset(data, name),
        clip_spec(data, split),
        batch_size=data.batch_size,
        seed=config.seed,
        workers=data.workers,
        num_workers=data.num_workers,
        backend=data.backend,
        depth=data.depth,
        max_bad=data.max_bad,
        rank=rank,
        world_size=world_size,
    )
