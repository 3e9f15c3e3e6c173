"""Which places of the epoch's order make up which batch, and in which shape. Pure arithmetic, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from loaders.clips import ClipSpec
from loaders.multigrid.plan import BatchShape, ShapePlan


@dataclass(frozen=True)
class Planned:
    """One batch of one rank: its places in the epoch's order, and where the next global batch begins."""

    places: Sequence[int]
    end: int
    spec: ClipSpec
    lr_factor: float = 1.0


class Batches(Protocol):
    """The batches of a run, as this rank sees them."""

    @property
    def most_bytes(self) -> int:
        """Bytes of this rank's largest batch."""

    def count(self, epoch: int) -> int:
        """Global batches of an epoch."""

    def index(self, epoch: int, position: int) -> int:
        """Global batches of an epoch that lie before this place."""

    def at(self, epoch: int, position: int) -> Planned | None:
        """The batch whose first clip has this place in the global order; None where the epoch has ended."""


@dataclass(frozen=True)
class EqualBatches:
    """Batches of `batch_size` clips per rank, all of one shape."""

    batch_size: int
    spec: ClipSpec
    num_items: int
    rank: int
    world_size: int
    drop_last: bool

    @property
    def most_bytes(self) -> int:
        return self.batch_size * self.spec.clip_bytes

    @property
    def _step(self) -> int:
        return self.batch_size * self.world_size

    def count(self, epoch: int) -> int:
        return self.num_items // self._step if self.drop_last else -(-self.num_items // self._step)

    def index(self, epoch: int, position: int) -> int:
        return -(-position // self._step)

    def at(self, epoch: int, position: int) -> Planned | None:
        end = position + self._step
        if position >= self.num_items or (self.drop_last and end > self.num_items):
            return None
        first = position + self.rank * self.batch_size
        return Planned(range(first, max(first, min(first + self.batch_size, self.num_items))), end, self.spec)


@dataclass(frozen=True)
class ShapedBatches:
    """Batches that change their shape by a plan, whose clips are those of all ranks together."""

    plan: ShapePlan
    spec: ClipSpec
    num_items: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if self.plan.num_items != self.num_items:
            raise ValueError(f"the plan is for {self.plan.num_items} clips, the data set has {self.num_items}")
        if self.spec.views is not None:
            raise ValueError("views are evaluated in one shape: leave the plan of shapes out")
        smallest = min(shape.num_clips for shape in self._specs)
        if smallest < self.world_size:
            raise ValueError(f"a batch of {smallest} clips has none for some of {self.world_size} ranks")

    @cached_property
    def _specs(self) -> dict[BatchShape, ClipSpec]:
        shapes = dict.fromkeys(shape for phase in self.plan.phases for shape in phase.cycle)
        return {shape: self.spec.shaped(shape) for shape in shapes}

    @property
    def most_bytes(self) -> int:
        return max(-(-shape.num_clips // self.world_size) * spec.clip_bytes for shape, spec in self._specs.items())

    def count(self, epoch: int) -> int:
        return self.plan.num_batches(self._epoch(epoch))

    def index(self, epoch: int, position: int) -> int:
        return self.plan.batch_of(self._epoch(epoch), position)

    def at(self, epoch: int, position: int) -> Planned | None:
        epoch = self._epoch(epoch)
        batch = self.plan.batch_of(epoch, position)
        if batch >= self.plan.num_batches(epoch):
            return None
        found = self.plan.at(epoch, batch)
        places = found.places(self.rank, self.world_size)
        return Planned(places, found.start + found.num_clips, self._specs[found.shape], found.lr_factor)

    def _epoch(self, epoch: int) -> int:
        """Past its end the plan goes on as in its last epoch."""
        return min(epoch, self.plan.num_epochs - 1)
