"""Clips to augment: textured and moving, all colours, with sharp edges and parts at full black and white."""

from __future__ import annotations

import cv2
import numpy as np


def clip(frames: int = 4, height: int = 112, width: int = 112, seed: int = 0) -> np.ndarray:
    """uint8 (T, H, W, 3): coarse and fine texture in every channel, a disc that moves, a white and a black bar."""
    rng = np.random.default_rng(seed)
    texture = np.zeros((height, width, 3), np.float32)
    for share, contrast in ((0.05, 60), (0.15, 30), (0.4, 10)):
        coarse = rng.normal(0, contrast, (max(int(height * share), 2), max(int(width * share), 2), 3))
        texture += cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width]
    made = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        picture = 128 + np.roll(texture, (t, 2 * t), axis=(0, 1))
        disc = (y - height / 2 - 3 * t) ** 2 + (x - width / 3 - 5 * t) ** 2 < (min(height, width) / 5) ** 2
        picture[disc] = 255 - picture[disc]
        picture[height // 8 : height // 8 + 4] = 255
        picture[:, width // 8 : width // 8 + 3] = 0
        made[t] = np.clip(picture, 0, 255)
    return made


def difference(got: np.ndarray, want: np.ndarray) -> tuple[float, int]:
    """Mean and largest difference, in grey levels."""
    apart = np.abs(got.astype(np.int16) - want)
    return float(apart.mean()), int(apart.max())
