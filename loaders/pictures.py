"""Encoded pictures: their size without decoding, parts of JPEGs, and decoding of what is no JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

try:
    from loaders._jpeg_part import decode_parts
except ImportError:  # There was no compiler, or no libjpeg-turbo, where this was installed.
    PARTS = False
else:
    PARTS = True
"""Whether parts of JPEGs can be decoded by themselves. Otherwise whole pictures are, for the same pixels."""

_JPEG = b"\xff\xd8"


def is_jpeg(blob: bytes) -> bool:
    return blob[:2] == _JPEG


class Part(NamedTuple):
    """Part of a picture of `width` x `height` pixels."""

    width: int
    height: int
    left: int
    top: int
    columns: int
    rows: int

    def decode(self, pictures: Sequence[bytes | np.ndarray], out: np.ndarray, colour: str) -> int:
        """This part of JPEGs into `out`, uint8 (N, rows, columns, 3) without gaps, transformed fast.

        How many were decoded before one that could not be: it is no JPEG, damaged down to the part's end, or of another
        size. Who decodes that one whole gets to know why. None are if not `PARTS`.
        """
        if not PARTS:
            return 0
        return decode_parts(pictures, out, *self, colour == "BGR")


def picture_size(blob: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises: ValueError for what is no picture."""
    if is_jpeg(blob):
        height, width, _, _ = simplejpeg.decode_jpeg_header(blob)
        return width, height
    height, width = decode_other(blob, "RGB").shape[:2]
    return width, height


def decode_other(blob: bytes, colour: str) -> np.ndarray:
    """PNG or WebP as uint8 (H, W, 3). Raises: ValueError for what is none."""
    if not isinstance(blob, bytes) or not blob:
        raise ValueError("not a picture")
    picture = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("not a picture that can be decoded")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture) if colour == "RGB" else picture
