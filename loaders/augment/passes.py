"""Steps to passes: what lies side by side and is of one kind becomes one pass over the pixels.

    Add, Multiply, Gamma        one table of 256 values per channel, or one colour matrix where that gives the same
    GaussianBlur, AverageBlur   one kernel
    Crop, Resize, Rotate, Flip  one matrix from source to target pixels

Executors carry out passes; a pass holds what is worked out once per clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby

import cv2
import numpy as np

from loaders.augment import pixels, steps
from loaders.augment.geometry import Size, chain, one_cut, perspective, scaling, size_after
from loaders.augment.recipe import Drawn


@dataclass(frozen=True, eq=False)
class Table:
    """uint8 (256, 3): what every value of every channel becomes."""

    table: np.ndarray


@dataclass(frozen=True, eq=False)
class Matrix:
    """float32 (1 or T, 3, 4) on (channels, 1); the result is rounded to uint8."""

    matrices: np.ndarray


@dataclass(frozen=True, eq=False)
class Hsv:
    """Hue turned by `hue` (of 180) and saturation added, in OpenCV's 8-bit HSV; `table` uint8 (256, 3) says the same."""

    hue: int
    saturation: int
    table: np.ndarray


@dataclass(frozen=True, eq=False)
class Kernel:
    """float32 (k, k), correlated; the border is mirrored without its outermost pixel. `step`, if it is one blur alone."""

    weights: np.ndarray
    step: steps.Blur | None = None


@dataclass(frozen=True, eq=False)
class Field:
    """int16 (H, W, 3), added to every frame."""

    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Warp:
    """Target pixel (x, y) shows source pixel inverse(matrix) (x, y); frames of `source` become frames of `target`.

    What lies outside the source is black, or, with `replicate`, the source's nearest edge; `seen` uint8 (H', W') is then
    0 where the target is black all the same, else 255; None if that is nowhere. `alone`: the step, where it is to be done by
    OpenCV's own function for it; `cut`: crop, size and mirroring, where the chain is nothing else.
    """

    matrix: np.ndarray
    source: Size
    target: Size
    interpolation: steps.Interpolation = "linear"
    replicate: bool = False
    seen: np.ndarray | None = None
    alone: steps.Geometry | None = None
    cut: tuple[steps.Geometry, ...] = ()


@dataclass(frozen=True, eq=False)
class Pictures:
    """Operations of Pillow, frame by frame."""

    step: steps.PilOps


Pass = Table | Matrix | Hsv | Kernel | Field | Warp | Pictures


def passes_of(drawn: Drawn, *, fuse: bool = True) -> list[Pass]:
    """The passes for a clip of `drawn.shape`. Without `fuse` every step is a pass of its own, as imgaug works."""
    size = drawn.shape.size
    found: list[Pass] = []
    runs = [list(run) for _, run in groupby(drawn.steps, _kind)] if fuse else [[step] for step in drawn.steps]
    for run in runs:
        found += _KINDS[_kind(run[0])](run, size, fuse)
        for step in run:
            size = size_after(step, size) if isinstance(step, steps.Geometry) else size
    return found


def seen_after(geometry: Sequence[steps.Geometry], size: Size) -> np.ndarray | None:
    """uint8 (H', W'): 0 where turning has brought in pixels from outside the frame, else 255; None if that is nowhere."""
    turning = [i for i, step in enumerate(geometry) if isinstance(step, steps.Rotate | steps.Perspective)]
    if not turning:
        return None
    _, size = chain(geometry[: turning[0]], size)
    total, target = chain(geometry[turning[0] :], size)
    shown = cv2.warpPerspective(np.full(size, 255, np.uint8), total, target[::-1], flags=cv2.INTER_LINEAR)
    return None if shown.all() else np.where(shown > 0, 255, 0).astype(np.uint8)


def _kind(step: steps.Step) -> str:
    for name, types in (("pointwise", steps.Pointwise), ("blur", steps.Blur), ("geometry", steps.Geometry)):
        if isinstance(step, types):
            return name
    return type(step).__name__


def _pointwise(run: Sequence[steps.Pointwise], size: Size, fuse: bool) -> list[Pass]:
    channels = np.arange(3)
    table = reduce(lambda done, each: each[done, channels], (pixels.table(step) for step in run))
    same = pixels.as_matrix(table, run)
    return [Table(table)] if same is None else [Matrix(same[None])]


def _blur(run: Sequence[steps.Blur], size: Size, fuse: bool) -> list[Pass]:
    weights = reduce(pixels.composed, (pixels.kernel(step) for step in run))
    weights = pixels.trimmed(weights)
    return [] if weights.size == 1 else [Kernel(weights, run[0] if len(run) == 1 else None)]


def _geometry(run: Sequence[steps.Geometry], size: Size, fuse: bool) -> list[Pass]:
    if not fuse and isinstance(run[0], steps.Perspective):
        return _perspective_in_two(run[0], size)
    cubic = any(isinstance(step, steps.Resize) and step.interpolation == "cubic" for step in run)
    interpolation: steps.Interpolation = "cubic" if cubic else "linear"
    turning = any(isinstance(step, steps.Rotate | steps.Perspective) for step in run)
    framed = any(isinstance(step, steps.Crop | steps.Resize) for step in run)
    if len(run) > 1 and framed and not turning:
        parts = one_cut(run, size)
        total, target = chain(parts, size)
        return [Warp(total, size, target, interpolation, replicate=True, cut=tuple(parts))]
    total, target = chain(run, size)
    seen = seen_after(run, size) if framed else None
    alone = run[0] if len(run) == 1 and not turning else None
    return [Warp(total, size, target, interpolation, framed, seen, alone)]


def _perspective_in_two(step: steps.Perspective, size: Size) -> list[Pass]:
    """As imgaug does it: the inner part is cut out in its own size, then enlarged."""
    homography, inner = perspective(step, size)
    return [
        Warp(homography, size, inner),
        Warp(scaling(inner, size), inner, size, "area", alone=steps.Resize(*size, "area")),
    ]


def _enhance(run: Sequence[steps.EnhanceColor], size: Size, fuse: bool) -> list[Pass]:
    return [Matrix(pixels.colour_matrix(step).astype(np.float32)[None]) for step in run]


def _colour_matrix(run: Sequence[steps.ColourMatrix], size: Size, fuse: bool) -> list[Pass]:
    return [Matrix(np.array(step.matrices, np.float32)) for step in run]


def _hsv(run: Sequence[steps.HueSaturation], size: Size, fuse: bool) -> list[Pass]:
    return [Hsv(pixels.hue_shift(step), step.saturation, pixels.hsv_table(step)) for step in run]


def _field(run: Sequence[steps.Noise], size: Size, fuse: bool) -> list[Pass]:
    return [Field(pixels.noise_field(step, *size)) for step in run]


def _pictures(run: Sequence[steps.PilOps], size: Size, fuse: bool) -> list[Pass]:
    return [Pictures(step) for step in run]


_KINDS: dict[str, Callable[..., list[Pass]]] = {
    "pointwise": _pointwise,
    "blur": _blur,
    "geometry": _geometry,
    "EnhanceColor": _enhance,
    "ColourMatrix": _colour_matrix,
    "HueSaturation": _hsv,
    "Noise": _field,
    "PilOps": _pictures,
}
