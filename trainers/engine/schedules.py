"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math

from trainers.config import ScheduleConfig


def lr_factor(schedule: ScheduleConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Factor of the base rate at `step` (from 0) of a run of `epochs` epochs.

    The warm-up rises linearly from `warmup_start` to the value that the schedule has where the warm-up ends.
    """
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        share = step / warmup
        end = _after_warmup(schedule, math.ceil(warmup), steps_per_epoch, epochs)
        return schedule.warmup_start + share * (end - schedule.warmup_start)
    return _after_warmup(schedule, step, steps_per_epoch, epochs)


def _after_warmup(schedule: ScheduleConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    if schedule.name == "multistep":
        passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
        return schedule.gamma**passed
    if schedule.name == "cosine":
        warmup = schedule.warmup_epochs * steps_per_epoch
        share = (step - warmup) / max(epochs * steps_per_epoch - warmup, 1)
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
    return 1.0
