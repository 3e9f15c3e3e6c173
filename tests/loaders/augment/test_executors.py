"""`fast` and `gpu` against imgaug itself: operation by operation, then whole recipes. Bounds in grey levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

from loaders.augment import ClipShape, Drawn, draw, recipe_by_name, run_fast, run_gpu, run_imgaug, steps
from loaders.order import sample_rng
from tests.loaders.augment.pictures import clip, difference

pytestmark = pytest.mark.skipif(
    find_spec("imgaug") is None, reason="the reference executor needs the extra: pip install 'clipmill[imgaug]'"
)

CLIP = clip(frames=4, height=112, width=112)
SMALL = clip(frames=3, height=37, width=61, seed=1)  # sides that are no multiple of anything
SHAPES = [CLIP, SMALL]


@dataclass(frozen=True)
class Bound:
    """The largest mean and the largest single difference that an operation may have."""

    mean: float
    largest: int


EXACT = Bound(0, 0)
# The result lies between two levels, and the last bit of a float says which.
ROUNDED = Bound(0.1, 1)
# Pillow rounds the grey before it mixes; a matrix rounds once, at the end. A tenth to a half of the values is a level off.
GREY_ROUNDED_FIRST = Bound(0.5, 1)
# OpenCV averages bytes by its own rounding; half of the sums of an even number of pixels lie in the middle.
HALVES = Bound(0.5, 1)
# OpenCV truncates on the way back from HSV but rounds the last pixels of a row, fewer than its vectors are wide: a third of
# those are a level off where rows end elsewhere, as they do when the clip is one row.
ROW_ENDS = Bound(0.3, 1)
# Places are whole 32nds of a pixel in `fast`, so up to 1/64 px off on both axes: 2 x 255/64 levels at the sharpest edge.
FIXED_POINT = Bound(0.25, 9)
# imgaug interpolates twice (cut out, then enlarge by area), which moves a hard edge by up to half a pixel.
# See test_perspective_differs_only_in_sharpness for what is left without the edges.
TWICE = Bound(5, 255)

OPERATIONS: dict[str, tuple[Bound, Bound, list[steps.Step]]] = {  # fast, gpu
    "Add": (EXACT, EXACT, [steps.Add((-5, 3.4, 15)), steps.Add((7, 0, -2.5)), steps.Add((14.6, -200, 200))]),
    "Multiply": (EXACT, EXACT, [steps.Multiply((0.8, 0.8, 0.8)), steps.Multiply((1.2, 0.93, 0))]),
    "Gamma": (EXACT, EXACT, [steps.Gamma((0.85, 1, 1.15)), steps.Gamma((1.07, 0.9, 2))]),
    "LinearContrast": (
        EXACT,
        EXACT,
        [steps.LinearContrast(alphas) for alphas in ((0.85, 0.85, 0.85), (1.115, 1.115, 1.115), (2, 0, 1))],
    ),
    "EnhanceColor": (
        GREY_ROUNDED_FIRST,
        GREY_ROUNDED_FIRST,
        [steps.EnhanceColor(factor) for factor in (0, 0.5, 1, 1.2, 1.6, 3)],
    ),
    "HueSaturation": (
        ROW_ENDS,
        ROW_ENDS,
        [
            steps.HueSaturation(hue, saturation)
            for hue, saturation in ((-16, 16), (16, -16), (0, 7), (7, 0), (15, -9), (255, -255), (-255, 255), (-99, 99))
        ],
    ),
    "GaussianBlur": (EXACT, ROUNDED, [steps.GaussianBlur(sigma) for sigma in (0.1, 0.2, 0.3, 0.8, 2.5)]),
    "AverageBlur": (EXACT, HALVES, [steps.AverageBlur(k) for k in (1, 2, 3, 4, 7)]),
    "MotionBlur": (
        ROUNDED,
        ROUNDED,
        [
            steps.MotionBlur(k, angle, direction)
            for k, angle, direction in ((3, 0, 0), (5, 45, 1), (7, 100, -0.3), (7, 359, 0.9), (4, 10, 0))
        ],
    ),
    "Noise": (EXACT, EXACT, [steps.Noise(7.65, 3), steps.Noise(76.5, 4)]),
    "Rotate": (FIXED_POINT, ROUNDED, [steps.Rotate(angle) for angle in (-10, 3.5, 10, 90, 180)]),
    "Perspective": (
        TWICE,
        TWICE,
        [
            steps.Perspective(((0.02, 0.03), (0.01, 0.04), (0.05, 0.0), (0.03, 0.02))),
            steps.Perspective(((0.1, 0.05), (-0.02, 0.01), (0.03, 0.07), (0.0, 0.02))),
        ],
    ),
    "Flip": (EXACT, EXACT, [steps.Flip()]),
}


def drawn_for(frames: np.ndarray, *chosen: steps.Step) -> Drawn:
    return Drawn(ClipShape(*frames.shape[:3]), chosen, frames.shape[1:3])


def on_torch(frames: np.ndarray, drawn: Drawn) -> np.ndarray:
    return run_gpu(torch.from_numpy(frames)[None], [drawn])[0].numpy()


@pytest.mark.parametrize("frames", SHAPES, ids=["112x112", "37x61"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_imgaug_does(name: str, frames: np.ndarray):
    fast, gpu, chosen = OPERATIONS[name]
    for step in chosen:
        drawn = drawn_for(frames, step)
        want = run_imgaug(frames, drawn)
        for run, bound in ((run_fast, fast), (on_torch, gpu)):
            mean, largest = difference(run(frames, drawn), want)
            assert mean <= bound.mean, f"{run.__name__}: {step}"
            assert largest <= bound.largest, f"{run.__name__}: {step}"


@pytest.mark.parametrize("frames", SHAPES, ids=["112x112", "37x61"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_unfused_is_imgaug_to_the_level_but_for_the_last_rounding(name: str, frames: np.ndarray):
    """Turned pictures are those of imgaug under OpenCV 4, exactly (tests/golden); this one's OpenCV 5 places more finely."""
    bounds = {"EnhanceColor": GREY_ROUNDED_FIRST, "Rotate": FIXED_POINT, "Perspective": FIXED_POINT}
    bound = bounds.get(name, Bound(0.01, 1))
    for step in OPERATIONS[name][2]:
        drawn = drawn_for(frames, step)
        mean, largest = difference(run_fast(frames, drawn, fuse=False), run_imgaug(frames, drawn))
        assert mean <= bound.mean, step
        assert largest <= bound.largest, step


