"""Planes made smaller by area, in C: the exact mean to the last rounding, for any size, stride, range and processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest import scaling
from ingest.scaling import Scaler, to_rgb
from tests._compiled import assert_built_where_it_can_be
from tests.ingest.test_scaling import first_frame, textured
from tests.ingest.videos import make_video

needs_area = pytest.mark.skipif(not scaling.AREA, reason="installed without a compiler")
if scaling.AREA:
    from ingest._area import scale, taps

UNIT, SUM_DOWN = 1 << 14, 0xFFFF
SIZES = [
    ((340, 256), (212, 160)), ((340, 256), (148, 112)), ((340, 256), (340, 256)), ((341, 255), (114, 85)),
    ((48, 48), (16, 16)), ((17, 9), (16, 3)), ((3, 3), (1, 1)), ((1, 1), (1, 1)), ((7, 100), (7, 34)), ((4096, 5), (1366, 5)),
]  # fmt: skip


def test_it_is_built_where_it_can_be() -> None:
    """Else everything below would be skipped without a word."""
    assert_built_where_it_can_be(Path(scaling.__file__).with_name("_area.c"), scaling.AREA)


def mean_of_area(source: int, target: int) -> np.ndarray:
    """(target, source) weights: how much of each source pixel lies in each target pixel."""
    edges = np.arange(target + 1) * source / target
    at = np.arange(source)
    covered = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    return np.clip(covered, 0, None) * target / source


def shrunk(
    plane: np.ndarray, size: tuple[int, int], factor: float = 1.0, offset: float = 0.0, gap: int = 0
) -> np.ndarray:
    height, width = plane.shape
    padded = np.full((height, width + gap), 255, np.uint8)
    padded[:, :width] = plane
    across, down = taps(width, size[0], round(UNIT * factor)), taps(height, size[1], SUM_DOWN)
    out = np.full((size[1], size[0] + gap), 77, np.uint8)
    scale(padded.data, width + gap, width, height, across, down, offset, out.data, size[0] + gap)
    assert (out[:, size[0] :] == 77).all()
    return out[:, : size[0]]


@needs_area
@pytest.mark.parametrize("gap", [0, 13])
@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (255 / 219, -16 * 255 / 219)])
@pytest.mark.parametrize(("source", "target"), SIZES, ids=str)
def test_every_pixel_is_the_mean_of_what_it_covers(source, target, factor, offset, gap) -> None:
    plane = np.random.default_rng(0).integers(0, 256, source[::-1], np.uint8)
    true = mean_of_area(source[1], target[1]) @ plane @ mean_of_area(source[0], target[0]).T
    off = shrunk(plane, target, factor, offset, gap) - np.clip(factor * true + offset, 0, 255)
    assert np.abs(off).max() < 0.53  # 0.5 is rounding
    assert abs(off.mean()) < 0.06 or off.size < 500


@needs_area
@pytest.mark.parametrize("value", [0, 1, 127, 128, 254, 255])
@pytest.mark.parametrize(("source", "target"), SIZES, ids=str)
def test_a_flat_plane_stays_as_it_is(source, target, value) -> None:
    assert (shrunk(np.full(source[::-1], value, np.uint8), target) == value).all()


@needs_area
@pytest.mark.parametrize(("source", "target"), [(10, 11), (31, 10), (10, 0), (0, 0)])
def test_enlarging_and_more_than_a_third_are_refused(source: int, target: int) -> None:
    with pytest.raises(ValueError, match="a third"):
        taps(source, target, UNIT)


@needs_area
def test_what_does_not_fit_is_refused() -> None:
    plane, out = bytes(100), np.zeros(25, np.uint8).data
    good = (plane, 10, 10, 10, taps(10, 5, UNIT), taps(10, 5, SUM_DOWN), 0.0, out, 5)
    scale(*good)
    for place, wrong in (
        (0, bytes(99)), (1, 9), (2, 9), (3, 9), (3, 11), (4, taps(12, 5, UNIT)), (4, taps(10, 5, 0x7FFF)), (4, b""), (4, bytes(11)),
        (5, taps(10, 6, SUM_DOWN)), (6, 1e9), (6, float("nan")), (7, np.zeros(24, np.uint8).data), (8, 4), (8, 6),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="too small"):
            scale(*good[:place], wrong, *good[place + 1 :])
    with pytest.raises((BufferError, TypeError)):
        scale(*good[:7], bytes(25), 5)


@needs_area
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
        monkeypatch.setattr(scaling, "AREA", True)
        ours = Scaler(target, chroma)(frame)
        monkeypatch.setattr(scaling, "AREA", False)
        swscales = Scaler(target, chroma)(frame)
        assert [plane.shape for plane in ours] == [plane.shape for plane in swscales]
        # Of another matrix, brightness has something of the colours, in which swscale is less exact.
        assert np.abs(ours[0].astype(int) - swscales[0]).max() <= (4 if colours else 2)
        assert np.abs(to_rgb(*ours).astype(int) - to_rgb(*swscales)).mean() < 1.5
