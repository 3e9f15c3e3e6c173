"""The two forms of SRTG's recipe: as its README lists it, and as its published code runs it.

Both leave scaling and cropping to the loader (`ClipSpec`). The code reads frames as BGR and hands them on as if they were
RGB. With RGB frames the hue turns the other way then; its range is symmetric, so the recipe is the same.
"""

from __future__ import annotations

from typing import Literal

from loaders.augment.recipe import (
    Add,
    AverageBlur,
    EnhanceColor,
    Flip,
    Gamma,
    GaussianBlur,
    HueSaturation,
    LinearContrast,
    MotionBlur,
    Multiply,
    Noise,
    OneOf,
    Op,
    Perspective,
    Recipe,
    Rotate,
    Sometimes,
)
from loaders.augment.values import Choice, Integers, Uniform

SrtgData = Literal["hacs", "kinetics", "mit", "hmdb51", "diving48", "ucf101"]

_BLUR = GaussianBlur(Choice((0.1, 0.2, 0.3)))
_ADD = Add(Uniform(-5, 15), per_channel=True)
_HUE_SATURATION = HueSaturation(Integers(-16, 16), Integers(-16, 16))
_CONTRAST = LinearContrast(Uniform(0.85, 1.115))
_TURN = OneOf((Perspective(Uniform(0.02, 0.05)), Rotate(Uniform(-10, 10))))
_LIGHT = (AverageBlur(Choice((1, 2))), Multiply(Uniform(0.8, 1.2)), Gamma(Uniform(0.85, 1.15), per_channel=True))


def srtg_readme(noise_scale: float = 0.03 * 255) -> Recipe:
    """As the README lists it: 0.8 for any, 0.4 for each.

    The README gives the noise a scale of 76.5, "0.3 * 255", under which nothing of a frame is left to see; the line
    of code that it describes, since commented out, has 0.03 * 255. `noise_scale=76.5` takes it at its word.
    """
    ops = (
        _BLUR,
        _ADD,
        Noise(noise_scale),
        EnhanceColor(Uniform(1.2, 1.6)),
        MotionBlur(Choice((3, 5, 7))),
        _HUE_SATURATION,
        _CONTRAST,
        _TURN,
    )
    return Recipe((_block(0.8, 0.4, ops), Flip(0.5)), "srtg-readme")


def srtg_code(data: SrtgData = "kinetics") -> Recipe:
    """As the code runs it, which differs by data set.

    Raises: ValueError for a data set that the code does not know.
    """
    if data in ("hacs", "kinetics", "mit"):
        block = _block(0.9, 0.4, (_BLUR, _ADD, *_LIGHT, _HUE_SATURATION, _CONTRAST, _TURN))
    elif data in ("hmdb51", "diving48"):
        block = _block(0.8, 0.4, (_BLUR, _ADD, _HUE_SATURATION, _CONTRAST, _TURN))
    elif data == "ucf101":
        block = _block(0.65, 0.3, (_BLUR, _ADD, _HUE_SATURATION, _CONTRAST, _TURN))
    else:
        raise ValueError(
            f"SRTG's code has no recipe for {data!r}; it has hacs, kinetics, mit, hmdb51, diving48, ucf101"
        )
    return Recipe((block, Flip(0.5)), f"srtg-code-{data}")


def _block(p: float, each: float, ops: tuple[Op, ...]) -> Sometimes:
    return Sometimes(p, tuple(Sometimes(each, (op,)) for op in ops))
