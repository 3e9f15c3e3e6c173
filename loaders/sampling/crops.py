"""Which part of a frame a crop takes: boxes in pixels. What is random draws from an `Rng`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loaders.sampling.base import Rng, draw_below, require


@dataclass(frozen=True)
class Box:
    """Columns `left` to `left + width` - 1, rows `top` to `top + height` - 1."""

    left: int
    top: int
    width: int
    height: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), the last two just outside."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def crop_offsets(room: int, num_crops: int, *, down: bool = False) -> list[int]:
    """Offsets of `num_crops` crops spread evenly over `room` spare pixels; one crop is the centre one.

    Places between pixels are rounded, or always `down`.
    """
    if num_crops == 1:
        return [room // 2]
    last = num_crops - 1
    return [room * i // last if down else round(room * i / last) for i in range(num_crops)]


def rescaled(height: int, width: int, short_side: float, long_side: float = float("inf")) -> tuple[int, int]:
    """(height, width) scaled until the short side or the long side is reached, halves rounded up.

    340 x 256 to 112: 149 x 112.
    """
    factor = min(long_side / max(height, width), short_side / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def centre_crop(height: int, width: int, crop_height: int, crop_width: int) -> Box:
    """The crop in the middle; of an odd rest, the larger part lies right and below."""
    _require_fit(height, width, crop_height, crop_width)
    return Box((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height)


def three_crops(height: int, width: int, crop_height: int, crop_width: int) -> list[Box]:
    """The crops at both ends of the longer side and in its middle, in this order: left, right, middle, or top, bottom, middle.

    The right one lies at twice the middle's offset, so a column may be left over.
    Raises: ValueError unless the crop is as high or as wide as the frame.
    """
    _require_fit(height, width, crop_height, crop_width)
    if crop_height == height:
        step = (width - crop_width) // 2
        return [Box(left, 0, crop_width, crop_height) for left in (0, 2 * step, step)]
    if crop_width == width:
        step = (height - crop_height) // 2
        return [Box(0, top, crop_width, crop_height) for top in (0, 2 * step, step)]
    raise ValueError(
        f"three crops of {crop_height}x{crop_width} px lie along one side of a frame, but neither side of {height}x{width} px"
        " is the crop's: scale the short side to the crop"
    )


# Quarters of the spare room at which a crop of the grid lies: corners and centre, then the eight between.
_GRID = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


def crop_grid(height: int, width: int, crop_height: int, crop_width: int, *, more: bool = True) -> list[Box]:
    """Crops on TSN's grid: the four corners and the centre, with `more` another eight between them.

    a . h . b       Steps are whole quarters of the spare pixels, so b may end up to 3 px before the edge.
    . j . k .
    f . e . g
    . l . m .
    c . i . d
    """
    _require_fit(height, width, crop_height, crop_width)
    across, down = (width - crop_width) // 4, (height - crop_height) // 4
    return [Box(x * across, y * down, crop_width, crop_height) for x, y in (_GRID if more else _GRID[:5])]


def ten_crops(height: int, width: int, crop_height: int, crop_width: int) -> list[tuple[Box, bool]]:
    """The corners and the centre, each as it is and then mirrored: (box, mirrored)."""
    boxes = crop_grid(height, width, crop_height, crop_width, more=False)
    return [(box, mirrored) for box in boxes for mirrored in (False, True)]


def multi_scale_sizes(
    height: int,
    width: int,
    out_height: int,
    out_width: int,
    *,
    scales: Sequence[float] = (1, 0.875, 0.75, 0.66),
    max_distort: int = 1,
) -> list[tuple[int, int]]:
    """Sizes (height, width) that a multi-scale crop chooses from: the short side times `scales`, one for each side.

    The two differ by at most `max_distort` places in `scales`. A side within 2 px of the output's is the output's, so that
    nothing is resized for nothing. Source: TSN (arXiv 1608.00859, section 3.3).
    """
    sides = [int(min(height, width) * scale) for scale in scales]
    return [
        (_snapped(tall, out_height), _snapped(wide, out_width))
        for i, tall in enumerate(sides)
        for j, wide in enumerate(sides)
        if abs(i - j) <= max_distort
    ]


def multi_scale_crop(
    height: int,
    width: int,
    out_height: int,
    out_width: int,
    rng: Rng,
    *,
    scales: Sequence[float] = (1, 0.875, 0.75, 0.66),
    max_distort: int = 1,
    places: Literal["grid", "corners", "anywhere"] = "grid",
) -> Box:
    """A crop of a random one of the sizes, at a random place: of the 13 on the grid, of the 5 (corners and centre), or of all.

    Draws, in this order: size, place (`anywhere`: left, top). Source: TSN, as in MMAction2 (ResKD) and TPN (ST-ABN).
    """
    sizes = multi_scale_sizes(height, width, out_height, out_width, scales=scales, max_distort=max_distort)
    tall, wide = sizes[draw_below(rng, len(sizes))]
    if places == "anywhere":
        left = draw_below(rng, width - wide + 1)
        return Box(left, draw_below(rng, height - tall + 1), wide, tall)
    boxes = crop_grid(height, width, tall, wide, more=places == "grid")
    return boxes[draw_below(rng, len(boxes))]


def random_resized_crop(
    height: int,
    width: int,
    rng: Rng,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    tries: int = 10,
) -> Box:
    """A crop of a random part of the area and a random width / height, which is as often above as below 1.

    The first of `tries` that fits; otherwise the centred square of the short side.
    Draws, in this order: all aspects, all areas, left, top. Source: MMAction2's RandomResizedCrop (ResKD, STS).
    """
    aspects = np.exp(rng.uniform(np.log(aspect[0]), np.log(aspect[1]), tries))
    areas = rng.uniform(*area, tries) * (height * width)
    widths = np.round(np.sqrt(areas * aspects)).astype(np.int64)
    heights = np.round(np.sqrt(areas / aspects)).astype(np.int64)
    for wide, tall in zip(widths.tolist(), heights.tolist(), strict=True):
        if wide <= width and tall <= height:
            left = draw_below(rng, width - wide + 1)
            return Box(left, draw_below(rng, height - tall + 1), wide, tall)
    side = min(height, width)
    return centre_crop(height, width, side, side)


def _snapped(side: int, out: int) -> int:
    return out if abs(side - out) < 3 else side


def _require_fit(height: int, width: int, crop_height: int, crop_width: int) -> None:
    require(
        1 <= crop_height <= height and 1 <= crop_width <= width,
        f"a crop of {crop_height}x{crop_width} px does not fit into {height}x{width} px",
    )
