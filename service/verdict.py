"""One sentence on what limits a run, and what to do about it. Pure: numbers in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from loaders.telemetry import Stage

KEEPS_UP_BELOW = 0.05
"""Share of the time that training may wait before the loader is called the limit."""
STRAGGLES_ABOVE = 1.2
"""A rank whose own work per clip takes so many times that of the middle rank holds the others up."""

_CURES = {
    "read": "put the dataset on a faster disk, or store a smaller short side",
    "decode": "give the loader more threads, or store a short side nearer to the crop",
    "augment": "give the loader more threads, or use fewer or cheaper augmentations",
    "assemble": "give the loader more threads, or store a short side nearer to the crop",
    "transfer": "send uint8 and normalise on the device, from pinned memory",
}


@dataclass(frozen=True)
class Recent:
    """Means over the newest training reports: clips per second and shares, None where unknown."""

    read: float | None = None
    forward: float | None = None
    backward: float | None = None
    wait_share: float | None = None
    occupancy: float | None = None


def recent(reports: Sequence[Mapping[str, object]]) -> Recent:
    """The means of these reports, each over those that have the number."""

    def mean(name: str) -> float | None:
        values = [value for report in reports if isinstance(value := report.get(name), (int, float))]
        return fmean(values) if values else None

    return Recent(*(mean(name) for name in ("read", "forward", "backward", "wait_share", "occupancy")))


def verdict(state: str, heartbeat_age_s: float | None, now: Recent, stages: Mapping[str, Stage]) -> str:
    """The sentence. `stages`: what the loader did lately; `wait` among them is not work and is left out."""
    if state == "dead":
        return (
            f"No sign of life for {_duration(heartbeat_age_s or 0.0)}: the process or its machine is gone."
            " Look at its log, then start the same command with --resume auto."
        )
    if now.wait_share is None:
        return "It has reported no waiting time yet." if state == "running" else "It reported no waiting time."
    waits = f"training waits for it {_percent(now.wait_share)} of the time"
    if now.wait_share < KEEPS_UP_BELOW:
        return f"The loader keeps up: {waits}{_model_part(now)}."
    busy = {name: stage.seconds for name, stage in stages.items() if name != "wait" and stage.seconds > 0}
    if not busy:
        return f"The loader is the limit: {waits}. Give it more threads, or store a smaller short side."
    name = max(busy, key=lambda stage: busy[stage])
    cure = _CURES.get(name, "give the loader more threads")
    return f"The loader is the limit: {waits}, and {_percent(busy[name] / sum(busy.values()))} of its work is {name}: {cure}."


def stragglers(ranks: Mapping[int, Recent]) -> set[int]:
    """Ranks that hold the others up.

    Their own work per clip counts, waiting for data and forward; in the backward pass every rank waits for the slowest.
    """
    own = {rank: 1 / r.read + 1 / r.forward for rank, r in ranks.items() if r.read and r.forward}
    if len(own) < 2:
        return set()
    limit = STRAGGLES_ABOVE * median(own.values())
    return {rank for rank, seconds in own.items() if seconds > limit}


def _model_part(now: Recent) -> str:
    """Which pass of the model takes the time, where it is known."""
    seconds = {
        name: 1 / rate for name, rate in (("forward", now.forward), ("backward", now.backward)) if rate and rate > 0
    }
    if not seconds:
        return ""
    name = max(seconds, key=lambda part: seconds[part])
    return f", the limit is the model, {_percent(seconds[name] / sum(seconds.values()))} of it the {name} pass"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _duration(seconds: float) -> str:
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
