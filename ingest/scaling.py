"""Decoded frames made smaller: by area, upright, in the colours of JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from ingest.video import quarter_turns

try:
    from ingest import _area
except ImportError:  # There was no compiler where this was installed.
    AREA = False
else:
    AREA = True
"""Whether small frames are scaled by ourselves. Otherwise swscale does it: more slowly, its colours less exactly."""

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
_UNIT = 1 << 14  # Of weights along a row (ingest/_area.c).
_LARGE_PX = 1 << 18  # Below, what Python does for a half takes longer than what it saves.


class Source:
    """A decoded frame that is to be scaled, and its halves. Scalers that are given the same one share them."""

    def __init__(self, frame: VideoFrame) -> None:
        self.frame = frame
        self.turns = quarter_turns(frame)
        self.color_range = frame.color_range
        self.colorspace = frame.colorspace
        self._halves: list[VideoFrame] = []

    def down_to(self, width: int, height: int) -> VideoFrame:
        """The frame, halved in both directions as often as it remains at least that large.

        A mean of four pixels is area scaling, in a fraction of the time that swscale takes for it. Small frames, and those
        with a plane of odd size, are left as they are.
        """
        frame, level = self.frame, 0
        while frame.width >= 2 * width and frame.height >= 2 * height:
            if level == len(self._halves):
                kind = _HALVED.get(frame.format.name)
                if kind is None or frame.width * frame.height < _LARGE_PX or _is_upside_down(frame):
                    break
                if any(plane.width % 2 or plane.height % 2 for plane in frame.planes):
                    break
                self._halves.append(self._half(frame, kind))
            frame = self._halves[level]
            level += 1
        return frame

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
        self._shrinkers: dict[tuple[int, int, bool], _Shrinker] = {}

    def __call__(self, frame: VideoFrame | Source) -> Planes:
        source = frame if isinstance(frame, Source) else Source(frame)
        turns = source.turns
        width, height = self.size[::-1] if turns % 2 else self.size
        small, color_range = source.down_to(width, height), source.color_range
        if source.colorspace not in _SPACES_OF_BT601:
            y, u, v = map(_samples, self._two_steps(small, color_range, width, height).planes)
        elif (shrinker := self._shrinker(small, width, height, not _is_full(small, color_range))) is not None:
            y, u, v = shrinker.planes(small)
        else:
            y, u, v = map(_samples, self._one_step(small, color_range, width, height).planes)
        if turns:
            y, u, v = (np.ascontiguousarray(np.rot90(p, turns)) for p in (y, u, v))
        return _with_even_edge(y), u, v

    def _shrinker(self, frame: VideoFrame, width: int, height: int, stretched: bool) -> _Shrinker | None:
        """What makes planes of the given size of such frames; None where swscale must."""
        if frame.format.name not in self._formats or _is_upside_down(frame):
            return None
        same = (frame.width, frame.height) == (width, height)
        if not same and not (AREA and width <= frame.width <= 3 * width and height <= frame.height <= 3 * height):
            return None
        key = frame.width, frame.height, stretched
        if key not in self._shrinkers:
            self._shrinkers[key] = _Shrinker(frame, width, height, stretched)
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

    def _two_steps(self, frame: VideoFrame, color_range: int, width: int, height: int) -> VideoFrame:
        if (shrinker := self._shrinker(frame, width, height, False)) is not None:
            scaled = shrinker.frame(frame)
        else:
            scaled = self._scale.reformat(
                frame,
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


class _Shrinker:
    """Makes planes of frames of one size and format smaller, by area, each by itself; `stretched` to full range if asked for.

    Sizes may be equal: then there is nothing to scale.
    """

    def __init__(self, frame: VideoFrame, width: int, height: int, stretched: bool) -> None:
        self._same = (frame.width, frame.height) == (width, height)
        self._ranges = (_LUMA, _CHROMA, _CHROMA) if stretched else ((1.0, 0.0),) * 3
        self._stretched = stretched
        self._size = width, height
        halved = "420" in frame.format.name
        self._sizes = [self._size, *[(-(-width // 2), -(-height // 2)) if halved else self._size] * 2]
        if not self._same:
            self._taps = [
                (_area.taps(plane.width, wide, round(_UNIT * factor)), _area.taps(plane.height, tall, 0xFFFF))
                for plane, (wide, tall), (factor, _) in zip(frame.planes, self._sizes, self._ranges, strict=True)
            ]

    def planes(self, frame: VideoFrame) -> Planes:
        if self._same:
            y, u, v = map(_samples, frame.planes)
            return (
                (_stretched(y, *_LUMA), _stretched(u, *_CHROMA), _stretched(v, *_CHROMA))
                if self._stretched
                else (y, u, v)
            )
        y, u, v = (np.empty((tall, wide), np.uint8) for wide, tall in self._sizes)
        for place, out in enumerate((y, u, v)):
            self._shrink(frame, place, out.data, out.shape[1])
        return y, u, v

    def frame(self, frame: VideoFrame) -> VideoFrame:
        """The same as a frame. Only without stretching."""
        if self._same:
            return frame
        made = VideoFrame(*self._size, frame.format.name)
        made.colorspace, made.color_range = frame.colorspace, frame.color_range
        for place, plane in enumerate(made.planes):
            self._shrink(frame, place, memoryview(plane), plane.line_size)
        return made

    def _shrink(self, frame: VideoFrame, place: int, out: memoryview, stride: int) -> None:
        plane, (_, offset) = frame.planes[place], self._ranges[place]
        _area.scale(plane, plane.line_size, plane.width, plane.height, *self._taps[place], offset, out, stride)


def to_rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Planes of one frame as `Scaler` gives them, of either chroma, as RGB: uint8 (H, W, 3)."""
    height, width = y.shape
    if u.shape != y.shape:
        u, v = (
            cv2.resize(plane, (2 * plane.shape[1], 2 * plane.shape[0]), interpolation=cv2.INTER_LINEAR)
            for plane in (u, v)
        )
    picture = cv2.merge([y, v[:height, :width], u[:height, :width]])
    return cv2.cvtColor(picture, cv2.COLOR_YCrCb2RGB)


def _samples(plane: VideoPlane, kind: type[np.generic] = np.uint8) -> np.ndarray:
    """A plane of a frame as (H, W), not copied."""
    return np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)[:, : plane.width]


def _is_full(frame: VideoFrame, color_range: int) -> bool:
    """Whether samples go from 0 to 255: so it is said, or the format (one of those with a j) cannot be otherwise."""
    return color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def _is_upside_down(frame: VideoFrame) -> bool:
    """Whether rows go up in memory, as some raw formats have them: PyAV does not tell where such a plane begins."""
    return frame.planes[0].line_size < 0


def _stretched(plane: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """factor * plane + offset, rounded and kept within 0 to 255."""
    return cv2.addWeighted(plane, factor, plane, 0, offset)


def _with_even_edge(y: np.ndarray) -> np.ndarray:
    """The same plane, with its last column and row repeated in memory behind an odd width and height.

    A 4:2:0 JPEG encoder reads that far. Else what it finds there, by chance, gets into the last blocks.
    """
    height, width = y.shape
    if height % 2 == width % 2 == 0:
        return y
    even = np.empty((height + height % 2, width + width % 2), np.uint8)
    even[:height, :width] = y
    even[:height, width:] = y[:, -1:]
    even[height:] = even[height - 1]
    return even[:height, :width]
