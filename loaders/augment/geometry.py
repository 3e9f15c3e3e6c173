"""Geometry of a clip as 3x3 matrices, so that any chain of it is one matrix.

A matrix maps source to target pixels, (x, y, 1) with whole numbers at pixel centres, as OpenCV takes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from loaders.augment.steps import Crop, Flip, Geometry, Perspective, Resize, Rotate

Size = tuple[int, int]
"""(height, width)"""


def size_after(step: Geometry, size: Size) -> Size:
    """Raises: ValueError if a crop does not fit."""
    if isinstance(step, Crop):
        fits = (
            step.top >= 0 and step.left >= 0 and step.top + step.height <= size[0] and step.left + step.width <= size[1]
        )
        if not fits or min(step.height, step.width) < 1:
            raise ValueError(f"{step} does not lie inside a frame of {size[0]}x{size[1]} px")
    return (step.height, step.width) if isinstance(step, Crop | Resize) else size


def matrix(step: Geometry, size: Size) -> np.ndarray:
    """The step on frames of `size`, float64 (3, 3)."""
    if isinstance(step, Rotate):
        return _rotation(step.angle, size)
    if isinstance(step, Perspective):
        homography, inner = perspective(step, size)
        return scaling(inner, size) @ homography
    if isinstance(step, Crop):
        return np.array([[1.0, 0, -step.left], [0, 1, -step.top], [0, 0, 1]])
    if isinstance(step, Resize):
        return scaling(size, (step.height, step.width))
    if isinstance(step, Flip):
        return np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]])
    raise TypeError(f"{step!r} is not geometry")


def chain(steps: Sequence[Geometry], size: Size) -> tuple[np.ndarray, Size]:
    """All steps, first to last, as one matrix, and the size of what comes out."""
    total = np.eye(3)
    for step in steps:
        total = matrix(step, size) @ total
        size = size_after(step, size)
    return total, size


def one_cut(steps: Sequence[Geometry], size: Size) -> list[Geometry]:
    """Crops, sizes and mirrorings in any order as one crop of whole pixels, one resize, and one mirroring or none.

    The crop's edges are rounded, halves to even. Source: the "lazy" transforms of mmaction2, which STS trains with.
    """
    total, target = chain(steps, size)
    back = np.linalg.inv(total)
    edges = back @ np.array([[-0.5, target[1] - 0.5], [-0.5, target[0] - 0.5], [1, 1]]) + 0.5
    (left, right), (top, bottom) = (
        np.clip(np.sort(ends).round(9).round(), 0, side).astype(int).tolist()
        for ends, side in ((edges[0], size[1]), (edges[1], size[0]))
    )
    found: list[Geometry] = [Crop(top, left, max(bottom - top, 1), max(right - left, 1)), Resize(*target)]
    return [*found, Flip()] if edges[0, 0] > edges[0, 1] else found


def scaling(source: Size, target: Size) -> np.ndarray:
    """Pixel areas onto pixel areas: the outer edges meet, not the centres of the outer pixels."""
    fy, fx = target[0] / source[0], target[1] / source[1]
    return np.array([[fx, 0, 0.5 * fx - 0.5], [0, fy, 0.5 * fy - 0.5], [0, 0, 1]])


def perspective(step: Perspective, size: Size) -> tuple[np.ndarray, Size]:
    """The matrix that cuts out what lies between the four points, and the size of the cut.

    The cut is as wide as the longer of its top and bottom edge, as high as the longer of its sides, in whole pixels.
    Source: imgaug 0.4.0, whose points are given in coordinates of corners but are used as those of pixel centres (half
    a pixel off); kept, for it is what recipes were tuned with.
    """
    height, width = size
    inwards = np.mod(np.abs(np.array(step.corners, np.float64)), 1)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    points = np.where(corners == 1, 1 - inwards, inwards) * (width, height)
    top_left, top_right, bottom_right, bottom_left = points = _in_order(points)
    inner_width = int(max(math.dist(top_left, top_right), math.dist(bottom_left, bottom_right)))
    inner_height = int(max(math.dist(top_right, bottom_right), math.dist(top_left, bottom_left)))
    if min(inner_width, inner_height) < 2:
        raise ValueError(f"{step} leaves {inner_height}x{inner_width} px of {height}x{width}; at least 2x2 are needed")
    target = np.array([[0, 0], [inner_width, 0], [inner_width, inner_height], [0, inner_height]], np.float32)
    return cv2.getPerspectiveTransform(points.astype(np.float32), target), (inner_height, inner_width)


def is_affine(transform: np.ndarray) -> bool:
    return bool(np.array_equal(transform[2], (0, 0, 1)))


def _rotation(angle: float, size: Size) -> np.ndarray:
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    cx, cy = size[1] / 2 - 0.5, size[0] / 2 - 0.5
    return np.array([[c, -s, cx - c * cx + s * cy], [s, c, cy - s * cx - c * cy], [0, 0, 1]])


def _in_order(points: np.ndarray) -> np.ndarray:
    """The four points by where they lie: top left has the least x + y, bottom right the most, top right the least y - x."""
    total, difference = points.sum(1), points[:, 1] - points[:, 0]
    order = (total.argmin(), difference.argmin(), total.argmax(), difference.argmax())
    return points[list(order)]
