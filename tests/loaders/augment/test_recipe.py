"""The recipe language: what is drawn, how often, from what, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from loaders.augment import RECIPES, ClipShape, Recipe, draw, recipe_by_name, steps
from loaders.augment import recipe as ops
from loaders.augment.srtg import srtg_code, srtg_readme
from loaders.augment.values import Choice, Integers, Uniform
from loaders.order import sample_rng

SHAPE = ClipShape(16, 112, 112)
LARGE = ClipShape(8, 256, 340)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_drawn_depends_on_seed_epoch_and_place_alone(name: str):
    recipe = recipe_by_name(name)
    drawn = {(s, e, k): draw(recipe, sample_rng(s, e, k), LARGE) for s in (0, 1) for e in (0, 1) for k in range(10)}
    again = {key: draw(recipe_by_name(name), sample_rng(*key), LARGE) for key in reversed(drawn)}
    assert drawn == again
    assert len(set(drawn.values())) > len(drawn) / 2


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_print_and_compare(name: str):
    recipe = recipe_by_name(name)
    assert recipe == recipe_by_name(name)
    assert hash(recipe) == hash(recipe_by_name(name))
    assert str(recipe).startswith(f"{recipe.name}:\n")
    assert recipe != Recipe(recipe.ops[:-1])
    with pytest.raises(FrozenInstanceError):
        recipe.ops = ()


def test_a_printed_recipe_reads_like_one():
    text = str(srtg_readme())
    assert "with probability 0.8:" in text
    assert "    with probability 0.4: GaussianBlur(sigma=Choice(values=(0.1, 0.2, 0.3)))" in text
    assert "one of:" in text


def share_of_clips(recipe: Recipe, kind: type | tuple[type, ...], number: int = 2000) -> float:
    drawn = (draw(recipe, sample_rng(0, 0, k), SHAPE) for k in range(number))
    return sum(any(isinstance(step, kind) for step in each.steps) for each in drawn) / number


ANY = (steps.GaussianBlur, steps.Add, steps.Noise, steps.EnhanceColor, steps.MotionBlur, steps.AverageBlur)
SHARES = [
    (srtg_readme(), steps.EnhanceColor, 0.8 * 0.4),
    (srtg_readme(), steps.Noise, 0.8 * 0.4),
    (srtg_readme(), (steps.Rotate, steps.Perspective), 0.8 * 0.4),
    (srtg_readme(), steps.Rotate, 0.8 * 0.2),
    (srtg_readme(), steps.Flip, 0.5),
    (srtg_readme(), steps.Multiply, 0.0),
    (srtg_code("kinetics"), steps.HueSaturation, 0.9 * 0.4),
    (srtg_code("hacs"), steps.Gamma, 0.9 * 0.4),
    (srtg_code("kinetics"), (steps.Noise, steps.EnhanceColor, steps.MotionBlur), 0.0),
    (srtg_code("hmdb51"), steps.HueSaturation, 0.8 * 0.4),
    (srtg_code("diving48"), steps.AverageBlur, 0.0),
    (srtg_code("ucf101"), steps.HueSaturation, 0.65 * 0.3),
]


@pytest.mark.parametrize(("recipe", "kind", "share"), SHARES)
def test_how_often_an_operation_comes(recipe: Recipe, kind: type, share: float):
    margin = 4 * (share * (1 - share) / 2000) ** 0.5  # four standard deviations; the draws are fixed
    assert share_of_clips(recipe, kind) == pytest.approx(share, abs=margin)


def test_the_order_is_that_of_the_recipe():
    order = [steps.GaussianBlur, steps.Add, steps.AverageBlur, steps.Multiply, steps.Gamma, steps.HueSaturation,
             steps.LinearContrast, (steps.Perspective, steps.Rotate), steps.Flip]  # fmt: skip
    for k in range(200):
        drawn = draw(srtg_code(), sample_rng(0, 0, k), SHAPE)
        places = [next(i for i, kind in enumerate(order) if isinstance(step, kind)) for step in drawn.steps]
        assert places == sorted(places)


def test_values_lie_in_their_ranges():
    for k in range(500):
        for step in draw(srtg_code(), sample_rng(1, 0, k), SHAPE).steps:
            match step:
                case steps.GaussianBlur(sigma):
                    assert sigma in (0.1, 0.2, 0.3)
                case steps.Add(values):
                    assert all(-5 <= value <= 15 for value in values)
                    assert len(set(values)) == 3
                case steps.Multiply(factors):
                    assert 0.8 <= factors[0] <= 1.2
                    assert len(set(factors)) == 1
                case steps.Gamma(gammas):
                    assert all(0.85 <= gamma <= 1.15 for gamma in gammas)
                case steps.HueSaturation(hue, saturation):
                    assert -16 <= hue <= 16
                    assert -16 <= saturation <= 16
                case steps.LinearContrast(alphas):
                    assert 0.85 <= alphas[0] <= 1.115
                case steps.Rotate(angle):
                    assert -10 <= angle <= 10
                case steps.Perspective(corners):
                    assert all(0 <= move < 1 for corner in corners for move in corner)


def test_integers_and_choices_reach_both_ends():
    rng = np.random.default_rng(0)
    assert set(Counter(Integers(-1, 1).draw(rng) for _ in range(100))) == {-1, 0, 1}
    assert set(Counter(Choice((1, 2)).draw(rng) for _ in range(50))) == {1, 2}
    assert Uniform(3, 3).draw(rng) == 3


def test_the_size_after_follows_the_steps():
    recipe = recipe_by_name("resized-crop-and-flip")
    drawn = draw(recipe, sample_rng(0, 0, 0), LARGE)
    assert drawn.size == (224, 224)
    assert drawn.shape == LARGE


def test_noise_is_another_for_every_clip():
    recipe = Recipe((ops.Noise(5),))
    seeds = {draw(recipe, sample_rng(0, 0, k), SHAPE).steps[0].seed for k in range(100)}
    assert len(seeds) == 100


def test_grayscale_and_flip_keep_their_probability():
    assert share_of_clips(Recipe((ops.Grayscale(0.2),)), steps.EnhanceColor) == pytest.approx(0.2, abs=0.04)
    assert share_of_clips(Recipe((ops.Flip(1.0),)), steps.Flip) == 1
    assert share_of_clips(Recipe((ops.Flip(0.0),)), steps.Flip) == 0


REFUSED = [
    (lambda: ops.Sometimes(1.2, ()), "probability 1.2; it is 0 to 1"),
    (lambda: ops.Flip(-0.1), "probability -0.1; it is 0 to 1"),
    (lambda: ops.OneOf(()), "at least one operation"),
    (lambda: Uniform(2, 1), "2 is above 1"),
    (lambda: Choice(()), "at least one value"),
    (lambda: ops.Multiply(Uniform(-1, 1)), "may draw -1; it is at least 0"),
    (lambda: ops.HueSaturation(Integers(-300, 0), 0), "may draw -300; it is at least -255"),
    (lambda: ops.HueSaturation(0, 256), "may draw 256; it is at most 255"),
    (lambda: ops.GaussianBlur(-1), "at least 0"),
    (lambda: ops.AverageBlur(0), "at least 1"),
    (lambda: ops.MotionBlur(2), "at least 3"),
    (lambda: ops.Noise(-2), "at least 0"),
    (lambda: recipe_by_name("srtg"), "there is no recipe 'srtg'; there are srtg-readme"),
    (lambda: srtg_code("imagenet"), "no recipe for 'imagenet'; it has hacs"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
