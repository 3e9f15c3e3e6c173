"""The pixels of DALI against those of the CPU engine, and what DALI is asked for, on paper.

Why they differ, and by how much at most (of 255 grey levels):

- Exact specs (evaluation): the decoders agree to the bit, as both are libjpeg-turbo with the accurate transform and smooth
  chroma. Linear interpolation is fixed point in OpenCV and floating point in DALI, whose roundings differ by 1. A frame that
  shrinks to less than half is averaged over an area by OpenCV; DALI has no such filter, and its Gaussian is the nearest.
- Training specs: the CPU engine takes the cheap way of widening chroma (every colour sample four times), which DALI's
  decoder on the CPU does not have. At sharp edges of colour, such as the ones of these synthetic videos, that is much for a
  pixel and little on average. And where the CPU engine lets its decoder halve a frame, DALI decodes it in full.
"""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
import torch

from ingest.stores import frames_db
from ingest.stores.frames_db import Level
from loaders import pictures
from loaders.clips import ClipPlan, ClipSpec
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import evaluation_spec, training_spec

pytest.importorskip("nvidia.dali", reason="needs the extra: pip install 'clipmill[dali]'")

from loaders.dali_pipeline import Cuts, Decoder, cuts_of


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def differences(make_loader: MakeLoader, spec: ClipSpec) -> np.ndarray:
    """|CPU - DALI| of all clips of an epoch, (N, T, H, W, 3)."""
    found = []
    cpu, dali = (make_loader(spec, batch_size=6, drop_last=False, backend=backend) for backend in ("cpu", "dali"))
    for one, other in zip(cpu, dali, strict=True):
        found.append((one.frames.int() - other.frames).abs().numpy())
    return np.concatenate(found)


SAME_PIXELS = [
    evaluation_spec(height=64, width=64, short_side=(72, 72)),
    training_spec(exact_resolution=True, height=64, width=64, short_side=(72, 72), flip=1.0),
]
ROUNDED = [
    evaluation_spec(),
    evaluation_spec(height=32, width=32, short_side=(100, 100)),
    training_spec(exact_resolution=True, short_side=(36, 90), flip=0.5),
]
AVERAGED = [
    evaluation_spec(height=24, width=24, short_side=(35, 35)),
    evaluation_spec(height=16, width=16, short_side=(18, 18)),
    training_spec(exact_resolution=True, height=8, width=8, short_side=(9, 20), flip=0.5),
]


def named(spec: ClipSpec) -> str:
    return f"{spec.height}-{spec.short_side}-{'training' if spec.views is None else 'views'}"


@pytest.mark.parametrize("spec", SAME_PIXELS, ids=named)
def test_exact_clips_of_stored_size_are_the_same(make_loader: MakeLoader, spec: ClipSpec) -> None:
    assert differences(make_loader, spec).max() == 0


@pytest.mark.parametrize("spec", ROUNDED, ids=named)
def test_exact_clips_differ_by_a_rounding(make_loader: MakeLoader, spec: ClipSpec) -> None:
    found = differences(make_loader, spec)
    assert found.max() <= 1 and found.mean() < 0.25


@pytest.mark.parametrize("spec", AVERAGED, ids=named)
def test_exact_clips_that_shrink_to_less_than_half_differ_by_the_filter(make_loader: MakeLoader, spec: ClipSpec):
    found = differences(make_loader, spec)
    assert found.mean() < 3 and found.max() <= 60


FAST = [
    training_spec(short_side=(36, 36)),  # the small level as it is
    training_spec(short_side=(32, 36)),  # the small level, made smaller
    training_spec(short_side=(40, 71)),  # the large level, made smaller
    training_spec(height=64, width=64, short_side=(72, 72)),  # the large level as it is
    training_spec(height=64, width=64, short_side=(73, 100)),  # the large level, enlarged
]
HALVED = training_spec(height=12, width=12, short_side=(12, 17))  # the small level, halved by the CPU engine's decoder


