"""The generators that the authors' transforms drew from, behind the interface that recipes draw from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np


class AuthorsRng:
    """Python's `random` and NumPy's legacy generator, both seeded alike; which one gives what differs by code.

    `numpy_for` names the kinds of draws that NumPy gives: "random", "uniform", "normal", "integers".
    """

    def __init__(self, seed: int, numpy_for: str = "") -> None:
        self.python, self.numpy = random.Random(seed), np.random.RandomState(seed)
        self.numpy_for = numpy_for.split()

    def random(self) -> float:
        return self.numpy.rand() if "random" in self.numpy_for else self.python.random()

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        if "uniform" in self.numpy_for:
            return self.numpy.uniform(low, high, size)
        return self.python.uniform(low, high) if size is None else [self.uniform(low, high) for _ in range(size)]

    def normal(self, loc: float, scale: float, size: int | None = None) -> Any:
        return self.numpy.normal(loc, scale, size) if "normal" in self.numpy_for else self.python.gauss(loc, scale)

    def integers(self, low: int, high: int, *, endpoint: bool = True) -> int:
        if "integers" in self.numpy_for:
            return int(self.numpy.randint(low, high + endpoint))
        return self.python.randint(low, high if endpoint else high - 1)

    def choice(self, a: int, size: int | None = None) -> Any:
        return self.python.choice(range(a)) if size is None else [self.choice(a) for _ in range(size)]

    def beta(self, a: float, b: float) -> float:
        return float(self.numpy.beta(a, b))
