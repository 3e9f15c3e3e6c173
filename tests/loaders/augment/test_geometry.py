"""Matrices of geometry, on paper and against OpenCV's own functions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from loaders.augment import ClipShape, Drawn, run_fast, steps
from loaders.augment.geometry import chain, is_affine, matrix, one_cut, perspective, scaling, size_after
from tests.loaders.augment.pictures import clip

SIZE = (30, 40)


def moved(step, x: float, y: float) -> tuple[float, float]:
    where = matrix(step, SIZE) @ (x, y, 1)
    return where[0] / where[2], where[1] / where[2]


def test_where_pixels_go():
    assert moved(steps.Flip(), 0, 5) == (39, 5)
    assert moved(steps.Crop(3, 7, 10, 10), 7, 3) == (0, 0)
    assert moved(steps.Resize(60, 80), -0.5, -0.5) == (-0.5, -0.5)
    assert moved(steps.Resize(60, 80), 39.5, 29.5) == (79.5, 59.5)
    assert moved(steps.Rotate(90), 19.5, 14.5) == pytest.approx((19.5, 14.5))
    assert moved(steps.Rotate(90), 20.5, 14.5) == pytest.approx((19.5, 15.5))  # right goes down: clockwise


def test_flip_twice_and_turn_back_are_nothing():
    total, size = chain([steps.Rotate(7), steps.Flip(), steps.Flip(), steps.Rotate(-7)], SIZE)
    assert np.allclose(total, np.eye(3))
    assert size == SIZE


def test_a_chain_is_its_parts_one_after_the_other():
    parts = [steps.Resize(45, 60), steps.Crop(5, 10, 20, 30), steps.Rotate(20), steps.Flip()]
    total, size = chain(parts, SIZE)
    point, now = np.array([11.0, 13.0, 1.0]), SIZE
    for part in parts:
        point, now = matrix(part, now) @ point, size_after(part, now)
    assert np.allclose(total @ (11, 13, 1), point)
    assert size == now == (20, 30)


def test_perspective_brings_its_points_to_the_corners():
    step = steps.Perspective(((0.1, 0.1), (0.1, 0.2), (0.2, 0.1), (0.0, 0.2)))
    homography, inner = perspective(step, (100, 200))
    points = np.float64([[20, 10, 1], [180, 20, 1], [160, 90, 1], [0, 80, 1]])
    found = homography @ points.T
    corners = [[0, 0], [inner[1], 0], [inner[1], inner[0]], [0, inner[0]]]
    assert np.allclose((found[:2] / found[2]).T, corners, atol=1e-3)
    assert not is_affine(matrix(step, (100, 200)))


def test_perspective_without_a_move_is_nothing():
    none = steps.Perspective(((0, 0), (0, 0), (0, 0), (0, 0)))
    assert np.allclose(matrix(none, SIZE), np.eye(3), atol=1e-6)


def test_perspective_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 2x2 are needed"):
        matrix(steps.Perspective(((0.49, 0.49), (0.5, 0.49), (0.5, 0.5), (0.49, 0.5))), (8, 8))


@pytest.mark.parametrize("target", [(60, 80), (45, 52), (20, 33)])
def test_scaling_is_where_cv2_resize_looks(target):
    frame = cv2.GaussianBlur(clip(1, *SIZE)[0], (0, 0), 2)
    total = scaling(SIZE, target)
    warped = cv2.warpAffine(frame, total[:2], target[::-1], borderMode=cv2.BORDER_REPLICATE)
    resized = cv2.resize(frame, target[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(warped.astype(int) - resized).max() <= 2


@pytest.mark.parametrize(
    "crop", [steps.Crop(-1, 0, 5, 5), steps.Crop(0, 36, 5, 5), steps.Crop(0, 0, 31, 5), steps.Crop(0, 0, 0, 5)]
)
def test_a_crop_outside_the_frame_is_refused(crop):
    with pytest.raises(ValueError, match="does not lie inside a frame of 30x40 px"):
        size_after(crop, SIZE)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([steps.Crop(1, 2, 20, 30), steps.Crop(3, 4, 10, 10)], [steps.Crop(4, 6, 10, 10), steps.Resize(10, 10)]),
        ([steps.Resize(60, 80), steps.Crop(20, 10, 20, 40)], [steps.Crop(10, 5, 10, 20), steps.Resize(20, 40)]),
        ([steps.Flip(), steps.Crop(0, 0, 30, 10)], [steps.Crop(0, 30, 30, 10), steps.Resize(30, 10), steps.Flip()]),
        ([steps.Flip(), steps.Resize(15, 20), steps.Flip()], [steps.Crop(0, 0, 30, 40), steps.Resize(15, 20)]),
        # 1 / 2 and 3 / 2 px: halves go to the even number
        ([steps.Resize(60, 80), steps.Crop(1, 3, 40, 40)], [steps.Crop(0, 2, 20, 20), steps.Resize(40, 40)]),
    ],
)
def test_crops_sizes_and_mirrorings_are_one_cut(parts, expected):
    assert one_cut(parts, SIZE) == expected


def test_a_cut_smaller_than_a_pixel_takes_one():
    (crop, *_) = one_cut([steps.Resize(300, 400), steps.Crop(0, 0, 3, 3)], SIZE)
    assert crop == steps.Crop(0, 0, 1, 1)


def test_a_cut_is_cropped_then_resized_by_opencv():
    frames = clip(2, *SIZE)
    chain_ = (steps.Resize(60, 80), steps.Crop(20, 10, 30, 50), steps.Resize(45, 45), steps.Flip())
    out = run_fast(frames, Drawn(ClipShape(2, *SIZE), chain_, (45, 45)))
    want = [cv2.flip(cv2.resize(frame[10:25, 5:30], (45, 45)), 1) for frame in frames]
    assert np.array_equal(out, np.stack(want))
