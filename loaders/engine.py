"""The clip engine: decoders that fill preallocated batch slots. In threads of this process, or in processes beside it.

The slots are the memory bound and the back-pressure. Nothing here knows order or epochs: it is given places and a slot.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import torch

from loaders.clips import ClipSpec
from loaders.dataset import ClipDataset
from loaders.making import ClipMaker, Made, Place, Places, Results
from loaders.reading import FrameReader


@dataclass
class Slot:
    """Memory of one batch of any shape: uint8 (bytes,), pinned when there is a GPU, and the same as an array."""

    index: int
    memory: torch.Tensor
    array: np.ndarray

    def frames(self, num_clips: int, spec: ClipSpec) -> torch.Tensor:
        """The first clips in it, uint8 (B, T, H, W, C)."""
        shape = (num_clips, spec.num_frames, spec.height, spec.width, 3)
        return self.memory[: num_clips * spec.clip_bytes].view(shape)


class Pending(Protocol):
    """A batch that is being made."""

    def result(self) -> Results:
        """Wait for it: a row per place, in order. Raises: what the first of them that failed has raised."""

    def is_ready(self) -> bool:
        """Whether `result` would return at once."""

    def cancel(self) -> None:
        """Drop what is not begun, and wait for what is."""


class Engine(Protocol):
    """Decoders and slots."""

    free: SimpleQueue[Slot]
    """Slots that no batch lies in."""

    def submit(self, slot: Slot, spec: ClipSpec, places: Places, *, replace_bad: bool) -> Pending:
        """Start making clips, clip i of the batch as the i-th in the slot."""

    def close(self) -> None:
        """Stop at once; what is under way is lost. The memory of slots stays valid."""


def torch_slot(index: int, num_bytes: int) -> Slot:
    """A slot in memory of this process."""
    memory = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
    return Slot(index, memory, memory.numpy())


class ThreadEngine:
    """`num_workers` threads of this process and `num_slots` slots of `slot_bytes`."""

    def __init__(self, dataset: ClipDataset, *, num_workers: int, num_slots: int, slot_bytes: int) -> None:
        self._dataset = dataset
        self._reader = FrameReader(dataset, num_workers)
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="clipmill-decode")
        self.free: SimpleQueue[Slot] = SimpleQueue()
        for index in range(num_slots):
            self.free.put(torch_slot(index, slot_bytes))

    def submit(self, slot: Slot, spec: ClipSpec, places: Places, *, replace_bad: bool) -> Pending:
        frames = slot.frames(len(places), spec).numpy()
        return _Futures(
            [self._pool.submit(self._make, spec, place, frames[row], replace_bad) for row, place in enumerate(places)]
        )

    def _make(self, spec: ClipSpec, place: Place, out: np.ndarray, replace_bad: bool) -> Made:
        maker: ClipMaker | None = getattr(self._local, "maker", None)
        if maker is None:
            maker = self._local.maker = ClipMaker(self._dataset, self._reader)
        return maker.make(spec, place, out, replace_bad=replace_bad)

    def close(self) -> None:
        """Clips under way are finished (milliseconds), waiting ones dropped, connections closed."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._reader.close()


@dataclass(frozen=True)
class _Futures:
    futures: list[Future[Made]]

    def result(self) -> Results:
        return Results.of([future.result() for future in self.futures])

    def is_ready(self) -> bool:
        return all(future.done() for future in self.futures)

    def cancel(self) -> None:
        # Waited for is only what is under way: once the threads have stopped, nobody reports a cancelled clip done.
        wait_for([future for future in self.futures if not future.cancel()])
