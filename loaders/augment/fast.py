"""The `fast` executor: passes on uint8 with OpenCV, in place where the frames keep their size.

Wherever a pixel does not look at its neighbours, the clip is one picture of a single row: the ends of rows are what
OpenCV is slow at. What is left per frame is one call of OpenCV, on a frame that the cache holds. OpenCV lets go of
Python's lock, so clips may be worked on in threads.
"""

from __future__ import annotations

import cv2
import numpy as np

from loaders.augment import steps
from loaders.augment.geometry import Size, chain, is_affine, one_cut
from loaders.augment.passes import Field, Hsv, Kernel, Matrix, Pass, Pictures, Table, Warp, passes_of, seen_after
from loaders.augment.pil_ops import apply_ops
from loaders.augment.recipe import ClipShape, Drawn

_Maps = tuple[np.ndarray, np.ndarray]
_THIRD, _LARGEST_ADDED_HUE = 60, 255 - 179


def run_fast(clip: np.ndarray, drawn: Drawn, out: np.ndarray | None = None, *, fuse: bool = True) -> np.ndarray:
    """`drawn` on `clip`, uint8 (T, H, W, 3). Returns uint8 (T, H', W', 3): `out` if given, which may be `clip` itself.

    Without `fuse` every step is carried out by itself and rounded, as imgaug does: slower, and the same to the level
    as imgaug with OpenCV 4, which the published recipes ran with.
    Raises: ValueError if the clip is not what the steps were drawn for, or `out` is not of the size that comes out.
    """
    _check(clip, drawn)
    if out is None:
        out = np.empty((len(clip), *drawn.size, 3), np.uint8)
    elif out.shape != (len(clip), *drawn.size, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(
            f"out is {out.dtype} {out.shape}; it must be uint8 {(len(clip), *drawn.size, 3)}, contiguous in memory"
        )
    work, passes = clip, passes_of(drawn, fuse=fuse)
    for index, each in enumerate(passes):
        if isinstance(each, Warp) and each.source != each.target:
            last = not any(isinstance(later, Warp) for later in passes[index + 1 :])
            target = out if last and out is not clip else np.empty((len(clip), *each.target, 3), np.uint8)
            _warp(each, work, target)
            work = target
            continue
        if work is clip and clip is not out:  # The caller's frames stay as they are.
            work = out if work.shape == out.shape else clip.copy()
            np.copyto(work, clip)
        _in_place(each, work, fuse)
    if work is not out:
        np.copyto(out, work)
    return out


class FastCut:
    """Cuts the clip out of decoded frames and augments it, with one warp from decoded to final pixels.

    For loaders that scale, crop and mirror while they decode: call `cut` per frame in place of that, then `finish` once
    on the whole clip. Geometry comes first here, colour and blur follow at the size of the clip; on the decoded frame
    they would cost more. What turning brings in from outside the crop is black, as it is in `run_fast`.
    """

    def __init__(self, drawn: Drawn, scaled: Size, offset: tuple[int, int], mirror: bool) -> None:
        """A frame, scaled to `scaled` (height, width), is cut at `offset` (top, left) to `drawn.shape` and mirrored."""
        self._prefix: list[steps.Geometry] = [steps.Resize(*scaled), steps.Crop(*offset, *drawn.shape.size)]
        if mirror:
            self._prefix.append(steps.Flip())
        self._geometry = [step for step in drawn.steps if isinstance(step, steps.Geometry)]
        others = tuple(step for step in drawn.steps if not isinstance(step, steps.Geometry))
        self._passes = passes_of(Drawn(ClipShape(drawn.shape.frames, *drawn.size), others, drawn.size))
        seen = seen_after(self._geometry, drawn.shape.size)
        self._seen = None if seen is None else cv2.merge([seen] * 3)
        self._scaled = scaled
        self._turning = any(isinstance(step, steps.Rotate | steps.Perspective) for step in self._geometry)
        self._warps: dict[Size, tuple[Warp, _Maps | None]] = {}
        self.size = drawn.size

    def cut(self, image: np.ndarray, out: np.ndarray) -> None:
        """One decoded frame uint8 (h, w, 3), of any size, into `out` uint8 (H', W', 3)."""
        shrinks = max(image.shape[0] / self._scaled[0], image.shape[1] / self._scaled[1]) > 2
        if shrinks and self._turning:
            # A warp looks at four pixels: what shrinks by more than half is averaged first.
            image = cv2.resize(image, self._scaled[::-1], interpolation=cv2.INTER_AREA)
        size: Size = image.shape[:2]
        if size not in self._warps:
            self._warps[size] = self._warp(size, "area" if shrinks else "linear")
        _warp_frame(*self._warps[size], image, out)

    def _warp(self, size: Size, interpolation: steps.Interpolation) -> tuple[Warp, _Maps | None]:
        """Where nothing turns, whole pixels are cut out and scaled, which is faster than a warp."""
        parts = [*self._prefix, *self._geometry]
        if not self._turning:
            parts = one_cut(parts, size)
            total, target = chain(parts, size)
            return Warp(total, size, target, interpolation, replicate=True, cut=tuple(parts)), None
        total, target = chain(parts, size)
        warp = Warp(total, size, target, replicate=True)
        return warp, _maps(warp)

    def finish(self, clip: np.ndarray) -> None:
        """The rest, in place, on uint8 (T, H', W', 3) as `cut` has left it."""
        for each in self._passes:
            _in_place(each, clip, True)
        if self._seen is not None:
            for frame in clip:
                cv2.bitwise_and(frame, self._seen, dst=frame)


def _in_place(each: Pass, clip: np.ndarray, fuse: bool) -> None:
    """One pass that keeps the size, on a contiguous clip."""
    row = clip.reshape(1, -1, 3)
    match each:
        case Table(table):
            _look_up(table, row)
        case Matrix(matrices):
            for part, matrix in zip([row] if len(matrices) == 1 else clip, matrices, strict=True):
                cv2.transform(part, matrix, dst=part)
        case Hsv():
            _hue_and_saturation(each, row) if fuse else _hue_and_saturation_by_table(each, clip)
        case Field(values):
            # Saturating sums of bytes are the fastest there are: what is added, then what is taken away.
            more, less = np.maximum(values, 0).astype(np.uint8), np.maximum(-values, 0).astype(np.uint8)
            for frame in clip:
                cv2.add(frame, more, dst=frame)
                cv2.subtract(frame, less, dst=frame)
        case Kernel():
            _blur(each, clip)
        case Warp():
            _warp(each, clip, clip)
        case Pictures(step):
            for frame in clip:
                frame[...] = apply_ops(frame, step)


def _look_up(table: np.ndarray, row: np.ndarray) -> None:
    """Plane by plane: OpenCV's table of one channel is so much faster than that of three that taking apart pays."""
    planes = list(np.empty((3, *row.shape[:2]), np.uint8))
    cv2.split(row, planes)
    for plane, column in zip(planes, table.T, strict=True):
        cv2.LUT(plane, np.ascontiguousarray(column), dst=plane)
    cv2.merge(planes, dst=row)


def _hue_and_saturation(each: Hsv, row: np.ndarray) -> None:
    """Hue and saturation are bytes to which one addition is made, six times as fast as a table.

    The way back takes any hue below 256 modulo 180. A hue that is to be less gets a third of the circle (60) more
    instead, and the channels change places: that is the same as a third of the circle less.
    """
    cv2.cvtColor(row, cv2.COLOR_RGB2HSV, dst=row)
    thirds = -(min(each.hue, 0) // _THIRD)
    hue = each.hue + thirds * _THIRD
    if 0 <= hue <= _LARGEST_ADDED_HUE:
        cv2.add(row, (hue, each.saturation, 0, 0), dst=row)  # type: ignore[call-overload]
    else:
        thirds = 0
        cv2.LUT(row, each.table[None], dst=row)
    cv2.cvtColor(row, cv2.COLOR_HSV2RGB, dst=row)
    if thirds % 3:
        cv2.transform(row, np.roll(np.eye(3, dtype=np.float32), thirds, axis=1), dst=row)


def _hue_and_saturation_by_table(each: Hsv, clip: np.ndarray) -> None:
    """As imgaug does it. OpenCV rounds the last pixels of a row otherwise than the rest, so rows stay what they are."""
    tall = clip.reshape(-1, *clip.shape[2:])
    cv2.cvtColor(tall, cv2.COLOR_RGB2HSV, dst=tall)
    cv2.LUT(tall, each.table[None], dst=tall)
    cv2.cvtColor(tall, cv2.COLOR_HSV2RGB, dst=tall)


def _blur(each: Kernel, clip: np.ndarray) -> None:
    spare = np.empty_like(clip[0])
    for frame in clip:
        np.copyto(spare, frame)
        match each.step:
            case steps.GaussianBlur(sigma):  # OpenCV's own rounding, which is imgaug's
                size = max(5, each.weights.shape[0])
                cv2.GaussianBlur(spare, (size, size), sigma, dst=frame, borderType=cv2.BORDER_REFLECT_101)
            case steps.AverageBlur(k):
                cv2.blur(spare, (k, k), dst=frame)
            case _:
                cv2.filter2D(spare, -1, each.weights, dst=frame)


def _warp(each: Warp, clip: np.ndarray, out: np.ndarray) -> None:
    """Every frame of `clip` into the same of `out`, which may be `clip`."""
    spare = np.empty_like(clip[0])
    maps = None if each.alone or each.cut else _maps(each)
    seen = None if each.seen is None else cv2.merge([each.seen] * 3)
    for frame, target in zip(clip, out, strict=True):
        if clip is out:
            np.copyto(spare, frame)
            frame = spare
        _warp_frame(each, maps, frame, target)
        if seen is not None:
            cv2.bitwise_and(target, seen, dst=target)


def _maps(each: Warp) -> _Maps:
    """Where every target pixel looks, in whole 32nds of a pixel: worked out once, it is faster than a warp.

    Rounded as by the warps of OpenCV 4, which recipes were tuned with; those of OpenCV 5 are finer.
    """
    inverse = np.linalg.inv(each.matrix)
    x, y = np.arange(each.target[1]), np.arange(each.target[0])[:, None]
    if is_affine(each.matrix):
        places = [
            (np.rint((row[1] * y + row[2]) * 1024).astype(np.int32) + 16 + np.rint(row[0] * x * 1024).astype(np.int32))
            >> 5
            for row in inverse[:2]
        ]
    else:
        across, down, depth = (row[0] * x + (row[1] * y + row[2]) for row in inverse)
        places = [np.rint(place * (32 / depth)).astype(np.int32) for place in (across, down)]
    whole = np.empty((*each.target, 2), np.int16)
    whole[..., 0], whole[..., 1] = places[0] >> 5, places[1] >> 5
    return whole, ((places[1] & 31) * 32 + (places[0] & 31)).astype(np.uint16)


def _warp_frame(each: Warp, maps: _Maps | None, frame: np.ndarray, out: np.ndarray) -> None:
    """One frame into another, which must not be the same memory."""
    if maps is not None:
        flags = _FLAGS[each.interpolation]
        cv2.remap(
            frame, *maps, flags, dst=out, borderMode=cv2.BORDER_REPLICATE if each.replicate else cv2.BORDER_CONSTANT
        )
        return
    if each.cut:
        _cut_frame(each, frame, out)
        return
    match each.alone:
        case steps.Flip():
            cv2.flip(frame, 1, dst=out)
        case steps.Crop(top, left, height, width):
            np.copyto(out, frame[top : top + height, left : left + width])
        case steps.Resize(height, width, interpolation):
            cv2.resize(frame, (width, height), dst=out, interpolation=_FLAGS[interpolation])


def _cut_frame(each: Warp, frame: np.ndarray, out: np.ndarray) -> None:
    """Crop, size and mirroring."""
    crop = each.cut[0]
    assert isinstance(crop, steps.Crop)
    part = frame[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    if part.shape == out.shape:
        np.copyto(out, part)
    else:
        cv2.resize(part, out.shape[1::-1], dst=out, interpolation=_FLAGS[each.interpolation])
    if len(each.cut) > 2:
        cv2.flip(out, 1, dst=out)


_FLAGS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}


def _check(clip: np.ndarray, drawn: Drawn) -> None:
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3:
        raise ValueError(f"the clip is {clip.dtype} {clip.shape}; it must be uint8 (T, H, W, 3)")
    if clip.shape[1:3] != drawn.shape.size or len(clip) != drawn.shape.frames:
        raise ValueError(f"the clip has {clip.shape[:3]} frames, height, width; the steps were drawn for {drawn.shape}")
