"""What a loader did and where its time went: counts, percentiles per stage, waiting, and a sentence that says the cure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from loaders.making import STAGES, BadSample, Results
from loaders.telemetry import Stage

_REMEMBERED = 4096  # Clips that percentiles are taken over: the newest.
_NONE = np.zeros(0, np.float32)
_KEPT_UP_BELOW = 0.05  # Share of the time spent waiting, below which the loader is not what holds training up.


@dataclass
class Statistics:
    """Adds up finished clips. Cheap: a few numbers per clip, worked on only when asked for."""

    num_workers: int
    num_slots: int
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    num_bytes: int = 0
    num_bad: int = 0
    wait_s: float = 0.0
    batches: int = 0
    ready: int = 0
    _taken: tuple[int, int] = (0, 0)
    _recent: np.ndarray = field(default_factory=lambda: np.zeros((_REMEMBERED, len(STAGES)), np.float32), repr=False)
    _waits: np.ndarray = field(default_factory=lambda: np.zeros(_REMEMBERED, np.float32), repr=False)

    def add(self, clips: Results | None, waited_s: float, num_ready: int) -> list[BadSample]:
        """One batch: its clips, if it has any, how long it was waited for, how many batches lay ready. What was replaced."""
        bad: list[BadSample] = []
        if clips is not None:
            end = self.counts["read"] + len(clips)
            newest = clips.seconds[-_REMEMBERED:]
            self._recent[np.arange(end - len(newest), end) % _REMEMBERED] = newest
            for stage, seconds in zip(STAGES, clips.seconds.sum(axis=0).tolist(), strict=True):
                self.counts[stage] += len(clips)
                self.seconds[stage] += seconds
            self.num_bytes += clips.num_bytes
            bad = [each for row in sorted(clips.bad) for each in clips.bad[row]]
        self._waits[self.batches % _REMEMBERED] = waited_s
        self.wait_s += waited_s
        self.batches += 1
        self.ready += num_ready
        self.num_bad += len(bad)
        return bad

    def snapshot(self) -> Statistics:
        """The sums as they are now, for differences; without what percentiles are taken over."""
        return replace(self, counts=dict(self.counts), seconds=dict(self.seconds), _recent=_NONE, _waits=_NONE)

    @property
    def occupancy(self) -> float | None:
        """Share of the slots in which a batch lay ready when one was asked for, on average; None before the first."""
        return self.ready / (self.batches * self.num_slots) if self.batches else None

    def take_occupancy(self) -> float | None:
        """The same since it was taken last."""
        batches, ready = self.batches - self._taken[0], self.ready - self._taken[1]
        self._taken = self.batches, self.ready
        return ready / (batches * self.num_slots) if batches else None

    def stages(self) -> dict[str, Stage]:
        """Every stage since the start: clips, busy seconds of all workers together, bytes read, percentiles per clip.

        `wait` is the trainer's, its percentiles are per batch.
        """
        shares = self.percentiles()
        found = {
            name: Stage(
                self.counts[name],
                self.seconds[name],
                self.num_bytes if name == "read" else 0,
                *shares.get(name, ()),
            )
            for name in STAGES
        }
        return found | {"wait": Stage(self.counts["read"], self.wait_s, 0, *shares.get("wait", ()))}

    def percentiles(self) -> dict[str, tuple[float, float, float]]:
        """p50, p90 and p99 in seconds, per clip of the newest 4,096; for `wait` per batch. Empty before the first."""
        clips, batches = min(self.counts["read"], _REMEMBERED), min(self.batches, _REMEMBERED)
        if not batches:
            return {}
        found = {name: _three(self._recent[:clips, place]) for place, name in enumerate(STAGES)}
        return found | {"wait": _three(self._waits[:batches])}


def _three(values: np.ndarray) -> tuple[float, float, float]:
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    return float(p50), float(p90), float(p99)


def report(before: Statistics | None, now: Statistics, elapsed_s: float) -> str:
    """One sentence: is the loader keeping up, what holds it up, and what to do. Over the time since `before`."""
    clips = now.counts["read"] - (before.counts["read"] if before else 0)
    waited_s = now.wait_s - (before.wait_s if before else 0.0)
    if not clips or elapsed_s <= 0:
        return "The loader has made no clips yet."
    share = min(waited_s / elapsed_s, 1.0)
    busy = {name: now.seconds[name] - (before.seconds[name] if before else 0.0) for name in STAGES}
    total = sum(busy.values())
    used = total / (elapsed_s * now.num_workers)
    rate = f"{clips / elapsed_s:,.0f} clips/s"
    if share < _KEPT_UP_BELOW:
        return (
            f"The loader keeps up: training waits {share:.1%} of the time for it at {rate}, and its {now.num_workers} workers"
            f" are busy {min(used, 1.0):.0%} of the time. To go faster, make the training step faster."
        )
    largest = max(busy, key=lambda name: busy[name])
    cure = {
        "read": "the disk is what holds it up: put the dataset on a faster one, or store a smaller level",
        "decode": "decoding is what holds it up: more workers, or a smaller stored level (--short-side) nearer to the crop",
        "assemble": "resizing and augmenting is what holds it up: more workers, a level that needs no resizing,"
        " or augmentation on the device (executor gpu)",
    }[largest]
    if used < 0.7:
        cure = (
            "its workers are not busy all the time: allow more batches ahead (depth), or look for what else uses the"
            " processors"
        )
    return f"Training waits {share:.0%} of the time for the loader at {rate}: {cure}."
