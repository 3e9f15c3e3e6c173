"""The torch executor: clips of a batch with steps of their own, on whatever device there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loaders.augment import ClipShape, Drawn, draw, recipe_by_name, run_fast, run_gpu, steps
from loaders.augment.gpu import _from_hsv, _to_hsv
from loaders.order import sample_rng
from tests.loaders.augment.pictures import clip, difference

CLIPS = np.stack([clip(3, 40, 56, seed=seed) for seed in range(6)])
SHAPE = ClipShape(3, 40, 56)


@pytest.mark.parametrize("name", ["srtg-readme", "srtg-code", "stabn", "resized-crop-and-flip"])
def test_a_clip_comes_out_the_same_in_any_batch(name: str):
    drawn = [draw(recipe_by_name(name), sample_rng(2, 0, k), SHAPE) for k in range(6)]
    clips = torch.from_numpy(CLIPS)
    together = run_gpu(clips, drawn)
    assert together.dtype == torch.uint8
    assert together.shape == (6, 3, *drawn[0].size, 3)
    for row in range(6):
        alone = run_gpu(clips[row : row + 1], drawn[row : row + 1])[0]
        # Kernels of a batch are padded to the largest: the same sums in another order.
        assert (alone.int() - together[row].int()).abs().max() <= 1
    assert np.array_equal(clips.numpy(), CLIPS)


def test_it_is_near_to_fast():
    for k in range(20):
        drawn = draw(recipe_by_name("srtg-code"), sample_rng(4, 0, k), SHAPE)
        got = run_gpu(torch.from_numpy(CLIPS[:1]), [drawn])[0].numpy()
        assert difference(got, run_fast(CLIPS[0], drawn))[0] < 1


def test_kernels_of_different_sizes_share_a_batch():
    chosen = [(steps.GaussianBlur(0.5),), (steps.MotionBlur(7, 20, 0.5),), (), (steps.AverageBlur(2),)]
    drawn = [Drawn(SHAPE, each, SHAPE.size) for each in chosen]
    out = run_gpu(torch.from_numpy(CLIPS[:4]), drawn).numpy()
    assert np.array_equal(out[2], CLIPS[2])
    for row in (0, 1, 3):
        assert difference(out[row], run_fast(CLIPS[row], drawn[row]))[1] <= 1


def test_hsv_is_that_of_opencv():
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    planes = _to_hsv(torch.from_numpy(picture).permute(2, 0, 1)[None, None])
    want = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    for plane, channel in zip(planes, range(3), strict=True):
        assert np.array_equal(plane[0, 0].numpy(), want[..., channel])
    back = _from_hsv(*planes)[0, 0].permute(1, 2, 0).numpy()
    assert np.abs(back.astype(int) - cv2.cvtColor(want, cv2.COLOR_HSV2RGB)).max() <= 1


def test_a_batch_of_nothing_to_do():
    out = run_gpu(torch.from_numpy(CLIPS), [Drawn(SHAPE, (), SHAPE.size)] * 6)
    assert np.array_equal(out.numpy(), CLIPS)


def test_what_does_not_fit_is_refused():
    clips, same = torch.from_numpy(CLIPS), Drawn(SHAPE, (), SHAPE.size)
    with pytest.raises(ValueError, match=r"6 clips came with steps for 2"):
        run_gpu(clips, [same] * 2)
    with pytest.raises(ValueError, match=r"must be uint8 \(B, T, H, W, 3\)"):
        run_gpu(clips.float(), [same] * 6)
    with pytest.raises(ValueError, match="drawn for ClipShape"):
        run_gpu(clips[:, :2], [same] * 6)
    other = Drawn(SHAPE, (steps.Resize(8, 8),), (8, 8))
    with pytest.raises(ValueError, match=r"must come out in one size; .* \[\(8, 8\), \(40, 56\)\]"):
        run_gpu(clips, [same] * 5 + [other])
    with pytest.raises(TypeError, match="picture by picture"):
        run_gpu(clips[:1], [Drawn(SHAPE, (steps.PilOps((("Invert", None),)),), SHAPE.size)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["srtg-readme", "srtg-code"])
def test_a_cuda_device_gives_what_the_cpu_gives(name: str):
    drawn = [draw(recipe_by_name(name), sample_rng(2, 0, k), SHAPE) for k in range(6)]
    here = run_gpu(torch.from_numpy(CLIPS), drawn)
    there = run_gpu(torch.from_numpy(CLIPS).cuda(), drawn)
    assert there.is_cuda
    apart = (there.cpu().int() - here.int()).abs()
    assert apart.float().mean() < 0.05
    assert apart.max() <= 16
