"""Crops and sizes of the six methods, as operations of the recipe language.

Each draws where the clip is cut and how it is scaled; the order of its draws is that of the code that it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loaders.augment import steps
from loaders.augment.geometry import Size
from loaders.augment.recipe import ClipShape
from loaders.augment.values import Rng, Value, draw, limits, pick

_TRIES = 10

Box = tuple[int, int, int, int]
"""left, top, width, height"""


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
    rounding: Literal["half_up", "half_even", "down"] = "half_up"

    def __post_init__(self) -> None:
        if limits(self.pixels)[0] < 1:
            raise ValueError(f"{self} may draw a side of {limits(self.pixels)[0]} px; it is at least 1")

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        short = int(draw(self.pixels, rng))
        return _resized(shape.size, short_side_size(shape.size, short, self.rounding), self.interpolation)


def short_side_size(size: Size, short: int, rounding: Literal["half_up", "half_even", "down"] = "half_up") -> Size:
    """(height, width) with the given shorter side; the longer one rounded as `ShortSide` says."""
    factor = short / min(size)
    exact = [side * factor if rounding == "half_up" else short * side / min(size) for side in size]
    ways: dict[str, Callable[[float], int]] = {"half_up": lambda x: int(x + 0.5), "half_even": round, "down": int}
    height, width = (short if side == min(size) else ways[rounding](x) for side, x in zip(size, exact, strict=True))
    return height, width


def bounded_size(size: Size, bounds: tuple[float, float]) -> tuple[Size, float]:
    """The largest (height, width) of the same aspect that fits into (long, short) edges, either of them inf; the factor.

    Source: mmcv's rescale, which ResKD, STS and ST-ABN scale with.
    """
    factor = min(max(bounds) / max(size), min(bounds) / min(size))
    return (int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)), factor


@dataclass(frozen=True)
class CentreCrop:
    """A side that is smaller than asked stays as it is."""

    height: int
    width: int

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        height, width = min(self.height, shape.height), min(self.width, shape.width)
        return [steps.Crop((shape.height - height) // 2, (shape.width - width) // 2, height, width)]


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
    "clip": ratios (evenly in their logarithm) and areas of all tries at once (mmaction2; ResKD, STS);
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
        rule = {"clip": resized_crop, "image": resized_crop_image, "stabn": resized_crop_stabn}[self.rule]
        left, top, width, height = clipped(rule(rng, shape.size, self.area, self.ratio), shape.size)
        return [
            steps.Crop(top, left, height, width),
            *_resized((height, width), (self.height, self.width), self.interpolation),
        ]


def resized_crop(rng: Rng, size: Size, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """mmaction2's rule: ten ratios, ten areas, the first pair that fits; else the largest centred square."""
    height, width = size
    ratios = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), _TRIES))
    areas = rng.uniform(*area, _TRIES) * (height * width)
    widths = np.round(np.sqrt(areas * ratios)).astype(np.int32)
    heights = np.round(np.sqrt(areas / ratios)).astype(np.int32)
    for w, h in zip(widths.tolist(), heights.tolist(), strict=True):
        if w <= width and h <= height:
            left = int(rng.integers(0, width - w, endpoint=True))
            return left, int(rng.integers(0, height - h, endpoint=True)), w, h
    side = min(size)
    return (width - side) // 2, (height - side) // 2, side, side


