"""What is done to the frames of one clip: operations whose values have been drawn. Data only; executors give it meaning.

All frames of a clip get the same steps. Sizes and places in pixels; colours as the clip has its three channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Triple = tuple[float, float, float]
"""One value per channel, in the order of the clip's channels."""

Interpolation = Literal["linear", "cubic", "area"]


# Colour, every channel by itself


@dataclass(frozen=True)
class Add:
    """v + value, the value rounded to an integer."""

    values: Triple


@dataclass(frozen=True)
class Multiply:
    """v * factor, truncated."""

    factors: Triple


@dataclass(frozen=True)
class Gamma:
    """255 * (v / 255) ** gamma, truncated."""

    gammas: Triple


@dataclass(frozen=True)
class LinearContrast:
    """127 + alpha * (v - 127), truncated."""

    alphas: Triple


# Colour, channels together


@dataclass(frozen=True)
class EnhanceColor:
    """grey + factor * (v - grey): 0 is a grey picture, 1 the same, more is more colourful."""

    factor: float


@dataclass(frozen=True)
class ColourMatrix:
    """M @ (channels, 1): 3x4 matrices as nested tuples, one for the whole clip or one per frame."""

    matrices: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True)
class HueSaturation:
    """In OpenCV's 8-bit HSV: hue, turned by hue / 255 of the half circle 0..180; saturation, added.

    The clip's channels are taken as red, green, blue. Both integers in -255..255.
    """

    hue: int
    saturation: int


# Neighbourhoods


@dataclass(frozen=True)
class GaussianBlur:
    sigma: float


@dataclass(frozen=True)
class AverageBlur:
    """The mean of `k` x `k` pixels; for an even k the pixel itself is right below the centre."""

    k: int


@dataclass(frozen=True)
class MotionBlur:
    """Along a line of `k` pixels at `angle` degrees; `direction` -1..1 puts the weight on one end or the other."""

    k: int
    angle: float
    direction: float


@dataclass(frozen=True)
class Noise:
    """Normal noise of standard deviation `scale`, one field (H, W, 3) for all frames, a pure function of `seed`."""

    scale: float
    seed: int


# Geometry


@dataclass(frozen=True)
class Rotate:
    """About the middle, `angle` in degrees, clockwise as one sees it; what comes from outside is black."""

    angle: float


@dataclass(frozen=True)
class Perspective:
    """What lies between four points becomes the whole picture.

    `corners`: how far each point lies inwards of its corner, (x, y) as shares of width and height, in the order top left,
    top right, bottom right, bottom left.
    """

    corners: tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Crop:
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Resize:
    height: int
    width: int
    interpolation: Interpolation = "linear"


@dataclass(frozen=True)
class Flip:
    """Left becomes right."""


# Pictures for pre-training


@dataclass(frozen=True)
class PilOps:
    """Operations of RandAugment in their order: (name, argument), the argument None where there is none."""

    ops: tuple[tuple[str, float | None], ...]


Pointwise = Add | Multiply | Gamma | LinearContrast
Blur = GaussianBlur | AverageBlur | MotionBlur
Geometry = Rotate | Perspective | Crop | Resize | Flip
Step = Pointwise | EnhanceColor | ColourMatrix | HueSaturation | Blur | Noise | Geometry | PilOps
