"""Dense, windowed and sequential sampling, and the frames that get a gradient: the arithmetic on paper."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.sampling import Dense, DenseWindow, RandomInterval, Sequential, SequentialWalk, kept_frames


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_dense_draws_any_start_but_the_last(rng):
    # Span 8 of 12 frames leaves 4 spare ones: starts 0 to 3, and never 4.
    assert {int(Dense(4, 2).draw(12, rng)[0]) for _ in range(200)} == {0, 1, 2, 3}


def test_dense_centre_and_uniform_clips():
    np.testing.assert_array_equal(Dense(4, 2).views(13, 1), [[2, 4, 6, 8]])
    np.testing.assert_array_equal(Dense(4, 2).views(20, 3)[:, 0], [0, 4, 8])  # (20 - 8) // 3
    np.testing.assert_array_equal(Dense(4, 2).uniform(20, 1)[:, 0], [0])


def test_dense_repeats_the_last_frame_of_a_short_video(rng):
    np.testing.assert_array_equal(Dense(4, 2).draw(4, rng), [0, 2, 3, 3])
    np.testing.assert_array_equal(Dense(4, 2).views(8, 2), [[0, 2, 4, 6]] * 2)
    np.testing.assert_array_equal(Dense(3, 5).draw(1, rng), [0, 0, 0])


def test_a_window_of_consecutive_frames(rng):
    sampler = DenseWindow(4, 8)
    np.testing.assert_array_equal(sampler.views(20, 3), [[0, 2, 4, 6], [6, 8, 10, 12], [12, 14, 16, 18]])
    np.testing.assert_array_equal(sampler.views(20, 1), [[6, 8, 10, 12]])
    # 13 places, and the last is never drawn.
    assert {int(sampler.draw(20, rng)[0]) for _ in range(300)} == set(range(12))


def test_a_window_longer_than_the_video_begins_again(rng):
    np.testing.assert_array_equal(DenseWindow(4, 8).draw(5, rng), [0, 2, 4, 1])
    np.testing.assert_array_equal(DenseWindow(4, 8).views(5, 1), [[0, 2, 4, 1]])
    np.testing.assert_array_equal(DenseWindow(2, 8, 2, 3).views(5, 1), [[0, 3, 4, 2]])
    with pytest.raises(ValueError, match="a window of 3 frames has no room for 4 starts"):
        DenseWindow(4, 3)


def test_speed_stretches_the_interval():
    rng = np.random.RandomState(0)
    sampler = RandomInterval(5, (2,), speed=(0.5, 2.0))
    spans = [np.ptp(sampler.draw(100, rng)) for _ in range(500)]
    assert min(spans) in (4, 5) and max(spans) in (15, 16)  # 4 intervals of 1 to 4
    # 5 frames leave room for an interval of 1 and no less: half speed fits exactly.
    np.testing.assert_array_equal(sampler.draw(5, rng), [0, 1, 2, 3, 4])
    assert np.ptp(sampler.draw(4, rng)) == 0
    with pytest.raises(ValueError, match=r"speed is \(2, 1\)"):
        RandomInterval(4, (1,), speed=(2, 1))


def test_sequential_clips_follow_each_other():
    sampler = Sequential(3, 2)
    assert sampler.span == 5
    np.testing.assert_array_equal(sampler.starts(14), [0, 5])
    np.testing.assert_array_equal(sampler.starts(15), [0, 5, 10])
    assert not len(sampler.starts(4))
    np.testing.assert_array_equal(sampler.views(15, 3), [[0, 2, 4], [5, 7, 9], [10, 12, 14]])
    np.testing.assert_array_equal(sampler.views(15, 1), [[5, 7, 9]])
    np.testing.assert_array_equal(sampler.views(5, 2), [[0, 2, 4]] * 2)


def test_sequential_draws_whole_clips(rng):
    assert {int(Sequential(3, 2).draw(17, rng)[0]) for _ in range(100)} == {0, 5, 10}
    short = [Sequential(3, 2).draw(4, rng) for _ in range(100)]
    assert all(np.ptp(each) == 0 for each in short) and {int(each[0]) for each in short} == {0, 1, 2, 3}
    np.testing.assert_array_equal(Sequential(3, 2).views(4, 1), [[1, 1, 1]])


def test_a_walk_goes_round_the_clips_of_every_video():
    walk = SequentialWalk(2, (1,), np.random.RandomState(0))
    assert [walk.next("a", 5)[0] for _ in range(3)] == [0, 2, 0]
    assert [walk.next(video, 6)[0] for video in "bbab"] == [0, 2, 2, 4]


def test_a_fixed_walk_moves_on_only_after_a_failure():
    walk = SequentialWalk(2, (1,), np.random.RandomState(0), fixed=True)
    assert [walk.next("a", 6)[0] for _ in range(3)] == [0, 0, 0]
    walk.next("a", 6, failed=True)
    assert walk.next("a", 6)[0] == 2


def test_a_shuffled_walk_visits_every_clip_once():
    walk = SequentialWalk(2, (1,), np.random.RandomState(1), shuffle=True)
    starts = [int(walk.next("a", 20)[0]) for _ in range(10)]
    assert starts != sorted(starts) and sorted(starts) == list(range(0, 20, 2))
    assert [int(walk.next("a", 20)[0]) for _ in range(10)] == starts


@pytest.mark.parametrize(
    ("num_frames", "ratio", "kept"),
    [
        (10, 0.2, [0, 5]),
        (10, 0.3, [0, 3, 6, 9]),  # int(1 / 0.3) is 3
        (7, 0.5, [0, 2, 4, 6]),
        (5, 1.0, [0, 1, 2, 3, 4]),
        (4, 0.7, [0, 1, 2, 3]),  # above a half: all
        (5, 0.2, [2]),  # a stride as long as the window: its middle
        (1, 0.1, [0]),
    ],
)
def test_kept_frames(num_frames, ratio, kept):
    np.testing.assert_array_equal(kept_frames(num_frames, ratio), kept)


def test_jittered_kept_frames_lie_one_in_each_stride(rng):
    kept = np.stack([kept_frames(12, 0.25, rng) for _ in range(200)])
    assert [set(column) for column in kept.T] == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}]
    assert kept_frames(9, 0.25, rng)[-1] == 8  # a stride cut short keeps the last frame


def test_kept_frames_names_a_bad_ratio():
    for ratio in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"keep_ratio is {ratio}"):
            kept_frames(8, ratio)
