"""Decoded frames made smaller: by area, upright, in the colours of JPEG."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from ingest.video import quarter_turns

try:
    from ingest import _planes
except ImportError:  # There was no compiler where this was installed.
    COMPILED = False
else:
    COMPILED = True
"""Whether our C is there (ingest/_planes.c). Otherwise swscale makes small frames smaller: more slowly, its colours less exactly.

For range and RGB it has the very numbers of OpenCV, and takes less time where the processor has AVX2; else they are OpenCV's.
"""

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Y, U, V of one frame, uint8, full range: (H, W) and twice (ceil(H/2), ceil(W/2)) for 4:2:0, (H, W) for 4:4:4."""

_SPACES_OF_BT601 = (2, 5, 6)
"""Of AVColorSpace (ITU-T H.273, table 4): unspecified, which ffmpeg takes for it, and its two names."""

_HALVED = {f"yuv{j}{chroma}p": np.uint8 for j in ("", "j") for chroma in (420, 422, 444)} | {
    f"yuv{chroma}p10le": np.uint16 for chroma in (420, 422, 444)
}
"""Pixel formats that are halved -> type of a sample."""
_LUMA = (255 / 219, -16 * 255 / 219)
_CHROMA = (255 / 224, 128 - 128 * 255 / 224 - 1e-3)
"""Limited to full range (ITU-R BT.601): factor and offset. Colour 16 would be 0.5: it is 0 on every processor."""
_UNIT = 1 << 14  # Of weights along a row.
_UNIT_DOWN = 0xFFFF  # Of those down a column.
_LARGE_PX = 1 << 18  # Below, what Python does for a half takes longer than what it saves.


class _Picture:
    """A frame, and what is asked of it at every level: PyAV makes the planes anew whenever it is asked for them."""

    def __init__(self, frame: VideoFrame) -> None:
        self.frame = frame
        self.width, self.height = frame.width, frame.height
        self.format = frame.format.name
        self.planes = frame.planes
        # As some raw formats have them; PyAV does not tell where such a plane begins.
        self.is_upside_down = self.planes[0].line_size < 0

    @cached_property
    def samples(self) -> tuple[np.ndarray, ...]:
        """Its planes, not copied: uint8 (H, W) each. Not of frames that are upside down."""
        return tuple(map(_samples, self.planes))


