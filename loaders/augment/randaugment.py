"""RandAugment for image pre-training: a few operations out of fifteen, all of one strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from loaders.augment import steps
from loaders.augment.recipe import ClipShape
from loaders.augment.values import Rng, pick

_MOST = 10
"""The largest magnitude."""


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` operations (one may come twice), each carried out with probability `p`.

    The magnitude, 0 to 10, is drawn per operation: N(`magnitude`, `spread`). The defaults are `rand-m7-mstd0.5-inc1`.
    Source: arXiv 1909.13719; timm's set of "increasing" operations, whose effect grows with the magnitude.
    """

    num_ops: int = 2
    magnitude: float = 7
    spread: float = 0.5
    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= _MOST:
            raise ValueError(f"magnitude is {self.magnitude}; it is 0 to {_MOST}")
        if not 0 <= self.p <= 1 or self.num_ops < 0 or self.spread < 0:
            raise ValueError(f"{self}: p is a probability, num_ops and spread are at least 0")

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        found = []
        for name in [pick(OPS, rng) for _ in range(self.num_ops)]:
            if rng.random() > self.p:
                continue
            magnitude = rng.normal(self.magnitude, self.spread) if self.spread else self.magnitude
            found.append((name, argument(name, min(max(magnitude, 0), _MOST), rng)))
        return [steps.PilOps(tuple(found))] if found else []


def argument(name: str, magnitude: float, rng: Rng) -> float | None:
    """What the operation `name` does at `magnitude`; a sign is drawn where there is one. None if it has no strength."""
    strength = _ARGUMENTS[name]
    return None if strength is None else strength(magnitude / _MOST, rng)


def _signed(value: float, rng: Rng) -> float:
    return -value if rng.random() > 0.5 else value


def _times(most: float) -> Callable[[float, Rng], float]:
    return lambda share, rng: _signed(share * most, rng)


def _factor(share: float, rng: Rng) -> float:
    return max(0.1, 1 + _signed(share * 0.9, rng))


_ARGUMENTS: Mapping[str, Callable[[float, Rng], float] | None] = MappingProxyType(
    {
        "AutoContrast": None,
        "Equalize": None,
        "Invert": None,
        "Rotate": _times(30),
        "PosterizeIncreasing": lambda share, _: 4 - int(share * 4),
        "SolarizeIncreasing": lambda share, _: 256 - int(share * 256),
        "SolarizeAdd": lambda share, _: min(128, int(share * 110)),
        "ColorIncreasing": _factor,
        "ContrastIncreasing": _factor,
        "BrightnessIncreasing": _factor,
        "SharpnessIncreasing": _factor,
        "ShearX": _times(0.3),
        "ShearY": _times(0.3),
        "TranslateXRel": _times(0.45),
        "TranslateYRel": _times(0.45),
    }
)
OPS = tuple(_ARGUMENTS)
"""The fifteen, in the order in which they are drawn from."""
