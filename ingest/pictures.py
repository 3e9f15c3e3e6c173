"""Pictures of a frame, scaled and encoded: each is made once, however many stores ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import av
import cv2
import numpy as np
import simplejpeg

from ingest.scaling import COMPILED, Planes, Scaler, Source, to_rgb

Codec = Literal["jpeg", "png", "webp"]
CODECS: tuple[Codec, ...] = get_args(Codec)
SUFFIXES: dict[Codec, str] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
CHROMA: dict[Codec, str] = {"jpeg": "4:2:0", "png": "4:4:4", "webp": "4:2:0"}
"""Resolution of the colours in what is stored. PNG keeps all of it; 10-bit sources become 8-bit in every codec."""

ENCODER_VERSIONS = {
    "simplejpeg_version": simplejpeg.__version__,
    "opencv_version": cv2.__version__,
    "scaled_by": "clipmill" if COMPILED else "swscale",
}

Size = tuple[int, int]
"""Width and height in pixels of the upright picture."""


class Pictures:
    """Scaled and encoded pictures of the frame at hand and of the one before it. Sizes are of the upright picture.

    A sampler hands a frame on when the next one has come: other stores have had it by then.
    """

    def __init__(self, codec: Codec = "jpeg", quality: int = 90) -> None:
        cv2.setNumThreads(1)  # One video, one thread: OpenCV's own threads would fight with other workers.
        self._chroma = CHROMA[codec]
        self._encode: Callable[[Planes], bytes] = _encoder(codec, quality)
        self._scalers: dict[tuple[Size, str], Scaler] = {}
        self._now: _Made | None = None
        self._before: _Made | None = None

    def encoded(self, frame: av.VideoFrame, size: Size) -> bytes:
        """The picture as a file of the codec."""
        made = self._made_of(frame)
        if size not in made.blobs:
            made.blobs[size] = self._encode(self._scaled(made, size, self._chroma))
        return made.blobs[size]

    def rgb(self, frame: av.VideoFrame, size: Size) -> np.ndarray:
        """The picture as uint8 (H, W, 3)."""
        return to_rgb(*self._scaled(self._made_of(frame), size, "4:2:0"))

    def _scaled(self, made: _Made, size: Size, chroma: str) -> Planes:
        key = size, chroma
        if key not in made.planes:
            if key not in self._scalers:
                self._scalers[key] = Scaler(size, chroma)
            made.planes[key] = self._scalers[key](made.source)
        return made.planes[key]

    def _made_of(self, frame: av.VideoFrame) -> _Made:
        if self._now is None or frame is not self._now.source.frame:
            if self._before is not None and frame is self._before.source.frame:
                return self._before
            self._before, self._now = self._now, _Made(frame)
        return self._now


class _Made:
    """What has been made of one frame."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self.source = Source(frame)
        self.planes: dict[tuple[Size, str], Planes] = {}
        self.blobs: dict[Size, bytes] = {}


def _encoder(codec: Codec, quality: int) -> Callable[[Planes], bytes]:
    if codec == "jpeg":
        return lambda planes: simplejpeg.encode_jpeg_yuv_planes(*planes, quality)
    options = [] if codec == "png" else [cv2.IMWRITE_WEBP_QUALITY, quality]

    def encode(planes: Planes) -> bytes:
        done, data = cv2.imencode(SUFFIXES[codec], cv2.cvtColor(to_rgb(*planes), cv2.COLOR_RGB2BGR), options)
        if not done:
            raise RuntimeError(f"OpenCV cannot write {codec}")
        return data.tobytes()

    return encode
