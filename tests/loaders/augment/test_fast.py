"""The fast executor: in place or not, and cutting out of decoded frames with one warp."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from loaders.augment import ClipShape, Drawn, FastCut, Recipe, draw, recipe_by_name, run_fast, steps
from loaders.augment import recipe as ops
from loaders.order import sample_rng
from tests.loaders.augment.pictures import clip, difference

CLIP = clip(5, 48, 64)
SHAPE = ClipShape(*CLIP.shape[:3])
NAMES = ("srtg-readme", "srtg-code", "stabn", "resized-crop-and-flip", "reskd-multi-scale", "sbp-k400")


def drawn_of(*chosen: steps.Step, size: tuple[int, int] = SHAPE.size) -> Drawn:
    return Drawn(SHAPE, chosen, size)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_in_place_into_out_and_anew_are_the_same(name: str, fuse: bool):
    for k in range(12):
        drawn, before = draw(recipe_by_name(name), sample_rng(0, 0, k), SHAPE), CLIP.copy()
        anew = run_fast(CLIP, drawn, fuse=fuse)
        assert np.array_equal(CLIP, before)
        assert anew.shape == (5, *drawn.size, 3)
        out = np.full_like(anew, 7)
        assert run_fast(CLIP, drawn, out, fuse=fuse) is out
        assert np.array_equal(out, anew)
        if drawn.size == SHAPE.size:
            assert run_fast(before, drawn, before, fuse=fuse) is before
            assert np.array_equal(before, anew)


def test_nothing_drawn_is_nothing_done():
    assert np.array_equal(run_fast(CLIP, drawn_of()), CLIP)
    assert run_fast(CLIP, drawn_of()) is not CLIP


def test_threads_give_what_one_gives():
    recipe = recipe_by_name("srtg-readme")
    drawn = [draw(recipe, sample_rng(0, 0, k), SHAPE) for k in range(60)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: run_fast(CLIP, each), drawn))
    assert all(np.array_equal(got, run_fast(CLIP, each)) for got, each in zip(together, drawn, strict=True))


def test_sizes_change_and_change_back():
    chain = (steps.Crop(4, 8, 40, 40), steps.Add((5, 5, 5)), steps.Resize(48, 64))
    out = run_fast(CLIP, drawn_of(*chain))
    want = np.stack([cv2.resize(cv2.add(f[4:44, 8:48], (5, 5, 5, 0)), (64, 48)) for f in CLIP])
    assert np.array_equal(out, want)
    work = CLIP.copy()
    assert np.array_equal(run_fast(work, drawn_of(*chain), work), want)


def test_what_turning_brings_in_is_black_after_a_crop_too():
    """The frame goes on outside the crop, but imgaug would not know."""
    white = np.full_like(CLIP, 255)
    chain = (steps.Crop(4, 8, 40, 40), steps.Rotate(45), steps.Flip())
    fused = run_fast(white, drawn_of(*chain, size=(40, 40)))
    alone = run_fast(white, drawn_of(*chain, size=(40, 40)), fuse=False)
    assert (fused[:, 0, 0] == 0).all()
    assert ((fused == 0) != (alone == 0)).mean() < 0.05


def test_colour_per_frame():
    matrices = tuple(((gain, 0, 0, 0), (0, gain, 0, 0), (0, 0, gain, 0)) for gain in (0.0, 0.25, 0.5, 0.75, 1.0))
    out = run_fast(CLIP, drawn_of(steps.ColourMatrix(matrices)))
    assert (out[0] == 0).all()
    assert np.array_equal(out[4], CLIP[4])
    assert np.abs(out[2].astype(float) - CLIP[2] / 2).max() <= 0.5


REFUSED = [
    (CLIP.astype(np.float32), None, "float32 .* must be uint8"),
    (CLIP[0], None, r"must be uint8 \(T, H, W, 3\)"),
    (CLIP[:, :40], None, r"\(5, 40, 64\) frames, height, width; .* drawn for ClipShape"),
    (CLIP[:3], None, "drawn for ClipShape"),
    (CLIP, np.empty((5, 48, 60, 3), np.uint8), r"out is uint8 \(5, 48, 60, 3\); it must be uint8 \(5, 48, 64, 3\)"),
    (CLIP, np.empty((5, 48, 64, 6), np.uint8)[..., ::2], "contiguous"),
]


@pytest.mark.parametrize(("frames", "out", "message"), REFUSED)
def test_what_does_not_fit_is_refused(frames, out, message):
    with pytest.raises(ValueError, match=message):
        run_fast(frames, drawn_of(steps.Flip()), out)


# FastCut: decoded frames of 96 x 128, scaled to 60 x 80, cut at (7, 9) to 48 x 64

DECODED = clip(5, 96, 128, seed=2)
SCALED, OFFSET = (60, 80), (7, 9)


def cut_then_augmented(drawn: Drawn, mirror: bool) -> np.ndarray:
    """Step by step: scale, crop, mirror, then the recipe."""
    parts = [cv2.resize(frame, SCALED[::-1])[7 : 7 + 48, 9 : 9 + 64] for frame in DECODED]
    if mirror:
        parts = [part[:, ::-1] for part in parts]
    return run_fast(np.ascontiguousarray(np.stack(parts)), drawn)


def by_fast_cut(drawn: Drawn, mirror: bool, decoded: np.ndarray = DECODED) -> np.ndarray:
    cutter, out = FastCut(drawn, SCALED, OFFSET, mirror), np.empty((5, *drawn.size, 3), np.uint8)
    for frame, target in zip(decoded, out, strict=True):
        cutter.cut(frame, target)
    cutter.finish(out)
    return out


@pytest.mark.parametrize("mirror", [False, True])
def test_cutting_alone_is_scale_crop_and_mirror(mirror: bool):
    """Of whole pixels of the decoded frame, as the engine cuts: (7, 9) of 60 x 80 is (11.2, 14.4) of 96 x 128."""
    part = DECODED[:, 11:88, 14:117]
    want = np.stack([cv2.resize(frame, (64, 48)) for frame in part])
    assert np.array_equal(by_fast_cut(drawn_of(), mirror), want[:, :, ::-1] if mirror else want)


def test_turning_by_nothing_is_scale_crop_and_mirror_to_the_part_of_a_pixel():
    drawn = drawn_of(steps.Rotate(0))
    mean, largest = difference(by_fast_cut(drawn, False), cut_then_augmented(drawn, False))
    assert mean < 0.6  # places in 32nds of a pixel
    assert largest <= 10


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_one_warp_is_nearly_the_chain_and_not_moved(seed: int, mirror: bool):
    recipe = Recipe((ops.Add(ops.Uniform(-5, 15)), ops.Rotate(ops.Uniform(-10, 10)), ops.Flip(0.5)))
    drawn = draw(recipe, sample_rng(0, 0, seed), SHAPE)
    got, want = by_fast_cut(drawn, mirror), cut_then_augmented(drawn, mirror)
    errors = {}
    for dy, dx in [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]:
        moved = np.roll(want, (dy, dx), axis=(1, 2))
        errors[dy, dx] = difference(got[:, 8:-8, 8:-8], moved[:, 8:-8, 8:-8])[0]
    assert min(errors, key=errors.__getitem__) == (0, 0), errors
    black = (want == 0).all(-1)
    assert ((got == 0).all(-1) != black).mean() < 0.03


def test_frames_that_the_decoder_has_scaled_give_the_same_cut():
    half = np.stack([cv2.resize(frame, (64, 48), interpolation=cv2.INTER_AREA) for frame in DECODED])
    big = np.stack([cv2.resize(frame, (512, 384), interpolation=cv2.INTER_LINEAR) for frame in DECODED])
    # Without turning the edges of the cut are whole pixels of what was decoded: half a pixel off, on half the pixels.
    for drawn, bound in ((drawn_of(steps.Rotate(8)), 6), (drawn_of(), 12)):
        want = by_fast_cut(drawn, False)
        assert difference(by_fast_cut(drawn, False, half), want)[0] < bound
        assert difference(by_fast_cut(drawn, False, big), want)[0] < bound
