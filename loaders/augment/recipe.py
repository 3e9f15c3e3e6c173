"""The recipe language: what may happen to a clip, with ranges and probabilities; and `draw`, which settles it for one clip.

A recipe is data: it can be printed, compared, and kept in a config (`loaders.augment.config`). Drawing gives steps
(`loaders.augment.steps`), the same for all frames of the clip; executors carry them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from loaders.augment import steps
from loaders.augment.geometry import Size, size_after
from loaders.augment.values import Choice, Integers, Rng, Uniform, Value, limits, pick
from loaders.augment.values import draw as draw_value


@dataclass(frozen=True)
class ClipShape:
    """What drawing has to know of the clip: how many frames, and their size in pixels."""

    frames: int
    height: int
    width: int

    @property
    def size(self) -> Size:
        return self.height, self.width


class Op(Protocol):
    """One operation of a recipe. Frozen dataclasses; `draw` depends on the generator and the shape, and nothing else."""

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]: ...


@dataclass(frozen=True)
class Recipe:
    """Operations, done first to last."""

    ops: tuple[Op, ...]
    name: str = field(default="", compare=False)

    def __str__(self) -> str:
        return "\n".join([f"{self.name or 'recipe'}:", *(line for op in self.ops for line in _lines(op, 1))])


@dataclass(frozen=True)
class Drawn:
    """A recipe, settled for one clip of `shape`: `steps` in order, and the size of the frames afterwards."""

    shape: ClipShape
    steps: tuple[steps.Step, ...]
    size: Size


def draw(recipe: Recipe, rng: Rng, shape: ClipShape) -> Drawn:
    """What happens to one clip. With `sample_rng(seed, epoch, k)` a pure function of these three."""
    found = _draw_all(recipe.ops, rng, shape)
    return Drawn(shape, tuple(found), _shape_after(found, shape).size)


# Putting operations together


@dataclass(frozen=True)
class Sometimes:
    """All of `ops` in order with probability `p`, else none of them."""

    p: float
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        _probability(self, self.p)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return _draw_all(self.ops, rng, shape) if rng.random() < self.p else []


@dataclass(frozen=True)
class OneOf:
    """One of `ops`, all equally likely."""

    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        if not self.ops:
            raise ValueError("OneOf needs at least one operation")

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return pick(self.ops, rng).draw(rng, shape)


# Colour


@dataclass(frozen=True)
class Add:
    """A value is added; to every channel its own if `per_channel`."""

    value: Value
    per_channel: bool = False

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.Add(_triple(self.value, self.per_channel, rng))]


@dataclass(frozen=True)
class Multiply:
    factor: Value
    per_channel: bool = False

    def __post_init__(self) -> None:
        _at_least(self, self.factor, 0)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.Multiply(_triple(self.factor, self.per_channel, rng))]


@dataclass(frozen=True)
class Gamma:
    gamma: Value
    per_channel: bool = False

    def __post_init__(self) -> None:
        _at_least(self, self.gamma, 0)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.Gamma(_triple(self.gamma, self.per_channel, rng))]


@dataclass(frozen=True)
class LinearContrast:
    alpha: Value
    per_channel: bool = False

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.LinearContrast(_triple(self.alpha, self.per_channel, rng))]


@dataclass(frozen=True)
class EnhanceColor:
    factor: Value

    def __post_init__(self) -> None:
        _at_least(self, self.factor, 0)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.EnhanceColor(draw_value(self.factor, rng))]


@dataclass(frozen=True)
class Grayscale:
    """The grey picture in all channels, with probability `p`."""

    p: float = 1.0

    def __post_init__(self) -> None:
        _probability(self, self.p)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.EnhanceColor(0.0)] if rng.random() < self.p else []


@dataclass(frozen=True)
class HueSaturation:
    """Whole numbers added to hue (255: half the circle of 0..180) and saturation, drawn independently."""

    hue: Value
    saturation: Value

    def __post_init__(self) -> None:
        for value in (self.hue, self.saturation):
            _at_least(self, value, -255)
            _at_most(self, value, 255)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.HueSaturation(int(draw_value(self.hue, rng)), int(draw_value(self.saturation, rng)))]


# Neighbourhoods

_ALL_ROUND, _BOTH_WAYS = Uniform(0, 360), Uniform(-1, 1)


@dataclass(frozen=True)
class GaussianBlur:
    """`sigma` in pixels."""

    sigma: Value

    def __post_init__(self) -> None:
        _at_least(self, self.sigma, 0)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.GaussianBlur(draw_value(self.sigma, rng))]


@dataclass(frozen=True)
class AverageBlur:
    k: Value

    def __post_init__(self) -> None:
        _at_least(self, self.k, 1)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.AverageBlur(int(draw_value(self.k, rng)))]


@dataclass(frozen=True)
class MotionBlur:
    k: Value
    angle: Value = _ALL_ROUND
    direction: Value = _BOTH_WAYS

    def __post_init__(self) -> None:
        _at_least(self, self.k, 3)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        k, angle, direction = (draw_value(value, rng) for value in (self.k, self.angle, self.direction))
        return [steps.MotionBlur(int(k), angle, direction)]


@dataclass(frozen=True)
class Noise:
    """Normal noise, every channel its own, of standard deviation `scale` in grey levels; one field for all frames."""

    scale: Value

    def __post_init__(self) -> None:
        _at_least(self, self.scale, 0)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.Noise(draw_value(self.scale, rng), int(rng.integers(0, 2**63 - 1, endpoint=True)))]


# Geometry


@dataclass(frozen=True)
class Rotate:
    """`angle` in degrees, clockwise."""

    angle: Value

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.Rotate(draw_value(self.angle, rng))]


@dataclass(frozen=True)
class Perspective:
    """The four corners move inwards by |N(0, scale)| of width and height; `scale` is drawn once for all corners."""

    scale: Value

    def __post_init__(self) -> None:
        _at_least(self, self.scale, 0)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        moves = np.mod(np.abs(rng.normal(0, draw_value(self.scale, rng), 8)), 1)
        a, b, c, d = ((float(x), float(y)) for x, y in moves.reshape(4, 2))
        return [steps.Perspective((a, b, c, d))]


@dataclass(frozen=True)
class Flip:
    """Left becomes right with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _probability(self, self.p)

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        return [steps.Flip()] if rng.random() < self.p else []


