"""Parts of JPEGs: the pixels of the whole picture, and nothing that a damaged file could break."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from loaders import ClipDataset, ClipSpec, pictures
from loaders.augment.recipe import Recipe
from loaders.augment.srtg import srtg_code
from loaders.making import ClipError, ClipMaker, Place
from loaders.pictures import Part
from loaders.reading import FrameReader
from loaders.sampling import RandomInterval
from tests._compiled import assert_built_where_it_can_be

needs_parts = pytest.mark.skipif(not pictures.PARTS, reason="no compiler or no libjpeg-turbo where this was installed")

WIDTH, HEIGHT = 171, 97


def test_it_is_built_where_it_can_be() -> None:
    """Else everything below would be skipped without a word."""
    source = Path(pictures.__file__).with_name("_jpeg_part.c")
    assert_built_where_it_can_be(source, pictures.PARTS, r"(Python|jpeglib)\.h|libjpeg-turbo 2.1")


def picture(subsampling: str = "420", width: int = WIDTH, height: int = HEIGHT) -> bytes:
    image = np.random.default_rng(1).integers(0, 256, (height // 3, width // 3, 3), np.uint8)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    if subsampling == "Gray":
        return simplejpeg.encode_jpeg(image[..., :1].copy(), 90, colorspace="GRAY", colorsubsampling="Gray")
    return simplejpeg.encode_jpeg(image, 90, colorspace="RGB", colorsubsampling=subsampling)


def whole(blob: bytes, colour: str = "RGB") -> np.ndarray:
    return simplejpeg.decode_jpeg(blob, colour, fastdct=True, fastupsample=True)


def boxes(count: int) -> Iterator[Part]:
    rng = np.random.default_rng(2)
    yield Part(WIDTH, HEIGHT, 0, 0, WIDTH, HEIGHT)
    yield Part(WIDTH, HEIGHT, WIDTH - 1, HEIGHT - 1, 1, 1)
    for _ in range(count):
        left, right = sorted(rng.choice(WIDTH + 1, 2, replace=False).tolist())
        top, bottom = sorted(rng.choice(HEIGHT + 1, 2, replace=False).tolist())
        yield Part(WIDTH, HEIGHT, left, top, right - left, bottom - top)


def decoded(part: Part, blob: bytes, colour: str = "RGB") -> np.ndarray | None:
    out = np.full((part.rows, part.columns, 3), 77, np.uint8)
    return out if part.decode([blob], out[None], colour) else None


def cut(part: Part, image: np.ndarray) -> np.ndarray:
    return image[part.top : part.top + part.rows, part.left : part.left + part.columns]


@needs_parts
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("subsampling", ["420", "422", "440", "444", "Gray"])
def test_a_part_has_the_pixels_of_the_whole(subsampling: str, colour: str) -> None:
    blob = picture(subsampling)
    expected = whole(blob, colour)
    for part in boxes(150):
        np.testing.assert_array_equal(decoded(part, blob, colour), cut(part, expected), err_msg=str(part))


@needs_parts
def test_it_stops_at_the_first_that_it_cannot_decode() -> None:
    part, blob = Part(WIDTH, HEIGHT, 5, 6, 70, 80), picture()
    for bad in (b"", blob[:300], np.zeros((HEIGHT, WIDTH, 3), np.uint8)):
        out = np.zeros((4, part.rows, part.columns, 3), np.uint8)
        assert part.decode([blob, blob, bad, blob], out, "RGB") == 2
        np.testing.assert_array_equal(out[:2], np.stack([cut(part, whole(blob))] * 2))
    assert part.decode([], np.zeros((0, part.rows, part.columns, 3), np.uint8), "RGB") == 0


@needs_parts
def test_threads_do_not_disturb_each_other() -> None:
    blobs = [picture(subsampling) for subsampling in ("420", "444")] * 20
    part = Part(WIDTH, HEIGHT, 20, 30, 99, 50)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda blob: decoded(part, blob), blobs))
    for blob, image in zip(blobs, found, strict=True):
        np.testing.assert_array_equal(image, cut(part, whole(blob)))


@needs_parts
def test_what_is_no_such_picture_is_refused() -> None:
    part = Part(WIDTH, HEIGHT, 0, 0, WIDTH, HEIGHT)
    blob = picture()
    for bad in (b"", b"\xff\xd8", b"text" * 100, blob[:40], blob[: len(blob) // 2], picture(width=WIDTH + 1)):
        assert decoded(part, bad) is None
    progressive = cv2.imencode(".jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    np.testing.assert_array_equal(decoded(part, progressive.tobytes()), np.zeros((HEIGHT, WIDTH, 3)))


@needs_parts
def test_damage_is_told_or_does_not_matter() -> None:
    """Whatever byte is flipped: an answer, and where it is yes and the decoder of wholes finds nothing either, its pixels."""
    blob = bytearray(picture())
    part = Part(WIDTH, HEIGHT, 33, 17, 80, 60)
    rng = np.random.default_rng(3)
    told = 0
    for place, mask in zip(rng.integers(len(blob), size=600), rng.integers(1, 256, size=600), strict=True):
        blob[place] ^= mask
        image = decoded(part, bytes(blob))
        told += image is None
        try:
            expected = whole(bytes(blob))
        except ValueError:
            expected = None
        if image is not None and expected is not None:
            np.testing.assert_array_equal(image, cut(part, expected))
        blob[place] ^= mask
    assert 0 < told < 600


@needs_parts
@pytest.mark.parametrize(
    "part",
    [
        Part(WIDTH, HEIGHT, 0, 0, WIDTH + 1, 1),
        Part(WIDTH, HEIGHT, 2**32 - 1, 0, 2, 1),
        Part(WIDTH, HEIGHT, 0, 0, 0, 1),
        Part(WIDTH, HEIGHT, 0, 50, 1, HEIGHT),
    ],
)
def test_a_part_outside_is_an_error(part: Part) -> None:
    with pytest.raises(ValueError, match="does not lie in the picture"):
        part.decode([picture()], np.empty((1, HEIGHT, WIDTH, 3), np.uint8), "RGB")


@needs_parts
def test_too_small_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="fit into out"):
        Part(WIDTH, HEIGHT, 0, 0, 10, 10).decode([picture()] * 2, np.empty((19, 10, 3), np.uint8), "RGB")


@needs_parts
@pytest.mark.parametrize("short_side", [(40, 40), (40, 56), (60, 60), (64, 80), (150, 170)])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("augment", [None, srtg_code()])
def test_clips_are_the_same_with_and_without(
    root: Path, monkeypatch: pytest.MonkeyPatch, short_side: tuple[int, int], colour: str, augment: Recipe | None
) -> None:
    size = min(short_side[0], 64)
    spec = ClipSpec(
        RandomInterval(4, (1, 2)), size, size, short_side, flip=0.5, colour=colour,
        augment=augment,
    )  # fmt: skip
    dataset = ClipDataset(root)

    def clips() -> list[np.ndarray]:
        maker, found = ClipMaker(dataset, FrameReader(dataset)), []
        for k in range(12):
            out = np.empty((4, size, size, 3), np.uint8)
            maker.make(spec, Place(k % len(dataset), k, 5, 0), out, replace_bad=False)
            found.append(out)
        return found

    parts = clips()
    monkeypatch.setattr(pictures, "PARTS", False)
    for part, plain in zip(parts, clips(), strict=True):
        np.testing.assert_array_equal(part, plain)


@pytest.mark.parametrize("parts", [False, True])
def test_a_picture_too_few_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch, parts: bool) -> None:
    """And not a clip whose last frame is what lay in memory."""
    monkeypatch.setattr(pictures, "PARTS", parts and pictures.PARTS)
    dataset = ClipDataset(root)
    reader = FrameReader(dataset)
    read = reader.read
    monkeypatch.setattr(reader, "read", lambda *place: read(*place)[:-1])
    spec = ClipSpec(RandomInterval(4), 32, 32, (36, 36))
    with pytest.raises(ClipError, match="shorter"):
        ClipMaker(dataset, reader).make(spec, Place(0, 0, 0, 0), np.empty((4, 32, 32, 3), np.uint8), replace_bad=False)
