"""What every frame sampler promises, whatever it does: shapes, types, bounds, and that a draw is a function of its generator."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.stores.frames_db import Level
from loaders.clips import ClipSpec, plan_clip
from loaders.order import sample_rng
from loaders.sampling import Dense, DenseWindow, RandomInterval, SegmentClips, Segments, Sequential, TwiceSample
from loaders.sampling.base import End, draw_below, inside
from loaders.sampling.random_interval import _spread

SAMPLERS = [
    RandomInterval(4),
    RandomInterval(5, (1, 3)),
    RandomInterval(5, (2,), speed=(0.5, 2)),
    RandomInterval(1, (7,)),
    Segments(6),
    SegmentClips(8),
    SegmentClips(1, 8, 8),
    SegmentClips(1, 5, 2, end="repeat_last"),
    SegmentClips(3, 4, 2, tail="keep"),
    SegmentClips(3, 4, 2, jitter="frame"),
    SegmentClips(4, 2, 3, end="stay", short="first", jitter="step"),
    TwiceSample(SegmentClips(8)),
    Dense(8, 4),
    DenseWindow(8, 16),
    DenseWindow(2, 10, 3, 2),
    Sequential(4, 3),
]
LENGTHS = [1, 2, 3, 5, 7, 8, 9, 16, 17, 33, 64, 65, 300]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("video_frames", LENGTHS)
def test_a_draw_is_num_frames_frames_of_the_video(sampler, video_frames):
    rng = np.random.default_rng(video_frames)
    for _ in range(30):
        frames = sampler.draw(video_frames, rng)
        assert frames.dtype == np.int64 and frames.shape == (sampler.num_frames,)
        assert frames.min() >= 0 and frames.max() < video_frames


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("video_frames", LENGTHS)
@pytest.mark.parametrize("num_clips", [1, 2])
def test_views_are_clips_of_the_video_and_always_the_same(sampler, video_frames, num_clips):
    views = sampler.views(video_frames, num_clips)
    assert views.dtype == np.int64 and views.shape == (num_clips, sampler.num_frames)
    assert views.min() >= 0 and views.max() < video_frames
    np.testing.assert_array_equal(views, sampler.views(video_frames, num_clips))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_draw_is_a_function_of_the_generator_s_state(sampler):
    for generator in (np.random.default_rng, np.random.RandomState):
        first, second = generator(5), generator(5)
        for _ in range(5):
            np.testing.assert_array_equal(sampler.draw(90, first), sampler.draw(90, second))


@pytest.mark.parametrize("generator", [np.random.default_rng, np.random.RandomState])
def test_an_integer_is_drawn_as_choice_draws_it(generator):
    ours, numpys = generator(3), generator(3)
    for n in (1, 2, 3, 7, 300, 2**33) * 50:
        assert draw_below(ours, n) == numpys.choice(n)
    assert ours.uniform(0, 1) == numpys.uniform(0, 1)


def test_frames_spread_as_linspace_spreads_them():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        first, length = rng.uniform(0, 1e4), rng.choice((0.0, 1e-9, rng.uniform(0, 64), float(rng.integers(64))))
        count = int(rng.integers(2, 65))
        np.testing.assert_array_equal(_spread(first, first + length, count), np.linspace(first, first + length, count))


@pytest.mark.parametrize("sampler", [each for each in SAMPLERS if not isinstance(each, TwiceSample)], ids=str)
def test_ten_views_come_in_the_order_of_time(sampler):
    views = sampler.views(300, 10)
    assert views.shape == (10, sampler.num_frames)
    assert (np.diff(views[:, 0]) >= 0).all()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_video_without_frames_is_an_error(sampler):
    for sample in (lambda: sampler.draw(0, np.random.default_rng(0)), lambda: sampler.views(0, 1)):
        with pytest.raises(ValueError, match="at least one frame, the video has 0"):
            sample()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_every_sampler_can_stand_in_a_clip_spec(sampler):
    level = Level(256, 340, 256, "Images")
    training = ClipSpec(sampler, 112, 112, (128, 160))
    plan = plan_clip(training, 0, 60, [level], seed=1, epoch=2, k=3)
    np.testing.assert_array_equal(plan.frames, sampler.draw(60, sample_rng(1, 2, 3)))
    test = ClipSpec(sampler, 112, 112, (128, 128), views=(2, 3))
    frames = [plan_clip(test, item, 60, [level], seed=1, epoch=0, k=0).frames for item in range(6)]
    np.testing.assert_array_equal(frames, np.repeat(sampler.views(60, 2), 3, axis=0))


@pytest.mark.parametrize(
    ("end", "expected"),
    [("loop", [[1, 3, 5, 1, 3], [4, 0, 2, 4, 0]]), ("repeat_last", [[1, 3, 5, 5, 5], [4, 4, 4, 4, 4]])],
)
def test_what_lies_past_the_end(end: End, expected):
    wanted = np.array([[1, 3, 5, 7, 9], [4, 6, 8, 10, 12]])
    np.testing.assert_array_equal(inside(wanted, 6, end), expected)
