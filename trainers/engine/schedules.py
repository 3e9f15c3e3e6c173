"""Learning-rate schedules: pure functions of the step.

The warm-ups that the field knows are one of three kinds (`warmup_to`):
    end       rises to the value that the schedule has where the warm-up ends (SlowFast)
    base      rises to the full rate, whatever the schedule then says (timm)
    multiply  scales the schedule that already runs (MMAction2, LSTR, SBP)
"""

from __future__ import annotations

import math

from trainers.config import ScheduleConfig


def lr_factor(schedule: ScheduleConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Factor of the base rate at `step` (from 0) of a run of `epochs` epochs.

    With `update` "epoch-after-warmup" the warm-up goes by steps and the schedule by epochs. A warm-up that ends between
    two steps of an epoch leaves its last rate until that epoch ends, as in MMAction2.
    """
    if schedule.update == "epoch":
        step -= step % steps_per_epoch
    warmup = schedule.warmup_epochs * steps_per_epoch
    last = math.floor(warmup)
    if (
        schedule.update == "epoch-after-warmup"
        and last < warmup
        and last < step < (last // steps_per_epoch + 1) * steps_per_epoch
    ):
        step = last
    at = step + schedule.first_step
    if at >= warmup:
        return _regular(schedule, step, steps_per_epoch, epochs)
    share = at / warmup
    if schedule.warmup_to == "multiply":
        return _ramp(schedule, share, 1.0) * _regular(schedule, step, steps_per_epoch, epochs)
    end = 1.0 if schedule.warmup_to == "base" else _regular(schedule, math.ceil(warmup), steps_per_epoch, epochs)
    return _ramp(schedule, share, end)


def _ramp(schedule: ScheduleConfig, share: float, end: float) -> float:
    start = schedule.warmup_start
    match schedule.warmup_curve:
        case "constant":
            return start
        case "exponential":
            return start * (end / start) ** share
    return start + share * (end - start)


def _regular(schedule: ScheduleConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The schedule without its warm-up."""
    if schedule.update != "step":
        step -= step % steps_per_epoch
    match schedule.name:
        case "step":
            return schedule.gamma ** math.floor(step / (schedule.every * steps_per_epoch))
        case "multistep":
            passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
            return schedule.gamma**passed
        case "cosine":
            offset = schedule.warmup_epochs * steps_per_epoch if schedule.offset_warmup else 0
            share = (step + schedule.first_step - offset) / max(epochs * steps_per_epoch - offset, 1)
            return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
    return 1.0
