"""ST-ABN's transforms against the authors' code: transforms.npz. Boxes exactly, colours to 1e-3 levels.

Sizes and the other boxes of the file are checked by `stabn_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from loaders.augment import ClipShape, Drawn, Recipe, draw, run_fast, steps
from loaders.augment.crops import CentreCrop, RandomResizedCrop, ShortSide, cut, inside, stabn_crop
from loaders.augment.jitter import ColourJitter, jittered
from loaders.sampling import three_crops
from tests.golden import stabn_checks
from tests.golden.augment_rngs import AuthorsRng
from tests.golden.vectors import close, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]
Arrays = Mapping[str, np.ndarray]

_MEAN, _STD = np.array((123.675, 116.28, 103.53)), np.array((58.395, 57.12, 57.375))
_MINE = ("rrc", "jitter", "group")

# The README gives these beside the file.
_FRAMES, _HEIGHT, _WIDTH, _CROP, _SHORT = 3, 60, 92, 32, 40
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_NARROW_SIZE, _NARROW_AREA, _NARROW_RATIO = (97, 61), (0.9, 1.0), (3.0, 4.0)


def _transforms(path: Path) -> Cases:
    data = read(path)
    for name, check in stabn_checks.CHECKERS["transforms"](path):
        if name not in _MINE:
            yield name, check
    mine = [key for key in data if key.partition("/")[0] in _MINE]
    yield "keys", partial(no_unknown, mine, *_CHECKS, "jitter/input", "group/train[0-9]+_(box|first_last)")
    for key in mine:
        if key in _CHECKS:
            yield key, partial(_CHECKS[key], data, key)
        elif key.startswith("group/train") and key.endswith("_box"):
            yield key, partial(_group_train, data, key.removesuffix("_box"))


class StabnRng(AuthorsRng):
    """For the colours: normals and the first three uniforms come from NumPy, the hue and what is per frame from Python."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, "normal")
        self.from_numpy = 3

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        self.from_numpy -= 1
        return self.numpy.uniform(low, high, size) if self.from_numpy >= 0 else self.python.uniform(low, high)


def _seeds(data: Arrays) -> range:
    return range(int(data["seed0"]), int(data["seed0"]) + int(data["nseed"]))


def _random_resized(data: Arrays, key: str) -> None:
    for size, rows in zip(data["sizes_hw"].tolist(), data[key].tolist(), strict=True):
        for seed, row in zip(_seeds(data), rows, strict=True):
            box = stabn_crop(tuple(size), AuthorsRng(seed), _AREA, _RATIO)
            if key.endswith("clipped_xyxy"):
                left, top, right, bottom = inside(box, tuple(size)).corners
                assert [left, top, right - 1, bottom - 1] == row
            else:
                assert [box.left, box.top, box.height, box.width] == row


def _narrow(data: Arrays, key: str) -> None:
    """Four calls in a row of a range into which no part of the frame fits."""
    rng = AuthorsRng(int(data["seed0"]))
    boxes = [stabn_crop(_NARROW_SIZE, rng, _NARROW_AREA, _NARROW_RATIO) for _ in data[key]]
    assert [[box.left, box.top, box.height, box.width] for box in boxes] == data[key].tolist()


def _jitter(data: Arrays, key: str) -> None:
    clip = data["jitter/input"]
    op = ColourJitter(per_frame=True, bgr=True, colour_space={"True": True, "False": False}[key.rpartition("_")[2]])
    for seed, expected in zip(_seeds(data), data[key], strict=True):
        rng = StabnRng(seed) if op.colour_space else AuthorsRng(seed, "normal")
        drawn = draw(Recipe((op,)), rng, ClipShape(*clip.shape[:3]))
        (step,) = drawn.steps
        assert isinstance(step, steps.ColourMatrix)
        # 1e-3 of a level, as the README says: the authors' code rounds to float32 after every one of up to four steps.
        close(f"seed {seed}", jittered(clip, step), expected, 1e-3, 1.0)


