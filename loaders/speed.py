"""How fast a run reads, goes forward and goes backward, in clips per second: the historical monitor, mended.

The figures are averages over the interval since the last report, not the launch time of the last batch. On a GPU they are
taken by events on its stream, which are read with the report: nothing waits in between.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import torch

_LIMITS = {"r": (100, 3000), "f": (50, 300), "b": (20, 200)}
_RED, _YELLOW, _GREEN = 91, 93, 92


@dataclass(frozen=True)
class Rates:
    """Clips per second of an interval; None for what did not happen. `wait_share`: part of it spent waiting for data."""

    read: float | None
    forward: float | None
    backward: float | None
    clips_per_s: float | None
    wait_share: float | None

    def line(self, *, colour: bool = False) -> str:
        """`Speed (r=1.53e+5 f=2.10e+2 b=8.00e+1) clip/sec `, red, yellow or green by the historical limits.

        Empty until clips were read and went forward; without `b` in evaluation.
        """
        if self.read is None or self.forward is None:
            return ""
        parts = [
            f"{name}={_coloured(name, value) if colour else _short(value)}"
            for name, value in (("r", self.read), ("f", self.forward), ("b", self.backward))
            if value is not None
        ]
        return f"Speed ({' '.join(parts)}) clip/sec "


class SpeedMonitor:
    """Adds up seconds and clips of the three parts of a step. `rates()` reads and resets the interval."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._reset()

    def _reset(self) -> None:
        self._seconds = {"read": 0.0, "forward": 0.0, "backward": 0.0}
        self._clips = {"read": 0, "forward": 0, "backward": 0}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def measure(self, part: str, num_clips: int) -> Iterator[None]:
        """Time a `forward` or a `backward` of `num_clips` clips."""
        if self._device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(torch.cuda.current_stream(self._device))
            yield
            end.record(torch.cuda.current_stream(self._device))
            self._events.append((part, begin, end))
        else:
            started = time.perf_counter()
            yield
            self._seconds[part] += time.perf_counter() - started
        self._clips[part] += num_clips

    def watch(self, batches: Iterator) -> Iterator:
        """The same batches; the time spent waiting for each is the `read`."""
        while True:
            started = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._seconds["read"] += time.perf_counter() - started
            self._clips["read"] += len(batch)
            yield batch

    def rates(self) -> Rates:
        """Rates of the interval that ends now; the next one begins."""
        for part, begin, end in self._events:
            end.synchronize()
            self._seconds[part] += begin.elapsed_time(end) / 1000
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        each = {part: _rate(self._clips[part], self._seconds[part]) for part in self._seconds}
        clips = self._clips["read"]
        rates = Rates(
            each["read"],
            each["forward"],
            each["backward"],
            clips / elapsed if clips else None,
            min(self._seconds["read"] / elapsed, 1.0) if clips else None,
        )
        self._reset()
        return rates


def _rate(clips: int, seconds: float) -> float | None:
    return clips / max(seconds, 1e-9) if clips else None


def _short(value: float) -> str:
    """Two decimals and a power without padding, half-even on the exact value: 1.53e+5."""
    return f"{Decimal(value):.2e}"


def _coloured(name: str, value: float) -> str:
    low, high = _LIMITS[name]
    colour = _RED if value < low else _YELLOW if value < high else _GREEN
    return f"\033[{colour}m{_short(value)}\033[0m"
