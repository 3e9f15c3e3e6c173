"""ST-ABN's colour jitter: brightness, contrast, saturation, hue and lighting, all of them linear, so one matrix per frame.

Source: ST-ABN's code (which has it from TPN). It works on values that are not cut off at 0 and 255 and goes on to
normalise them; on uint8 the result is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loaders.augment import steps
from loaders.augment.recipe import ClipShape
from loaders.augment.values import Rng

_GREY = (0.299, 0.587, 0.114)
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_FROM_YIQ = np.array([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.107, 1.705]])
_LIGHT_VALUES = np.array([55.46, 4.794, 1.148])
_LIGHT_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


@dataclass(frozen=True)
class ColourJitter:
    """Brightness +-`brightness` levels, contrast and saturation 1 +- their range, hue +-`hue` times pi, lighting noise.

    The amounts are drawn once per clip. In ST-ABN's code every frame then draws which of the four it gets and in which
    order, so that a clip flickers (`per_frame`); by default all frames get the same. With `colour_space` off only the
    lighting is left. Frames are red, green, blue; `bgr` takes them as ST-ABN stores them.
    """

    brightness: float = 32
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 18
    lighting: float = 0.1
    colour_space: bool = True
    per_frame: bool = False
    bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "hue", "lighting"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a range around no change, at least 0")

    def draw(self, rng: Rng, shape: ClipShape) -> Sequence[steps.Step]:
        matrices = [np.eye(4)]
        if self.colour_space:
            light = rng.uniform(-self.brightness, self.brightness)
            contrast = rng.uniform(1 - self.contrast, 1 + self.contrast)
            saturation = rng.uniform(1 - self.saturation, 1 + self.saturation)
            turn = rng.uniform(-self.hue, self.hue)
            amounts = (float(light), float(contrast), float(saturation), float(turn))
            matrices = [_frame(amounts, rng) for _ in range(shape.frames if self.per_frame else 1)]
        noise = (_LIGHT_VECTORS * rng.normal(0, self.lighting, 3)) @ _LIGHT_VALUES
        lighting = np.eye(4)
        lighting[:3, 3] = noise[::-1] if self.bgr else noise
        return [steps.ColourMatrix(tuple(_nested(lighting @ each) for each in matrices))]


def _frame(amounts: tuple[float, float, float, float], rng: Rng) -> np.ndarray:
    """4x4: each of the four with probability 0.5; brightness first, contrast before the other two or after them."""
    light, factor, saturation, turn = amounts
    brightness = np.eye(4)
    brightness[:3, 3] = light
    contrast = np.diag([factor, factor, factor, 1.0])
    total = brightness if _gate(rng) else np.eye(4)
    colour = (_saturation(saturation), _hue(turn))
    order = (contrast, *colour) if _gate(rng) else (*colour, contrast)
    for each in order:
        if _gate(rng):
            total = each @ total
    return total


def _gate(rng: Rng) -> bool:
    return bool(rng.random() > 0.5)


def _saturation(share: float) -> np.ndarray:
    """share of the colour, the rest of its grey; the weights meet the channels in the order in which they are stored."""
    total = np.eye(4)
    total[:3, :3] = share * np.eye(3) + (1 - share) * np.array(_GREY)
    return total


def _hue(turn: float) -> np.ndarray:
    """A turn by `turn` * pi about the grey axis, by way of YIQ."""
    c, s = math.cos(turn * math.pi), math.sin(turn * math.pi)
    total = np.eye(4)
    total[:3, :3] = _FROM_YIQ @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ _TO_YIQ
    return total


def _nested(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(x) for x in row) for row in matrix[:3])


def jittered(clip: np.ndarray, step: steps.ColourMatrix) -> np.ndarray:
    """The step on (T, H, W, 3) as float32, neither rounded nor cut off: what ST-ABN normalises."""
    matrices = np.broadcast_to(np.array(step.matrices, np.float32), (len(clip), 3, 4))
    return np.einsum("tij,thwj->thwi", matrices[:, :, :3], clip.astype(np.float32)) + matrices[:, None, None, :, 3]
