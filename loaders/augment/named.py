"""Recipes by name: what each method's published training does to its clips.

Scaling, cropping and mirroring of most is the loader's work (`ClipSpec`); recipes that do it themselves take a size.
LSTR trains on features and has no recipe. SBP draws anew for each of the two parts of its end-to-end clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from loaders.augment.crops import MultiScaleCrop, RandomCrop, RandomResizedCrop, Resize, ShortSide
from loaders.augment.jitter import ColourJitter
from loaders.augment.randaugment import RandAugment
from loaders.augment.recipe import Flip, Recipe
from loaders.augment.srtg import srtg_code, srtg_readme
from loaders.augment.values import Integers


def sbp_k400(crop_px: int = 224) -> Recipe:
    """SBP on Kinetics: mirrored, short side 256 to 319, a random crop."""
    return Recipe((Flip(0.5), ShortSide(Integers(256, 319), rounding="down"), RandomCrop(crop_px, crop_px)), "sbp-k400")


def reskd_multi_scale(short_px: int = 256, input_px: int = 256, crop_px: int = 224, flip: float = 0.5) -> Recipe:
    """ResKD's 2-d networks. Without `flip` on Something-Something."""
    crop = MultiScaleCrop((input_px, input_px))
    return Recipe((ShortSide(short_px), crop, Resize(crop_px, crop_px), Flip(flip)), "reskd-multi-scale")


def resized_crop_and_flip(short_px: int = 256, crop_px: int = 224, flip: float = 0.5) -> Recipe:
    """ResKD's 3-d networks and all of STS on video. Without `flip` on Something-Something."""
    return Recipe((ShortSide(short_px), RandomResizedCrop(crop_px, crop_px), Flip(flip)), "resized-crop-and-flip")


def stabn(crop_px: int = 224) -> Recipe:
    """ST-ABN with its defects mended: parts lie inside the frame, the colours of a clip do not flicker."""
    crop = RandomResizedCrop(crop_px, crop_px)
    return Recipe((crop, Flip(0.5), ColourJitter()), "stabn")


def stabn_code(crop_px: int = 224) -> Recipe:
    """ST-ABN as its code runs it."""
    crop = RandomResizedCrop(crop_px, crop_px, rule="stabn")
    return Recipe((crop, Flip(0.5), ColourJitter(per_frame=True, bgr=True)), "stabn-code")


def sts_images(crop_px: int = 224) -> Recipe:
    """STS, pre-training on ImageNet; mixing (`loaders.augment.mix`) follows on the batch."""
    crop = RandomResizedCrop(crop_px, crop_px, rule="image", interpolation="cubic")
    return Recipe((crop, Flip(0.5), RandAugment()), "sts-images")


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "srtg-readme": srtg_readme,
        "srtg-code": srtg_code,
        "srtg-code-hmdb51": partial(srtg_code, "hmdb51"),
        "srtg-code-ucf101": partial(srtg_code, "ucf101"),
        "sbp-k400": sbp_k400,
        "reskd-multi-scale": reskd_multi_scale,
        "resized-crop-and-flip": resized_crop_and_flip,
        "stabn": stabn,
        "stabn-code": stabn_code,
        "sts-images": sts_images,
    }
)


def recipe_by_name(name: str) -> Recipe:
    """Raises: ValueError, naming those that there are."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
