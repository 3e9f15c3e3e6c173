"""Planes in C, plain and for each kind of processor: the exact mean of an area to the last rounding, and the RGB of OpenCV."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from ingest import scaling
from ingest.scaling import Scaler, to_rgb
from tests._compiled import assert_built_where_it_can_be
from tests.ingest.test_scaling import first_frame, textured
from tests.ingest.videos import make_video

needs_build = pytest.mark.skipif(not scaling.COMPILED, reason="installed without a compiler")
if scaling.COMPILED:
    from ingest._planes import BEST, rgb, scale, stretch, taps
else:
    BEST = 0

every_build = pytest.mark.parametrize(
    "build",
    [pytest.param(i, id=name, marks=pytest.mark.skipif(i > BEST, reason=f"needs a processor with {name}"))
     for i, name in enumerate(("plain", "AVX2", "AVX-512"))],
)  # fmt: skip

UNIT, SUM_DOWN = 1 << 14, 0xFFFF
SIZES = [
    ((340, 256), (212, 160)), ((340, 256), (148, 112)), ((340, 256), (340, 256)), ((341, 255), (114, 85)),
    ((48, 48), (16, 16)), ((17, 9), (16, 3)), ((3, 3), (1, 1)), ((1, 1), (1, 1)), ((7, 100), (7, 34)), ((4096, 5), (1366, 5)),
]  # fmt: skip


def test_it_is_built_where_it_can_be() -> None:
    """Else everything below would be skipped without a word."""
    assert_built_where_it_can_be(Path(scaling.__file__).with_name("_planes.c"), scaling.COMPILED)


def mean_of_area(source: int, target: int) -> np.ndarray:
    """(target, source) weights: how much of each source pixel lies in each target pixel."""
    edges = np.arange(target + 1) * source / target
    at = np.arange(source)
    covered = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    return np.clip(covered, 0, None) * target / source


def shrunk(
    build: int, plane: np.ndarray, size: tuple[int, int], factor: float = 1.0, offset: float = 0.0, gap: int = 0
) -> np.ndarray:
    height, width = plane.shape
    if gap:
        plane = np.pad(plane, ((0, 0), (0, gap)), constant_values=255)[:, :width]
    across = taps(width, size[0], round(UNIT * factor), size[0])
    down = taps(height, size[1], SUM_DOWN, size[1])
    out = np.full((size[1], size[0] + gap), 77, np.uint8)
    scale(plane, across, down, offset, out[:, : size[0]], build)
    assert (out[:, size[0] :] == 77).all()
    return out[:, : size[0]]


@needs_build
@pytest.mark.parametrize("gap", [0, 13])
@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (255 / 219, -16 * 255 / 219)])
@pytest.mark.parametrize(("source", "target"), SIZES, ids=str)
@every_build
def test_every_pixel_is_the_mean_of_what_it_covers(build, source, target, factor, offset, gap) -> None:
    plane = np.random.default_rng(0).integers(0, 256, source[::-1], np.uint8)
    true = mean_of_area(source[1], target[1]) @ plane @ mean_of_area(source[0], target[0]).T
    off = shrunk(build, plane, target, factor, offset, gap) - np.clip(factor * true + offset, 0, 255)
    assert np.abs(off).max() < 0.53  # 0.5 is rounding
    assert abs(off.mean()) < 0.06 or off.size < 500


@needs_build
@pytest.mark.parametrize("value", [0, 1, 127, 128, 254, 255])
@pytest.mark.parametrize(("source", "target"), SIZES, ids=str)
@every_build
def test_a_flat_plane_stays_as_it_is(build, source, target, value) -> None:
    assert (shrunk(build, np.full(source[::-1], value, np.uint8), target) == value).all()


@needs_build
@pytest.mark.parametrize(("source", "target"), [(10, 11), (31, 10), (10, 0), (0, 0)])
def test_enlarging_and_more_than_a_third_are_refused(source: int, target: int) -> None:
    with pytest.raises(ValueError, match="a third"):
        taps(source, target, UNIT, target)


@needs_build
@pytest.mark.parametrize(("source", "target"), SIZES, ids=str)
def test_every_build_gives_the_same(source, target) -> None:
    plane = np.random.default_rng(1).integers(0, 256, source[::-1], np.uint8)
    results = [shrunk(each, plane, target, 255 / 224, 128 - 128 * 255 / 224) for each in range(BEST + 1)]
    assert all((result == results[0]).all() for result in results)


@needs_build
@every_build
def test_pixels_beyond_the_target_are_as_the_last_one(build) -> None:
    plane = np.random.default_rng(2).integers(0, 256, (255, 341), np.uint8)
    out = np.empty((112, 150), np.uint8)
    scale(plane, taps(341, 149, UNIT, 150), taps(255, 111, SUM_DOWN, 112), 0.0, out, build)
    assert (out[:111, :149] == shrunk(build, plane, (149, 111))).all()
    assert (out[:, 149] == out[:, 148]).all()
    assert (out[111] == out[110]).all()


@needs_build
@every_build
def test_nothing_is_read_behind_the_last_row(build) -> None:
    """The picture ends where its memory ends: behind it is a page that may not be read."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    behind = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + page
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(behind), page, 0) == 0
    for width in (33, 40, 63, 64, 65):
        height = page // width
        plane = np.frombuffer(memory, np.uint8, height * width, page - height * width).reshape(height, width)
        plane[:] = np.random.default_rng(width).integers(0, 256, plane.shape, np.uint8)
        half = (width // 2, height // 2)
        assert (shrunk(build, plane, half) == shrunk(build, plane.copy(), half)).all()


@needs_build
@pytest.mark.parametrize("build", [-1, BEST + 1, 99])
def test_a_build_that_is_not_there_is_refused(build) -> None:
    plane = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match=f"builds here are 0 to {BEST}"):
        shrunk(build, plane, (2, 2))