@pytest.mark.parametrize("run", [run_fast, on_torch], ids=["fast", "gpu"])
def test_perspective_differs_only_in_sharpness(run: Callable[[np.ndarray, Drawn], np.ndarray]):
    """On a picture without hard edges both are the same to a few levels; a picture moved by half a pixel is not."""
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in CLIP])
    for step in OPERATIONS["Perspective"][2]:
        drawn = drawn_for(smooth, step)
        want = run_imgaug(smooth, drawn)
        mean, largest = difference(run(smooth, drawn), want)
        assert mean <= 0.75
        assert largest <= 12
        moved = np.stack([cv2.warpAffine(frame, np.float32([[1, 0, 0.5], [0, 1, 0]]), (112, 112)) for frame in want])
        assert difference(moved, want)[0] > 1.5 * mean


@pytest.mark.parametrize(("name", "mean_of_all"), [("srtg-readme", 0.6), ("srtg-code", 0.6)])
@pytest.mark.parametrize("run", [run_fast, on_torch], ids=["fast", "gpu"])
def test_whole_recipes(name: str, mean_of_all: float, run: Callable[[np.ndarray, Drawn], np.ndarray]):
    """Without perspective every value is near; with it, the mean is."""
    recipe, means = recipe_by_name(name), []
    for k in range(60):
        drawn = draw(recipe, sample_rng(3, 0, k), ClipShape(*CLIP.shape[:3]))
        kinds = [type(step) for step in drawn.steps]
        mean, largest = difference(run(CLIP, drawn), run_imgaug(CLIP, drawn))
        means.append(mean)
        if steps.Perspective in kinds:
            assert mean <= 4
            continue
        # A level that one step is off grows with later ones: hue is in whole 2 degrees (255 / 30 levels), colour times 1.6.
        assert mean <= 1.5, drawn
        assert largest <= 16, drawn
    assert np.mean(means) <= mean_of_all


def test_frames_of_a_clip_are_treated_alike():
    still = np.repeat(CLIP[:1], 5, axis=0)
    for name in ("srtg-readme", "srtg-code", "stabn"):
        for k in range(10):
            drawn = draw(recipe_by_name(name), sample_rng(0, 0, k), ClipShape(*still.shape[:3]))
            for run in (run_fast, on_torch):
                out = run(still, drawn)
                assert all(np.array_equal(frame, out[0]) for frame in out[1:])
