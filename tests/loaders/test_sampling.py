"""Frame sampling and crop offsets: the arithmetic on paper, and the published sampler's own draws."""

from __future__ import annotations

import numpy as np
import pytest

from loaders import RandomInterval, Segments
from loaders.sampling import crop_offsets

# What the published RandomSampling draws on one RandomState(seed), call after call: (video frames, indices).
# Whole lists are written as first index and step, which is what they are at speed 1.
PUBLISHED = [
    (16, (1, 2), 3, [(300, 238, 1), (300, 253, 1), (300, 11, 1), (300, 118, 2), (300, 128, 1), (300, 192, 1), (31, 11, 1),
                     (16, 0, 1), (17, 10, 0), (15, 11, 0), (2, 1, 0), (1, 0, 0), (64, 25, 2), (250, 195, 2)]),
    (16, (2,), 0, [(300, 192, 2), (90, 32, 2), (31, 0, 2), (30, 4, 0), (33, 0, 2), (150, 56, 2)]),
    (8, (4, 5, 6), 12345, [(300, 33, 6), (300, 149, 5), (300, 121, 5), (300, 167, 6), (300, 7, 4), (43, 0, 6), (36, 0, 5),
                           (29, 27, 0), (28, 0, 0)]),
    (1, (2,), 5, [(10, 3, 0), (1, 0, 0), (100, 78, 0)]),
]  # fmt: skip


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("num_frames", "intervals", "seed", "calls"), PUBLISHED)
def test_random_interval_draws_what_the_published_sampler_draws(num_frames, intervals, seed, calls):
    state = np.random.RandomState(seed)
    sampler = RandomInterval(num_frames, intervals)
    for video_frames, first, step in calls:
        np.testing.assert_array_equal(sampler.draw(video_frames, state), first + step * np.arange(num_frames))


def test_random_interval_keeps_the_span_and_the_bounds(rng):
    sampler = RandomInterval(4, (3,))
    draws = np.stack([sampler.draw(20, rng) for _ in range(500)])
    assert draws.dtype == np.int64 and draws.shape == (500, 4)
    np.testing.assert_array_equal(np.diff(draws), 3)
    # 20 frames, span 10: real starts lie in [0, 10), so the first frame is 0 to 9.
    assert set(draws[:, 0]) == set(range(10))


def test_random_interval_chooses_every_interval(rng):
    sampler = RandomInterval(3, (1, 4))
    steps = {int(np.diff(sampler.draw(40, rng))[0]) for _ in range(100)}
    assert steps == {1, 4}


def test_random_interval_of_a_video_as_long_as_the_span_is_the_whole_video(rng):
    for _ in range(20):
        np.testing.assert_array_equal(RandomInterval(4, (2,)).draw(7, rng), [0, 2, 4, 6])


def test_random_interval_of_a_short_video_is_one_frame_repeated(rng):
    draws = np.stack([RandomInterval(4, (2,)).draw(6, rng) for _ in range(200)])
    assert (draws == draws[:, :1]).all()
    assert set(draws[:, 0]) == set(range(6))


def test_random_interval_of_one_frame_is_any_frame(rng):
    assert {int(RandomInterval(1, (5,)).draw(3, rng)[0]) for _ in range(100)} == {0, 1, 2}
    np.testing.assert_array_equal(RandomInterval(8).draw(1, rng), np.zeros(8))


def test_one_view_is_the_middle_of_the_video():
    np.testing.assert_array_equal(RandomInterval(4, (2,)).views(17, 1), [[5, 7, 9, 11]])  # span 7, 5 frames each side
    np.testing.assert_array_equal(RandomInterval(1).views(9, 1), [[4]])


def test_views_spread_from_the_first_frame_to_the_last():
    views = RandomInterval(4, (2,)).views(27, 3)  # span 7: starts 0, 10, 20
    np.testing.assert_array_equal(views, [[0, 2, 4, 6], [10, 12, 14, 16], [20, 22, 24, 26]])
    assert views.dtype == np.int64
    np.testing.assert_array_equal(RandomInterval(2).views(12, 10)[:, 0], np.linspace(0, 10, 10).round())


def test_views_take_the_middle_one_of_the_intervals():
    np.testing.assert_array_equal(np.diff(RandomInterval(4, (8, 1, 2)).views(100, 2)), 2)


def test_views_of_a_short_video_begin_at_its_start_and_repeat_its_last_frame():
    np.testing.assert_array_equal(RandomInterval(4, (2,)).views(4, 2), [[0, 2, 3, 3], [0, 2, 3, 3]])
    np.testing.assert_array_equal(RandomInterval(3).views(1, 1), [[0, 0, 0]])


def test_segments_draw_one_frame_inside_each_segment(rng):
    draws = np.stack([Segments(4).draw(12, rng) for _ in range(300)])
    assert draws.dtype == np.int64
    for segment in range(4):
        assert set(draws[:, segment]) == {3 * segment, 3 * segment + 1, 3 * segment + 2}


def test_segments_of_uneven_length_cover_the_video(rng):
    draws = np.stack([Segments(3).draw(10, rng) for _ in range(500)])  # edges at 0, 3.33, 6.67, 10
    assert [set(column) for column in draws.T] == [{0, 1, 2, 3}, {3, 4, 5, 6}, {6, 7, 8, 9}]


def test_segments_of_fewer_frames_than_segments_repeat_frames_in_order(rng):
    for _ in range(50):
        draw = Segments(8).draw(3, rng)
        assert (np.diff(draw) >= 0).all() and draw.min() == 0 and draw.max() == 2
    np.testing.assert_array_equal(Segments(4).views(2, 1), [[0, 0, 1, 1]])
    np.testing.assert_array_equal(Segments(4).draw(1, rng), [0, 0, 0, 0])


def test_segments_views_take_the_middle_and_then_even_parts_of_each_segment():
    np.testing.assert_array_equal(Segments(4).views(12, 1), [[1, 4, 7, 10]])
    np.testing.assert_array_equal(Segments(2).views(16, 2), [[2, 10], [6, 14]])  # quarter and three quarters of 8


def test_crops_lie_centred_or_spread_from_edge_to_edge():
    assert crop_offsets(7, 1) == [3]
    assert crop_offsets(0, 3) == [0, 0, 0]
    assert crop_offsets(9, 2) == [0, 9]
    assert crop_offsets(116, 3) == [0, 58, 116]
    assert crop_offsets(10, 5) == [0, 2, 5, 8, 10]
    assert crop_offsets(10, 5, down=True) == [0, 2, 5, 7, 10]


@pytest.mark.parametrize("sampler", [RandomInterval(4), Segments(4)])
def test_a_video_without_frames_is_an_error(sampler, rng):
    for sample in (lambda: sampler.draw(0, rng), lambda: sampler.views(0, 1)):
        with pytest.raises(ValueError, match="at least one frame, the video has 0"):
            sample()


def test_samplers_say_which_argument_is_out_of_range():
    with pytest.raises(ValueError, match="num_frames is 0"):
        RandomInterval(0)
    with pytest.raises(ValueError, match=r"intervals are \(1, 0\)"):
        RandomInterval(4, (1, 0))
    with pytest.raises(ValueError, match=r"intervals are \(\)"):
        RandomInterval(4, ())
    with pytest.raises(ValueError, match="num_frames is -1"):
        Segments(-1)
