"""Sampling by time stamps, on paper."""

from __future__ import annotations

import pytest

from ingest.rates import RateSampler


def sample(times_s: list[float], end_s: float, fps: float, start_s: float = 0.0) -> list[int]:
    """Index of the frame that each slot gets."""
    sampler: RateSampler[int] = RateSampler(fps, round(start_s * 1e6))
    out: list[int] = []
    for i, time_s in enumerate(times_s):
        out += [frame for _, frame in sampler.push(round(time_s * 1e6), i)]
    return out + [frame for _, frame in sampler.finish(round(end_s * 1e6))]


def test_of_24_frames_a_second_every_fourth_in_six_is_taken() -> None:
    assert sample([i / 24 for i in range(48)], 2.0, 4) == [3, 9, 15, 21, 27, 33, 39, 45]


@pytest.mark.parametrize(("fps_in", "seconds"), [(25, 10.0), (30, 10.0), (30000 / 1001, 10.01), (12, 3.5), (60, 1.0)])
def test_number_of_slots_follows_the_duration_whatever_the_rate(fps_in: float, seconds: float) -> None:
    times = [i / fps_in for i in range(round(fps_in * seconds))]
    assert len(sample(times, seconds, 4)) == round(seconds * 4)


def test_variable_rate_is_sampled_by_time_and_not_by_number() -> None:
    times = [0.0, 0.01, 0.02, 0.03, 1.0, 1.9]  # four at once, then two lonely ones
    assert sample(times, 2.0, 2) == [3, 3, 4, 4]


def test_a_slower_video_repeats_its_frames() -> None:
    assert sample([0.0, 1.0], 2.0, 4) == [0] * 4 + [1] * 4


def test_a_frame_that_appears_in_the_middle_of_a_slot_is_the_one_shown() -> None:
    assert sample([0.0, 0.125, 0.25], 0.5, 4) == [1, 2]


def test_a_late_first_frame_stands_for_what_is_before_it() -> None:
    assert sample([0.6, 0.8], 1.0, 4) == [0, 0, 0, 1]


def test_a_span_has_slots_of_its_own() -> None:
    assert sample([10 + i / 10 for i in range(10)], 11.0, 2, start_s=10.0) == [2, 7]


def test_a_rate_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        RateSampler(0)
