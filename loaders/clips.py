"""What a clip is (`ClipSpec`), and what one sample takes to make (`ClipPlan`): frames, level, geometry. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ingest.stores.frames_db import Level
from loaders.augment.labels import FlipLabels
from loaders.augment.recipe import ClipShape, Drawn, Recipe, draw
from loaders.multigrid.plan import BatchShape
from loaders.order import brief_sample_rng
from loaders.sampling import Sampler, crop_offsets

Executor = Literal["fast", "imgaug", "gpu"]
"""Who carries out a recipe: OpenCV in the decoder, fused; imgaug, slowly; torch, on the batch where it is normalised."""

Crops = Literal["long-side", "diagonal"]
"""Where the crops of evaluation views lie: along the long side, in its middle; or from the top left to the bottom right."""

Geometry = Literal["loader", "recipe"]
"""Who scales and crops: the loader, before the recipe; or the recipe itself, from the stored frame."""


@dataclass(frozen=True)
class ClipSpec:
    """What a clip is. Sizes in pixels.

    Training (`views` None): frames by the sampler, the frame scaled so that its short side lies in `short_side`, a
    random crop of `height` x `width`, mirrored with probability `flip`. Evaluation (`views` (clips, crops)): that many
    clips spread over time times crops spread along the long side, short side fixed to the first of `short_side`.

    `exact_resolution` decodes the largest level in full with the accurate transform, and scales whole frames before
    cropping: default for evaluation. Otherwise the smallest level is read that need not be enlarged by more than
    `enlarge` (1.25: as 256-pixel frames are for the usual jitter of 256 to 320), the JPEG decoder
    scales the rest of the way by halves, and only the part under the crop is resized.

    `augment` follows, in training: its draws come last, so that all else is as without it. A mirrored clip shows another
    class where `flip_labels` says so.
    """

    sampler: Sampler
    height: int
    width: int
    short_side: tuple[int, int]
    flip: float = 0.0
    views: tuple[int, int] | None = None
    exact_resolution: bool | None = None
    colour: Literal["RGB", "BGR"] = "RGB"
    augment: Recipe | None = None
    executor: Executor = "fast"
    geometry: Geometry = "loader"
    flip_labels: FlipLabels | None = None
    enlarge: float = 1.25
    crops: Crops = "long-side"

    def __post_init__(self) -> None:
        low, high = self.short_side
        if low > high or low < 1:
            raise ValueError(f"short_side is {self.short_side}; it must be (smallest, largest)")
        if min(self.height, self.width) < 1 or low < min(self.height, self.width):
            raise ValueError(f"a crop of {self.height}x{self.width} px does not fit into a short side of {low} px")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}; it is a probability")
        if self.views is not None and min(self.views) < 1:
            raise ValueError(f"views are {self.views}; (clips, crops) are at least 1")
        if self.enlarge < 1:
            raise ValueError(f"enlarge is {self.enlarge}; 1 is not at all")
        if self.executor not in get_args(Executor) or self.geometry not in get_args(Geometry):
            raise ValueError(f"executor {self.executor!r} and geometry {self.geometry!r} are not both known")
        if self.crops not in get_args(Crops):
            raise ValueError(f"crops are {self.crops!r}; there are {', '.join(get_args(Crops))}")
        if self.geometry == "recipe" and (self.augment is None or self.executor == "gpu"):
            raise ValueError("geometry by the recipe needs a recipe, and an executor that sees single clips")

    @property
    def num_frames(self) -> int:
        return self.sampler.num_frames

    @property
    def num_views(self) -> int:
        return self.views[0] * self.views[1] if self.views else 1

    @property
    def exact(self) -> bool:
        return self.views is not None if self.exact_resolution is None else self.exact_resolution

    @property
    def clip_bytes(self) -> int:
        """Bytes of one clip in a batch."""
        return self.num_frames * self.height * self.width * 3

    def shaped(self, shape: BatchShape) -> ClipSpec:
        """The same in another shape: frames, interval, crop and short side.

        Raises: ValueError for a sampler whose number of frames or interval cannot be changed.
        """
        sampler = _resampled(self.sampler, shape)
        return replace(self, sampler=sampler, height=shape.height, width=shape.width, short_side=shape.short_side)


class ClipPlan(NamedTuple):
    """All that one sample takes: decode `level`, scale to `scaled` (height, width), cut at `offset`, mirror, augment.

    `label` is the class that the finished clip shows.
    """

    video: int
    view: int
    frames: np.ndarray
    level: Level
    scaled: tuple[int, int]
    offset: tuple[int, int]
    mirror: bool
    label: int = -1
    drawn: Drawn | None = None


def plan_clip(
    spec: ClipSpec,
    item: int,
    video_frames: int,
    levels: Sequence[Level],
    *,
    seed: int,
    epoch: int,
    k: int,
    label: int = -1,
) -> ClipPlan:
    """The plan of sample `k` of an epoch, a pure function of its arguments. `levels` of the video, largest first.

    `item` counts (video, view) pairs. Draws, in this order: frames, short side, crop (top, left), mirror, recipe.
    """
    video, view = divmod(item, spec.num_views)
    height, width = levels[0].height, levels[0].width
    drawn = None
    if spec.views is None:
        rng = brief_sample_rng(seed, epoch, k)
        frames = spec.sampler.draw(video_frames, rng)
        short_side = int(rng.integers(spec.short_side[0], spec.short_side[1], endpoint=True))
        scaled = _scale(height, width, short_side, spec)
        top = int(rng.integers(0, scaled[0] - spec.height, endpoint=True))
        left = int(rng.integers(0, scaled[1] - spec.width, endpoint=True))
        mirror = bool(rng.random() < spec.flip)
        if spec.flip_labels is not None:
            mirror = mirror and spec.flip_labels.may_flip(label)
        if spec.geometry == "recipe":
            scaled, top, left, mirror = (height, width), 0, 0, False
        if spec.flip_labels is not None and mirror:
            label = spec.flip_labels.after_flip(label)
        if spec.augment is not None:
            size = scaled if spec.geometry == "recipe" else (spec.height, spec.width)
            drawn = _drawn(spec, rng, ClipShape(len(frames), *size))
            if spec.flip_labels is not None:
                drawn, label = spec.flip_labels.settle(drawn, label)
    else:
        num_clips, num_crops = spec.views
        frames = spec.sampler.views(video_frames, num_clips)[view // num_crops]
        short_side = spec.short_side[0]
        scaled = _scale(height, width, short_side, spec)
        spare = (scaled[0] - spec.height, scaled[1] - spec.width)
        top, left = (
            crop_offsets(room, num_crops if along else 1, down=spec.crops == "diagonal")[
                view % num_crops if along else 0
            ]
            for room, along in zip(spare, _moving(spec.crops, spare), strict=True)
        )
        mirror = False
    level = levels[0] if spec.exact or spec.geometry == "recipe" else smallest_level(levels, short_side / spec.enlarge)
    return ClipPlan(video, view, frames, level, scaled, (top, left), mirror, label, drawn)


def _moving(crops: Crops, spare: tuple[int, int]) -> tuple[bool, bool]:
    """Along which sides, (height, width), the crops of the views move."""
    return (True, True) if crops == "diagonal" else (spare[0] > spare[1], spare[0] <= spare[1])


def _drawn(spec: ClipSpec, rng: np.random.Generator, shape: ClipShape) -> Drawn:
    """The recipe for one clip. Raises: ValueError when it is not of the size that the spec promises."""
    assert spec.augment is not None
    drawn = draw(spec.augment, rng, shape)
    if drawn.size != (spec.height, spec.width):
        raise ValueError(
            f"the recipe {spec.augment.name or 'given'} makes {drawn.size[0]}x{drawn.size[1]} px of"
            f" {shape.height}x{shape.width}, the clip is to have {spec.height}x{spec.width}"
        )
    return drawn


def _resampled(sampler: Sampler, shape: BatchShape) -> Sampler:
    """A sampler of the same kind with the frames and the interval of a batch shape."""
    names = {each.name for each in fields(sampler)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    if "segment_frames" in names and getattr(sampler, "num_segments", 0) == 1:
        given["segment_frames"] = shape.num_frames
    elif "num_frames" in names:
        given["num_frames"] = shape.num_frames
    else:
        raise ValueError(f"{sampler} has no number of frames that a batch shape could change")
    if "intervals" in names:
        given["intervals"] = shape.interval_choices
    elif "interval" in names and len(shape.interval_choices) == 1:
        given["interval"] = shape.intervals[0]
    elif len(shape.interval_choices) > 1:
        raise ValueError(f"{sampler} has one interval, the batch shape {shape} draws from several")
    return replace(sampler, **given)  # type: ignore[type-var]


def smallest_level(levels: Sequence[Level], short_side: float) -> Level:
    """The smallest level that need not be enlarged to `short_side`; the largest if all must be."""
    enough = [level for level in levels if level.short_side >= short_side]
    return min(enough, key=lambda level: level.short_side) if enough else levels[0]


def _scale(height: int, width: int, short_side: int, spec: ClipSpec) -> tuple[int, int]:
    """(height, width) with the given short side, aspect kept, never below the crop."""
    factor = short_side / min(height, width)
    return max(round(height * factor), spec.height), max(round(width * factor), spec.width)
