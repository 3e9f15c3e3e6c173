"""Crop boxes: the arithmetic on paper, and that every box lies in its frame."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.sampling import (
    Box,
    centre_crop,
    crop_grid,
    multi_scale_crop,
    multi_scale_sizes,
    random_resized_crop,
    rescaled,
    ten_crops,
    three_crops,
)

SIZES = [(256, 340), (340, 256), (224, 224), (97, 61), (33, 500)]


def _inside(box: Box, height: int, width: int) -> bool:
    left, top, right, bottom = box.corners
    return 0 <= left < right <= width and 0 <= top < bottom <= height


def test_rescaling_rounds_halves_up():
    assert rescaled(256, 340, 112) == (112, 149)  # 148.75
    assert rescaled(4, 6, 3) == (3, 5)  # 4.5
    assert rescaled(340, 256, 256) == (340, 256)
    assert rescaled(256, 340, 256, long_side=170) == (128, 170)  # the long side binds


def test_the_centre_crop_of_an_odd_rest_lies_left_and_above():
    assert centre_crop(257, 341, 224, 224) == Box(58, 16, 224, 224)
    assert centre_crop(224, 224, 224, 224).corners == (0, 0, 224, 224)


def test_three_crops_lie_along_the_longer_side():
    assert [box.left for box in three_crops(256, 455, 256, 256)] == [
        0,
        198,
        99,
    ]  # 199 spare: the last column is left over
    assert [box.top for box in three_crops(400, 224, 224, 224)] == [0, 176, 88]
    assert [box.left for box in three_crops(224, 224, 224, 224)] == [0, 0, 0]
    with pytest.raises(ValueError, match=r"neither side of 256x340 px is the crop's"):
        three_crops(256, 340, 224, 224)


def test_the_grid_has_corners_centre_and_the_places_between():
    boxes = crop_grid(100, 120, 60, 80)  # quarters of 10 px
    assert [(box.left, box.top) for box in boxes[:5]] == [(0, 0), (40, 0), (0, 40), (40, 40), (20, 20)]
    assert len({(box.left, box.top) for box in boxes}) == 13
    assert crop_grid(100, 120, 60, 80, more=False) == boxes[:5]


def test_ten_crops_are_five_and_their_mirror_images():
    crops = ten_crops(100, 131, 80, 96)
    assert [box for box, mirrored in crops if mirrored] == crop_grid(100, 131, 80, 96, more=False)
    assert [mirrored for _, mirrored in crops] == [False, True] * 5


def test_multi_scale_sizes_pair_neighbouring_scales():
    sizes = multi_scale_sizes(256, 340, 224, 224)
    assert len(sizes) == 10 and sizes[:3] == [(256, 256), (256, 224), (224, 256)]
    assert (256, 192) not in sizes  # two scales apart
    assert len(multi_scale_sizes(256, 340, 224, 224, max_distort=0)) == 4
    # 0.875 x 254 is 222.25: within 2 px of 224, so it is 224.
    assert multi_scale_sizes(254, 300, 224, 224, scales=(0.875,), max_distort=0) == [(224, 224)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_boxes_lie_in_the_frame(height, width):
    rng = np.random.default_rng(height)
    for _ in range(300):
        assert _inside(random_resized_crop(height, width, rng), height, width)
        for places in ("grid", "corners", "anywhere"):
            assert _inside(multi_scale_crop(height, width, 30, 30, rng, places=places), height, width)


def test_a_random_resized_crop_has_the_area_and_the_aspect_asked_for():
    rng = np.random.default_rng(0)
    boxes = [random_resized_crop(1000, 1000, rng, area=(0.2, 0.5)) for _ in range(500)]
    areas = np.array([box.width * box.height for box in boxes]) / 1e6
    aspects = np.array([box.width / box.height for box in boxes])
    assert 0.199 < areas.min() < 0.21 and 0.49 < areas.max() < 0.501
    assert 0.749 < aspects.min() < 0.77 and 1.31 < aspects.max() < 1.335
    assert 0.4 < (aspects > 1).mean() < 0.6


def test_when_no_try_fits_the_centred_square_is_taken():
    box = random_resized_crop(97, 61, np.random.default_rng(0), area=(0.9, 1.0), aspect=(3.0, 4.0))
    assert box == Box(0, 18, 61, 61)


def test_a_crop_larger_than_the_frame_is_an_error():
    for crop in (centre_crop, three_crops, crop_grid):
        with pytest.raises(ValueError, match="a crop of 101x50 px does not fit into 100x100 px"):
            crop(100, 100, 101, 50)
