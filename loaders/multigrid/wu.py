"""Multigrid as Wu et al. published it (arXiv 1912.00998; their code is SlowFast): one long cycle per learning-rate stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from loaders.multigrid.plan import BatchShape, Phase, ShapePlan, batches_in

# (frames, height and width) relative to the base shape, and height and width of the short cycle's smaller batches.
LONG_FACTORS = ((1 / 4, math.sqrt(0.5)), (1 / 2, math.sqrt(0.5)), (1 / 2, 1.0), (1.0, 1.0))
SHORT_FACTORS = (0.5, math.sqrt(0.5))


@dataclass(frozen=True)
class LongStage:
    """Epochs up to `end` - 1 (from the stage before) in one long shape: `factor` times the clips of the base batch.

    `lr_stage` counts the drops of the learning rate so far.
    """

    lr_stage: int
    factor: int
    num_frames: int
    height: int
    width: int
    end: int


def wu_stages(
    base: BatchShape,
    *,
    epochs: int,
    lr_steps: Sequence[int],
    short: bool = True,
    epoch_factor: float = 1.5,
    long_factors: Sequence[tuple[float, float]] = LONG_FACTORS,
    short_factors: Sequence[float] = SHORT_FACTORS,
    reference: bool = False,
) -> list[LongStage]:
    """Stages of the long cycle for a baseline of `epochs` epochs that drops its rate at the epochs `lr_steps`.

    Every stage of the rate is divided among the long shapes so that each gets the same number of iterations; the last
    one, fine-tuning, keeps the full shape. All is then stretched to `epoch_factor` times the baseline's epochs, which is
    fewer iterations, since batches are larger. A stage may come out empty (it ends where the one before does).

    Raises: ValueError if the rate never drops: there is nothing to fine-tune after.
    """
    steps = [0, *lr_steps, epochs]
    if len(steps) < 3 or any(b <= a for a, b in pairwise(steps)):
        raise ValueError(
            f"lr_steps are {tuple(lr_steps)}; a long cycle needs drops of the rate, rising, below {epochs}"
        )
    shapes = [_long_shape(base, time, space) for time, space in long_factors]
    means = []
    for factor, frames, height, width in shapes:
        sizes = [factor]
        for part in short_factors if short else ():
            small = _short_size(base, height, width, part, reference)
            sizes.append(round(base.num_frames * base.height * base.width / (frames * small[0] * small[1])))
        means.append(sum(sizes) / len(sizes))
    # Epochs and iterations in units of the baseline; an iteration of a stage uses `mean` times the baseline's clips.
    shares: list[tuple[int, int, float]] = []
    for stage, (begin, end) in enumerate(pairwise(steps[:-1])):
        shares += [(stage, i, (end - begin) * mean / sum(means)) for i, mean in enumerate(means)]
    iterations = sum((end - begin) / sum(means) for begin, end in pairwise(steps[:-1])) * len(means)
    saving = steps[-2] / iterations
    shares.append((len(steps) - 2, len(shapes) - 1, (steps[-1] - steps[-2]) / saving * means[-1]))
    stretch = epochs * epoch_factor / sum(share for _, _, share in shares)
    stages, total = [], 0.0
    for stage, i, share in shares:
        total += share * stretch
        stages.append(LongStage(stage, *shapes[i], end=round(total)))
    return stages


def wu_plan(
    base: BatchShape,
    *,
    num_items: int,
    epochs: int,
    lr_steps: Sequence[int],
    lr_factors: Sequence[float] | None = None,
    long: bool = True,
    short: bool = True,
    epoch_factor: float = 1.5,
    long_factors: Sequence[tuple[float, float]] = LONG_FACTORS,
    short_factors: Sequence[float] = SHORT_FACTORS,
    warmup_epochs: float = 0.0,
    warmup_start: float = 0.0,
    drop_last: bool = True,
    reference: bool = False,
) -> ShapePlan:
    """The run that replaces a baseline of `epochs` epochs with the batch shape `base`; an epoch is one pass over `num_items`.

    Long cycle: the shape of a batch depends on the epoch, 8B x T/4 x (S/1.4), 4B x T/2 x (S/1.4), 2B x T/2 x S, B x T x S
    within every stage of the learning rate, whose factor grows with the batch: 8, 4, 2, 1 times the stage's own
    (`lr_factors`, one per stage; a tenth of the one before by default). Clips of fewer frames also draw larger intervals, up to
    the one that spans the base clip. The first half of fine-tuning keeps the rate of the stage before.

    Short cycle: batches go round 4 b x (s/2), 2 b x (s/1.4), b x s, b clips of side s being the long cycle's shape. The
    rate does not follow. Without the long cycle the epochs are stretched all the same; without both nothing changes.

    `reference` takes the fractions s/2 and s/1.4 of the base side, as the published code does: while the long cycle has
    reduced the side, two of the three batches are then alike and hold 2 b, b, b clips (the collapsed short cycle).
    """
    if long:
        stages = wu_stages(
            base,
            epochs=epochs,
            lr_steps=lr_steps,
            short=short,
            epoch_factor=epoch_factor,
            long_factors=long_factors,
            short_factors=short_factors,
            reference=reference,
        )
    else:
        ends = [int(end * (epoch_factor if short else 1)) for end in (*lr_steps, epochs)]
        stages = [LongStage(i, 1, base.num_frames, base.height, base.width, end) for i, end in enumerate(ends)]
    by_stage = [0.1**i for i in range(len(lr_steps) + 1)] if lr_factors is None else list(lr_factors)
    if len(by_stage) < len(lr_steps) + 1:
        raise ValueError(
            f"{len(by_stage)} lr_factors are too few: {len(lr_steps)} drops make {len(lr_steps) + 1} stages"
        )

    phases: list[Phase] = []
    first = 0
    for number, stage in enumerate(stages):
        cycle = _cycle(base, stage, short_factors if short else (), reference)
        num_batches = batches_in(cycle, num_items, drop_last=drop_last)
        rate = by_stage[stage.lr_stage] * stage.factor
        spans = [(stage.end, rate)]
        if long and number == len(stages) - 1:
            before = stages[number - 1]
            spans.insert(0, ((first + stage.end) // 2, by_stage[before.lr_stage] * before.factor))
        for end, factor in spans:
            if end > first:
                phases.append(Phase(number, first, end, cycle, (factor,), num_batches))
                first = end
    return ShapePlan(tuple(phases), num_items, warmup_epochs, warmup_start)


def evaluation_epochs(plan: ShapePlan, per_stage: int = 3) -> list[int]:
    """Epochs after which a long cycle is evaluated: the last of every stage, and about `per_stage` times within it.

    Accuracy in the middle of a stage with small clips says little; at its end shapes can be compared.
    """
    bounds: dict[int, tuple[int, int]] = {}
    for phase in plan.phases:
        bounds[phase.stage] = (bounds.get(phase.stage, (phase.first, 0))[0], phase.end)
    chosen = []
    for first, end in bounds.values():
        period = max((end - first) // per_stage + 1, 1)
        chosen += [epoch for epoch in range(first, end) if (end - 1 - epoch) % period == 0]
    return chosen


def _long_shape(base: BatchShape, time: float, space: float) -> tuple[int, int, int, int]:
    """(factor of the clips, frames, height, width): whatever keeps clips x frames x height x width."""
    frames, height, width = round(base.num_frames * time), round(base.height * space), round(base.width * space)
    return round(base.num_frames * base.height * base.width / (frames * height * width)), frames, height, width


def _short_size(base: BatchShape, height: int, width: int, part: float, reference: bool) -> tuple[float, float]:
    """(height, width) of a smaller batch of the short cycle, not yet rounded."""
    return (part * base.height, part * base.width) if reference else (part * height, part * width)


def _cycle(
    base: BatchShape, stage: LongStage, short_factors: Sequence[float], reference: bool
) -> tuple[BatchShape, ...]:
    """The short cycle of a stage, its own shape last."""
    num_clips = stage.factor * base.num_clips
    low, high = base.intervals
    full = replace(
        base,
        num_clips=num_clips,
        num_frames=stage.num_frames,
        height=stage.height,
        width=stage.width,
        intervals=(low, high * (base.num_frames // stage.num_frames)),
        short_side=_jitter(base, stage.height, stage.width),
    )
    cycle = []
    for part in short_factors:
        tall, wide = _short_size(base, stage.height, stage.width, part, reference)
        more = round(stage.height / tall * (stage.width / wide))
        # Even sides: 79 px would be the half of 158.
        height, width = (round(tall), round(wide)) if reference else (2 * round(tall / 2), 2 * round(wide / 2))
        jitter = _jitter(base, height, width)
        cycle.append(replace(full, num_clips=num_clips * more, height=height, width=width, short_side=jitter))
    return (*cycle, full)


def _jitter(base: BatchShape, height: int, width: int) -> tuple[int, int]:
    """Short sides of a smaller crop: the smallest shrinks with it, the largest stays (more zoom, as published)."""
    low, high = base.short_side
    return round(low * max(height / base.height, width / base.width)), high
