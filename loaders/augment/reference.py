"""The `imgaug` executor: every step by imgaug 0.4.0 itself, frame by frame. Slow; what the others are tested against."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from loaders.augment import steps
from loaders.augment.geometry import perspective
from loaders.augment.imgaug_shim import import_augmenters
from loaders.augment.pixels import noise_field
from loaders.augment.recipe import Drawn


def run_imgaug(clip: np.ndarray, drawn: Drawn) -> np.ndarray:
    """`drawn` on `clip`, uint8 (T, H, W, 3), which is left as it is. Returns uint8 (T, H', W', 3).

    Raises: ImportError without imgaug; TypeError for a step that imgaug has nothing for.
    """
    frames = np.ascontiguousarray(clip)
    for step in drawn.steps:
        frames = _augmented(frames, step)
    return frames if drawn.steps else frames.copy()


def _augmented(frames: np.ndarray, step: steps.Step) -> np.ndarray:
    iaa = _augmenters()
    if isinstance(step, steps.Noise):  # imgaug would draw the noise itself; only the addition is its own
        field = noise_field(step, *frames.shape[1:3])
        return np.stack([iaa.add_elementwise(frame, field) for frame in frames])
    if isinstance(step, steps.Crop):
        return np.ascontiguousarray(frames[:, step.top : step.top + step.height, step.left : step.left + step.width])
    return np.stack(_augmenter(iaa, step, frames.shape[1:3]).augment_images(list(frames)))


def _augmenter(iaa: ModuleType, step: steps.Step, size: tuple[int, int]) -> Any:
    match step:
        case steps.Add(values):
            return _by_channel(iaa, [iaa.Add(int(np.round(value))) for value in values])
        case steps.Multiply(factors):
            return _by_channel(iaa, [iaa.Multiply(factor) for factor in factors])
        case steps.Gamma(gammas):
            return _by_channel(iaa, [iaa.GammaContrast(gamma) for gamma in gammas])
        case steps.LinearContrast(alphas):
            return _by_channel(iaa, [iaa.LinearContrast(alpha) for alpha in alphas])
        case steps.EnhanceColor(factor):
            return iaa.pillike.EnhanceColor(factor)
        case steps.HueSaturation(hue, saturation):
            return iaa.AddToHueAndSaturation(value_hue=hue, value_saturation=saturation)
        case steps.GaussianBlur(sigma):
            return iaa.GaussianBlur(sigma)
        case steps.AverageBlur(k):
            return iaa.AverageBlur(k)
        case steps.MotionBlur(k, angle, direction):
            return iaa.MotionBlur(k, angle=angle, direction=direction)
        case steps.Rotate(angle):
            return iaa.Rotate(angle)
        case steps.Perspective():
            return _perspective(iaa, step, size)
        case steps.Resize(height, width, interpolation):
            return iaa.Resize({"height": height, "width": width}, interpolation=interpolation)
        case steps.Flip():
            return iaa.Fliplr(1.0)
    raise TypeError(f"imgaug has nothing for {step!r}")


def _by_channel(iaa: ModuleType, augmenters: list[Any]) -> Any:
    """imgaug draws values of its own per channel; with given ones, every channel gets its own augmenter."""
    return iaa.Sequential([iaa.WithChannels(channel, each) for channel, each in enumerate(augmenters)])


def _perspective(iaa: ModuleType, step: steps.Perspective, size: tuple[int, int]) -> Any:
    """PerspectiveTransform with the given corners: its draw of the jitter answers with them."""
    perspective(step, size)  # refuses corners that leave nothing
    augmenter = iaa.PerspectiveTransform(scale=1.0, keep_size=True)
    corners = np.array(step.corners)
    augmenter.jitter = _Given(corners)
    return augmenter


class _Given:
    """Stands where imgaug expects a distribution and answers with the same values for every image."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def draw_samples(self, size: tuple[int, ...], random_state: Any = None) -> np.ndarray:
        return np.broadcast_to(self._values, size).copy()


@cache
def _augmenters() -> ModuleType:
    return import_augmenters()
