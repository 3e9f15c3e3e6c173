"""Chains of mmaction2's transforms, as ResKD and STS train with them, by our operations: what becomes of the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from loaders.augment import ClipShape, Drawn, Recipe, draw, run_fast, steps
from loaders.augment.crops import CentreCrop, MultiScaleCrop, RandomResizedCrop, Resize, ShortSide, cut
from loaders.augment.recipe import Flip, Op
from loaders.sampling import three_crops
from tests.golden.augment_rngs import AuthorsRng
from tests.golden.vectors import no_unknown

Config = Mapping[str, Any]


def pixels(frames: np.ndarray, configs: list[Config], rng: AuthorsRng, num_clips: int, clip_len: int) -> np.ndarray:
    """float32: what a chain of mmaction2's transforms makes of `frames`, uint8 (T, H, W, 3)."""
    views = frames
    waiting: list[steps.Step] = []
    shape = ClipShape(*frames.shape[:3])
    for config in configs:
        kind = config["type"]
        if config.get("lazy"):
            drawn = draw(Recipe((_op(config),)), rng, shape)
            waiting += drawn.steps
            shape = ClipShape(shape.frames, *drawn.size)
        elif kind == "Fuse":
            no_unknown(config, "type")
            views = run_fast(views, Drawn(ClipShape(*views.shape[:3]), tuple(waiting), shape.size))
            waiting = []
        elif kind == "Normalize":
            views = _normalised(views, config)
        elif kind == "FormatShape":
            views = _laid_out(views, config, num_clips, clip_len)
        elif kind == "ThreeCrop":
            views = _three_crops(views, config)
        else:
            views = run_fast(views, draw(Recipe((_op(config),)), rng, ClipShape(*views.shape[:3])), fuse=False)
    assert not waiting, "lazy transforms without Fuse"
    return views


def _op(config: Config) -> Op:
    return _OPS[config["type"]]({key: value for key, value in config.items() if key != "type"})


def _resize(config: Config) -> Op:
    no_unknown(config, "scale|keep_ratio|interpolation|lazy")
    assert config.get("interpolation", "bilinear") == "bilinear"
    width, height = _pair(config["scale"])
    if not config.get("keep_ratio", True):
        return Resize(height, width)
    assert width == -1, f"a scale of {config['scale']} with the aspect kept is not known here"
    return ShortSide(height)


def _multi_scale(config: Config) -> Op:
    no_unknown(config, "input_size|scales|random_crop|max_wh_scale_gap|num_fixed_crops|lazy")
    places = {5: "corners", 13: "grid"}[config.get("num_fixed_crops", 5)]
    width, height = _pair(config["input_size"])
    scales, gap = tuple(config.get("scales", (1,))), config.get("max_wh_scale_gap", 1)
    return MultiScaleCrop((height, width), scales, gap, "anywhere" if config.get("random_crop") else places)


def _random_resized(config: Config) -> Op:
    no_unknown(config, "area_range|aspect_ratio_range|lazy")
    area, ratio = config.get("area_range", (0.08, 1.0)), config.get("aspect_ratio_range", (3 / 4, 4 / 3))
    return _CutOnly(tuple(area), tuple(ratio))


class _CutOnly:
    """A random resized crop whose part is scaled by a later step."""

    def __init__(self, area: tuple[float, float], ratio: tuple[float, float]) -> None:
        self._op = RandomResizedCrop(1, 1, area, ratio)

    def draw(self, rng: Any, shape: ClipShape) -> Any:
        return self._op.draw(rng, shape)[:1]


def _flip(config: Config) -> Op:
    no_unknown(config, "flip_ratio|direction|lazy")
    assert config.get("direction", "horizontal") == "horizontal"
    return Flip(config.get("flip_ratio", 0.5))


def _centre(config: Config) -> Op:
    no_unknown(config, "crop_size|lazy")
    width, height = _pair(config["crop_size"])
    return CentreCrop(height, width)


def _three_crops(clip: np.ndarray, config: Config) -> np.ndarray:
    no_unknown(config, "type|crop_size")
    width, height = _pair(config["crop_size"])
    shape = ClipShape(*clip.shape[:3])
    crops = [cut(box) for box in three_crops(*shape.size, height, width)]
    return np.concatenate([run_fast(clip, Drawn(shape, (crop,), (height, width))) for crop in crops])


def _normalised(clip: np.ndarray, config: Config) -> np.ndarray:
    no_unknown(config, "type|mean|std|to_bgr")
    assert not config.get("to_bgr")
    return (clip.astype(np.float32) - np.float32(config["mean"])) * (1 / np.float64(config["std"]))


def _laid_out(clip: np.ndarray, config: Config, num_clips: int, clip_len: int) -> np.ndarray:
    """(crops x clips x frames, 3, H, W), or for 3-d networks (crops x clips, 3, frames, H, W)."""
    no_unknown(config, "type|input_format")
    channels_first = clip.transpose(0, 3, 1, 2)
    if config["input_format"] == "NCHW":
        return channels_first.astype(np.float32)
    assert config["input_format"] == "NCTHW", f"the layout {config['input_format']} is not known here"
    clips = channels_first.reshape(-1, num_clips, clip_len, *channels_first.shape[1:])
    return clips.reshape(-1, *clips.shape[2:]).swapaxes(1, 2).astype(np.float32)


def _pair(value: Any) -> tuple[int, int]:
    """(width, height) of one number or two."""
    width, height = (value, value) if isinstance(value, int) else value
    return width, height


_OPS: Mapping[str, Callable[[Config], Op]] = MappingProxyType(
    {
        "Resize": _resize,
        "MultiScaleCrop": _multi_scale,
        "RandomResizedCrop": _random_resized,
        "Flip": _flip,
        "CenterCrop": _centre,
    }
)
