"""What a clip is and what one sample takes to make: levels, geometry, randomness. No I/O."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ingest.stores.frames_db import Level, plan_levels
from loaders import ClipSpec, RandomInterval, Segments
from loaders.clips import ClipPlan, plan_clip, smallest_level
from tests.loaders.samples import evaluation_spec, training_spec

WIDE = plan_levels(340, 256, (256, 128))
TALL = plan_levels(256, 455, (256, 128))


def plan(spec: ClipSpec, levels: list[Level] = WIDE, *, item: int = 0, video_frames: int = 60, k: int = 0) -> ClipPlan:
    return plan_clip(spec, item, video_frames, levels, seed=1, epoch=2, k=k)


def values(made: ClipPlan) -> tuple:
    return (made.video, made.view, made.frames.tolist(), *made[3:])


def test_a_plan_is_a_pure_function_of_its_arguments():
    spec = training_spec()
    once = [values(plan(spec, item=3, k=k)) for k in range(50)]
    assert once == [values(plan(spec, item=3, k=k)) for k in range(50)]
    with ThreadPoolExecutor(4) as pool:
        assert once == list(pool.map(lambda k: values(plan(spec, item=3, k=k)), range(50)))
    assert len({repr(of_k) for of_k in once}) > 40


def test_training_does_not_depend_on_the_item_but_on_its_place():
    spec = training_spec()
    assert values(plan(spec, item=3, k=5))[2:] == values(plan(spec, item=4, k=5))[2:]


def test_seed_and_epoch_change_the_draws():
    spec = training_spec()
    made = [plan_clip(spec, 0, 60, WIDE, seed=s, epoch=e, k=0) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len({repr(values(p)) for p in made}) == 3


@pytest.mark.parametrize(("short_side", "level"), [(96, 128), (128, 128), (129, 256), (256, 256), (300, 256)])
def test_the_smallest_level_that_is_large_enough_is_read(short_side, level):
    assert smallest_level(WIDE, short_side).short_side == level
    spec = training_spec(short_side=(short_side, short_side), enlarge=1.0)
    assert plan(spec).level.short_side == level


@pytest.mark.parametrize(("short_side", "level"), [(128, 128), (160, 128), (161, 256), (320, 256), (400, 256)])
def test_a_level_may_be_enlarged_by_a_quarter_unless_told_otherwise(short_side, level):
    assert plan(training_spec(short_side=(short_side, short_side))).level.short_side == level
    with pytest.raises(ValueError, match=r"enlarge is 0\.5"):
        training_spec(enlarge=0.5)


def test_exact_resolution_reads_the_largest_level_and_is_the_default_for_views():
    assert plan(training_spec(exact_resolution=True)).level == WIDE[0]
    assert plan(evaluation_spec()).level == WIDE[0]
    assert plan(evaluation_spec(exact_resolution=False)).level == WIDE[1]
    assert not training_spec().exact


def test_the_short_side_is_drawn_from_both_ends_of_the_jitter_and_all_between():
    sides = {min(plan(training_spec(short_side=(32, 35)), k=k).scaled) for k in range(200)}
    assert sides == {32, 33, 34, 35}


@pytest.mark.parametrize(
    "size", [(340, 256), (256, 340), (256, 256), (1920, 1080), (171, 128), (129, 128), (500, 40), (41, 733), (32, 32)]
)
@pytest.mark.parametrize("crop", [32, 31])
def test_the_crop_lies_inside_the_scaled_frame_which_keeps_its_aspect(size, crop):
    levels = plan_levels(*size, (256, 128))
    width, height = levels[0].width, levels[0].height
    for exact in (False, True):
        spec = training_spec(height=crop, width=crop, short_side=(32, 64), exact_resolution=exact)
        for k in range(100):
            made = plan(spec, levels, k=k)
            assert 32 <= min(made.scaled) <= 64
            for offset, scaled in zip(made.offset, made.scaled, strict=True):
                assert 0 <= offset <= scaled - crop
            long, short = max(made.scaled), min(made.scaled)
            assert abs(long - short * max(width, height) / min(width, height)) <= 0.5
            assert (made.scaled[0] > made.scaled[1]) == (height > width) or long == short


def test_crops_reach_every_corner():
    spec = training_spec(short_side=(36, 36))
    offsets = np.array([plan(spec, k=k).offset for k in range(600)])
    scaled = plan(spec).scaled
    assert offsets.min(axis=0).tolist() == [0, 0]
    assert offsets.max(axis=0).tolist() == [scaled[0] - 32, scaled[1] - 32]


@pytest.mark.parametrize(("flip", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_clips_are_mirrored_with_the_given_probability(flip, share):
    mirrored = np.mean([plan(training_spec(flip=flip), k=k).mirror for k in range(400)])
    assert mirrored == share if flip in (0, 1) else abs(mirrored - share) < 0.1


def test_views_are_never_mirrored_nor_random():
    spec = evaluation_spec(flip=1.0)
    assert values(plan(spec, k=1)) == values(plan(spec, k=2))
    assert not plan(spec).mirror


@pytest.mark.parametrize(
    ("levels", "scaled", "offsets"),
    [(WIDE, (36, 48), [(2, 0), (2, 8), (2, 16)]), (TALL, (64, 36), [(0, 2), (16, 2), (32, 2)])],
)
def test_three_crops_lie_along_the_long_side(levels, scaled, offsets):
    made = [plan(evaluation_spec(views=(1, 3)), levels, item=view) for view in range(3)]
    assert [p.scaled for p in made] == [scaled] * 3
    assert [p.offset for p in made] == offsets


def test_items_count_views_within_videos_and_crops_within_clips():
    spec = evaluation_spec(views=(2, 3))
    made = [plan(spec, item=item) for item in range(12)]
    assert [(p.video, p.view) for p in made] == [(video, view) for video in range(2) for view in range(6)]
    first, second = spec.sampler.views(60, 2)
    for p in made:
        np.testing.assert_array_equal(p.frames, second if p.view >= 3 else first)
    assert [p.offset[1] for p in made[:6]] == [0, 8, 16, 0, 8, 16]


def test_one_crop_is_the_centre():
    assert plan(evaluation_spec(views=(1, 1)), TALL).offset == (16, 2)


def test_segments_serve_training_and_evaluation_alike():
    np.testing.assert_array_equal(plan(evaluation_spec(sampler=Segments(4), views=(1, 1))).frames, [7, 22, 37, 52])
    frames = plan(training_spec(sampler=Segments(4))).frames
    np.testing.assert_array_equal(frames // 15, range(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_side": (44, 32)}, r"short_side is \(44, 32\)"),
        ({"short_side": (0, 32)}, r"short_side is \(0, 32\)"),
        ({"short_side": (31, 40)}, "a crop of 32x32 px does not fit into a short side of 31 px"),
        ({"height": 0}, "a crop of 0x32 px"),
        ({"flip": 1.5}, "flip is 1.5; it is a probability"),
        ({"flip": -0.1}, "flip is -0.1"),
        ({"views": (0, 1)}, r"views are \(0, 1\)"),
        ({"views": (10, 0)}, r"views are \(10, 0\)"),
    ],
)
def test_a_spec_that_cannot_be_is_an_error_that_shows_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        training_spec(**changes)


def test_a_spec_counts_its_frames_and_views():
    assert training_spec(sampler=RandomInterval(8)).num_frames == 8
    assert (training_spec().num_views, evaluation_spec(views=(10, 3)).num_views) == (1, 30)
