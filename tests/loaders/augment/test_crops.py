"""Crops and sizes as operations: what fits, what is kept, what is drawn."""

from __future__ import annotations

import pytest

from loaders.augment import ClipShape, Recipe, draw, steps
from loaders.augment.crops import (
    CentreCrop,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    ShortSide,
    inside,
    short_side_size,
)
from loaders.augment.values import Integers
from loaders.order import sample_rng
from loaders.sampling import Box

WIDE = ClipShape(4, 90, 160)
TALL = ClipShape(4, 160, 90)


def drawn(op, shape: ClipShape = WIDE, number: int = 50):
    return [draw(Recipe((op,)), sample_rng(0, 0, k), shape) for k in range(number)]


@pytest.mark.parametrize(
    ("size", "pixels", "rounding", "expected"),
    [
        ((256, 340), 112, "half_up", (112, 149)),
        ((340, 256), 112, "half_up", (149, 112)),
        ((2, 5), 1, "half_up", (1, 3)),
        ((2, 5), 1, "half_even", (1, 2)),
        ((2, 5), 1, "down", (1, 2)),
        ((100, 100), 64, "half_up", (64, 64)),
    ],
)
def test_the_longer_side_is_rounded_as_asked(size, pixels, rounding, expected):
    assert short_side_size(size, pixels, rounding) == expected


def test_nothing_is_scaled_that_has_its_size():
    assert drawn(ShortSide(90))[0].steps == ()
    assert drawn(Resize(90, 160))[0].steps == ()
    assert drawn(ShortSide(45))[0].steps == (steps.Resize(45, 80),)


def test_short_sides_are_drawn():
    assert {each.size[0] for each in drawn(ShortSide(Integers(40, 42)))} == {40, 41, 42}


@pytest.mark.parametrize("op", [CentreCrop(100, 64), RandomCrop(100, 64)])
def test_a_side_smaller_than_asked_stays(op):
    assert {each.size for each in drawn(op)} == {(90, 64)}


def test_random_crops_reach_every_edge():
    crops = [each.steps[0] for each in drawn(RandomCrop(88, 158), number=200)]
    assert {crop.top for crop in crops} == {0, 1, 2}
    assert {crop.left for crop in crops} == {0, 1, 2}


@pytest.mark.parametrize("shape", [WIDE, TALL, ClipShape(4, 12, 400)])
@pytest.mark.parametrize("rule", ["clip", "image", "stabn"])
def test_resized_crops_lie_inside_and_come_out_in_size(rule, shape):
    for each in drawn(RandomResizedCrop(32, 48, rule=rule), shape):
        assert each.size == (32, 48)
        crop = each.steps[0]
        assert crop.top >= 0
        assert crop.left >= 0
        assert crop.top + crop.height <= shape.height
        assert crop.left + crop.width <= shape.width


@pytest.mark.parametrize("rule", ["clip", "image"])
def test_resized_crops_keep_to_area_and_ratio(rule):
    for each in drawn(RandomResizedCrop(32, 32, area=(0.25, 0.5), ratio=(0.9, 1.1), rule=rule)):
        crop = each.steps[0]
        assert 0.24 <= crop.height * crop.width / (90 * 160) <= 0.52
        assert 0.85 <= crop.width / crop.height <= 1.15


def test_multi_scale_crops_take_their_sides_from_the_scales():
    sides = {90, 78, 67, 59}
    found = {each.size for each in drawn(MultiScaleCrop((224, 224)), number=300)}
    assert {side for size in found for side in size} == sides
    assert len(found) == 10  # pairs at most one place apart
    assert len({each.size for each in drawn(MultiScaleCrop((224, 224), max_distort=0), number=100)}) == 4


def test_what_leaves_the_frame_is_cut_off():
    assert inside(Box(-2, 3, 10, 10), (8, 9)) == Box(0, 3, 8, 5)
    assert inside(Box(1, 1, 2, 2), (8, 9)) == Box(1, 1, 2, 2)


REFUSED = [
    (lambda: ShortSide(0), "at least 1"),
    (lambda: RandomResizedCrop(8, 8, area=(0.5, 0.1)), r"area is \(0.5, 0.1\)"),
    (lambda: RandomResizedCrop(8, 8, ratio=(0, 1)), r"ratio is \(0, 1\)"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
