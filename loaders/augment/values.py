"""Values to be drawn: where the numbers of a recipe come from. A plain number stands for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Rng(Protocol):
    """What recipes draw from: numpy's Generator has all of it."""

    def random(self) -> float: ...
    def uniform(self, low: float, high: float, size: int | None = None) -> Any: ...
    def normal(self, loc: float, scale: float, size: int | None = None) -> Any: ...
    def integers(self, low: int, high: int, *, endpoint: bool) -> int: ...
    def choice(self, a: Any, size: int | None = None) -> Any: ...


@dataclass(frozen=True)
class Uniform:
    """A real number of low..high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self)

    def draw(self, rng: Rng) -> float:
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class Integers:
    """A whole number of low..high, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _ordered(self)

    def draw(self, rng: Rng) -> int:
        return int(rng.integers(self.low, self.high, endpoint=True))


@dataclass(frozen=True)
class Choice:
    """One of the values, all equally likely."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a Choice needs at least one value")

    def draw(self, rng: Rng) -> float:
        return self.values[int(rng.integers(0, len(self.values) - 1, endpoint=True))]


Value = float | int | Uniform | Integers | Choice


def draw(value: Value, rng: Rng) -> float:
    return value if isinstance(value, int | float) else value.draw(rng)


def pick(items: Sequence[Any], rng: Rng) -> Any:
    """One of the items."""
    return items[int(rng.integers(0, len(items) - 1, endpoint=True))]


def limits(value: Value) -> tuple[float, float]:
    """The smallest and the largest number that may come."""
    if isinstance(value, int | float):
        return value, value
    if isinstance(value, Choice):
        return min(value.values), max(value.values)
    return value.low, value.high


def _ordered(value: Uniform | Integers) -> None:
    if value.low > value.high:
        raise ValueError(f"{value} has no values: {value.low} is above {value.high}")
