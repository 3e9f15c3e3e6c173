"""Frames to network input as the published code makes them: on floats, after normalising, without antialiasing."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from loaders.sampling import Rng

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Place = Literal["top_left", "center", "bottom_right"]


def normalised(frames: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Tensor:
    """Frames uint8 THWC to float32 (T, C, H, W): divided by 255, less the mean, over the deviation."""
    x = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float().div_(255)
    return x.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(std)[:, None, None])


def resized(frames: Tensor, short_side: int) -> Tensor:
    """Frames (T, C, H, W) whose shorter side is `short_side` px, the longer one in proportion, rounded down; bilinear."""
    height, width = frames.shape[-2:]
    if min(height, width) == short_side:
        return frames
    if height < width:
        size = short_side, int(short_side * width / height)
    else:
        size = int(short_side * height / width), short_side
    return interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=False)


def cropped(frames: Tensor, height: int, width: int, place: Place | Rng) -> Tensor:
    """A crop of (..., H, W) at a place, or at a random one: the last possible offset is never drawn, as published.

    Where frame and crop are of one size there is one place (an error in the published code).
    Raises: ValueError if the crop does not fit.
    """
    rooms = [size - crop for size, crop in zip(frames.shape[-2:], (height, width), strict=True)]
    if min(rooms) < 0:
        raise ValueError(f"a crop of {height}x{width} px does not fit into {frames.shape[-2]}x{frames.shape[-1]} px")
    if isinstance(place, str):
        top, left = ({"top_left": 0, "center": room // 2, "bottom_right": room}[place] for room in rooms)
    else:
        top, left = (int(place.choice(room)) if room else 0 for room in rooms)
    return frames[..., top : top + height, left : left + width]


def training_view(frames: np.ndarray, size: int, short_side: tuple[int, int], flip: float, rng: Rng) -> Tensor:
    """Frames uint8 THWC to (T, C, size, size): mirrored as a whole with probability `flip`, scaled, cropped at random.

    `short_side` (smallest, one more than the largest). Draws, in this order: mirror, scale, crop.
    """
    x = normalised(frames)
    if rng.uniform(0.0, 1.0, 1)[0] < flip:
        x = x.flip(-1)
    side = short_side[0] + int(rng.choice(max(short_side[1] - short_side[0], 1)))
    return cropped(resized(x, side), size, size, rng)


def test_view(frames: np.ndarray, size: int, short_side: int, place: Place = "center") -> Tensor:
    """Frames uint8 THWC to (T, C, size, size): scaled, cropped at a fixed place."""
    return cropped(resized(normalised(frames), short_side), size, size, place)
