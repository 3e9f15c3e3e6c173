"""SRTG's image operations against imgaug as the authors ran it: image_ops.npz.

Exact, by the executor that carries out every step by itself; the fused one too where it does not interpolate anew, but
for hue and saturation, which it may round otherwise (one level). Turned pictures are exact too with OpenCV 5.0; they may
differ by up to 4 levels on 5 % of the values between versions, as the vectors' README says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from loaders.augment import ClipShape, Drawn, Recipe, draw, run_fast, steps
from loaders.augment.crops import CentreCrop, ShortSide
from tests.golden.augment_rngs import AuthorsRng
from tests.golden.vectors import from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]
Settings = Mapping[str, Any]


def _image_ops(path: Path) -> Cases:
    data = read(path)
    images = [key for key in data if key.startswith("image")]
    specs = from_json(data["spec"])
    yield "keys", partial(no_unknown, data, "spec", *images, *specs)
    for name, settings in specs.items():
        yield name, partial(_operation, data[images[0]], settings, data[name])


def _operation(image: np.ndarray, settings: Settings, expected: np.ndarray) -> None:
    kind = next((kind for kind in sorted(_STEPS, key=len, reverse=True) if settings["op"].startswith(kind)), None)
    if kind is None:
        pytest.fail(f"operations of the kind {settings['op']!r} are not known here")
    shape = ClipShape(1, *image.shape[:2])
    drawn = _STEPS[kind](settings, shape)
    alone = run_fast(image[None], drawn, fuse=False)[0]
    assert alone.shape == expected.shape
    apart = np.abs(alone.astype(int) - expected)
    if kind in ("Rotate", "PerspectiveTransform"):
        assert apart.max() <= 4
        assert (apart > 0).mean() <= 0.05
    else:
        assert apart.max() == 0
        fused = np.abs(run_fast(image[None], drawn)[0].astype(int) - expected)
        assert fused.max() <= (1 if kind == "AddToHueAndSaturation" else 0)


def _one(step: steps.Step, shape: ClipShape) -> Drawn:
    return Drawn(shape, (step,), shape.size)


def _sized(op: Any, shape: ClipShape) -> Drawn:
    return draw(Recipe((op,)), AuthorsRng(0), shape)


def _resize(settings: Settings, shape: ClipShape) -> Drawn:
    no_unknown(settings, "op|height|width")
    height, width = settings["height"], settings["width"]
    return Drawn(shape, (steps.Resize(height, width, "cubic"),), (height, width))


def _short_side(settings: Settings, shape: ClipShape) -> Drawn:
    no_unknown(settings, "op|short")
    return _sized(ShortSide(settings["short"], "cubic", "half_even"), shape)


def _centre(settings: Settings, shape: ClipShape) -> Drawn:
    no_unknown(settings, "op|height|width")
    return _sized(CentreCrop(settings["height"], settings["width"]), shape)


def _perspective(settings: Settings, shape: ClipShape) -> Drawn:
    no_unknown(settings, "op|jitter")
    a, b, c, d = ((x, y) for x, y in settings["jitter"])
    return _one(steps.Perspective((a, b, c, d)), shape)


def _with(make: Callable[..., steps.Step], *keys: str) -> Callable[[Settings, ClipShape], Drawn]:
    """The step that `make` makes of the settings called `keys`; there may be no others."""

    def found(settings: Settings, shape: ClipShape) -> Drawn:
        no_unknown(settings, "op", *keys)
        return _one(make(*(settings[key] for key in keys)), shape)

    return found


def _triple(value: float | list[float]) -> steps.Triple:
    a, b, c = value if isinstance(value, list) else [value] * 3
    return a, b, c


_STEPS: Mapping[str, Callable[[Settings, ClipShape], Drawn]] = MappingProxyType(
    {
        "resize cubic": _resize,
        "resize shorter side": _short_side,
        "centre crop": _centre,
        "GaussianBlur": _with(steps.GaussianBlur, "sigma"),
        "AverageBlur": _with(steps.AverageBlur, "k"),
        "Add": _with(lambda values: steps.Add(_triple(values)), "values"),
        "Multiply": _with(lambda factor: steps.Multiply(_triple(factor)), "factor"),
        "GammaContrast": _with(lambda gamma: steps.Gamma(_triple(gamma)), "gamma"),
        "LinearContrast": _with(lambda alpha: steps.LinearContrast(_triple(alpha)), "alpha"),
        "AddToHueAndSaturation": _with(steps.HueSaturation, "hue", "saturation"),
        "Rotate": _with(steps.Rotate, "angle"),
        "PerspectiveTransform": _perspective,
        "horizontal flip": _with(steps.Flip),
    }
)

CHECKERS = MappingProxyType({"image_ops": _image_ops})
