"""What DALI is asked to do: the part of every frame that it decodes, and the pipeline that decodes and resizes it.

One pipeline serves all shapes: whatever differs between clips, the size that comes out included, is an input per frame.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ingest.errors import ClipmillError
from loaders.clips import ClipPlan, ClipSpec

# Frames, and their decoded pixels, that DALI gets at once. A run cannot be interrupted, so on a CPU it is to stay well below
# a second; between runs its threads stand still, so that many small ones are slower.
_MOST_ON_CPU = 256, 24_000_000
_MOST_ON_GPU = 512, 256_000_000


class DaliError(RuntimeError):
    """DALI has refused a batch. It does not say in a way to go by which frame was the reason."""


@dataclass(frozen=True)
class Cuts:
    """How frames become frames of a clip, one row per frame; (y, x) in pixels of the stored frame.

    Decoded is the box at `start` of `shape`; what lies from `roi_start` to `roi_end` within it is scaled to `size`,
    mirrored where the region runs backwards. `resized` is off where it has the right size already, then only `mirror`
    counts; `averaged` is on where it shrinks to less than half.
    """

    start: np.ndarray  # int32 (N, 2)
    shape: np.ndarray  # int32 (N, 2)
    roi_start: np.ndarray  # float32 (N, 2)
    roi_end: np.ndarray  # float32 (N, 2)
    size: np.ndarray  # float32 (N, 2)
    mirror: np.ndarray  # int32 (N,)
    resized: np.ndarray  # bool (N,)
    averaged: np.ndarray  # bool (N,)

    def __getitem__(self, rows: slice) -> Cuts:
        return Cuts(*(getattr(self, each.name)[rows] for each in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Cuts]) -> Cuts:
        return Cuts(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Cuts)))


def cuts_of(spec: ClipSpec, plan: ClipPlan, sizes: np.ndarray, *, whole: bool = False) -> Cuts:
    """What `plan` asks for, of stored frames of `sizes` int (T, 2) (height, width).

    The region is that of the CPU engine: to a fraction of a pixel where the spec is exact, else cut at whole pixels of
    what its decoder makes of the frame. With `whole`, frames are decoded in full.
    """
    sizes = np.asarray(sizes)
    factor = sizes / np.array(plan.scaled)
    corners = np.stack([plan.offset, np.add(plan.offset, (spec.height, spec.width))])[:, None]
    if spec.exact:
        roi_start, roi_end = corners * factor
    else:
        decoded = _decoded_sizes(sizes, plan.scaled)
        first, end = np.rint(corners * (decoded / np.array(plan.scaled)))
        roi_start, roi_end = first * (sizes / decoded), np.maximum(end, first + 1) * (sizes / decoded)
    # An exact frame is scaled as a whole before it is cut, so its filter sees beyond the region.
    margin = np.where(factor == 1, 0, np.ceil(2 * np.maximum(factor, 1)) + 1) if spec.exact else 0
    start = np.maximum(np.floor(roi_start) - margin, 0)
    end = np.minimum(np.ceil(roi_end) + margin, sizes)
    if whole:
        start, end = np.zeros_like(start), sizes
    roi_start, roi_end = roi_start - start, roi_end - start
    if plan.mirror:
        roi_start[:, 1], roi_end[:, 1] = roi_end[:, 1], roi_start[:, 1].copy()
    num = len(sizes)
    return Cuts(
        start.astype(np.int32),
        (end - start).astype(np.int32),
        roi_start.astype(np.float32),
        roi_end.astype(np.float32),
        np.full((num, 2), (spec.height, spec.width), np.float32),
        np.full(num, plan.mirror, np.int32),
        (factor != 1).any(1) | whole,
        factor.max(1) > 2,
    )


def _decoded_sizes(sizes: np.ndarray, least: tuple[int, int]) -> np.ndarray:
    """Sizes (T, 2) in which the CPU engine's decoder gives frames of which it needs `least`: at most 4/8, or 8/8."""
    made = sizes
    for eighths in (4, 3, 2, 1):
        smaller = -(-sizes * eighths // 8)
        made = np.where((smaller >= least).all(1, keepdims=True), smaller, made)
    return made


def import_dali() -> Any:
    """The module nvidia.dali. Raises: ClipmillError that names the extra, where it is not installed."""
    try:
        from nvidia import dali
    except ImportError as error:
        raise ClipmillError(
            "the backend dali needs nvidia.dali, which cannot be imported.",
            "Nothing can be loaded with it.",
            "Install the extra (pip install 'clipmill[dali]'), or load with backend='cpu'.",
        ) from error
    return dali


class Decoder:
    """A pipeline: JPEG files in, frames out. Built when first used, and again after DALI has given up on it.

    Interpolation is as near to the CPU engine's as DALI has it: linear without antialiasing, as OpenCV's; where a frame
    shrinks to less than half, a Gaussian, which of DALI's filters comes nearest to the mean over an area. `whole` decodes
    frames in full (default: on a GPU, whose JPEG engine knows no regions).
    """

    def __init__(self, device: torch.device, num_threads: int, *, exact: bool, bgr: bool, whole: bool | None = None):
        self._device, self._num_threads, self._exact, self._bgr = device, num_threads, exact, bgr
        self.whole = device.type == "cuda" if whole is None else whole
        self._most_frames, self._most_pixels = _MOST_ON_GPU if device.type == "cuda" else _MOST_ON_CPU
        self._pipeline: Any = None

    def parts(self, cuts: Cuts) -> Iterator[slice]:
        """The frames, as many at a time as one run takes."""
        pixels = np.cumsum(cuts.shape.prod(1, dtype=np.int64))
        first, before = 0, 0
        while first < len(pixels):
            end = int(np.searchsorted(pixels, before + self._most_pixels, side="right"))
            end = min(max(end, first + 1), first + self._most_frames)
            yield slice(first, end)
            first, before = end, int(pixels[end - 1])

    def run(self, pictures: Sequence[bytes], cuts: Cuts, out: torch.Tensor) -> tuple[float, float]:
        """The pictures of one of `parts` into `out`, uint8 (N, H, W, 3) on the device.

        Returns the seconds of DALI's work and of the copy. Raises: DaliError.
        """
        started, refused = time.perf_counter(), None
        try:
            if self._pipeline is None:
                self._pipeline = self._build()
            (frames,) = self._run(pictures, cuts)
        except Exception as error:
            refused = str(error)  # Not the error itself: its traceback would keep the pipeline's threads alive.
        if refused is not None:
            self._pipeline = None  # "no longer valid", as DALI puts it
            raise DaliError(refused)
        decoded = time.perf_counter()
        if set(frames.shape()) != {tuple(out.shape[1:])}:  # The copy below looks at nothing.
            raise DaliError(f"it made frames of {set(frames.shape())}, not {tuple(out.shape[1:])}")
        frames.copy_to_external(ctypes.c_void_p(out.data_ptr()))
        return decoded - started, time.perf_counter() - decoded

    def close(self) -> None:
        """End DALI's threads."""
        self._pipeline = None

    def _run(self, pictures: Sequence[bytes], cuts: Cuts) -> Any:
        """The inputs are not copied: they live until the outputs are there."""
        pipeline = self._pipeline
        pipeline.feed_input("pictures", [np.frombuffer(picture, np.uint8) for picture in pictures])
        used = ["roi_start", "roi_end", "size", "averaged"]
        if not self.whole:
            used += ["start", "shape", "mirror", "resized"]
        for name in used:
            pipeline.feed_input(name, np.ascontiguousarray(getattr(cuts, name)))
        return pipeline.run()

    def _build(self) -> Any:
        dali = import_dali()
        fn, types = dali.fn, dali.types
        gpu, whole = self._device.type == "cuda", self.whole
        decoding = {
            "device": "mixed" if gpu else "cpu",
            "output_type": types.BGR if self._bgr else types.RGB,
            # As the CPU engine has it. (On a CPU DALI interpolates the colours smoothly whatever one says.)
            "use_fast_idct": not self._exact,
            "jpeg_fancy_upsampling": self._exact,
            "adjust_orientation": False,
            "affine": False,  # Threads tied to cores would be tied to the same ones in every rank.
        }

        def given(name: str, dtype: Any, ndim: int) -> Any:
            return fn.external_source(name=name, dtype=dtype, ndim=ndim, no_copy=True)

        def scaled(frames: Any, region: dict[str, Any], averaged: Any) -> Any:
            if averaged:
                made = fn.resize(frames, interp_type=types.INTERP_GAUSSIAN, antialias=True, **region)
            else:
                made = fn.resize(frames, interp_type=types.INTERP_LINEAR, antialias=False, **region)
            return made

        @dali.pipeline_def(
            batch_size=self._most_frames,
            num_threads=self._num_threads,
            device_id=self._device.index if gpu else None,  # None: no driver is needed, nor looked for.
            exec_dynamic=True,
            prefetch_queue_depth=1,
            enable_conditionals=True,  # An `if` on an input sends every frame its own way.
        )
        def decode_and_resize() -> Any:
            pictures, averaged = given("pictures", types.UINT8, 1), given("averaged", types.BOOL, 0)
            region = {name: given(name, types.FLOAT, 1) for name in ("size", "roi_start", "roi_end")}
            if whole:
                return scaled(fn.decoders.image(pictures, **decoding), region, averaged)
            start, shape = given("start", types.INT32, 1), given("shape", types.INT32, 1)
            mirror, resized = given("mirror", types.INT32, 0), given("resized", types.BOOL, 0)
            frames = fn.decoders.image_slice(pictures, start=start, shape=shape, axes=[0, 1], **decoding)
            if resized:
                made = scaled(frames, region, averaged)
            else:
                made = fn.flip(frames, horizontal=mirror)
            return made

        pipeline = decode_and_resize()
        pipeline.build()
        return pipeline
