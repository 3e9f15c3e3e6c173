"""The monitor's line as the published code printed it, and the sums behind it."""

from __future__ import annotations

import pytest

from loaders import speed
from loaders.speed import Rates, SpeedMonitor

RED, YELLOW, GREEN = "\033[91m", "\033[93m", "\033[92m"

# Seconds per clip (read, forward, backward) and what the published monitor printed for them.
PUBLISHED = [
    (1e-05, 0.01, 0.02, (GREEN, "1.00e+5"), (YELLOW, "1.00e+2"), (YELLOW, "5.00e+1")),
    (0.01, 0.02, 0.05, (YELLOW, "1.00e+2"), (YELLOW, "5.00e+1"), (YELLOW, "2.00e+1")),
    (0.005, 0.0034, 0.0049, (YELLOW, "2.00e+2"), (YELLOW, "2.94e+2"), (GREEN, "2.04e+2")),
    (0.000334, 0.00333, 0.005, (YELLOW, "2.99e+3"), (GREEN, "3.00e+2"), (GREEN, "2.00e+2")),
    (0.000333, 0.0199, 0.0501, (GREEN, "3.00e+3"), (YELLOW, "5.03e+1"), (RED, "2.00e+1")),
    (0.00999, 0.02001, 0.04999, (YELLOW, "1.00e+2"), (RED, "5.00e+1"), (YELLOW, "2.00e+1")),
    (2.5, 1.5, 3.25, (RED, "4.00e-1"), (RED, "6.67e-1"), (RED, "3.08e-1")),
    (1e-07, 0.0001, 0.001, (GREEN, "1.00e+7"), (GREEN, "1.00e+4"), (GREEN, "1.00e+3")),
    (0.0123, 0.0456, None, (RED, "8.13e+1"), (RED, "2.19e+1"), None),
]


def rates(read: float | None, forward: float | None, backward: float | None) -> Rates:
    per_second = (None if seconds is None else 1 / seconds for seconds in (read, forward, backward))
    return Rates(*per_second, clips_per_s=None, wait_share=None)


@pytest.mark.parametrize(("read", "forward", "backward", "r", "f", "b"), PUBLISHED)
def test_the_line_is_the_published_one_with_and_without_colour(read, forward, backward, r, f, b):
    given = [(name, part) for name, part in zip("rfb", (r, f, b), strict=True) if part]
    coloured = " ".join(f"{name}={code}{text}\033[0m" for name, (code, text) in given)
    plain = " ".join(f"{name}={text}" for name, (_, text) in given)
    made = rates(read, forward, backward)
    assert made.line(colour=True) == f"Speed ({coloured}) clip/sec "
    assert made.line() == f"Speed ({plain}) clip/sec "


@pytest.mark.parametrize(("read", "forward"), [(None, 0.01), (0.0123, None), (None, None)])
def test_the_line_is_empty_until_clips_were_read_and_went_forward(read, forward):
    assert rates(read, forward, None).line() == ""


def test_halves_are_rounded_to_even_on_the_exact_value():
    made = Rates(1.125, 1.135, 1.375, None, None)  # 1.135 lies just above the half, as a float
    assert made.line() == "Speed (r=1.12e+0 f=1.14e+0 b=1.38e+0) clip/sec "


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(speed, "time", made)
    return made


class Batches:
    """Batches of the given sizes; each takes a quarter of a second to come."""

    def __init__(self, clock: Clock, *sizes: int) -> None:
        self.clock, self.sizes = clock, list(sizes)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> list[int]:
        self.clock.now += 0.25
        if not self.sizes:
            raise StopIteration
        return [0] * self.sizes.pop(0)


def test_seconds_and_clips_add_up_over_the_interval(clock: Clock):
    monitor = SpeedMonitor()
    for batch in monitor.watch(Batches(clock, 4, 2)):
        with monitor.measure("forward", len(batch)):
            clock.now += 0.5
        with monitor.measure("backward", len(batch)):
            clock.now += 1.0
    made = monitor.rates()
    assert (made.read, made.forward, made.backward) == (6 / 0.5, 6 / 1.0, 6 / 2.0)
    # 2 x (0.25 + 0.5 + 1) s, and the quarter that found the end.
    assert made.clips_per_s == 6 / 3.75
    assert made.wait_share == 0.5 / 3.75


def test_reading_the_rates_begins_a_new_interval(clock: Clock):
    monitor = SpeedMonitor()
    list(monitor.watch(Batches(clock, 4)))
    assert monitor.rates().read == 16
    clock.now += 7
    assert monitor.rates() == Rates(None, None, None, None, None)
    for _ in monitor.watch(Batches(clock, 1)):
        pass
    made = monitor.rates()
    assert (made.read, made.clips_per_s, made.wait_share) == (4, 2, 0.5)


def test_evaluation_has_no_backward(clock: Clock):
    monitor = SpeedMonitor()
    for batch in monitor.watch(Batches(clock, 2)):
        with monitor.measure("forward", len(batch)):
            clock.now += 0.5
    assert monitor.rates().line() == "Speed (r=8.00e+0 f=4.00e+0) clip/sec "


def test_the_wait_is_at_most_the_whole_interval(clock: Clock):
    monitor = SpeedMonitor()
    next(monitor.watch(Batches(clock, 1)))
    assert monitor.rates().wait_share == 1.0


def test_batches_pass_through_the_watch_unchanged(clock: Clock):
    monitor = SpeedMonitor()
    assert [len(batch) for batch in monitor.watch(Batches(clock, 3, 1, 2))] == [3, 1, 2]


def test_an_error_of_the_loader_passes_through_the_watch():
    def fail():
        yield [0]
        raise OSError("gone")

    batches = SpeedMonitor().watch(fail())
    next(batches)
    with pytest.raises(OSError, match="gone"):
        next(batches)
