"""What is for pictures: RandAugment, Pillow's sizes, mixup and cutmix; and ST-ABN's colours."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.augment import ClipShape, Drawn, Recipe, draw, run_fast, steps
from loaders.augment.jitter import ColourJitter, jittered
from loaders.augment.mix import DrawnMix, Mix, draw_mix, mixed, mixed_targets
from loaders.augment.pil_ops import apply_ops, run_picture
from loaders.augment.randaugment import OPS, RandAugment, argument
from loaders.order import sample_rng
from tests.loaders.augment.pictures import clip

PICTURE = clip(1, 24, 32)[0]
SHAPE = ClipShape(1, 24, 32)


def test_randaugment_draws_two_of_fifteen_each_by_half_a_chance():
    drawn = [draw(Recipe((RandAugment(),)), sample_rng(0, 0, k), SHAPE).steps for k in range(2000)]
    number = [len(each[0].ops) if each else 0 for each in drawn]
    assert [number.count(n) / 2000 for n in (0, 1, 2)] == pytest.approx([0.25, 0.5, 0.25], abs=0.04)
    assert {name for each in drawn if each for name, _ in each[0].ops} == set(OPS)


def test_strength_follows_the_magnitude():
    rng = np.random.default_rng(0)
    assert abs(argument("Rotate", 10, rng)) == 30
    assert argument("PosterizeIncreasing", 0, rng) == 4
    assert argument("SolarizeIncreasing", 10, rng) == 0
    assert argument("Invert", 5, rng) is None
    assert {round(argument("ColorIncreasing", 10, rng), 1) for _ in range(50)} == {0.1, 1.9}


@pytest.mark.parametrize("name", OPS)
def test_every_operation_keeps_size_and_type(name: str):
    step = steps.PilOps(((name, argument(name, 7, np.random.default_rng(1))),))
    out = apply_ops(PICTURE, step)
    assert out.shape == PICTURE.shape
    assert out.dtype == np.uint8
    assert np.array_equal(run_fast(PICTURE[None], Drawn(SHAPE, (step,), SHAPE.size))[0], out)


def test_pictures_know_only_their_own_steps():
    drawn = Drawn(SHAPE, (steps.Crop(0, 0, 12, 16), steps.Resize(8, 8, "cubic"), steps.Flip()), (8, 8))
    assert run_picture(PICTURE, drawn).shape == (8, 8, 3)
    with pytest.raises(TypeError, match="pictures know crops"):
        run_picture(PICTURE, Drawn(SHAPE, (steps.Rotate(3),), SHAPE.size))
    with pytest.raises(ValueError, match="there is no operation 'Blend'"):
        apply_ops(PICTURE, steps.PilOps((("Blend", 1),)))


def test_randaugment_settings_are_checked():
    with pytest.raises(ValueError, match="magnitude is 11; it is 0 to 10"):
        RandAugment(magnitude=11)


# Mixing

BATCH = np.random.default_rng(0).integers(0, 256, (4, 3, 10, 12), dtype=np.uint8)


def test_cutmix_takes_a_box_of_the_partner():
    out = mixed(BATCH, DrawnMix(0.75, (2, 7, 3, 9)))
    assert np.array_equal(out[0, :, 2:7, 3:9], BATCH[3, :, 2:7, 3:9])
    assert np.array_equal(out[0, :, :2], BATCH[0, :, :2])


def test_mixup_is_the_weighted_mean():
    out = mixed(BATCH, DrawnMix(0.25))
    assert np.abs(out[1] - (0.25 * BATCH[1] + 0.75 * BATCH[2])).max() <= 0.5 + 1e-4


def test_nothing_to_mix():
    assert draw_mix(Mix(0, 0), np.random.default_rng(0), (10, 12)) == DrawnMix()
    assert draw_mix(Mix(p=0), np.random.default_rng(0), (10, 12)) == DrawnMix()
    assert np.array_equal(mixed(BATCH, DrawnMix()), BATCH)


def test_shares_are_those_of_the_pixels_and_of_the_target():
    for seed in range(50):
        drawn = draw_mix(Mix(), np.random.default_rng(seed), (10, 12))
        assert 0 <= drawn.share <= 1
        if drawn.box is not None:
            top, bottom, left, right = drawn.box
            assert drawn.share == pytest.approx(1 - (bottom - top) * (right - left) / 120)
        target = mixed_targets(np.array([0, 1, 1, 2]), 3, drawn)
        assert target.sum(1) == pytest.approx(np.ones(4))
        assert target[0] == pytest.approx([drawn.share, 0, 1 - drawn.share])


@pytest.mark.parametrize("alphas", [(0.2, 0), (0, 1.0)])
def test_one_of_the_two_may_be_off(alphas):
    drawn = [draw_mix(Mix(*alphas), np.random.default_rng(seed), (10, 12)) for seed in range(20)]
    assert all((each.box is None) == (alphas[1] == 0) for each in drawn)


def test_mix_settings_are_checked():
    with pytest.raises(ValueError, match="probabilities"):
        Mix(p=2)


# ST-ABN's colours

CLIP = clip(6, 20, 20)


def matrices_of(op: ColourJitter, seed: int) -> np.ndarray:
    (step,) = draw(Recipe((op,)), sample_rng(seed, 0, 0), ClipShape(6, 20, 20)).steps
    return np.array(step.matrices)


def test_a_clip_does_not_flicker_unless_asked_to():
    assert {len(matrices_of(ColourJitter(), seed)) for seed in range(5)} == {1}
    flickering = [matrices_of(ColourJitter(per_frame=True), seed) for seed in range(5)]
    assert all(len(each) == 6 for each in flickering)
    assert any(len(np.unique(each, axis=0)) > 2 for each in flickering)


def test_lighting_alone_moves_every_pixel_alike():
    found = matrices_of(ColourJitter(colour_space=False), 0)
    assert np.array_equal(found[0, :, :3], np.eye(3))
    assert (found[0, :, 3] != 0).all()
    mirrored = matrices_of(ColourJitter(colour_space=False, bgr=True), 0)
    assert np.array_equal(mirrored[0, ::-1, 3], found[0, :, 3])


def test_no_range_is_no_change():
    none = ColourJitter(0, 0, 0, 0, 0)
    for seed in range(8):
        assert matrices_of(none, seed) == pytest.approx(np.eye(3, 4)[None], abs=2e-2)  # YIQ and back, to three digits


def test_floats_are_what_uint8_is_before_it_is_cut_off():
    drawn = draw(Recipe((ColourJitter(per_frame=True),)), sample_rng(1, 0, 0), ClipShape(6, 20, 20))
    floats = jittered(CLIP, drawn.steps[0])
    assert floats.dtype == np.float32
    assert (
        np.abs(np.clip(floats, 0, 255) - run_fast(CLIP, drawn)).max() <= 0.9
    )  # half, and what is lost in OpenCV's fixed point


def test_ranges_are_checked():
    with pytest.raises(ValueError, match="contrast is -1"):
        ColourJitter(contrast=-1)
