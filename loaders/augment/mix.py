"""Mixup and cutmix: every picture of a batch mixed with its mirror place in the batch, and the labels with it.

Both on uint8 before normalising, with one draw per batch. Source: arXiv 1710.09412 (mixup), 1905.04899 (cutmix); the
published recipe of STS for ImageNet (timm's FastCollateMixup in batch mode).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from loaders.augment.geometry import Size
from loaders.augment.values import Rng


@dataclass(frozen=True)
class Mix:
    """With probability `p` a batch is mixed: by cutmix with probability `switch`, else by mixup."""

    mixup_alpha: float = 0.1
    cutmix_alpha: float = 1.0
    p: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        if min(self.mixup_alpha, self.cutmix_alpha) < 0 or not 0 <= self.p <= 1 or not 0 <= self.switch <= 1:
            raise ValueError(f"{self}: alphas are at least 0 (0 switches one off), p and switch are probabilities")


@dataclass(frozen=True)
class DrawnMix:
    """`share` of each picture is its own; the rest comes from its partner, inside `box` (top, bottom, left, right) if given."""

    share: float = 1.0
    box: tuple[int, int, int, int] | None = None


class MixRng(Rng, Protocol):
    """What is drawn from here beyond `Rng`: numpy's Generator has it."""

    def beta(self, a: float, b: float) -> float: ...


def draw_mix(mix: Mix, rng: MixRng, size: Size) -> DrawnMix:
    """One batch of pictures of `size`. A box that the edge cuts off takes less: the share is that of the pixels."""
    if not (mix.mixup_alpha or mix.cutmix_alpha) or rng.random() >= mix.p:
        return DrawnMix()
    if mix.mixup_alpha and mix.cutmix_alpha:
        cutting = bool(rng.random() < mix.switch)
    else:
        cutting = not mix.mixup_alpha
    alpha = mix.cutmix_alpha if cutting else mix.mixup_alpha
    share = float(rng.beta(alpha, alpha))
    if share == 1 or not cutting:
        return DrawnMix(share)
    height, width = (int(side * np.sqrt(1 - share)) for side in size)
    y = int(rng.integers(0, size[0] - 1, endpoint=True))
    x = int(rng.integers(0, size[1] - 1, endpoint=True))
    top, bottom = max(y - height // 2, 0), min(y + height // 2, size[0])
    left, right = max(x - width // 2, 0), min(x + width // 2, size[1])
    return DrawnMix(1 - (bottom - top) * (right - left) / (size[0] * size[1]), (top, bottom, left, right))


def mixed(pictures: np.ndarray, drawn: DrawnMix) -> np.ndarray:
    """uint8 (B, ..., H, W) to the same: picture b with picture B - 1 - b."""
    partners = pictures[::-1]
    if drawn.box is not None:
        top, bottom, left, right = drawn.box
        found = pictures.copy()
        found[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return found
    if drawn.share == 1:
        return pictures.copy()
    own = pictures.astype(np.float32) * np.float32(drawn.share)
    return np.rint(own + partners.astype(np.float32) * np.float32(1 - drawn.share)).astype(np.uint8)


def mixed_targets(labels: np.ndarray, num_classes: int, drawn: DrawnMix) -> np.ndarray:
    """float32 (B, num_classes): the shares of the classes in every mixed picture."""
    own = np.eye(num_classes, dtype=np.float32)[labels]
    return np.float32(drawn.share) * own + np.float32(1 - drawn.share) * own[::-1]
