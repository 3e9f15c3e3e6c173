"""Loaders from the config: training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from ingest.annotations.read import read_several
from ingest.errors import ClipmillError
from loaders import ClipDataset, ClipLoader, ClipSpec, RandomInterval, Segments
from loaders.augment import FlipLabels, Recipe, flip_labels, recipe_by_name, recipe_from_config
from loaders.multigrid import BatchShape, ShapePlan, srtg_plan, wu_plan
from loaders.sampling import Dense, Sampler
from loaders.statistics import Statistics
from loaders.telemetry import Stage
from trainers.config import Config, DataConfig

Split = Literal["train", "val", "test"]


class TrainLoader(Protocol):
    """What the loop needs of a loader of training batches. `ClipLoader` is one; a method may bring its own.

    Its batches have `len`, `labels`, `lr_factor`, and `shape`: (B, T, H, W), 1 for what they do not have.
    """

    dataset: Any
    """Has `root` and `class_names`."""
    epoch: int
    statistics: Statistics
    plan: ShapePlan | None

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    @property
    def batches_left(self) -> int: ...
    @property
    def wait_s(self) -> float: ...
    def stages(self) -> dict[str, Stage]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


def clip_spec(data: DataConfig, split: Split, class_names: Sequence[str] = ()) -> ClipSpec:
    """What a clip of a split is: jittered in training, fixed views otherwise.

    A mirrored clip of a class whose name has a left or a right is treated as `data.flip_labels` says.
    """
    if split == "train":
        return ClipSpec(
            _sampler(data, data.intervals),
            data.size,
            data.size,
            data.short_side,
            flip=data.flip,
            colour=data.colour,
            augment=_recipe(data),
            flip_labels=_flip_labels(data, class_names),
            executor=data.executor,
            geometry=data.geometry,
        )
    size = data.eval_size or data.size
    side = data.eval_short_side or max(data.short_side[0], size)
    views = data.val_views if split == "val" else data.test_views
    sampler = _sampler(data, data.eval_intervals or data.intervals)
    return ClipSpec(sampler, size, size, (side, side), views=views, colour=data.colour, crops=data.crops)


def _sampler(data: DataConfig, intervals: tuple[int, ...]) -> Sampler:
    match data.sampling:
        case "segments":
            return Segments(data.num_frames)
        case "dense":
            if len(intervals) > 1:
                raise ClipmillError(
                    f"data.sampling dense has one interval, data.intervals gives {', '.join(map(str, intervals))}.",
                    "Nothing was run.",
                    "Give one, or take random-interval.",
                )
            return Dense(data.num_frames, intervals[0])
    return RandomInterval(data.num_frames, intervals)


def dataset(data: DataConfig, split: str | None) -> ClipDataset:
    """The videos of a split, from the store that the config names. Raises: ClipmillError when there is none."""
    if data.store == "video-file":
        files = (data.labels,) if isinstance(data.labels, Path) else data.labels
        found = read_several(files, data.labels_format) if files else None
        return ClipDataset.of_videos(data.root, found, split if found else None)
    if data.store == "historical":
        return ClipDataset.of_historical(data.root)
    return ClipDataset(data.root, split, store=data.store)


def _flip_labels(data: DataConfig, class_names: Sequence[str]) -> FlipLabels | None:
    """None where no class has an opposite: then there is nothing to look up per clip."""
    rule = flip_labels(class_names, data.flip_labels)
    return rule if any(other != -1 for other in rule.opposite) or rule.policy == "forbid-all" else None


def _recipe(data: DataConfig) -> Recipe | None:
    if data.augment is None:
        return None
    try:
        return recipe_by_name(data.augment) if isinstance(data.augment, str) else recipe_from_config(data.augment)
    except ValueError as error:
        raise ClipmillError(f"data.augment: {error}.", "Nothing was run.", "Mend the recipe in the config.") from None


def shape_plan(config: Config, num_items: int, world_size: int = 1) -> ShapePlan | None:
    """The shapes and rates of all batches of a run, where the config wants multigrid. Raises: ClipmillError if it cannot be."""
    data, multigrid, schedule = config.data, config.multigrid, config.schedule
    if multigrid.name == "off":
        return None
    intervals = (min(data.intervals), max(data.intervals))
    base = BatchShape(data.batch_size * world_size, data.num_frames, data.size, data.size, data.short_side, intervals)
    milestones = schedule.milestones if schedule.name == "multistep" else ()
    try:
        if any(milestone != int(milestone) for milestone in milestones):
            raise ValueError(f"schedule.milestones are {milestones}; multigrid changes the rate between epochs only")
        steps = [int(milestone) for milestone in milestones]
        if multigrid.name == "srtg":
            return srtg_plan(
                base,
                num_items=num_items,
                epochs=config.train.epochs,
                lr_steps=steps,
                gamma=schedule.gamma,
                long=multigrid.long,
                short=multigrid.short,
                reference=multigrid.reference,
            )
        return wu_plan(
            base,
            num_items=num_items,
            epochs=config.train.epochs,
            lr_steps=steps,
            lr_factors=[schedule.gamma**i for i in range(len(steps) + 1)],
            epoch_factor=multigrid.epoch_factor,
            warmup_epochs=schedule.warmup_epochs,
            warmup_start=schedule.warmup_start,
            long=multigrid.long,
            short=multigrid.short,
            reference=multigrid.reference,
        )
    except ValueError as error:
        raise ClipmillError(
            f"multigrid for {num_items} videos: {error}.",
            "Nothing was run.",
            "Mend the config, or switch multigrid off.",
        ) from None


def make_loader(config: Config, split: Split, *, rank: int = 0, world_size: int = 1) -> ClipLoader:
    """The loader of a split. Raises: ClipmillError when the split is empty."""
    data = config.data
    name = {"train": data.train_split, "val": data.val_split, "test": data.test_split}[split]
    videos = dataset(data, name)
    plan = shape_plan(config, len(videos), world_size) if split == "train" else None
    return ClipLoader(
        videos,
        clip_spec(data, split, videos.class_names),
        batch_size=None if plan else data.batch_size,
        shapes=plan,
        seed=config.seed,
        workers=data.workers,
        num_workers=data.num_workers,
        backend=data.backend,
        depth=data.depth,
        max_bad=data.max_bad,
        on_bad="replace",
        rank=rank,
        world_size=world_size,
    )
