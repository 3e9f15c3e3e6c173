"""Learning rates of the published recipes: pure functions of the iteration.

Iterations are counted from 1, because the authors' scheduler steps once before the first: a fresh run never uses k = 0,
and the last iteration of a cosine run has a rate of 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["multistep", "warmup_multistep", "cosine", "warmup_cosine"]


@dataclass(frozen=True)
class LrPlan:
    """A published schedule. Lengths are in epochs of `epoch_steps` iterations (those of the first epoch, as published).

    The cosine falls from iteration 0 on, not from the end of the warm-up. Milestones name the epoch (from 1) that begins
    with the lower rate. Raises: ValueError for an unknown name, or milestones that do not rise.
    """

    name: Schedule
    base_lr: float
    epoch_steps: int
    epochs: int
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.3
    warmup_method: Literal["linear", "constant"] = "linear"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in ("multistep", "warmup_multistep", "cosine", "warmup_cosine"):
            raise ValueError(f"there is no schedule {self.name!r}")
        if self.warmup_method not in ("linear", "constant"):
            raise ValueError(f"there is no warm-up {self.warmup_method!r}")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones are {list(self.milestones)}; they rise")

    def lr(self, k: int) -> float:
        """Rate of iteration k, from 1. Past the last epoch the cosine rises again, as in the authors' resumed runs."""
        warm = self._warmup(k) if self.name.startswith("warmup") else 1.0
        if self.name.endswith("cosine"):
            return self.base_lr * warm * 0.5 * (1.0 + math.cos(math.pi * k / (self.epochs * self.epoch_steps)))
        drops = sum((milestone - 1) * self.epoch_steps < k for milestone in self.milestones)
        return self.base_lr * warm * self.gamma**drops

    def _warmup(self, k: int) -> float:
        steps = int(self.warmup_epochs * self.epoch_steps)
        if k >= steps:
            return 1.0
        if self.warmup_method == "constant":
            return self.warmup_factor
        share = k / steps
        return self.warmup_factor * (1 - share) + share
