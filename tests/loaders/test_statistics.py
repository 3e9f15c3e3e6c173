"""What a loader says of itself: counts, percentiles, occupancy, and the sentence that names the cure."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from loaders.making import Results
from loaders.statistics import Statistics, report
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import digest


def clips(count: int, read: float = 0.0, decode: float = 0.0, assemble: float = 0.0) -> Results:
    numbers = np.zeros(count, np.int64)
    seconds = np.tile([read, decode, assemble], (count, 1))
    return Results(numbers, numbers, numbers, numbers[:, None], seconds, 100 * count, [None] * count, {})


def test_sums_and_percentiles_are_those_of_the_clips() -> None:
    statistics = Statistics(num_workers=2, num_slots=4)
    assert (statistics.percentiles(), statistics.occupancy) == ({}, None)
    for i in range(100):
        statistics.add(clips(1, read=0.001, decode=0.01 * (i + 1)), waited_s=0.5 if i >= 98 else 0.0, num_ready=i % 3)
    stages = statistics.stages()
    assert (stages["read"].count, stages["read"].num_bytes) == (100, 10_000)
    assert stages["decode"].seconds == pytest.approx(50.5)
    assert stages["wait"].seconds == statistics.wait_s == pytest.approx(1.0)
    found = statistics.percentiles()
    assert found["decode"] == pytest.approx((0.505, 0.901, 0.9901), rel=1e-3)
    assert found["wait"][:2] == (0.0, 0.0)
    assert (stages["decode"].p50_s, stages["decode"].p99_s) == (found["decode"][0], found["decode"][2])
    assert statistics.occupancy == statistics.take_occupancy() == pytest.approx(99 / 400)
    assert statistics.take_occupancy() is None
    statistics.add(clips(1), 0.0, 4)
    assert statistics.take_occupancy() == 1.0


def test_percentiles_are_of_the_newest_clips() -> None:
    statistics = Statistics(1, 2)
    statistics.add(clips(5000, decode=9.0), 0.0, 0)
    statistics.add(clips(4096, decode=1.0), 0.0, 0)
    assert statistics.percentiles()["decode"] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("stage", "waited_s", "words"),
    [
        ({"decode": 0.1}, 0.0, "keeps up"),
        ({"decode": 0.19}, 5.0, "decoding is what holds it up: more workers"),
        ({"read": 0.19}, 5.0, "the disk is what holds it up"),
        ({"assemble": 0.19}, 5.0, "resizing and augmenting is what holds it up"),
        ({"decode": 0.01}, 5.0, "workers are not busy all the time"),
    ],
)
def test_the_report_names_the_bottleneck_and_the_cure(stage: dict[str, float], waited_s: float, words: str) -> None:
    statistics = Statistics(num_workers=2, num_slots=4)
    before = statistics.snapshot()
    statistics.add(clips(100, **stage), waited_s, 1)
    sentence = report(before, statistics, elapsed_s=10.0)
    assert words in sentence
    assert "10 clips/s" in sentence
    assert sentence.count(".") - sentence.count("0.") >= 1


def test_a_report_is_of_the_time_since_the_last(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=2)
    assert "no clips yet" in loader.report()
    for _ in loader:
        time.sleep(0.05)
    assert "clips/s" in loader.report()
    assert "no clips yet" in loader.report()


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_loader_counts_what_it_made(make_loader: MakeLoader, workers: str) -> None:
    loader = make_loader(batch_size=4, workers=workers)
    batches = list(loader)
    assert loader.stages()["decode"].count == 4 * len(batches) == 12
    assert loader.stages()["read"].num_bytes > 1000
    found = loader.statistics.percentiles()
    assert set(found) == {"read", "decode", "assemble", "wait"}
    assert all(p50 <= p90 <= p99 for p50, p90, p99 in found.values())
    assert found["decode"][0] > 0
    assert 0 <= loader.statistics.occupancy <= 1


def test_headspace_replays_a_few_batches_without_end(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=3)
    expected = [digest(batch) for batch in make_loader(batch_size=3)]
    replayed = [digest(batch) for batch in itertools.islice(loader.headspace(2), 7)]
    assert replayed == [*expected[:2], *expected[:2], *expected[:2], expected[0]]
    made = loader.stages()["decode"].count
    assert [digest(batch) for batch in loader] == expected[2:]
    assert made == 6
