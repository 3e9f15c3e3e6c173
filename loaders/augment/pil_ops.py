"""Pictures by Pillow, for pre-training on images: crops, sizes, and RandAugment's operations of timm's "increasing" set.

Pillow averages where it makes a picture smaller, and its bicubic is another than OpenCV's, so pictures that a published
recipe was tuned with come from it alone.

Source: the published recipe of STS (`rand-m7-mstd0.5-inc1`); RandAugment is arXiv 1909.13719.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from loaders.augment import steps
from loaders.augment.recipe import Drawn

FILL = (124, 116, 104)
"""What comes from outside the picture: about the mean colour of ImageNet."""

_SAMPLING = Image.Resampling.BICUBIC
_RESIZING = {"linear": Image.Resampling.BILINEAR, "cubic": _SAMPLING, "area": Image.Resampling.BOX}
_SOLARIZE_ADD_BELOW = 128


def run_picture(picture: np.ndarray, drawn: Drawn) -> np.ndarray:
    """`drawn` on one picture, uint8 (H, W, 3). Crops, sizes, mirroring and RandAugment; TypeError for other steps."""
    image = Image.fromarray(picture)
    for step in drawn.steps:
        match step:
            case steps.Crop(top, left, height, width):
                image = image.crop((left, top, left + width, top + height))
            case steps.Resize(height, width, interpolation):
                image = image.resize((width, height), _RESIZING[interpolation])
            case steps.Flip():
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            case steps.PilOps():
                image = Image.fromarray(apply_ops(np.asarray(image), step))
            case _:
                raise TypeError(f"pictures know crops, sizes, mirroring and RandAugment; this is {step!r}")
    return np.asarray(image)


def apply_ops(picture: np.ndarray, step: steps.PilOps) -> np.ndarray:
    """uint8 (H, W, 3) red, green, blue, to the same. Raises: ValueError for an operation that there is not."""
    image = Image.fromarray(picture)
    for name, argument in step.ops:
        if name not in _OPS:
            raise ValueError(f"there is no operation {name!r}; there are {', '.join(_OPS)}")
        image = _OPS[name](image, argument)
    return np.asarray(image)


def _affine(image: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, _SAMPLING, fillcolor=FILL)


def _posterize(image: Image.Image, bits: float) -> Image.Image:
    return image if bits >= 8 else ImageOps.posterize(image, int(bits))


def _solarize_add(image: Image.Image, add: float) -> Image.Image:
    table = [min(255, value + int(add)) if value < _SOLARIZE_ADD_BELOW else value for value in range(256)]
    return image.point(table * 3)


_OPS: Mapping[str, Callable] = MappingProxyType(
    {
        "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
        "Equalize": lambda image, _: ImageOps.equalize(image),
        "Invert": lambda image, _: ImageOps.invert(image),
        "Rotate": lambda image, degrees: image.rotate(degrees, _SAMPLING, fillcolor=FILL),
        "PosterizeIncreasing": _posterize,
        "SolarizeIncreasing": lambda image, above: ImageOps.solarize(image, int(above)),
        "SolarizeAdd": _solarize_add,
        "ColorIncreasing": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
        "ContrastIncreasing": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
        "BrightnessIncreasing": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
        "SharpnessIncreasing": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
        "ShearX": lambda image, factor: _affine(image, (1, factor, 0, 0, 1, 0)),
        "ShearY": lambda image, factor: _affine(image, (1, 0, 0, factor, 1, 0)),
        "TranslateXRel": lambda image, share: _affine(image, (1, 0, share * image.width, 0, 1, 0)),
        "TranslateYRel": lambda image, share: _affine(image, (1, 0, 0, 0, 1, share * image.height)),
    }
)
