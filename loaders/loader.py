"""`ClipLoader`: batches of clips in a fixed order, resumable at any batch."""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from ingest.errors import ClipmillError
from loaders.augment.gpu import run_gpu
from loaders.augment.recipe import ClipShape, Drawn
from loaders.bad_samples import BadSamples
from loaders.batches import Batches, EqualBatches, Planned, ShapedBatches
from loaders.clips import ClipSpec
from loaders.dataset import ClipDataset
from loaders.engine import Engine, Pending, Slot, ThreadEngine
from loaders.making import BadSample, Places, Results
from loaders.multigrid.plan import ShapePlan
from loaders.order import epoch_order
from loaders.processes import ProcessEngine
from loaders.statistics import Statistics, report
from loaders.stream_state import resumed, stream_state
from loaders.telemetry import Stage

Workers = Literal["processes", "threads"]

OnBad = Literal["replace", "raise"]
"""What happens to a clip that cannot be made: another takes its place, or it is an error."""

Backend = Literal["cpu", "dali"]
"""What decodes and resizes: libjpeg-turbo and OpenCV in the workers, or DALI, on the GPU where there is one."""


@dataclass
class ClipBatch:
    """One batch. `frames` is memory of the loader: it holds until the next batch is asked for; copy it to keep it.

    frames uint8 (B, T, H, W, C), labels int64 (B,), frame_indices int64 (B, T), view int64 (B,), videos int64 (B,)
    (place in the dataset), video_ids; epoch, and `position`: place of the first clip in the epoch's global order;
    `replaced` bool (B,): rows whose own clip could not be made and that hold another;
    `lr_factor`: what a plan of shapes gives the learning rate for this batch.
    """

    frames: torch.Tensor
    labels: torch.Tensor
    video_ids: list[str]
    videos: torch.Tensor
    frame_indices: torch.Tensor
    view: torch.Tensor
    replaced: torch.Tensor
    epoch: int
    position: int
    lr_factor: float = 1.0
    _drawn: list[Drawn | None] | None = field(default=None, repr=False)
    _copied: torch.cuda.Event | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, T, H, W): clips, frames, and pixels."""
        return tuple(self.frames.shape[:4])

    def normalized(
        self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """(frames / 255 - mean) / std as float32 (B, C, T, H, W) on `device`; uint8 is what crosses to it.

        What a recipe with the executor `gpu` does to the clips is done here. Frames that DALI has left on the device stay.

        The memory order stays that of the frames, which is `channels_last_3d`.
        """
        slot = self.frames
        frames = slot.to(device, non_blocking=not slot.is_cuda)
        if frames.is_cuda and not slot.is_cuda:  # The loader must not write to the slot before the copy has left it.
            self._copied = torch.cuda.current_stream(frames.device).record_event()
        if self._drawn is not None:
            frames = run_gpu(frames, [drawn or _nothing(frames) for drawn in self._drawn])
        scale = torch.tensor([1 / (255 * s) for s in std], device=device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
        pixels = frames.float()
        if slot.is_cuda:  # Nor before this has read it, where it lies on the device (DALI).
            self._copied = torch.cuda.current_stream(slot.device).record_event()
        return pixels.mul_(scale).add_(shift).permute(0, 4, 1, 2, 3)

    def wait_until_read(self) -> None:
        """Until nothing that was begun on a device reads the frames any more: the loader is about to write them anew."""
        if self._copied is not None:
            self._copied.synchronize()
        elif self.frames.is_cuda:
            torch.cuda.current_stream(self.frames.device).synchronize()

    def copied(self) -> ClipBatch:
        """The same in memory of its own, to be kept."""
        return replace(self, frames=self.frames.clone(), _copied=None)


def _nothing(frames: torch.Tensor) -> Drawn:
    _, num_frames, height, width, _ = frames.shape
    return Drawn(ClipShape(num_frames, height, width), (), (height, width))


def _base_clips(shapes: ShapePlan | None) -> int:
    """Clips of the plan's base batch: that of the full shape, with which a plan ends."""
    assert shapes is not None
    return max(shapes.phases[-1].cycle, key=lambda shape: shape.num_frames * shape.height * shape.width).num_clips


def _engine_of(backend: Backend, workers: Workers, dataset: ClipDataset, spec: ClipSpec) -> Callable[..., Engine]:
    if backend == "dali":
        from loaders.dali import DaliEngine, check_dali_can  # Not above: an extra, and slow to import.

        check_dali_can(dataset, spec)
        return DaliEngine
    return ProcessEngine if workers == "processes" else ThreadEngine


@dataclass(frozen=True)
class _Begun:
    """A batch that is being made, of an epoch, in its slot."""

    epoch: int
    planned: Planned
    slot: Slot
    pending: Pending


@dataclass
class _Ahead:
    """The batches that were begun, in their order, and those that come after them."""

    batches: deque[_Begun]
    planned: Iterator[tuple[int, np.ndarray, Planned]]


