"""Recipes as plain data and back."""

from __future__ import annotations

import pytest
import yaml

from loaders.augment import RECIPES, recipe_by_name, recipe_from_config, recipe_to_config
from loaders.augment import config as config_module
from loaders.augment.crops import RandomResizedCrop
from loaders.augment.recipe import Add, Flip, GaussianBlur, OneOf, Perspective, Recipe, Rotate, Sometimes
from loaders.augment.values import Choice, Uniform


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_yaml_as_it_was(name: str):
    recipe = recipe_by_name(name)
    text = yaml.safe_dump(recipe_to_config(recipe))
    again = recipe_from_config(yaml.safe_load(text))
    assert again == recipe
    assert again.name == recipe.name


def test_the_example_of_the_docstring():
    text = "\n".join(line for line in config_module.__doc__.splitlines() if line.startswith("    "))
    assert recipe_from_config(yaml.safe_load(text)) == Recipe(
        (
            Sometimes(
                0.8,
                (
                    GaussianBlur(Choice((0.1, 0.2, 0.3))),
                    Add(Uniform(-5, 15), per_channel=True),
                    OneOf((Rotate(Uniform(-10, 10)), Perspective(0.03))),
                ),
            ),
            Flip(0.5),
        )
    )


def test_lists_become_tuples_and_defaults_stay():
    config = {"ops": [{"random_resized_crop": {"height": 8, "width": 9, "area": [0.5, 1]}}]}
    assert recipe_from_config(config).ops == (RandomResizedCrop(8, 9, (0.5, 1)),)
    assert recipe_from_config({"ops": [{"flip": None}]}).ops == (Flip(),)


REFUSED = [
    ({"opps": []}, "key 'opps'; did you mean 'ops'"),
    ({"ops": {}}, "must be a list of operations"),
    ({"ops": ["flip"]}, r"ops\[0\] is 'flip'; it must be an operation"),
    ({"ops": [{"flipp": {}}]}, r"ops\[0\]: there is no operation 'flipp'; did you mean 'flip'"),
    ({"ops": [{"flip": {"q": 1}}]}, r"ops\[0\].flip has the key 'q'"),
    ({"ops": [{"flip": 0.5}]}, r"ops\[0\].flip is 0.5; it must be a mapping"),
    ({"ops": [{"flip": {}, "rotate": {}}]}, "an operation has one, its name"),
    ({"ops": [{"rotate": {}}]}, r"ops\[0\].rotate lacks angle"),
    ({"ops": [{"rotate": {"angle": {"uniform": [1]}}}]}, "a range is"),
    ({"ops": [{"rotate": {"angle": {"choice": ["a"]}}}]}, "'a'; it must be a number"),
    ({"ops": [{"sometimes": True, "ops": []}]}, "True; it must be a number"),
    ({"ops": [{"sometimes": 2, "ops": []}]}, "probability 2"),
    ({"ops": [{"one_of": [{"sometimes": 0.5, "ops": [{"turn": {}}]}]}]}, r"ops\[0\].one_of\[0\].ops\[0\]: there is no"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_what_is_not_understood_is_named_with_its_place(config, message):
    with pytest.raises(ValueError, match=message):
        recipe_from_config(config)
