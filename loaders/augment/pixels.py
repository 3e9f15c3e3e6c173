"""Colour and neighbourhoods of a clip as tables, matrices and kernels: what a step does, worked out once per clip.

Rounding and truncation are those of imgaug 0.4.0 on uint8, which recipes were tuned with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from loaders.augment.steps import (
    Add,
    AverageBlur,
    Blur,
    EnhanceColor,
    Gamma,
    GaussianBlur,
    HueSaturation,
    LinearContrast,
    MotionBlur,
    Multiply,
    Noise,
    Pointwise,
)

_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Grey of a colour as Pillow computes it (ITU-R 601, in 16-bit fixed point)."""


def table(step: Pointwise) -> np.ndarray:
    """What every value of every channel becomes, uint8 (256, 3)."""
    values = np.arange(256, dtype=np.float32)[:, None]
    if isinstance(step, Add):
        return np.clip(values + np.round(np.array(step.values)), 0, 255).astype(np.uint8)
    if isinstance(step, Multiply):
        return np.clip(values * np.array(step.factors, np.float32), 0, 255).astype(np.uint8)
    if isinstance(step, Gamma):
        shares = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
        return np.clip(shares ** np.array(step.gammas, np.float32) * np.float32(255), 0, 255).astype(np.uint8)
    if isinstance(step, LinearContrast):
        alphas = np.array(step.alphas, np.float32)
        return np.clip(np.float32(127) + alphas * (values - np.float32(127)), 0, 255).astype(np.uint8)
    raise TypeError(f"{step!r} does not work on every channel by itself")


def affine(step: Add | Multiply | LinearContrast) -> np.ndarray:
    """The step as a matrix float64 (3, 4) on (channels, 1) of which the result is rounded.

    Truncation is rounding of what is half a level less; a little is left to keep whole numbers on their side.
    """
    down = 0.5 - 1e-3
    if isinstance(step, Add):
        return _diagonal(1, np.round(np.array(step.values)))
    if isinstance(step, Multiply):
        return _diagonal(np.array(step.factors), -down)
    alphas = np.array(step.alphas)
    return _diagonal(alphas, 127 - 127 * alphas - down)


def colour_matrix(step: EnhanceColor) -> np.ndarray:
    """float64 (3, 4) on (channels, 1), of which the result is rounded. Pillow rounds the grey and truncates the mixture."""
    mixed = np.zeros((3, 4))
    mixed[:, :3] = step.factor * np.eye(3) + (1 - step.factor) * np.array(_LUMA)
    mixed[:, 3] = -(0.5 - 1e-3) if step.factor else 0
    return mixed


def hue_shift(step: HueSaturation) -> int:
    """By how much OpenCV's 8-bit hue (0..179) is turned."""
    return int(np.float32(step.hue) / 255 * 180)


def hsv_table(step: HueSaturation) -> np.ndarray:
    """What hue, saturation and value become, uint8 (256, 3)."""
    values = np.arange(256)
    turned = (values + hue_shift(step)) % 180
    return np.stack([turned, np.clip(values + step.saturation, 0, 255), values], 1).astype(np.uint8)


def kernel(step: Blur) -> np.ndarray:
    """Weights float32 (k, k) of the pixels around; correlated, not convolved. Sum 1."""
    if isinstance(step, GaussianBlur):
        size = max(
            int(3.3 * step.sigma if step.sigma < 3 else 2.9 * step.sigma if step.sigma < 5 else 2.6 * step.sigma), 5
        )
        one = (
            cv2.getGaussianKernel(size + 1 - size % 2, step.sigma, cv2.CV_32F) if step.sigma > 1e-3 else np.ones((1, 1))
        )
        return (one @ one.T).astype(np.float32)
    if isinstance(step, AverageBlur):
        return np.full((step.k, step.k), 1 / step.k**2, np.float32)
    if isinstance(step, MotionBlur):
        return _line(step)
    raise TypeError(f"{step!r} is not a blur")


def centred(weights: np.ndarray) -> np.ndarray:
    """The same filter with odd sides, so that kernels can be composed: an even one has its pixel below the centre."""
    if weights.shape[0] % 2 and weights.shape[1] % 2:
        return weights
    return np.pad(weights, [(0, 1 - side % 2) for side in weights.shape])


def composed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One kernel for two filters, one after the other; odd sides."""
    a, b = centred(first), centred(second)
    height, width = a.shape[0] + b.shape[0] - 1, a.shape[1] + b.shape[1] - 1
    total = np.zeros((height, width), np.float32)
    for y, row in enumerate(b):
        for x, weight in enumerate(row):
            if weight:
                total[y : y + a.shape[0], x : x + a.shape[1]] += weight * a
    return total


def trimmed(weights: np.ndarray) -> np.ndarray:
    """`weights` without the outer ring for as long as all that is left out cannot change a value by half a level."""
    weights = centred(weights)
    while min(weights.shape) > 1:
        inner = weights[1:-1, 1:-1]
        if (np.abs(weights).sum() - np.abs(inner).sum()) * 255 >= 0.5:
            break
        weights = inner
    return np.ascontiguousarray(weights / weights.sum())


def noise_field(step: Noise, height: int, width: int) -> np.ndarray:
    """What is added to every frame, int16 (H, W, 3)."""
    rng = np.random.Generator(np.random.Philox(key=step.seed))
    field = rng.standard_normal((height, width, 3), np.float32) * np.float32(step.scale)
    return np.clip(np.rint(field), -255, 255).astype(np.int16)


def as_matrix(table_of: np.ndarray, steps: Sequence[Pointwise]) -> np.ndarray | None:
    """The steps as one matrix float32 (3, 4), if that gives all of `table_of` (256, 3) exactly; else None.

    OpenCV multiplies four times as fast as it looks up. Exact it is unless a value runs into 0 or 255 on the way.
    """
    total = np.eye(4)
    for step in steps:
        if isinstance(step, Gamma):
            return None
        total = np.vstack([affine(step), (0, 0, 0, 1)]) @ total
    found = np.ascontiguousarray(total[:3], np.float32)
    return found if np.array_equal(cv2.transform(_ramp(), found)[0], table_of) else None


@cache
def _ramp() -> np.ndarray:
    """Every grey once, uint8 (1, 256, 3)."""
    return np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)


def _diagonal(scale: np.ndarray | float, shift: np.ndarray | float) -> np.ndarray:
    found = np.zeros((3, 4))
    found[range(3), range(3)] = scale
    found[:, 3] = shift
    return found


def _line(step: MotionBlur) -> np.ndarray:
    """A line down the middle, its weight running from one end to the other, turned in 8-bit grey as imgaug does."""
    side = step.k + 1 - step.k % 2
    share = (min(max(step.direction, -1.0), 1.0) + 1) / 2
    picture = np.zeros((side, side), np.float32)
    picture[:, side // 2] = np.linspace(share, 1 - share, side)
    c, s = np.cos(np.radians(step.angle)), np.sin(np.radians(step.angle))
    middle = side / 2 - 0.5
    turn = np.array([[c, -s, middle - c * middle + s * middle], [s, c, middle - s * middle - c * middle]])
    turned = cv2.warpAffine((picture * 255).astype(np.uint8), turn, (side, side)).astype(np.float32) / 255
    return turned / turned.sum()
