"""`ClipLoader`: batches of clips in a fixed order, resumable at any batch."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ingest.errors import ClipmillError
from loaders.clips import ClipPlan, ClipSpec, plan_clip
from loaders.dataset import ClipDataset
from loaders.engine import ClipEngine, Slot
from loaders.order import epoch_order
from loaders.telemetry import Stage

_STATE_VERSION = 1


@dataclass
class ClipBatch:
    """One batch. `frames` is memory of the loader: it holds until the next batch is asked for; copy it to keep it.

    frames uint8 (B, T, H, W, C), labels int64 (B,), frame_indices int64 (B, T), view int64 (B,), videos int64 (B,)
    (place in the dataset), video_ids; epoch, and `position`: place of the first clip in the epoch's global order.
    """

    frames: torch.Tensor
    labels: torch.Tensor
    video_ids: list[str]
    videos: torch.Tensor
    frame_indices: torch.Tensor
    view: torch.Tensor
    epoch: int
    position: int
    _copied: torch.cuda.Event | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def normalized(
        self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """(frames / 255 - mean) / std as float32 (B, C, T, H, W) on `device`; uint8 is what crosses to it.

        The memory order stays that of the frames, which is `channels_last_3d`.
        """
        frames = self.frames.to(device, non_blocking=True)
        if frames.is_cuda:  # The loader must not write to the slot before the copy has left it.
            self._copied = torch.cuda.current_stream(frames.device).record_event()
        scale = torch.tensor([1 / (255 * s) for s in std], device=device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
        return frames.float().mul_(scale).add_(shift).permute(0, 4, 1, 2, 3)


class ClipLoader:
    """Yields the batches of one epoch after the other.

    Sample k of epoch e is a pure function of (seed, e, k): the stream is the same for any number of threads, and with
    `world_size` ranks each batch of all ranks together is the batch that one rank would get with the sum of their batch
    sizes. `iter(loader)` goes on where the last iteration stopped: at the start of an epoch, or, after a `break` or
    `load_state_dict`, in the middle of one. There is one stream: a new iteration ends the one before.

    `shuffle` and `drop_last` are on for training specs and off for evaluation specs unless said otherwise. `depth`
    batches are made ahead; memory is (depth + 2) batches.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        spec: ClipSpec,
        *,
        batch_size: int,
        seed: int = 0,
        num_threads: int | None = None,
        depth: int = 2,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch has at least one clip")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with a world_size of {world_size} it is 0 to {world_size - 1}")
        training = spec.views is None
        self.dataset, self.spec, self.batch_size, self.seed = dataset, spec, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        self.shuffle = training if shuffle is None else shuffle
        self.drop_last = training if drop_last is None else drop_last
        self.num_items = len(dataset) * spec.num_views
        if self.drop_last and self.num_items < batch_size * world_size:
            raise ClipmillError(
                f"{self.num_items} clips do not fill one batch of {batch_size * world_size}.",
                "The epoch would be empty.",
                "Lower the batch size, or switch drop_last off.",
            )
        self.epoch = 0
        self._position = 0
        self.wait_s = 0.0
        self._engine = ClipEngine(
            dataset, spec, batch_size=batch_size, num_threads=self.num_threads, num_slots=depth + 2
        )
        self._closed = False
        self._stream: Callable[[], Generator[ClipBatch, None, None] | None] = lambda: None

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        step = self.batch_size * self.world_size
        return self.num_items // step if self.drop_last else -(-self.num_items // step)

    def __iter__(self) -> Iterator[ClipBatch]:
        if self._closed:
            raise RuntimeError("the loader is closed")
        self._stop_stream()
        stream = self._rest_of_epoch()
        self._stream = weakref.ref(stream)
        return stream

    def _rest_of_epoch(self) -> Generator[ClipBatch, None, None]:
        order = epoch_order(self.num_items, self.seed, self.epoch, shuffle=self.shuffle)
        waiting: deque[tuple[int, Slot, list[Future[ClipPlan]]]] = deque()
        step = self.batch_size * self.world_size
        stop = len(self) * step
        ahead = self._position
        try:
            while self._position < stop:
                while ahead < stop and not self._engine.free.empty():
                    slot = self._engine.free.get()
                    waiting.append((ahead, slot, self._engine.submit(slot, self._plans(order, ahead))))
                    ahead += step
                position, slot, futures = waiting[0]
                started = time.perf_counter()
                plans = [future.result() for future in futures]
                self.wait_s += time.perf_counter() - started
                self._position = position + step
                if plans:
                    batch = self._batch(slot, plans, position)
                    yield batch
                    if batch._copied is not None:
                        batch._copied.synchronize()
                waiting.popleft()
                self._engine.free.put(slot)
            self.epoch, self._position = self.epoch + 1, 0
        finally:
            # Waited for is only what is under way: once the threads have stopped, nobody reports a cancelled clip done.
            wait_for([future for _, _, futures in waiting for future in futures if not future.cancel()])
            for _, slot, _ in waiting:
                self._engine.free.put(slot)

    def _stop_stream(self) -> None:
        """End the iteration that goes on, if any: there is one stream, and it has all the slots."""
        if (stream := self._stream()) is not None:
            stream.close()

    def _plans(self, order: np.ndarray, position: int) -> list[partial[ClipPlan]]:
        """This rank's share of the global batch at `position`, as plans still to be made."""
        first = position + self.rank * self.batch_size
        return [
            partial(self._plan, int(order[k]), k) for k in range(first, min(first + self.batch_size, self.num_items))
        ]

    def _plan(self, item: int, k: int) -> ClipPlan:
        video = item // self.spec.num_views
        frames, levels = int(self.dataset.num_frames[video]), self.dataset.levels(video)
        return plan_clip(self.spec, item, frames, levels, seed=self.seed, epoch=self.epoch, k=k)

    def _batch(self, slot: Slot, plans: list[ClipPlan], position: int) -> ClipBatch:
        videos = np.array([plan.video for plan in plans], np.int64)
        return ClipBatch(
            frames=slot.frames[: len(plans)],
            labels=torch.from_numpy(self.dataset.labels[videos]),
            video_ids=[self.dataset.video_ids[video] for video in videos],
            videos=torch.from_numpy(videos),
            frame_indices=torch.from_numpy(np.stack([plan.frames for plan in plans])),
            view=torch.tensor([plan.view for plan in plans]),
            epoch=self.epoch,
            position=position + self.rank * self.batch_size,
        )

    def stages(self) -> dict[str, Stage]:
        """Work of every stage since the start; `wait` is the time the caller spent waiting for batches."""
        made = self._engine.stages()
        return made | {"wait": Stage(made["read"].count, self.wait_s)}

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: after the last batch that was handed out. A few integers, whatever the place."""
        return {
            "version": _STATE_VERSION,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self._position,
            "num_items": self.num_items,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, with this loader's own threads and ranks.

        Raises: ClipmillError when the state is of another seed or another number of clips: its order is another one.
        """
        mine = {"version": _STATE_VERSION, "seed": self.seed, "num_items": self.num_items}
        for name, value in mine.items():
            if state.get(name) != value:
                raise ClipmillError(
                    f"the loader state has {name} {state.get(name)}, this loader {value}.",
                    "The stream cannot go on in the same order.",
                    "Resume with the data and the seed of the first run, or start anew with the weights only (--init).",
                )
        self._stop_stream()
        self.epoch, self._position = int(state["epoch"]), int(state["position"])

    def close(self) -> None:
        """Stop the threads and close the files. The loader cannot be used afterwards; a second call does nothing."""
        self._closed = True
        with suppress(ValueError):  # Called from inside the wait for a batch: the cancelled clips end it.
            self._stop_stream()
        self._engine.close()

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
