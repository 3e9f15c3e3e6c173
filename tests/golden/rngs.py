"""The generators that the authors' code drew from, behind the interface that our sampling draws from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class PythonRng:
    """Python's `random`, seeded."""

    def __init__(self, seed: int) -> None:
        self.generator = random.Random(seed)

    def choice(self, a: int, size: int | None = None) -> Any:
        return (
            self.generator.choice(range(a)) if size is None else [self.generator.choice(range(a)) for _ in range(size)]
        )

    def integers(self, low: int, high: int, *, endpoint: bool) -> int:
        return self.generator.randint(low, high) if endpoint else self.generator.randrange(low, high)

    def random(self) -> float:
        return self.generator.random()

    def normal(self, loc: float, scale: float, size: int | None = None) -> Any:
        raise NotImplementedError

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        return (
            self.generator.uniform(low, high)
            if size is None
            else [self.generator.uniform(low, high) for _ in range(size)]
        )


class MixedRng(PythonRng):
    """Integers from Python's `random`, real numbers from NumPy's legacy generator, both seeded alike."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.numpy = np.random.RandomState(seed)

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        return self.numpy.uniform(low, high, size)


class TorchRng:
    """Integers from torch's generator, seeded."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def choice(self, a: int, size: int | None = None) -> Any:
        drawn = torch.randint(a, (size or 1,), generator=self.generator).numpy()
        return drawn if size is not None else int(drawn[0])

    def permutation(self, n: int) -> np.ndarray:
        return torch.randperm(n, generator=self.generator).numpy()

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        raise NotImplementedError