# Shared


def _draw_all(ops: Sequence[Op], rng: Rng, shape: ClipShape) -> list[steps.Step]:
    found: list[steps.Step] = []
    for op in ops:
        drawn = op.draw(rng, shape)
        found.extend(drawn)
        shape = _shape_after(drawn, shape)
    return found


def _shape_after(drawn: Sequence[steps.Step], shape: ClipShape) -> ClipShape:
    size = shape.size
    for step in drawn:
        if isinstance(step, steps.Geometry):
            size = size_after(step, size)
    return ClipShape(shape.frames, *size)


def _triple(value: Value, per_channel: bool, rng: Rng) -> steps.Triple:
    first = draw_value(value, rng)
    return (first, draw_value(value, rng), draw_value(value, rng)) if per_channel else (first, first, first)


def _lines(op: Op, depth: int) -> list[str]:
    indent = "  " * depth
    if isinstance(op, Sometimes):
        head = f"{indent}with probability {op.p:g}:"
    elif isinstance(op, OneOf):
        head = f"{indent}one of:"
    else:
        return [f"{indent}{op}"]
    inside = [line for each in op.ops for line in _lines(each, depth + 1)]
    return [f"{head} {inside[0].strip()}"] if len(inside) == 1 else [head, *inside]


def _probability(op: object, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{type(op).__name__} has the probability {p}; it is 0 to 1")


def _at_least(op: object, value: Value, least: float) -> None:
    if limits(value)[0] < least:
        raise ValueError(f"{op} may draw {limits(value)[0]}; it is at least {least}")


def _at_most(op: object, value: Value, most: float) -> None:
    if limits(value)[1] > most:
        raise ValueError(f"{op} may draw {limits(value)[1]}; it is at most {most}")


__all__ = [  # values are part of the language
    "Add", "AverageBlur", "Choice", "ClipShape", "Drawn", "EnhanceColor", "Flip", "Gamma", "GaussianBlur", "Grayscale",
    "HueSaturation", "Integers", "LinearContrast", "MotionBlur", "Multiply", "Noise", "OneOf", "Op", "Perspective",
    "Recipe", "Rotate", "Sometimes", "Uniform", "draw",
]  # fmt: skip
