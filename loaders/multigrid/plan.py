"""What a multigrid run is: for every batch its shape, its place in the order, and its learning-rate factor. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True)
class BatchShape:
    """Shape of one batch: `num_clips` of all ranks together, each `num_frames` x `height` x `width` px.

    A clip draws the short side to which its frames are scaled before the crop from `short_side` (smallest, largest, in
    pixels), and its frame interval from `intervals` (the same, both included): what a `ClipSpec` needs.
    """

    num_clips: int
    num_frames: int
    height: int
    width: int
    short_side: tuple[int, int]
    intervals: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        size = (self.num_clips, self.num_frames, self.height, self.width)
        if min(size) < 1:
            raise ValueError(f"a batch of {' x '.join(map(str, size))} (clips x frames x height x width) is empty")
        low, high = self.intervals
        if not 1 <= low <= high:
            raise ValueError(f"intervals are {self.intervals}; they are (smallest, largest), the smallest at least 1")
        low, high = self.short_side
        if not min(self.height, self.width) <= low <= high:
            raise ValueError(
                f"short_side is {self.short_side}; it is (smallest, largest), and a crop of {self.height}x{self.width} px"
                " must fit into the smallest"
            )

    @property
    def interval_choices(self) -> tuple[int, ...]:
        """All intervals that a clip may draw: 2 to 4 are (2, 3, 4)."""
        return tuple(range(self.intervals[0], self.intervals[1] + 1))

    @property
    def num_voxels(self) -> int:
        """Pixels of the whole batch, which multigrid keeps about constant."""
        return self.num_clips * self.num_frames * self.height * self.width

    def __str__(self) -> str:
        low, high = self.intervals
        every = f"{low}" if low == high else f"{low} to {high}"
        return f"{self.num_clips} x {self.num_frames} x {self.height} x {self.width}, every {every}"


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `end` - 1, all alike: `num_batches` batches whose shapes go round `cycle`.

    `rates` are the learning-rate factors, which go round as the shapes do; one for all, or one for every shape.
    `stage` numbers the stages of the long cycle: phases that differ in the rate alone share it.
    """

    stage: int
    first: int
    end: int
    cycle: tuple[BatchShape, ...]
    rates: tuple[float, ...]
    num_batches: int

    def __post_init__(self) -> None:
        if self.end <= self.first:
            raise ValueError(f"a phase of the epochs {self.first} to {self.end - 1} has no epoch")
        if self.num_batches < 1:
            raise ValueError(f"an epoch of {self.num_batches} batches is empty")
        if len(self.rates) not in (1, len(self.cycle)):
            raise ValueError(f"{len(self.rates)} rates do not go with a cycle of {len(self.cycle)} shapes")

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Clips before each shape of one cycle, then those of the whole cycle: 4, 2, 1 clips give 0, 4, 6, 7."""
        return (0, *accumulate(shape.num_clips for shape in self.cycle))


@dataclass(frozen=True)
class PlannedBatch:
    """Batch `batch` of `epoch`: its shape, the place in the epoch's order of its first clip, its rate's factor.

    `num_clips` is the shape's, or less in a last batch that the data does not fill.
    """

    epoch: int
    batch: int
    shape: BatchShape
    start: int
    num_clips: int
    lr_factor: float

    def places(self, rank: int = 0, world_size: int = 1) -> range:
        """Places in the epoch's order that one rank takes: its part of the batch, in one piece.

        Parts differ by a clip where the batch is no multiple of `world_size`.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with a world_size of {world_size} it is 0 to {world_size - 1}")
        first, end = (self.num_clips * part // world_size for part in (rank, rank + 1))
        return range(self.start + first, self.start + end)


@dataclass(frozen=True)
class ShapePlan:
    """All batches of a run, as a function of (epoch, batch): nothing is stored per batch, every question is O(log phases).

    `phases` follow each other without gaps. Batch i of an epoch takes the next clips of that epoch's order, from
    `start_at(epoch, i)`; a place past the last of the `num_items` begins the order again (SRTG's reference schedule can ask
    for more clips than there are). With `warmup_epochs`, the factor rises linearly from `warmup_start` to what it is where
    the warm-up ends.
    """

    phases: tuple[Phase, ...]
    num_items: int
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0
    wraps: bool = False

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a plan has at least one phase")
        edges = [0, *(phase.end for phase in self.phases)]
        if [phase.first for phase in self.phases] != edges[:-1]:
            raise ValueError(f"the phases begin at {[phase.first for phase in self.phases]} and end at {edges[1:]}")

    @property
    def num_epochs(self) -> int:
        return self.phases[-1].end

    @cached_property
    def _ends(self) -> list[int]:
        return [phase.end for phase in self.phases]

    @cached_property
    def _steps(self) -> list[int]:
        """Batches before each phase, and of all."""
        return [0, *accumulate((phase.end - phase.first) * phase.num_batches for phase in self.phases)]

    @property
    def num_steps(self) -> int:
        """Batches of the whole run."""
        return self._steps[-1]

    def phase_at(self, epoch: int) -> Phase:
        """The phase of an epoch (from 0). Raises: IndexError outside the run."""
        if not 0 <= epoch < self.num_epochs:
            raise IndexError(f"epoch {epoch} is none of the plan's: it has the epochs 0 to {self.num_epochs - 1}")
        return self.phases[bisect_right(self._ends, epoch)]

    def num_batches(self, epoch: int) -> int:
        return self.phase_at(epoch).num_batches

    def shape_at(self, epoch: int, batch: int) -> BatchShape:
        """Shape of a batch. Raises: IndexError outside the epoch."""
        phase = self._phase_of(epoch, batch)
        return phase.cycle[batch % len(phase.cycle)]

    def start_at(self, epoch: int, batch: int) -> int:
        """Place in the epoch's order of the batch's first clip: the clips of all batches before it."""
        phase = self._phase_of(epoch, batch)
        rounds, place = divmod(batch, len(phase.cycle))
        return rounds * phase.starts[-1] + phase.starts[place]

    def batch_of(self, epoch: int, position: int) -> int:
        """The batch that begins at, or holds, place `position` of the epoch's order; after the last clip, the number of batches."""
        phase = self.phase_at(epoch)
        rounds, rest = divmod(position, phase.starts[-1])
        batch = rounds * len(phase.cycle) + bisect_right(phase.starts, rest) - 1
        return min(batch, phase.num_batches)

    def lr_factor_at(self, epoch: int, batch: int) -> float:
        """Factor of the base learning rate for a batch."""
        phase = self._phase_of(epoch, batch)
        exact = epoch + batch / phase.num_batches
        if exact < self.warmup_epochs:
            return self.lr_factor(exact)
        return phase.rates[batch % len(phase.rates)]

    def lr_factor(self, epoch: float) -> float:
        """Factor at a fractional epoch, for phases with one rate; beyond the last epoch, that of the last."""
        target = self._rate(max(epoch, self.warmup_epochs))
        if epoch < self.warmup_epochs:
            return self.warmup_start + (target - self.warmup_start) * epoch / self.warmup_epochs
        return target

    def at(self, epoch: int, batch: int) -> PlannedBatch:
        """All about one batch. Raises: IndexError outside the run."""
        shape, start = self.shape_at(epoch, batch), self.start_at(epoch, batch)
        num_clips = shape.num_clips if self.wraps else min(shape.num_clips, self.num_items - start)
        return PlannedBatch(epoch, batch, shape, start, num_clips, self.lr_factor_at(epoch, batch))

    def at_step(self, step: int) -> PlannedBatch:
        """All about batch `step` of the whole run (from 0). Raises: IndexError outside the run."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} is none of the plan's: it has the steps 0 to {self.num_steps - 1}")
        index = bisect_right(self._steps, step) - 1
        phase = self.phases[index]
        epoch, batch = divmod(step - self._steps[index], phase.num_batches)
        return self.at(phase.first + epoch, batch)

    def step_of(self, epoch: int, batch: int) -> int:
        """Batches of the whole run before the given one; the inverse of `at_step`."""
        phase = self._phase_of(epoch, batch)
        before = self._steps[bisect_right(self._ends, epoch)]
        return before + (epoch - phase.first) * phase.num_batches + batch

    def __str__(self) -> str:
        """The plan as a table: one line per phase and shape."""
        lines = []
        for phase in self.phases:
            shown = dict.fromkeys(zip(phase.cycle, phase.rates * (len(phase.cycle) // len(phase.rates)), strict=True))
            epochs = f"epochs {phase.first} to {phase.end - 1}, {phase.num_batches} batches each"
            lines += [epochs, *(f"    {shape}, rate x {rate:g}" for shape, rate in shown)]
        return "\n".join(lines)

    def _phase_of(self, epoch: int, batch: int) -> Phase:
        phase = self.phase_at(epoch)
        if not 0 <= batch < phase.num_batches:
            raise IndexError(f"epoch {epoch} has the batches 0 to {phase.num_batches - 1}, not {batch}")
        return phase

    def _rate(self, epoch: float) -> float:
        phase = self.phase_at(min(int(epoch), self.num_epochs - 1))
        if len(phase.rates) > 1:
            raise ValueError("the rate changes within the epochs of this plan: ask for that of a batch, lr_factor_at")
        return phase.rates[0]


def batches_in(cycle: Sequence[BatchShape], num_items: int, *, drop_last: bool) -> int:
    """Batches that go round `cycle` until `num_items` clips are used up; with `drop_last`, full ones only.

    Raises: ValueError when there would be none.
    """
    starts = [0, *accumulate(shape.num_clips for shape in cycle)]
    rounds, rest = divmod(num_items, starts[-1])
    whole = bisect_right(starts, rest) - 1
    partial = not drop_last and rest > starts[whole]
    num_batches = rounds * len(cycle) + whole + partial
    if num_batches < 1:
        raise ValueError(f"{num_items} clips do not fill a batch of {cycle[0].num_clips}")
    return num_batches


def constant_plan(shape: BatchShape, *, num_items: int, epochs: int, drop_last: bool = True) -> ShapePlan:
    """The plan without cycles: one shape throughout, rate factor 1."""
    num_batches = batches_in([shape], num_items, drop_last=drop_last)
    return ShapePlan((Phase(0, 0, epochs, (shape,), (1.0,), num_batches),), num_items)