class ClipLoader:
    """Yields the batches of one epoch after the other.

    Sample k of epoch e is a pure function of (seed, e, k): the stream is the same for any number of workers, threads or
    processes, and with `world_size` ranks each batch of all ranks together is the batch that one rank would get with the
    sum of their batch sizes. `iter(loader)` goes on where the last iteration stopped: at the start of an epoch, or, after
    a `break` or `load_state_dict`, in the middle of one. There is one stream: a new iteration ends the one before. In training
    the first batches of the next epoch are made while the last ones of this are used.

    `workers` are `processes` (default) or `threads`, `num_workers` of them (default: one per core). `shuffle` and
    `drop_last` are on for training specs and off for evaluation specs unless said otherwise. `depth` batches are made
    ahead; memory is (depth + 2) batches. With `shapes`, a plan of multigrid, the batches change their shape as it says
    (its `num_clips` are those of all ranks together) and `batch_size` is not used.

    With the `backend` `dali` (an extra) DALI decodes and resizes in `num_workers` threads, on the GPU where there is one;
    `workers` is not used then. All but the pixels is as without, and those differ little (docs/loaders.md).

    A clip that cannot be made is replaced in training by another that its place determines, and recorded in the catalog;
    when more than `max_bad` of the clips had to be, the run stops. In evaluation, or with `max_bad` 0, it is an error at
    once, unless `on_bad` is "replace": then the batch says which rows do not count (`ClipBatch.replaced`).
    """

    def __init__(
        self,
        dataset: ClipDataset,
        spec: ClipSpec,
        *,
        batch_size: int | None = None,
        seed: int = 0,
        workers: Workers = "processes",
        num_workers: int | None = None,
        depth: int = 2,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
        shapes: ShapePlan | None = None,
        max_bad: float = 0.001,
        on_bad: OnBad | None = None,
        backend: Backend = "cpu",
    ) -> None:
        if (batch_size is None) == (shapes is None):
            raise ValueError("give either a batch_size or a plan of shapes")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch has at least one clip")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with a world_size of {world_size} it is 0 to {world_size - 1}")
        if workers not in get_args(Workers):
            raise ValueError(f"workers are {workers!r}; there are {', '.join(get_args(Workers))}")
        if backend not in get_args(Backend):
            raise ValueError(f"backend is {backend!r}; there are {', '.join(get_args(Backend))}")
        if on_bad not in (None, *get_args(OnBad)):
            raise ValueError(f"on_bad is {on_bad!r}; there are {', '.join(get_args(OnBad))}")
        training = spec.views is None
        self.dataset, self.spec, self.seed, self.plan = dataset, spec, seed, shapes
        self.rank, self.world_size = rank, world_size
        self.batch_size = batch_size if batch_size is not None else _base_clips(shapes) // world_size
        self.num_workers = num_workers or len(os.sched_getaffinity(0))
        self.shuffle = training if shuffle is None else shuffle
        self.num_items = len(dataset) * spec.num_views
        self.drop_last = training if drop_last is None else drop_last
        self.batches: Batches = (
            ShapedBatches(shapes, spec, self.num_items, rank, world_size)
            if shapes is not None
            else EqualBatches(batch_size or 1, spec, self.num_items, rank, world_size, self.drop_last)
        )
        if self.drop_last and batch_size is not None and self.num_items < batch_size * world_size:
            raise ClipmillError(
                f"{self.num_items} clips do not fill one batch of {batch_size * world_size}.",
                "The epoch would be empty.",
                "Lower the batch size, or switch drop_last off.",
            )
        self.epoch = 0
        self._position = 0
        replaces = training if on_bad is None else on_bad == "replace"
        self._bad = BadSamples(dataset, (max_bad if training else 1.0) if replaces else 0.0)
        self._engine: Engine = _engine_of(backend, workers, dataset, spec)(
            dataset, num_workers=self.num_workers, num_slots=depth + 2, slot_bytes=self.batches.most_bytes
        )
        self.statistics = Statistics(self.num_workers, depth + 2)
        self._reported = (self.statistics.snapshot(), time.perf_counter())
        self._closed = False
        self._ahead: _Ahead | None = None  # Between two epochs.
        self._stream: Callable[[], Generator[ClipBatch, None, None] | None] = lambda: None

    def __len__(self) -> int:
        """Batches of a whole epoch: of the present one, where the number changes."""
        return self.batches.count(self.epoch)

    @property
    def batches_left(self) -> int:
        """Batches until the present epoch ends, from where the stream stands."""
        return len(self) - self.batches.index(self.epoch, self._position)

    def __iter__(self) -> Iterator[ClipBatch]:
        if self._closed:
            raise RuntimeError("the loader is closed")
        self._stop_stream()
        stream = self._rest_of_epoch()
        self._stream = weakref.ref(stream)
        return stream

    def _rest_of_epoch(self) -> Generator[ClipBatch, None, None]:
        epoch, ahead = self.epoch, self._take_ahead()
        waiting = ahead.batches
        try:
            while True:
                while not self._engine.free.empty() and (planned := next(ahead.planned, None)) is not None:
                    waiting.append(self._submit(*planned))
                if not waiting or waiting[0].epoch != epoch:
                    break
                now = waiting[0]
                started = time.perf_counter()
                num_ready = sum(other.pending.is_ready() for other in waiting)
                clips = now.pending.result()
                bad = self.statistics.add(clips, time.perf_counter() - started, num_ready)
                self._bad.add(bad, len(clips))
                self._position = now.planned.end
                if len(clips):
                    batch = self._batch(now.slot, clips, now.planned)
                    yield batch
                    batch.wait_until_read()
                waiting.popleft()
                self._engine.free.put(now.slot)
            self.epoch, self._position = epoch + 1, 0
            self._ahead = ahead
        finally:
            if self._ahead is not ahead:
                self._drop(ahead)

    def _take_ahead(self) -> _Ahead:
        """What the epoch before has left for where the stream stands now, or nothing yet."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            if ahead.batches and (ahead.batches[0].epoch, self._position) == (self.epoch, 0):
                return ahead
            self._drop(ahead)
        return _Ahead(deque(), self._planned(self.epoch, self._position))

    def _planned(self, epoch: int, position: int) -> Iterator[tuple[int, np.ndarray, Planned]]:
        """Batches from there on with their epoch and its order: in training without end, so that no epoch begins cold."""
        while True:
            order = epoch_order(self.num_items, self.seed, epoch, shuffle=self.shuffle)
            planned = self.batches.at(epoch, position)
            if planned is None and position == 0:
                return
            while planned is not None:
                yield epoch, order, planned
                planned = self.batches.at(epoch, planned.end)
            if self.spec.views is not None:
                return
            epoch, position = epoch + 1, 0

    def _submit(self, epoch: int, order: np.ndarray, planned: Planned) -> _Begun:
        slot = self._engine.free.get()
        ks = np.array(planned.places, np.int64)
        places = Places(order[ks % self.num_items], ks, self.seed, epoch)
        pending = self._engine.submit(slot, planned.spec, places, replace_bad=self._bad.limit > 0)
        return _Begun(epoch, planned, slot, pending)

    def _drop(self, ahead: _Ahead) -> None:
        for begun in ahead.batches:
            begun.pending.cancel()
            self._engine.free.put(begun.slot)

    def _stop_stream(self) -> None:
        """End the iteration that goes on, if any: there is one stream, and it has all the slots."""
        if (stream := self._stream()) is not None:
            stream.close()

    def _batch(self, slot: Slot, clips: Results, planned: Planned) -> ClipBatch:
        replaced = torch.zeros(len(clips), dtype=torch.bool)
        replaced[list(clips.bad)] = True
        return ClipBatch(
            frames=slot.frames(len(clips), planned.spec),
            labels=torch.from_numpy(clips.labels),
            video_ids=[self.dataset.video_ids[video] for video in clips.videos],
            videos=torch.from_numpy(clips.videos),
            frame_indices=torch.from_numpy(clips.frames),
            view=torch.from_numpy(clips.views),
            replaced=replaced,
            epoch=self.epoch,
            position=planned.places[0],
            lr_factor=planned.lr_factor,
            _drawn=clips.drawn if planned.spec.executor == "gpu" else None,
        )

    def stages(self) -> dict[str, Stage]:
        """Work of every stage since the start; `wait` is the time the caller spent waiting for batches."""
        return self.statistics.stages()

    @property
    def wait_s(self) -> float:
        """Seconds that the caller has waited for batches."""
        return self.statistics.wait_s

    def report(self) -> str:
        """One sentence on the time since the last report: whether the loader keeps up, what holds it up, and the cure."""
        (before, since), now = self._reported, time.perf_counter()
        self._reported = (self.statistics.snapshot(), now)
        return report(before, self.statistics, now - since)

    def headspace(self, num_cached: int = 4) -> Iterator[ClipBatch]:
        """The same few batches again and again, without end: how fast training would be with a loader that costs nothing.

        The stream moves on by these few batches.
        """
        cached = [batch.copied() for batch in itertools.islice(self, num_cached)]
        if not cached:
            cached = [batch.copied() for batch in itertools.islice(self, num_cached)]  # An epoch had just ended.
        return itertools.cycle(cached)

    @property
    def bad_samples(self) -> list[BadSample]:
        """Clips that were replaced so far."""
        return list(self._bad.found)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: after the last batch that was handed out. A few integers, whatever the place."""
        return stream_state(self.epoch, self._position, seed=self.seed, num_items=self.num_items)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, with this loader's own threads and ranks.

        Raises: ClipmillError when the state is of another seed or another number of clips: its order is another one.
        """
        epoch, position = resumed(state, seed=self.seed, num_items=self.num_items)
        self._stop_stream()
        self.epoch, self._position = epoch, position

    def close(self) -> None:
        """Stop the threads and close the files. The loader cannot be used afterwards; a second call does nothing."""
        self._closed = True
        with suppress(ValueError):  # Called from inside the wait for a batch: the cancelled clips end it.
            self._stop_stream()
        self._engine.close()

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