@pytest.mark.parametrize("spec", [*FAST, HALVED], ids=named)
def test_training_clips_differ_little_on_average(make_loader: MakeLoader, spec: ClipSpec) -> None:
    found = differences(make_loader, spec)
    assert found.mean() < 6
    assert np.median(found) <= 3


@pytest.mark.parametrize("spec", FAST, ids=named)
def test_but_for_the_chroma_training_clips_too_differ_by_a_rounding(
    make_loader: MakeLoader, spec: ClipSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU engine is made to widen chroma smoothly, as DALI does: what is left is the interpolation's rounding."""
    # Parts have the pixels of the whole (test_jpeg_parts.py), but are always widened fast.
    monkeypatch.setattr(pictures, "PARTS", False)
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda *args, **given: decode(*args, **given | {"fastupsample": False})
    )
    found = differences(make_loader, spec)
    assert found.max() <= 1


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("short_side", [17, 36, 40, 72])
def test_a_mirrored_clip_is_the_mirror_image(make_loader: MakeLoader, exact: bool, short_side: int) -> None:
    options = {"short_side": (short_side, short_side), "exact_resolution": exact, "height": 16, "width": 16}
    plain, mirrored = (
        next(iter(make_loader(training_spec(flip=flip, **options), batch_size=13, backend="dali"))).frames
        for flip in (0.0, 1.0)
    )
    assert (plain.flip(3).int() - mirrored).abs().max() <= (0 if short_side in (36, 72) else 1)


@pytest.mark.parametrize("spec", [training_spec(), evaluation_spec()], ids=["training", "evaluation"])
def test_bgr_is_the_reverse_of_rgb(make_loader: MakeLoader, spec: ClipSpec) -> None:
    rgb = next(iter(make_loader(spec, backend="dali"))).frames
    changed = ClipSpec(**{name: getattr(spec, name) for name in spec.__dataclass_fields__} | {"colour": "BGR"})
    assert torch.equal(rgb.flip(4), next(iter(make_loader(changed, backend="dali"))).frames)


# On paper


def plan(scaled: tuple[int, int], offset: tuple[int, int], *, mirror: bool = False) -> ClipPlan:
    return ClipPlan(0, 0, np.array([3, 4]), Level(72, 96, 72, "Images"), scaled, offset, mirror)


def rows(cuts: Cuts) -> dict[str, list]:
    """Of the first frame; all frames of these clips are of one size."""
    return {name: getattr(cuts, name)[0].tolist() for name in cuts.__dataclass_fields__}


SIZES = np.array([(72, 96)] * 2)


def test_a_frame_of_the_right_size_is_cut_and_not_resized() -> None:
    for exact in (False, True):
        cuts = cuts_of(training_spec(exact_resolution=exact), plan((72, 96), (5, 7), mirror=True), SIZES)
        assert len(cuts.start) == 2
        found = rows(cuts)
        assert (found["start"], found["shape"], found["size"]) == ([5, 7], [32, 32], [32, 32])
        assert (found["mirror"], found["resized"], found["averaged"]) == (1, False, False)


def test_a_training_frame_is_cut_at_whole_pixels_and_then_scaled() -> None:
    found = rows(cuts_of(training_spec(), plan((48, 64), (1, 3)), SIZES))  # times 1.5: 1.5 to 49.5, 4.5 to 52.5
    assert (found["start"], found["shape"]) == ([2, 4], [48, 48])  # halves to the even, as Python rounds
    assert (found["roi_start"], found["roi_end"]) == ([0, 0], [48, 48])
    assert (found["resized"], found["averaged"]) == (True, False)


def test_an_exact_frame_is_scaled_to_the_fraction_and_sees_beyond_the_cut() -> None:
    found = rows(cuts_of(evaluation_spec(), plan((48, 64), (5, 3)), SIZES))  # 7.5 to 55.5, 4.5 to 52.5; 4 more pixels
    assert found["start"] == [3, 0]
    assert found["shape"] == [60 - 3, 57]
    assert (found["roi_start"], found["roi_end"]) == ([4.5, 4.5], [52.5, 52.5])


