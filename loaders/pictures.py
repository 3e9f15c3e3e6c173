"""Encoded pictures: their size without decoding, and decoding of what is no JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

_JPEG = b"\xff\xd8"


def is_jpeg(blob: bytes) -> bool:
    return blob[:2] == _JPEG


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
