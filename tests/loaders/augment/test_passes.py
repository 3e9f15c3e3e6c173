"""Fusing: how many passes are left, and that they do what the steps do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from loaders.augment import ClipShape, Drawn, pixels, steps
from loaders.augment.passes import Field, Hsv, Kernel, Matrix, Table, Warp, passes_of, seen_after
from tests.loaders.augment.pictures import clip

SHAPE = ClipShape(4, 40, 60)


def kinds(*chosen: steps.Step, fuse: bool = True) -> list[type]:
    return [type(each) for each in passes_of(Drawn(SHAPE, chosen, SHAPE.size), fuse=fuse)]


ADD, MULTIPLY, GAMMA = steps.Add((-1, -2, -3)), steps.Multiply((0.9,) * 3), steps.Gamma((0.9, 1.1, 1))


def test_neighbours_of_one_kind_become_one_pass():
    assert kinds(ADD, MULTIPLY) == [Matrix]
    assert kinds(ADD, MULTIPLY, GAMMA) == [Table]
    assert kinds(ADD, MULTIPLY, GAMMA, fuse=False) == [Matrix, Matrix, Table]
    assert kinds(steps.GaussianBlur(0.8), steps.AverageBlur(2), steps.MotionBlur(3, 10, 0)) == [Kernel]
    assert kinds(steps.Rotate(5), steps.Flip()) == [Warp]
    assert kinds(steps.Resize(50, 75), steps.Crop(0, 0, 40, 60), steps.Rotate(5), steps.Flip()) == [Warp]
    assert kinds(ADD, steps.HueSaturation(3, 3), ADD, steps.Noise(2, 1), ADD) == [Matrix, Hsv, Matrix, Field, Matrix]


def test_a_blur_that_changes_no_level_is_no_pass():
    assert kinds(steps.GaussianBlur(0.1), steps.AverageBlur(1)) == []
    assert kinds(steps.GaussianBlur(0.3)) == [Kernel]
    frame = clip(1, 40, 60)[0]
    assert np.array_equal(cv2.GaussianBlur(frame, (5, 5), 0.2), frame)


def test_what_runs_into_white_on_the_way_keeps_its_table():
    """255 + 15 is cut off before it is multiplied; one matrix would not know."""
    assert kinds(steps.Add((15, 15, 15)), MULTIPLY) == [Table]
    assert kinds(steps.Add((15, 15, 15))) == [Matrix]


@pytest.mark.parametrize("chosen", [[ADD, MULTIPLY], [MULTIPLY, GAMMA, ADD], [steps.LinearContrast((1.1,) * 3), ADD]])
def test_a_table_of_several_is_the_tables_one_after_the_other(chosen):
    (found,) = passes_of(Drawn(SHAPE, tuple(chosen), SHAPE.size))
    values = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    want = values
    for step in chosen:
        want = cv2.LUT(want, pixels.table(step)[None])
    got = cv2.LUT(values, found.table[None]) if isinstance(found, Table) else cv2.transform(values, found.matrices[0])
    assert np.array_equal(got, want)


@pytest.mark.parametrize(
    "pair",
    [
        (steps.GaussianBlur(1.0), steps.AverageBlur(3)),
        (steps.AverageBlur(2), steps.AverageBlur(2)),
        (steps.MotionBlur(5, 30, 0.4), steps.AverageBlur(4)),
    ],
)
def test_a_composed_kernel_is_both_filters(pair):
    frame = clip(1, 40, 60)[0].astype(np.float32)
    one = cv2.filter2D(frame, -1, pixels.composed(*(pixels.kernel(step) for step in pair)))
    two = cv2.filter2D(cv2.filter2D(frame, -1, pixels.kernel(pair[0])), -1, pixels.kernel(pair[1]))
    assert np.abs(one - two)[6:-6, 6:-6].max() < 1e-2  # at the border the second filter sees what the first made of it


@pytest.mark.parametrize(
    "step", [steps.GaussianBlur(0.7), steps.AverageBlur(4), steps.MotionBlur(7, 33, -0.5), steps.MotionBlur(3, 0, 1)]
)
def test_kernels_keep_the_brightness(step):
    assert pixels.kernel(step).sum() == pytest.approx(1)
    assert pixels.trimmed(pixels.kernel(step)).sum() == pytest.approx(1)


def test_trimming_leaves_out_less_than_half_a_level():
    weights = np.zeros((7, 7), np.float32)
    weights[3, 3], weights[0, 0] = 1, 0.0019
    assert pixels.trimmed(weights).shape == (1, 1)
    weights[0, 0] = 0.0021
    assert pixels.trimmed(weights).shape == (7, 7)


def test_noise_is_a_function_of_its_seed_and_has_its_scale():
    field = pixels.noise_field(steps.Noise(7.65, 5), 112, 112)
    assert np.array_equal(field, pixels.noise_field(steps.Noise(7.65, 5), 112, 112))
    assert not np.array_equal(field, pixels.noise_field(steps.Noise(7.65, 6), 112, 112))
    assert field.std() == pytest.approx(7.65, rel=0.02)
    assert abs(field.mean()) < 0.15


def test_seen_is_where_turning_did_not_bring_in_anything():
    assert seen_after([steps.Flip(), steps.Crop(0, 0, 20, 20)], (40, 60)) is None
    assert seen_after([steps.Rotate(0)], (40, 60)) is None
    seen = seen_after([steps.Crop(0, 0, 40, 40), steps.Rotate(45)], (40, 60))
    assert seen is not None
    assert seen[0, 0] == seen[39, 39] == 0
    assert seen[20, 20] == 255
