"""Augmentation: one recipe, drawn once per clip, and executors that carry it out on all frames of the clip alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaders.augment.config import recipe_from_config, recipe_to_config
from loaders.augment.fast import FastCut, run_fast
from loaders.augment.labels import FlipLabels, flip_labels
from loaders.augment.named import RECIPES, recipe_by_name
from loaders.augment.recipe import ClipShape, Drawn, Recipe, draw
from loaders.augment.reference import run_imgaug

if TYPE_CHECKING:
    from loaders.augment.gpu import run_gpu

__all__ = [
    "RECIPES",
    "ClipShape",
    "Drawn",
    "FastCut",
    "FlipLabels",
    "Recipe",
    "draw",
    "flip_labels",
    "recipe_by_name",
    "recipe_from_config",
    "recipe_to_config",
    "run_fast",
    "run_gpu",
    "run_imgaug",
]


def __getattr__(name: str) -> Any:
    """The executor on the device needs torch, which decoder processes do without: imported when it is asked for."""
    if name != "run_gpu":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from loaders.augment.gpu import run_gpu

    return run_gpu
