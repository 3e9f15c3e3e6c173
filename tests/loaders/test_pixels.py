"""The pixels of a clip against the stored frames, decoded, scaled and cut independently."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from loaders import ClipBatch, ClipLoader, ClipSpec
from loaders.clips import ClipPlan, plan_clip
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import evaluation_spec, stored_frame, training_spec


def plans(loader: ClipLoader, batch: ClipBatch) -> list[ClipPlan]:
    """What the loader meant to do for each clip of the batch."""
    dataset, made = loader.dataset, []
    for row, (video, view) in enumerate(zip(batch.videos.tolist(), batch.view.tolist(), strict=True)):
        item, k = video * loader.spec.num_views + view, batch.position + row
        frames, levels = int(dataset.num_frames[video]), dataset.levels(video)
        made.append(plan_clip(loader.spec, item, frames, levels, seed=loader.seed, epoch=batch.epoch, k=k))
    return made


def expected(loader: ClipLoader, plan: ClipPlan, frame: int, *, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """The crop as its plan says, from the largest level, by way of a whole scaled frame of float."""
    image = stored_frame(loader.dataset, plan.video, frame).astype(np.float32)
    height, width = plan.scaled
    shrinks = image.shape[0] > 2 * height
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scaled = np.roll(scaled, shift, axis=(0, 1))
    top, left = plan.offset
    part = scaled[top : top + loader.spec.height, left : left + loader.spec.width]
    return part[:, ::-1] if plan.mirror else part


def compare(loader: ClipLoader, num_batches: int = 3) -> list[tuple[ClipPlan, int, np.ndarray, np.ndarray]]:
    """(plan, frame number, pixels in the batch, what they should be) of every clip's first and last frame."""
    pairs = []
    for batch, _ in zip(loader, range(num_batches), strict=False):
        for plan, clip in zip(plans(loader, batch), batch.frames.numpy().copy(), strict=True):
            for t in (0, -1):
                frame = int(plan.frames[t])
                pairs.append((plan, frame, clip[t].astype(np.float32), expected(loader, plan, frame)))
    return pairs


EXACT = [
    evaluation_spec(),
    evaluation_spec(height=64, width=64, short_side=(72, 72)),
    evaluation_spec(height=32, width=32, short_side=(100, 100)),
    training_spec(exact_resolution=True),
    training_spec(exact_resolution=True, short_side=(72, 72), flip=1.0),
    training_spec(exact_resolution=True, short_side=(50, 90), flip=1.0),
]


@pytest.mark.parametrize("spec", EXACT, ids=lambda spec: f"{spec.views}-{spec.short_side}-{spec.flip}")
def test_exact_clips_equal_an_independent_decode_scale_and_crop(make_loader: MakeLoader, spec: ClipSpec):
    for _, _, got, want in compare(make_loader(spec)):
        assert np.abs(got - want).max() <= 2


FAST = [
    training_spec(short_side=(36, 36)),  # the small level as it is
    training_spec(short_side=(32, 36)),  # the small level, made smaller
    training_spec(short_side=(37, 71)),  # the large level, made smaller
    training_spec(height=64, width=64, short_side=(72, 72)),  # the large level as it is
    training_spec(height=64, width=64, short_side=(72, 100)),  # the large level, enlarged
    training_spec(height=16, width=16, short_side=(16, 18)),  # the small level, halved by the decoder
]


@pytest.mark.parametrize("spec", FAST, ids=lambda spec: f"{spec.height}-{spec.short_side}")
def test_fast_clips_are_close_to_the_exact_ones_and_not_shifted(make_loader: MakeLoader, spec: ClipSpec):
    loader = make_loader(spec, seed=3)
    pairs = compare(loader)
    assert np.mean([np.abs(got - want).mean() for _, _, got, want in pairs]) < 8
    errors = {}
    for shift in [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
        moved = [expected(loader, plan, frame, shift=shift) for plan, frame, _, _ in pairs]
        errors[shift] = np.mean(
            [np.abs(got - m)[1:-1, 1:-1].mean() for (_, _, got, _), m in zip(pairs, moved, strict=True)]
        )
    assert min(errors, key=errors.__getitem__) == (0, 0), errors


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("short_side", [36, 40, 72])
def test_a_mirrored_clip_is_the_mirror_image(make_loader: MakeLoader, exact, short_side):
    options = {"short_side": (short_side, short_side), "exact_resolution": exact}
    plain, mirrored = (
        next(iter(make_loader(training_spec(flip=flip, **options), batch_size=13))).frames for flip in (0.0, 1.0)
    )
    assert torch.equal(plain.flip(3), mirrored)


@pytest.mark.parametrize("spec", [training_spec(), evaluation_spec()], ids=["training", "evaluation"])
def test_bgr_is_the_reverse_of_rgb(make_loader: MakeLoader, spec: ClipSpec):
    rgb = next(iter(make_loader(spec))).frames
    bgr_spec = ClipSpec(**{name: getattr(spec, name) for name in spec.__dataclass_fields__} | {"colour": "BGR"})
    assert torch.equal(rgb.flip(4), next(iter(make_loader(bgr_spec))).frames)