class Source:
    """A decoded frame that is to be scaled, and its halves. Scalers that are given the same one share them."""

    def __init__(self, frame: VideoFrame) -> None:
        self.frame = frame
        self.turns = quarter_turns(frame)
        self.color_range = frame.color_range
        self.colorspace = frame.colorspace
        self._halvings = [_Picture(frame)]

    def down_to(self, width: int, height: int) -> _Picture:
        """The frame, halved in both directions as often as it remains at least that large.

        A mean of four pixels is area scaling, in a fraction of the time that swscale takes for it. Small frames, and those
        with a plane of odd size, are left as they are.
        """
        level, picture = 0, self._halvings[0]
        while picture.width >= 2 * width and picture.height >= 2 * height:
            level += 1
            if level == len(self._halvings):
                kind = _HALVED.get(picture.format)
                if kind is None or picture.width * picture.height < _LARGE_PX or picture.is_upside_down:
                    break
                if any(plane.width % 2 or plane.height % 2 for plane in picture.planes):
                    break
                self._halvings.append(_Picture(self._half(picture.frame, kind)))
            picture = self._halvings[level]
        return picture

    def _half(self, frame: VideoFrame, kind: type[np.generic]) -> VideoFrame:
        half = VideoFrame(frame.width // 2, frame.height // 2, frame.format.name)
        half.colorspace, half.color_range = self.colorspace, self.color_range
        for plane, target in zip(frame.planes, half.planes, strict=True):
            to = _samples(target, kind)
            cv2.resize(_samples(plane, kind), to.shape[::-1], dst=to, interpolation=cv2.INTER_AREA)
        return half


class Scaler:
    """Scales frames of one video to one size, as planes ready for a JPEG encoder; rotation applied.

    By area (every source pixel counts once: no aliasing), limited range to full range and any matrix to BT.601, which
    is what JPEG means by YUV. 10-bit sources come out as 8-bit, all as 4:2:0 unless `chroma` asks for 4:4:4. Planes that
    need only be shrunk or stretched are, one by one; swscale does what is left. If the matrix is another, that is done in
    two steps, scale and then recolour: at once it would go by way of RGB at the source's size, which takes three times as
    long for 1080p.
    """

    def __init__(self, size: tuple[int, int], chroma: str = "4:2:0") -> None:
        self.size = size  # (width, height), after rotation
        digits = chroma.replace(":", "")
        self._formats = f"yuv{digits}p", f"yuvj{digits}p"
        self._scale, self._recolour = VideoReformatter(), VideoReformatter()
        self._shrinkers: dict[tuple[int, int, bool], _Kept | _Shrunk] = {}

    def __call__(self, frame: VideoFrame | Source) -> Planes:
        source = frame if isinstance(frame, Source) else Source(frame)
        turns = source.turns
        width, height = self.size[::-1] if turns % 2 else self.size
        small, color_range = source.down_to(width, height), source.color_range
        if source.colorspace not in _SPACES_OF_BT601:
            y, u, v = map(_samples, self._two_steps(small, color_range, width, height).planes)
        elif (shrinker := self._shrinker(small, width, height, not _is_full(small.format, color_range))) is not None:
            y, u, v = shrinker.planes(small)
            if not turns:
                return y, u, v
        else:
            y, u, v = map(_samples, self._one_step(small.frame, color_range, width, height).planes)
        if turns:
            y, u, v = (np.ascontiguousarray(np.rot90(p, turns)) for p in (y, u, v))
        return _with_even_edge(y), u, v

    def _shrinker(self, picture: _Picture, width: int, height: int, stretched: bool) -> _Kept | _Shrunk | None:
        """What makes planes of the given size of such pictures; None where swscale must."""
        if picture.format not in self._formats or picture.is_upside_down:
            return None
        key = picture.width, picture.height, stretched
        if key not in self._shrinkers:
            if (picture.width, picture.height) == (width, height):
                self._shrinkers[key] = _Kept(stretched)
            elif COMPILED and width <= picture.width <= 3 * width and height <= picture.height <= 3 * height:
                self._shrinkers[key] = _Shrunk(picture, width, height, stretched)
            else:
                return None
        return self._shrinkers[key]

    def _one_step(self, frame: VideoFrame, color_range: int, width: int, height: int) -> VideoFrame:
        return self._scale.reformat(
            frame,
            width=width,
            height=height,
            format=self._formats[1],
            src_color_range=color_range,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA,
            threads=1,
        )

    def _two_steps(self, picture: _Picture, color_range: int, width: int, height: int) -> VideoFrame:
        if (shrinker := self._shrinker(picture, width, height, False)) is not None:
            scaled = shrinker.frame(picture)
        else:
            scaled = self._scale.reformat(
                picture.frame,
                width=width,
                height=height,
                format=self._formats[0],
                src_color_range=color_range,
                dst_color_range=color_range,
                interpolation=Interpolation.AREA,
                threads=1,
            )
        return self._recolour.reformat(
            scaled,
            format=self._formats[1],
            src_color_range=color_range,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )


class _Kept:
    """Makes planes of pictures that have their size already; `stretched` to full range if asked for."""

    def __init__(self, stretched: bool) -> None:
        self._stretched = stretched

    def planes(self, picture: _Picture) -> Planes:
        """With an even edge."""
        y, u, v = picture.samples
        if self._stretched:
            y, u, v = _stretched(y, *_LUMA), _stretched(u, *_CHROMA), _stretched(v, *_CHROMA)
        return _with_even_edge(y), u, v

    def frame(self, picture: _Picture) -> VideoFrame:
        """The same as a frame, not stretched."""
        return picture.frame


class _Shrunk:
    """Makes planes of pictures of one size and format smaller, by area, each by itself; `stretched` to full range if asked for."""

    def __init__(self, picture: _Picture, width: int, height: int, stretched: bool) -> None:
        self._size = width, height
        halved = "420" in picture.format
        small = (-(-width // 2), -(-height // 2)) if halved else self._size
        ranges = (_LUMA, _CHROMA, _CHROMA) if stretched else ((1.0, 0.0),) * 3
        self._shapes = [size[::-1] for size in ((_even(width), _even(height)), small, small)]
        self._how = [
            (
                _planes.taps(plane.width, wide, round(_UNIT * factor), _even(wide)),
                _planes.taps(plane.height, tall, _UNIT_DOWN, _even(tall)),
                offset,
            )
            for plane, (wide, tall), (factor, offset) in zip(
                picture.planes, (self._size, small, small), ranges, strict=True
            )
        ]

    def planes(self, picture: _Picture) -> Planes:
        """With an even edge."""
        y, u, v = (np.empty(shape, np.uint8) for shape in self._shapes)
        for plane, how, out in zip(picture.samples, self._how, (y, u, v), strict=True):
            _planes.scale(plane, *how, out)
        width, height = self._size
        return y[:height, :width], u, v

    def frame(self, picture: _Picture) -> VideoFrame:
        """The same as a frame. Only without stretching."""
        made = VideoFrame(*self._size, picture.format)
        made.colorspace, made.color_range = picture.frame.colorspace, picture.frame.color_range
        for plane, how, out in zip(picture.samples, self._how, made.planes, strict=True):
            _planes.scale(plane, *how, _samples(out))
        return made


def to_rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Planes of one frame as `Scaler` gives them, of either chroma, as RGB: uint8 (H, W, 3)."""
    height, width = y.shape
    if u.shape != y.shape:
        if COMPILED and _planes.BEST:
            picture = np.empty((height, width, 3), np.uint8)
            _planes.rgb(y, u, v, picture)
            return picture
        u, v = (
            cv2.resize(plane, (2 * plane.shape[1], 2 * plane.shape[0]), interpolation=cv2.INTER_LINEAR)
            for plane in (u, v)
        )
    return cv2.cvtColor(cv2.merge([y, v[:height, :width], u[:height, :width]]), cv2.COLOR_YCrCb2RGB)


def _samples(plane: VideoPlane, kind: type[np.generic] = np.uint8) -> np.ndarray:
    """A plane of a frame as (H, W), not copied."""
    return np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)[:, : plane.width]


def _is_full(pixel_format: str, color_range: int) -> bool:
    """Whether samples go from 0 to 255: so it is said, or the format (one of those with a j) cannot be otherwise."""
    return color_range == ColorRange.JPEG or pixel_format.startswith("yuvj")


def _stretched(plane: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """factor * plane + offset, rounded and kept within 0 to 255."""
    if COMPILED and _planes.BEST:
        made = np.empty(plane.shape, np.uint8)
        _planes.stretch(plane, factor, offset, made)
        return made
    return cv2.addWeighted(plane, factor, plane, 0, offset)


def _with_even_edge(y: np.ndarray) -> np.ndarray:
    """The same plane, with its last column and row repeated in memory behind an odd width and height.

    A 4:2:0 JPEG encoder reads that far. Else what it finds there, by chance, gets into the last blocks.
    """
    height, width = y.shape
    if height % 2 == width % 2 == 0:
        return y
    even = np.empty((_even(height), _even(width)), np.uint8)
    even[:height, :width] = y
    even[:height, width:] = y[:, -1:]
    even[height:] = even[height - 1]
    return even[:height, :width]


def _even(length: int) -> int:
    return length + length % 2
