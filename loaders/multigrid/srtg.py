"""Multigrid as SRTG's published code runs it: one long cycle per epoch, three short phases within it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from loaders.multigrid.plan import BatchShape, Phase, ShapePlan

# Per quarter of an epoch: clips times, frames divided by, and whether the side is divided by the root of 2.
_QUARTERS = ((8, 4, True), (4, 2, True), (2, 2, False), (1, 1, False))
_RATES = (1.0, 1 / 2, 1 / 4, 1 / 8)


def srtg_batches_per_epoch(num_items: int, num_clips: int, *, long: bool = True, short: bool = True) -> int:
    """Batches of an epoch, about 5.7 % of `num_items` / `num_clips` with both cycles: half a pass over the data.

    The arithmetic is the published one. Its short part counts 5, 2, 4 base batches where it means 1, 2, 4.

    Raises: ValueError when there are too few clips for the cycles.
    """
    count = num_items // num_clips
    if long:
        count = 4 * (count // 15)  # Four batches use up 8 + 4 + 2 + 1.
    if short:
        left, count = count, 0
        while count <= left:
            left -= (5, 2, 4)[count % 3]
            count += 1
    if long:
        quarter = count // 4
        count = (count - 1) // quarter * quarter if quarter else 0
    if count < 1:
        raise ValueError(
            f"{num_items} clips are too few for these cycles with batches of {num_clips}: at least"
            f" {num_clips * (60 if short and long else 15 if long else 1)} are needed"
        )
    return count


def srtg_plan(
    base: BatchShape,
    *,
    num_items: int,
    epochs: int,
    lr_steps: Sequence[int] = (),
    gamma: float = 0.1,
    long: bool = True,
    short: bool = True,
    reference: bool = False,
) -> ShapePlan:
    """The schedule of SRTG's training scripts for a base batch B x T x S.

    Long: the four quarters of every epoch take 8B x T/4 x (S/1.4), 4B x T/2 x (S/1.4), 2B x T/2 x S and B x T x S, and
    1, 1/2, 1/4, 1/8 of the base rate, which hence belongs to the largest batch. Short: batches go round b x s, 2b x (s/1.4),
    4b x (s/2). Intervals stay. The field of view stays: the frame shrinks with the crop. Odd sides are raised by one.
    At the epochs `lr_steps` the rate is multiplied by `gamma`.

    `reference` reproduces what the published trainer does instead: the short cycle runs whenever one cycle is on, the
    rates of the quarters apply without cycles too and come one batch early (the last batch of an epoch gets factor 1), and a
    change of quarter in the middle of a round of three reuses loaders of the old shape.
    """
    if reference and short and not long:
        raise ValueError("the published code cannot run the short cycle without the long one; reference=False can")
    num_batches = srtg_batches_per_epoch(num_items, base.num_clips, long=long, short=short)
    cycling = long or short
    if reference:
        wanted = [_shape(base, i, num_batches, cycling, cycling) for i in range(num_batches)]
        cycle = tuple(_stale(wanted, num_items) if cycling else wanted)
        rates = [_RATES[_quarter((i + 1) % num_batches, num_batches)] for i in range(num_batches)]
    else:
        cycle = tuple(_shape(base, i, num_batches, long, short) for i in range(num_batches))
        rates = [_RATES[_quarter(i, num_batches)] if long else 1.0 for i in range(num_batches)]

    edges = [0, *(step for step in lr_steps if step < epochs), epochs]
    phases = [
        Phase(0, first, end, cycle, tuple(rate * gamma**drops for rate in rates), num_batches)
        for drops, (first, end) in enumerate(pairwise(edges))
    ]
    return ShapePlan(tuple(phases), num_items, wraps=True)


def _quarter(batch: int, num_batches: int) -> int:
    """The quarter of an epoch that a batch lies in."""
    return sum(batch >= edge for edge in (num_batches // 4, num_batches // 2, 3 * num_batches // 4))


def _shape(base: BatchShape, batch: int, num_batches: int, long: bool, short: bool) -> BatchShape:
    """What a batch of an epoch should be."""
    clips, shorter, smaller = _QUARTERS[_quarter(batch, num_batches)] if long else _QUARTERS[-1]
    sides = [int(side // math.sqrt(2)) if smaller else side for side in (base.height, base.width)]
    place = batch % 3 if short else 0
    if place == 1:
        clips, sides = 2 * clips, [int(side // math.sqrt(2)) for side in sides]
    elif place == 2:
        clips, sides = 4 * clips, [side // 2 for side in sides]
    height, width = (side + side % 2 for side in sides)
    scale = max(height / base.height, width / base.width)
    low, high = base.short_side
    return replace(
        base,
        num_clips=clips * base.num_clips,
        num_frames=base.num_frames // shorter,
        height=height,
        width=width,
        short_side=(math.ceil(low * scale), math.ceil(high * scale)),
    )


def _stale(wanted: Sequence[BatchShape], num_items: int) -> list[BatchShape]:
    """The shapes that the published trainer really feeds.

    It keeps a loader for each of three places, and builds a new one when the wanted size is not that of any loader, or when
    the loader has gone through the data. So a size that another place has makes a batch of whatever its own loader has.
    """
    loaders: dict[int, BatchShape] = {}
    left: dict[int, int] = {}
    fed = []
    for batch, shape in enumerate(wanted):
        place = batch % 3
        if not any(_size(shape) == _size(other) for other in loaders.values()) or not left.get(place):
            loaders[place], left[place] = shape, num_items
        num_clips = min(loaders[place].num_clips, left[place])
        left[place] -= num_clips
        fed.append(replace(loaders[place], num_clips=num_clips))
    return fed


def _size(shape: BatchShape) -> tuple[int, int, int]:
    return shape.num_frames, shape.height, shape.width
