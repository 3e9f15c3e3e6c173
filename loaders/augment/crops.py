"""Crops and sizes of the six methods, as operations of the recipe language. Boxes come from `loaders.sampling`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loaders.augment import steps
from loaders.augment.geometry import Size
from loaders.augment.recipe import ClipShape
from loaders.augment.values import Rng, Value, draw, limits
from loaders.sampling import Box, centre_crop, multi_scale_crop, random_resized_crop

_TRIES = 10

Rounding = Literal["half_up", "half_even", "down"]


@dataclass(frozen=True)
class Resize:
    """To `height` x `width`, the aspect not kept."""

    height: int
    width: int
    interpolation: steps.Interpolation = "linear"

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return _resized(shape.size, (self.height, self.width), self.interpolation)


@dataclass(frozen=True)
class ShortSide:
    """Scaled, the aspect kept, so that the shorter side has `pixels`.

    `rounding` of the longer side: "half_up" is int(x + 0.5) (mmaction2, STS, ST-ABN), "half_even" Python's round (SRTG),
    "down" int(x) (SBP).
    """

    pixels: Value
    interpolation: steps.Interpolation = "linear"
    rounding: Rounding = "half_up"

    def __post_init__(self) -> None:
        if limits(self.pixels)[0] < 1:
            raise ValueError(f"{self} may draw a side of {limits(self.pixels)[0]} px; it is at least 1")

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        short = int(draw(self.pixels, rng))
        return _resized(shape.size, short_side_size(shape.size, short, self.rounding), self.interpolation)


def short_side_size(size: Size, pixels: int, rounding: Rounding = "half_up") -> Size:
    """(height, width) with the given shorter side; the longer one rounded as `ShortSide` says."""
    # The first as mmcv and mmaction2 compute it, the others in one division: they may differ where a half is hit.
    if rounding == "half_up":
        longer = int(max(size) * (pixels / min(size)) + 0.5)
    else:
        longer = (round if rounding == "half_even" else int)(pixels * max(size) / min(size))
    return (pixels, longer) if size[0] <= size[1] else (longer, pixels)


@dataclass(frozen=True)
class CentreCrop:
    """A side that is smaller than asked stays as it is.

    Of an odd rest the larger part lies right and below; torchvision, for pictures, rounds the half of it ("half_even").
    """

    height: int
    width: int
    rounding: Literal["down", "half_even"] = "down"

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        height, width = min(self.height, shape.height), min(self.width, shape.width)
        if self.rounding == "half_even":
            return [steps.Crop(round((shape.height - height) / 2), round((shape.width - width) / 2), height, width)]
        return [cut(centre_crop(*shape.size, height, width))]


@dataclass(frozen=True)
class RandomCrop:
    """Anywhere, all places equally likely. A side that is smaller than asked stays as it is."""

    height: int
    width: int

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        height, width = min(self.height, shape.height), min(self.width, shape.width)
        top = rng.integers(0, shape.height - height, endpoint=True)
        left = rng.integers(0, shape.width - width, endpoint=True)
        return [steps.Crop(int(top), int(left), height, width)]


@dataclass(frozen=True)
class RandomResizedCrop:
    """A part of random area and aspect ratio, then scaled to `height` x `width`.

    `area` as a share of the frame, `ratio` width / height. `rule`, which says how they are drawn:
    "clip": ratios (evenly in their logarithm) and areas of all tries at once (ResKD, STS);
    "image": try by try; if none fits, the largest centred part within the ratios (torchvision; STS pre-training);
    "stabn": ratios evenly, sides changed over by chance; ST-ABN's code takes width for height when it looks whether a
    part fits, so that one may lie partly outside the frame and be cut off, as there.
    """

    height: int
    width: int
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    rule: Literal["clip", "image", "stabn"] = "clip"
    interpolation: steps.Interpolation = "linear"

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1]:
            raise ValueError(f"area is {self.area}; it is (smallest, largest), above 0")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio is {self.ratio}; it is (smallest, largest), above 0")

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        if self.rule == "clip":
            box = random_resized_crop(*shape.size, rng, area=self.area, aspect=self.ratio)
        elif self.rule == "image":
            box = image_crop(shape.size, rng, self.area, self.ratio)
        else:
            box = inside(stabn_crop(shape.size, rng, self.area, self.ratio), shape.size)
        return [cut(box), *_resized((box.height, box.width), (self.height, self.width), self.interpolation)]


def image_crop(size: Size, rng: Rng, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """torchvision's rule, for pictures. Draws per try area, ratio; of the one that fits top, left."""
    height, width = size
    for _ in range(_TRIES):
        target = rng.uniform(*area) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, tall = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            top = int(rng.integers(0, height - tall, endpoint=True))
            return Box(int(rng.integers(0, width - wide, endpoint=True)), top, wide, tall)
    wide, tall = width, height
    if width / height < min(ratio):
        tall = round(width / min(ratio))
    elif width / height > max(ratio):
        wide = round(height * max(ratio))
    return centre_crop(height, width, tall, wide)


def stabn_crop(size: Size, rng: Rng, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """ST-ABN's rule with its confusion of width and height; the box may lie partly outside the frame."""
    height, width = size
    for _ in range(_TRIES):
        target = rng.uniform(*area) * (height * width)
        aspect = rng.uniform(*ratio)
        wide, tall = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if rng.random() < 0.5:
            wide, tall = tall, wide
        if wide <= height and tall <= width:
            left = int(rng.integers(0, width - tall, endpoint=True))
            return Box(left, int(rng.integers(0, height - wide, endpoint=True)), wide, tall)
    side = min(size)
    return centre_crop(height, width, side, side)


def inside(box: Box, size: Size) -> Box:
    """What of the box lies in a frame of `size`."""
    left, top, right, bottom = box.corners
    left, top = max(left, 0), max(top, 0)
    return Box(left, top, min(right, size[1]) - left, min(bottom, size[0]) - top)


@dataclass(frozen=True)
class MultiScaleCrop:
    """The shorter side times one of `scales` for each side, at one of a few places or anywhere; not scaled afterwards.

    Height and width are at most `max_distort` places apart in `scales`. A side close to that of `input_size` (height,
    width) is taken to be that. `places`: 13 on a grid of quarters, corners and the centre of it, or anywhere.
    Source: TSN (arXiv 1608.00859, section 3.3); ResKD, ST-ABN.
    """

    input_size: tuple[int, int]
    scales: tuple[float, ...] = (1, 0.875, 0.75, 0.66)
    max_distort: int = 1
    places: Literal["grid", "corners", "anywhere"] = "grid"

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        box = multi_scale_crop(
            *shape.size,
            *self.input_size,
            rng,
            scales=self.scales,
            max_distort=self.max_distort,
            places=self.places,
        )
        return [cut(box)]


def cut(box: Box) -> steps.Crop:
    """The box as a step."""
    return steps.Crop(box.top, box.left, box.height, box.width)


def _resized(source: Size, target: Size, interpolation: steps.Interpolation) -> list[steps.Step]:
    """Nothing where the size is right already: interpolation would change nothing but the time it takes."""
    return [] if source == target else [steps.Resize(*target, interpolation)]
