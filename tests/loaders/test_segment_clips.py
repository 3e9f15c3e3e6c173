"""Segment sampling with a short clip in every segment: places, middles, short videos, ends."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.sampling import SegmentClips, TwiceSample


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_one_frame_of_each_segment_at_random(rng):
    draws = np.stack([SegmentClips(4).draw(14, rng) for _ in range(500)])
    # 14 places in 4 segments of 3 whole frames: the last two frames are never drawn.
    assert [set(column) for column in draws.T] == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9, 10, 11}]


def test_keeping_the_tail_draws_every_frame(rng):
    draws = np.stack([SegmentClips(4, tail="keep").draw(14, rng) for _ in range(800)])
    assert [set(column) for column in draws.T] == [{0, 1, 2, 3}, {3, 4, 5, 6}, {7, 8, 9, 10}, {10, 11, 12, 13}]


def test_the_middle_of_each_segment():
    np.testing.assert_array_equal(SegmentClips(4).views(12, 1), [[1, 4, 7, 10]])  # segments of 3
    np.testing.assert_array_equal(SegmentClips(4).views(14, 1), [[1, 5, 8, 12]])  # of 3.5: 1.75, 5.25, 8.75, 12.25
    np.testing.assert_array_equal(SegmentClips(4).views(4, 1), [[0, 1, 2, 3]])


def test_a_clip_needs_one_interval_more_than_it_spans():
    sampler = SegmentClips(1, 4, 2)
    assert sampler.span == 8 and sampler.num_frames == 4
    # 9 frames: 2 places, the middle one is 1; 8 frames: one place.
    np.testing.assert_array_equal(sampler.views(9, 1), [[1, 3, 5, 7]])
    np.testing.assert_array_equal(sampler.views(8, 1), [[0, 2, 4, 6]])


def test_dense_training_draws_every_place(rng):
    starts = {int(SegmentClips(1, 4, 2).draw(11, rng)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3}


def test_dense_views_are_the_middles_of_as_many_segments():
    views = SegmentClips(1, 4, 2).views(17, 5)  # 10 places, 2 for each of 5 clips
    np.testing.assert_array_equal(views[:, 0], [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(np.diff(views), 2)


def test_views_of_many_segments_take_even_parts_of_each():
    np.testing.assert_array_equal(SegmentClips(2).views(16, 2), [[2, 10], [6, 14]])  # a quarter and three quarters of 8


def test_twice_sampling_takes_the_middles_and_the_beginnings():
    views = TwiceSample(SegmentClips(4)).views(12, 2)
    np.testing.assert_array_equal(views, [[1, 4, 7, 10], [0, 3, 6, 9]])
    np.testing.assert_array_equal(TwiceSample(SegmentClips(4)).views(12, 1), views[:1])
    with pytest.raises(ValueError, match="num_clips is 3; twice-sampling has 1 or 2"):
        TwiceSample(SegmentClips(4)).views(12, 3)


def test_fewer_frames_than_segments_are_spread_in_training(rng):
    np.testing.assert_array_equal(
        SegmentClips(6).draw(3, rng), [0, 0, 1, 2, 2, 2]
    )  # 0, .5, 1, 1.5, 2, 2.5, halves to even
    np.testing.assert_array_equal(SegmentClips(6).views(3, 1), [[0, 0, 1, 1, 2, 2]])


def test_fewer_frames_than_segments_may_all_be_the_first(rng):
    sampler = SegmentClips(6, short="first")
    np.testing.assert_array_equal(sampler.draw(3, rng), np.zeros(6))
    np.testing.assert_array_equal(sampler.views(6, 1), np.zeros((1, 6)))  # as many places as segments are still too few
    np.testing.assert_array_equal(sampler.views(7, 1), [[0, 1, 2, 4, 5, 6]])


def test_more_frames_than_places_draw_sorted_starts(rng):
    # 10 frames, clips of 8: 3 places for 4 segments, and more frames than either.
    draws = np.stack([SegmentClips(4, 4, 2).random_starts(10, rng) for _ in range(300)])
    assert (np.diff(draws) >= 0).all() and set(draws.ravel()) == {0, 1, 2}
    assert len(np.unique(draws, axis=0)) == 15  # every multiset of 4 out of 3


def test_a_short_video_loops_repeats_or_stays():
    wanted = {"loop": [0, 2, 4, 1, 3], "repeat_last": [0, 2, 4, 4, 4], "stay": [0, 2, 2, 2, 2]}
    for end, frames in wanted.items():
        np.testing.assert_array_equal(SegmentClips(1, 5, 2, end=end).views(5, 1), [frames])


def test_staying_never_steps_onto_the_last_frame():
    sampler = SegmentClips(1, 5, 1, end="stay")
    np.testing.assert_array_equal(sampler.indices(np.array([1]), 4), [1, 2, 2, 2, 2])
    np.testing.assert_array_equal(sampler.indices(np.array([3]), 4), [3, 3, 3, 3, 3])
    np.testing.assert_array_equal(sampler.indices(np.array([0]), 1), [0, 0, 0, 0, 0])


def test_jitter_shifts_every_frame_or_every_step(rng):
    by_frame = SegmentClips(3, 4, 5, jitter="frame")
    shifts = by_frame.shifts(rng)
    assert shifts.shape == (12,) and set(np.concatenate([by_frame.shifts(rng) for _ in range(50)])) == {0, 1, 2, 3, 4}
    starts = np.array([0, 20, 40])
    np.testing.assert_array_equal(by_frame.indices(starts, 100, shifts), by_frame.indices(starts, 100) + shifts)
    by_step = SegmentClips(3, 4, 5, jitter="step").shifts(rng)
    np.testing.assert_array_equal(by_step.reshape(3, 4), np.tile(by_step[:4], (3, 1)))
    assert SegmentClips(3, 4, 5).shifts(rng) is None


def test_a_shift_out_of_the_video_is_looped_or_not_made():
    starts, shifts = np.array([6]), np.array([1, 1])
    np.testing.assert_array_equal(SegmentClips(1, 2, 3, jitter="step").indices(starts, 10, shifts), [7, 0])
    # 6 + 3 would be the last frame, so the second frame stays 6; both shifts stay inside.
    np.testing.assert_array_equal(SegmentClips(1, 2, 3, end="stay", jitter="step").indices(starts, 10, shifts), [7, 7])
    np.testing.assert_array_equal(
        SegmentClips(1, 2, 3, end="stay", jitter="step").indices(np.array([9]), 10, shifts), [9, 9]
    )


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match="num_segments is 0"):
        SegmentClips(0)
    with pytest.raises(ValueError, match="segment_frames is 0"):
        SegmentClips(1, 0)
    with pytest.raises(ValueError, match="interval is 0"):
        SegmentClips(1, 1, 0)
