"""The clip engine: threads that read and decode clips straight into preallocated batch slots.

The JPEG decoder, the resize and the copy run without Python's lock, so threads scale; the slots are the memory bound
and the back-pressure. Nothing here knows order or epochs: it is given plans and a slot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue

import cv2
import numpy as np
import simplejpeg
import torch

from ingest.errors import VideoError
from loaders.clips import ClipPlan, ClipSpec
from loaders.dataset import ClipDataset, FrameReader
from loaders.telemetry import Stage

STAGES = ("read", "decode", "assemble")


class ClipError(VideoError):
    """A clip could not be made. Names the video and the frame."""


@dataclass
class Slot:
    """Memory of one batch: `frames` uint8 (B, T, H, W, C), pinned when there is a GPU, and the same as an array."""

    frames: torch.Tensor
    array: np.ndarray


@dataclass
class _Counters:
    """Work of one thread so far, per stage."""

    count: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    num_bytes: int = 0


class ClipEngine:
    """`num_threads` threads and `num_slots` slots of `batch_size` clips of `spec`."""

    def __init__(
        self, dataset: ClipDataset, spec: ClipSpec, *, batch_size: int, num_threads: int, num_slots: int
    ) -> None:
        cv2.setNumThreads(1)  # One clip, one thread: OpenCV's own threads would fight with these.
        self._dataset, self._spec = dataset, spec
        self._reader = FrameReader(dataset, num_threads)
        self._local = threading.local()
        self._counters: list[_Counters] = []
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="clipmill-decode")
        self.free: SimpleQueue[Slot] = SimpleQueue()
        shape = (batch_size, spec.num_frames, spec.height, spec.width, 3)
        for _ in range(num_slots):
            frames = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
            self.free.put(Slot(frames, frames.numpy()))

    def submit(self, slot: Slot, plans: Sequence[Callable[[], ClipPlan]]) -> list[Future[ClipPlan]]:
        """Start making clips, clip i into row i of the slot. A plan is made in the thread that makes the clip."""
        return [self._pool.submit(self._make, plan, slot.array[row]) for row, plan in enumerate(plans)]

    def stages(self) -> dict[str, Stage]:
        """What every stage has done since the start: clips, busy seconds summed over threads, bytes read."""
        counters = list(self._counters)
        count = sum(c.count for c in counters)
        num_bytes = sum(c.num_bytes for c in counters)
        return {
            name: Stage(count, sum(c.seconds[name] for c in counters), num_bytes if name == "read" else 0)
            for name in STAGES
        }

    def close(self) -> None:
        """Stop: clips under way are finished (milliseconds), waiting ones dropped, connections closed."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._reader.close()

    def _make(self, plan_of: Callable[[], ClipPlan], out: np.ndarray) -> ClipPlan:
        """One clip into `out`, uint8 (T, H, W, C). Returns its plan."""
        counters = self._thread_counters()
        plan = plan_of()
        started = time.perf_counter()
        try:
            blobs = self._reader.read(plan.video, plan.level, plan.frames)
        except VideoError as error:
            raise ClipError(error.reason, error.message, error.frame) from error
        counters.seconds["read"] += time.perf_counter() - started
        counters.num_bytes += sum(map(len, blobs))
        decoder = _Decoder(self._spec, plan, self._scratch(plan))
        done = -1
        for t, (frame, blob) in enumerate(zip(plan.frames, blobs, strict=True)):
            if frame == done:  # a short video repeats its frames
                out[t] = out[t - 1]
                continue
            try:
                decoder(blob, out[t], counters.seconds)
            except (ValueError, TypeError, cv2.error) as error:
                name = self._dataset.name(plan.video)
                raise ClipError("undecodable", f"{name}: level {plan.level.short_side}: {error}", int(frame)) from error
            done = frame
        counters.count += 1
        return plan

    def _thread_counters(self) -> _Counters:
        counters: _Counters | None = getattr(self._local, "counters", None)
        if counters is None:
            counters = self._local.counters = _Counters()
            self._counters.append(counters)
        return counters

    def _scratch(self, plan: ClipPlan) -> np.ndarray:
        """This thread's decode buffer, large enough for a whole frame of the level."""
        need = plan.level.width * plan.level.height * 3
        scratch: np.ndarray | None = getattr(self._local, "scratch", None)
        if scratch is None or scratch.size < need:
            scratch = self._local.scratch = np.empty(need, np.uint8)
        return scratch


class _Decoder:
    """Decodes frames of one clip: all geometry is worked out once, per frame remain decode, resize and copy."""

    def __init__(self, spec: ClipSpec, plan: ClipPlan, scratch: np.ndarray) -> None:
        self._spec, self._plan, self._scratch = spec, plan, scratch
        self._min_size = (0, 0) if spec.exact else plan.scaled

    def __call__(self, blob: bytes, out: np.ndarray, seconds: dict[str, float]) -> None:
        started = time.perf_counter()
        image = simplejpeg.decode_jpeg(
            blob,
            self._spec.colour,
            fastdct=not self._spec.exact,
            fastupsample=not self._spec.exact,
            min_height=self._min_size[0],
            min_width=self._min_size[1],
            min_factor=2,
            buffer=self._scratch,
        )
        decoded = time.perf_counter()
        seconds["decode"] += decoded - started
        self._cut(image, out)
        seconds["assemble"] += time.perf_counter() - decoded

    def _cut(self, image: np.ndarray, out: np.ndarray) -> None:
        """Scale, crop and mirror `image` (H, W, C) into `out`."""
        plan, (height, width) = self._plan, out.shape[:2]
        top, left = plan.offset
        if image.shape[:2] == plan.scaled:
            _copy(image[top : top + height, left : left + width], out, plan.mirror)
            return
        fy, fx = image.shape[0] / plan.scaled[0], image.shape[1] / plan.scaled[1]
        shrink = max(fy, fx) > 2
        interpolation = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        if self._spec.exact:
            whole = cv2.resize(image, plan.scaled[::-1], interpolation=interpolation)
            _copy(whole[top : top + height, left : left + width], out, plan.mirror)
            return
        y0, y1 = round(top * fy), round((top + height) * fy)
        x0, x1 = round(left * fx), round((left + width) * fx)
        cv2.resize(
            image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)], (width, height), dst=out, interpolation=interpolation
        )
        if plan.mirror:
            cv2.flip(out, 1, dst=out)


def _copy(image: np.ndarray, out: np.ndarray, mirror: bool) -> None:
    """`image` into `out`; `image` is scratch and may be changed."""
    if mirror:
        # First and in place: it writes backwards, which takes three times as long into memory that no cache holds.
        cv2.flip(image, 1, dst=image)
    out[...] = image