def _frames() -> np.ndarray:
    """uint8 (T, H, W, 3), the README's synthetic frames in BGR."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    t, c = np.arange(_FRAMES)[:, None, None, None], np.arange(3)
    y, x = y[None, ..., None], x[None, ..., None]
    return ((3 * x + 5 * y + 17 * t + 29 * c + (x * y) // 7 + (x * (c + 1)) // 3) % 256).astype(np.uint8)


def _normalised(frames: np.ndarray) -> np.ndarray:
    """float (T, 3, H, W) in RGB."""
    return ((frames[..., ::-1].astype(np.float64) - _MEAN) / _STD).transpose(0, 3, 1, 2)


def _group_train(data: Arrays, key: str) -> None:
    """A random resized crop, mirrored for odd seeds, then the colours; the first and the last frame."""
    number = int(key.removeprefix("group/train"))
    seed, clip = int(data["seed0"]) + number, _frames()
    rng, shape = StabnRng(seed), ClipShape(*clip.shape[:3])
    rng.from_numpy = 0
    box = stabn_crop(shape.size, AuthorsRng(seed), _AREA, _RATIO)
    corners = [box.left, box.top, box.left + box.width - 1, box.top + box.height - 1]
    assert corners == data[f"{key}_box"].tolist()
    drawn = draw(Recipe((RandomResizedCrop(_CROP, _CROP, rule="stabn"),)), rng, shape)
    rng.from_numpy = 3
    parts = Drawn(shape, (*drawn.steps, *([steps.Flip()] if number % 2 else [])), drawn.size)
    part = run_fast(clip, parts, fuse=False)
    (step,) = draw(Recipe((ColourJitter(per_frame=True, bgr=True),)), rng, ClipShape(*part.shape[:3])).steps
    assert isinstance(step, steps.ColourMatrix)
    found = _normalised(jittered(part, step))[[0, -1]]
    close(key, found, data[f"{key}_first_last"], 1e-4, 1.0)


def _scaled() -> tuple[np.ndarray, ClipShape]:
    clip = _frames()
    drawn = draw(Recipe((ShortSide(_SHORT),)), AuthorsRng(0), ClipShape(*clip.shape[:3]))
    return run_fast(clip, drawn), ClipShape(len(clip), *drawn.size)


def _group_val(data: Arrays, key: str) -> None:
    scaled, shape = _scaled()
    drawn = draw(Recipe((CentreCrop(_CROP, _CROP),)), AuthorsRng(0), shape)
    (crop,) = drawn.steps
    assert isinstance(crop, steps.Crop)
    if "group/val_quad" in data:
        assert [crop.left, crop.top, crop.width, crop.height] == data["group/val_quad"].tolist()
    close(key, _normalised(run_fast(scaled, drawn)), data["group/val"], 1e-4, 1.0)


def _scale_factor(data: Arrays, key: str) -> None:
    assert float(data[key]) == pytest.approx(_SHORT / min(_HEIGHT, _WIDTH), rel=1e-12)


def _group_three(data: Arrays, key: str) -> None:
    scaled, shape = _scaled()
    crops = [cut(box) for box in three_crops(*shape.size, _SHORT, _SHORT)]
    views = [run_fast(scaled, Drawn(shape, (crop,), (_SHORT, _SHORT))) for crop in crops]
    found = _normalised(np.concatenate(views))
    assert list(found.shape) == data["group/three_shape"].tolist()
    close(key, found.mean((1, 2, 3)), data["group/three_mean_per_image"], 1e-4, 1.0)


_CHECKS: Mapping[str, Callable[[Arrays, str], None]] = MappingProxyType(
    {
        "rrc/ijhw": _random_resized,
        "rrc/clipped_xyxy": _random_resized,
        "rrc/narrow": _narrow,
        "jitter/space_aug_True": _jitter,
        "jitter/space_aug_False": _jitter,
        "group/val": _group_val,
        "group/val_quad": _group_val,
        "group/val_scale_factor": _scale_factor,
        "group/three_shape": _group_three,
        "group/three_mean_per_image": _group_three,
    }
)

CHECKERS = MappingProxyType({"transforms": _transforms})