def resized_crop_image(rng: Rng, size: Size, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """torchvision's rule, for pictures: the top is drawn before the left."""
    height, width = size
    for _ in range(_TRIES):
        target = rng.uniform(*area) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if w <= width and h <= height:
            top = int(rng.integers(0, height - h, endpoint=True))
            return int(rng.integers(0, width - w, endpoint=True)), top, w, h
    w, h = width, height
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    return (width - w) // 2, (height - h) // 2, w, h


def resized_crop_stabn(rng: Rng, size: Size, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """ST-ABN's rule with its confusion of width and height; the part may lie partly outside the frame."""
    height, width = size
    for _ in range(_TRIES):
        target = rng.uniform(*area) * (height * width)
        aspect = rng.uniform(*ratio)
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if rng.random() < 0.5:
            w, h = h, w
        if w <= height and h <= width:
            left = int(rng.integers(0, width - h, endpoint=True))
            return left, int(rng.integers(0, height - w, endpoint=True)), w, h
    side = min(size)
    return (width - side) // 2, (height - side) // 2, side, side


@dataclass(frozen=True)
class MultiScaleCrop:
    """One of a few sizes between `input_size` scaled, at one of a few places or anywhere; not scaled afterwards.

    Sides are the frame's shorter side times one of `scales`; a height and a width may be `max_gap` places apart in the
    list. A side within three pixels of `input_size` (height, width) is taken to be that. `places`: 5 are the corners
    and the centre, 13 these and more on the quarters of the way, "anywhere" any.
    Source: TSN (arXiv 1608.00859, section 3.2); mmaction2; ST-ABN.
    """

    input_size: tuple[int, int]
    scales: tuple[float, ...] = (1, 0.875, 0.75, 0.66)
    max_gap: int = 1
    places: Literal[5, 13, "anywhere"] = 13

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        width, height = pick(multi_scale_sizes(shape.size, self), rng)
        if self.places == "anywhere":
            left = int(rng.integers(0, shape.width - width, endpoint=True))
            top = int(rng.integers(0, shape.height - height, endpoint=True))
        else:
            left, top = pick(fixed_places(shape.size, (height, width), self.places), rng)
        return [steps.Crop(top, left, height, width)]


def multi_scale_sizes(size: Size, crop: MultiScaleCrop) -> list[tuple[int, int]]:
    """(width, height) that may be drawn, in the order of the code: heights outside, widths inside."""
    sides = [int(min(size) * scale) for scale in crop.scales]
    heights, widths = ([asked if abs(side - asked) < 3 else side for side in sides] for asked in crop.input_size)
    return [
        (w, h) for i, h in enumerate(heights) for j, w in enumerate(widths) if abs(i - j) <= crop.max_gap
    ]  # fmt: skip


_QUARTERS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


def fixed_places(size: Size, crop: Size, count: int = 13) -> list[tuple[int, int]]:
    """(left, top) of a `crop` (height, width) on a grid of quarters of the spare room: 5 or 13 places."""
    step_y, step_x = (size[0] - crop[0]) // 4, (size[1] - crop[1]) // 4
    return [(x * step_x, y * step_y) for x, y in _QUARTERS[:count]]


# Views: one clip makes several


def three_crops(size: Size, crop: Size) -> list[steps.Crop]:
    """Left, right, middle of a wide frame; top, bottom, middle of a tall one. Source: mmaction2, ST-ABN.

    Raises: ValueError if neither side of the crop is the frame's own.
    """
    if crop[0] != size[0] and crop[1] != size[1]:
        raise ValueError(
            f"three crops of {crop[0]}x{crop[1]} px need a frame as high or as wide; it is {size[0]}x{size[1]}"
        )
    wide = crop[0] == size[0]
    step = (size[1] - crop[1]) // 2 if wide else (size[0] - crop[0]) // 2
    places = [(0, at) if wide else (at, 0) for at in (0, 2 * step, step)]
    return [steps.Crop(top, left, *crop) for top, left in places]


def ten_crops(size: Size, crop: Size) -> list[tuple[steps.Step, ...]]:
    """Four corners and the centre, each as it is and then mirrored. Source: ST-ABN."""
    cuts = [steps.Crop(top, left, *crop) for left, top in fixed_places(size, crop, 5)]
    return [view for cut in cuts for view in ((cut,), (cut, steps.Flip()))]


# Shared


def clipped(box: Box, size: Size) -> Box:
    """What of the box lies inside a frame of `size`."""
    left, top, width, height = box
    x0, y0 = max(left, 0), max(top, 0)
    return x0, y0, min(left + width, size[1]) - x0, min(top + height, size[0]) - y0


def _resized(source: Size, target: Size, interpolation: steps.Interpolation) -> list[steps.Step]:
    """Nothing where the size is right already: interpolation would change nothing but the time it takes."""
    return [] if source == target else [steps.Resize(*target, interpolation)]