def test_the_box_stays_within_the_frame_and_a_region_holds_a_pixel() -> None:
    found = rows(cuts_of(evaluation_spec(), plan((36, 48), (4, 16)), SIZES))
    assert found["start"] == [3, 27] and found["shape"] == [72 - 3, 96 - 27]
    tiny = rows(cuts_of(training_spec(height=1, width=1), plan((720, 960), (3, 5)), SIZES))
    assert tiny["shape"] == [1, 1] and tiny["roi_end"] == [1, 1]


def test_a_mirrored_region_runs_backwards() -> None:
    found = rows(cuts_of(training_spec(), plan((48, 64), (1, 3), mirror=True), SIZES))
    assert (found["roi_start"], found["roi_end"]) == ([0, 48], [48, 0])


def test_less_than_half_is_averaged_and_half_is_not() -> None:
    for scaled, averaged in (((36, 48), False), ((35, 47), True)):
        assert rows(cuts_of(evaluation_spec(), plan(scaled, (0, 0)), SIZES))["averaged"] is averaged


def test_frames_of_other_sizes_have_rows_of_their_own() -> None:
    cuts = cuts_of(training_spec(), plan((72, 96), (0, 0)), np.array([(72, 96), (144, 192)]))
    assert cuts.resized.tolist() == [False, True]
    assert cuts.shape.tolist() == [[32, 32], [64, 64]]


def test_joined_cuts_come_apart_again() -> None:
    one, other = (cuts_of(training_spec(), plan((48, 64), (top, 0)), SIZES) for top in (0, 8))
    joined = Cuts.joined([one, other])
    assert len(joined.start) == 4
    assert rows(joined[2:4]) == rows(other)


def test_a_run_takes_so_many_frames_or_so_many_pixels_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    small = cuts_of(training_spec(), plan((72, 96), (0, 0)), np.array([(72, 96)] * 7))  # 32 x 32 px each
    large = cuts_of(training_spec(), plan((72, 96), (0, 0)), np.array([(288, 384)] * 2))  # 128 x 128 px each
    for most, expected in (
        ((3, 10**6), [(0, 3), (3, 6), (6, 9)]),
        ((100, 2 * 1024), [(0, 2), (2, 4), (4, 6), (6, 7), (7, 8), (8, 9)]),
        ((100, 3 * 1024 - 1), [(0, 2), (2, 4), (4, 6), (6, 7), (7, 8), (8, 9)]),
        ((100, 10**6), [(0, 9)]),
    ):
        monkeypatch.setattr("loaders.dali_pipeline._MOST_ON_CPU", most)
        decoder = Decoder(torch.device("cpu"), 1, exact=False, bgr=False)
        assert [(part.start, part.stop) for part in decoder.parts(Cuts.joined([small, large]))] == expected
        assert not list(decoder.parts(small[:0]))


@pytest.mark.parametrize("spec", [training_spec(), evaluation_spec()], ids=["training", "evaluation"])
def test_frames_decoded_whole_as_on_a_gpu_are_the_same_frames(make_loader: MakeLoader, spec: ClipSpec) -> None:
    """A GPU's graph, run on the CPU: it may differ at the border of training clips, where it sees beyond the cut."""
    dataset = make_loader(spec).dataset
    db = frames_db.connect(dataset.path(0))
    pictures = frames_db.read_frames(db, dataset.levels(0)[0], np.array([3, 4]))
    db.close()
    found = []
    for whole in (False, True):
        decoder = Decoder(torch.device("cpu"), 1, exact=spec.exact, bgr=False, whole=whole)
        out = torch.empty(6, 32, 32, 3, dtype=torch.uint8)
        plans = [plan((48, 64), (8, 16)), plan((72, 96), (40, 64), mirror=True), plan((34, 45), (1, 2), mirror=True)]
        cuts = Cuts.joined([cuts_of(spec, each, SIZES, whole=whole) for each in plans])
        decoder.run(pictures * 3, cuts, out)
        decoder.close()
        found.append(out.int())
    difference = (found[0] - found[1]).abs()
    assert difference[:, 2:-2, 2:-2].max() <= 1
    assert difference.max() <= (1 if spec.exact else 40)