@needs_build
@every_build
def test_what_does_not_fit_is_refused(build) -> None:
    plane, out = np.zeros((10, 10), np.uint8), np.zeros((5, 5), np.uint8)
    good = (plane, taps(10, 5, UNIT, 5), taps(10, 5, SUM_DOWN, 5), 0.0, out)
    scale(*good, build)
    for place, wrong in (
        (0, np.zeros((10, 9), np.uint8)), (0, np.zeros((11, 10), np.uint8)), (1, taps(12, 5, UNIT, 5)), (1, taps(10, 4, UNIT, 4)),
        (2, taps(10, 5, UNIT, 5)), (2, taps(11, 5, SUM_DOWN, 5)), (3, 1e9), (3, float("nan")), (4, np.zeros((6, 5), np.uint8)),
        (4, np.zeros((5, 6), np.uint8)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="another size"):
            scale(*good[:place], wrong, *good[place + 1 :], build)
    column, row = (
        as_strided(plane, (10, 1), (10, 7)),
        as_strided(plane, (1, 10), (3, 1)),
    )  # What one has no step of is no matter.
    scale(column, taps(1, 1, UNIT, 1), good[2], 0.0, out[:, :1], build)
    scale(row, good[1], taps(1, 1, SUM_DOWN, 1), 0.0, out[:1], build)
    for wrong in (plane.T, plane[::-1], plane[:, ::2], plane.astype(np.uint16), plane[0], plane[:0], plane[None]):
        with pytest.raises(ValueError, match="a plane is uint8"):
            scale(wrong, *good[1:], build)
    for place, wrong in ((0, 3), (1, b""), (1, None), (2, "taps"), (4, bytes(25))):
        with pytest.raises((BufferError, TypeError, ValueError)):
            scale(*good[:place], wrong, *good[place + 1 :], build)


RANGES = [(255 / 219, -16 * 255 / 219), (255 / 224, 128 - 128 * 255 / 224 - 1e-3)]  # of brightness, of colours


@needs_build
@pytest.mark.parametrize(("factor", "offset"), RANGES)
@pytest.mark.parametrize("shape", [(1, 256), (256, 1), (8, 32), (7, 33), (5, 95), (3, 31)], ids=str)
@every_build
def test_every_sample_is_stretched_as_opencv_does(build, shape, factor, offset) -> None:
    """To the last bit, so that stores do not depend on what was built."""
    height, width = shape
    plane = np.resize(np.arange(256, dtype=np.uint8), (height, width + 5))
    for first in range(0, 256, 32):
        part = (plane + np.uint8(first))[:, :width]
        out = np.full((height, width + 3), 77, np.uint8)
        stretch(part, factor, offset, out[:, :width], build)
        assert (out[:, :width] == np.clip(np.rint(factor * part.astype(float) + offset), 0, 255)).all()
        assert (out[:, :width] == cv2.addWeighted(part, factor, part, 0, offset)).all()
        assert (out[:, width:] == 77).all()


@needs_build
@every_build
def test_a_range_that_is_no_narrower_one_is_refused(build) -> None:
    plane = np.zeros((3, 40), np.uint8)
    for factor, offset in (
        (2.0, -1.0),
        (-0.1, -1.0),
        (1.0, 0.0),
        (1.0, -600.0),
        (float("nan"), -1.0),
        (1.0, float("nan")),
    ):
        with pytest.raises(ValueError, match="no narrower one"):
            stretch(plane, factor, offset, np.empty_like(plane), build)
    with pytest.raises(ValueError, match="different sizes"):
        stretch(plane, *RANGES[0], np.empty((3, 41), np.uint8), build)


@needs_build
@pytest.mark.parametrize("size", [(340, 256), (341, 255), (7, 5), (1, 1), (2, 1), (1, 2), (16, 1), (37, 3)], ids=str)
@every_build
def test_rgb_is_that_of_opencv(monkeypatch: pytest.MonkeyPatch, build, size) -> None:
    """To the last bit, so that arrays do not depend on what was built."""
    width, height = size
    monkeypatch.setattr(scaling, "COMPILED", False)
    for seed in range(3):
        y, u, v = planes_420(width, height, seed)
        out = np.empty((height, width, 3), np.uint8)
        rgb(y, u, v, out, build)
        assert (out == to_rgb(y, u, v)).all()
    grey = np.full_like(u, 128)
    rgb(y, grey, grey, out, build)
    assert (out == y[..., None]).all()


@needs_build
@every_build
def test_rgb_of_every_colour(build) -> None:
    """Flat pictures of each pair of colours: as OpenCV has them, none runs over."""
    colours = np.arange(0, 256, 5, np.uint8)
    for y in (0, 90, 255):
        for u in colours:
            plane = np.full((2, 2 * len(colours)), y, np.uint8)
            us, vs = np.full((1, len(colours)), u, np.uint8), colours[None]
            out = np.empty((2, 2 * len(colours), 3), np.uint8)
            rgb(plane, us, vs, out, build)
            wide = cv2.resize(vs, (2 * len(colours), 2), interpolation=cv2.INTER_LINEAR)
            true = cv2.cvtColor(cv2.merge([plane, wide, np.full_like(wide, u)]), cv2.COLOR_YCrCb2RGB)
            assert (out == true).all()


@needs_build
@every_build
def test_rgb_of_planes_that_do_not_belong_together_is_refused(build) -> None:
    y, u, v = planes_420(7, 5, 0)
    good = (y, u, v, np.empty((5, 7, 3), np.uint8))
    rgb(*good, build)
    for place, wrong in ((0, y[:, :6]), (0, y[:4]), (1, u[:2]), (2, v[:, :3]), (3, np.empty((5, 8, 3), np.uint8))):
        with pytest.raises(ValueError, match=r"not of one|row below row"):
            rgb(*good[:place], wrong, *good[place + 1 :], build)
    with pytest.raises((BufferError, ValueError)):
        rgb(*good[:3], np.empty((5, 3, 7), np.uint8).transpose(0, 2, 1), build)


def planes_420(width: int, height: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    small = (-(-height // 2), -(-width // 2))
    return [rng.integers(0, 256, shape, np.uint8) for shape in ((height, width), small, small)]


@needs_build
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p"])
@pytest.mark.parametrize("chroma", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("colours", [[], ["-colorspace", "bt709", "-vf", "scale=out_color_matrix=bt709"]], ids=len)
@pytest.mark.parametrize("size", [(340, 256), (333, 241)], ids=str)
def test_without_it_pictures_are_nearly_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    colours: list[str],
    chroma: str,
    pix_fmt: str,
) -> None:
    path = make_video(
        tmp_path / "a.mkv", np.stack([textured(size)]), codec="ffv1" if pix_fmt != "yuvj420p" else "mjpeg",
        pix_fmt=pix_fmt, options=[*colours, *(["-q:v", "1"] if pix_fmt == "yuvj420p" else [])],
    )  # fmt: skip
    frame = first_frame(path)
    for target in (size, (212, 160), (150, 112), (64, 48)):
        monkeypatch.setattr(scaling, "COMPILED", True)
        ours = Scaler(target, chroma)(frame)
        monkeypatch.setattr(scaling, "COMPILED", False)
        swscales = Scaler(target, chroma)(frame)
        assert [plane.shape for plane in ours] == [plane.shape for plane in swscales]
        # Of another matrix, brightness has something of the colours, in which swscale is less exact.
        assert np.abs(ours[0].astype(int) - swscales[0]).max() <= (4 if colours else 2)
        assert np.abs(to_rgb(*ours).astype(int) - to_rgb(*swscales)).mean() < 1.5
