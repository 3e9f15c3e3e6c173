"""Windows of features in batches: a loader with the contract of `ClipLoader`, for data that needs no decoding."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingest.errors import ClipmillError
from loaders.order import epoch_order, sample_rng
from loaders.statistics import Statistics
from loaders.stream_state import resumed, stream_state
from loaders.telemetry import Stage
from loaders.windows import OnlineWindows
from trainers.lstr.data import FeatureDataset


@dataclass
class WindowBatch:
    """Windows of features. A stream that is not used is None; without a long memory so is the mask, and N is 0.

    visual, motion float32 (B, N + W, size), long rows first; mask float32 (B, N); targets float32 (B, W, C);
    sessions, starts int64 (B,); epoch, and `position`: place of the first window in the epoch's global order.
    """

    visual: Tensor | None
    motion: Tensor | None
    mask: Tensor | None
    targets: Tensor
    sessions: Tensor
    starts: Tensor
    epoch: int
    position: int
    lr_factor: float = 1.0

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Tensor:
        """Targets of all rows, (B x W, C)."""
        return self.targets.flatten(0, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, rows, 1, 1), as a batch of clips would have it."""
        stream = self.motion if self.visual is None else self.visual
        assert stream is not None
        return (len(self), stream.shape[1], 1, 1)

    def copied(self) -> WindowBatch:
        """Itself: nothing writes to it again."""
        return self

    def inputs(self, device: torch.device) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What the network takes, on `device`."""
        visual, motion, mask = (
            None if each is None else each.to(device, non_blocking=True)
            for each in (self.visual, self.motion, self.mask)
        )
        return visual, motion, mask


class WindowLoader:
    """Windows one after the other over every session, in batches.

    Training: the first window of a session begins at a place drawn for the (seed, epoch, session), the order is a permutation
    drawn for the (seed, epoch), and the long memory is spread over what there is. So the number of windows changes a little
    from epoch to epoch. Evaluation: windows from row 0 on, in order, with the long memory at its rate.

    With `world_size` ranks, each takes its part of every batch of all; an incomplete last batch is left out in training then.
    `iter(loader)` goes on where the last iteration stopped. `depth` batches are made ahead in threads.
    """

    def __init__(
        self,
        dataset: FeatureDataset,
        windows: OnlineWindows,
        *,
        batch_size: int,
        training: bool,
        seed: int = 0,
        depth: int = 2,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch has at least one window")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; with a world_size of {world_size} it is 0 to {world_size - 1}")
        self.dataset, self.windows, self.batch_size, self.training = dataset, windows, batch_size, training
        self.seed, self.depth, self.rank, self.world_size = seed, depth, rank, world_size
        self.epoch = 0
        self.plan = None  # of batch shapes: windows have one
        self.statistics = Statistics(max(depth, 1), depth + 1)
        self._position = 0
        self._plans: dict[int, np.ndarray] = {}
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(max_workers=max(depth, 1))
        if not len(self):
            self.close()
            raise ClipmillError(
                f"{dataset.root}: no session is longer than a work memory of {windows.work_length} rows"
                f" ({len(dataset)} sessions).",
                "The epoch would be empty.",
                "Take a shorter work memory, or other sessions.",
            )

    def items(self, epoch: int) -> np.ndarray:
        """(session, start) of every window of an epoch in its order, int64 (num, 2)."""
        if epoch not in self._plans:
            found = [
                (session, start)
                for session in range(len(self.dataset))
                for start in self.windows.starts(self.dataset.rows(session), offset=self._offset(epoch, session))
            ]
            items = np.array(found, np.int64).reshape(-1, 2)
            order = epoch_order(len(items), self.seed, epoch, shuffle=self.training)
            first = {0: self._plans[0]} if 0 in self._plans else {}
            self._plans = {**first, epoch: items[order]}
        return self._plans[epoch]

    def _offset(self, epoch: int, session: int) -> int:
        if not self.training:
            return 0
        return int(sample_rng(self.seed, epoch, session).integers(self.windows.work_length))

    @property
    def num_items(self) -> int:
        """Windows of the present epoch."""
        return len(self.items(self.epoch))

    def __len__(self) -> int:
        """Batches of the first epoch, of all ranks together. As published, schedules go by these; others differ a little."""
        return self._num_batches(len(self.items(0)))

    @property
    def batches_left(self) -> int:
        """Batches of the present epoch that are still to come."""
        return self._num_batches(self.num_items) - self._position // (self.batch_size * self.world_size)

    def _num_batches(self, num_items: int) -> int:
        step = self.batch_size * self.world_size
        return num_items // step if self._drop_last else -(-num_items // step)

    @property
    def wait_s(self) -> float:
        """Seconds that the caller has waited for batches."""
        return self.statistics.wait_s

    @property
    def _drop_last(self) -> bool:
        return self.training and self.world_size > 1

    def __iter__(self) -> Iterator[WindowBatch]:
        if self._pool is None:
            raise RuntimeError("the loader is closed")
        items, step = self.items(self.epoch), self.batch_size * self.world_size
        end = len(items) // step * step if self._drop_last else len(items)
        places = iter(range(self._position, end, step))
        waiting: deque[tuple[int, Future[WindowBatch]]] = deque()
        epoch, pool = self.epoch, self._pool
        while True:
            while len(waiting) <= self.depth and (place := next(places, None)) is not None:
                mine = items[place + self.rank * self.batch_size :][: self.batch_size]
                if len(mine):
                    waiting.append((place + step, pool.submit(self._make, mine, epoch, place)))
            if not waiting:
                break
            num_ready = sum(made.done() for _, made in waiting)
            self._position, now = waiting.popleft()
            started = time.perf_counter()
            batch = now.result()
            self.statistics.add(None, time.perf_counter() - started, num_ready)
            yield batch
        self.epoch, self._position = epoch + 1, 0

    def _make(self, items: np.ndarray, epoch: int, position: int) -> WindowBatch:
        sample = self.windows.train if self.training else self.windows.test
        streams: list[list[np.ndarray]] = [[], []]
        masks, targets = [], []
        for session, start in items.tolist():
            visual, motion, target = self.dataset.arrays(session)
            window = sample(start)
            rows = np.concatenate([window.long, window.work])
            for array, parts in zip((visual, motion), streams, strict=True):
                if array is not None:
                    parts.append(np.asarray(array[rows], np.float32))
            masks.append(window.mask)
            targets.append(np.asarray(target[window.work], np.float32))
        tensors = [torch.from_numpy(np.stack(parts)) if parts else None for parts in streams]
        return WindowBatch(
            visual=tensors[0],
            motion=tensors[1],
            mask=torch.from_numpy(np.stack(masks)) if self.windows.num_long else None,
            targets=torch.from_numpy(np.stack(targets)),
            sessions=torch.from_numpy(items[:, 0].copy()),
            starts=torch.from_numpy(items[:, 1].copy()),
            epoch=epoch,
            position=position,
        )

    def stages(self) -> dict[str, Stage]:
        """Nothing is measured: features are copied, not decoded."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: after the last batch that was handed out."""
        return stream_state(self.epoch, self._position, seed=self.seed, sessions=len(self.dataset))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises: ClipmillError when it is of another seed or another data set."""
        self.epoch, self._position = resumed(state, seed=self.seed, sessions=len(self.dataset))

    def close(self) -> None:
        """Stop the threads and let go of the files. A second call does nothing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self.dataset.close()

    def __enter__(self) -> WindowLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SessionLoader:
    """Whole sessions, for a test with one window per row; rank r of n takes sessions r, r + n, ..."""

    def __init__(self, dataset: FeatureDataset, windows: OnlineWindows, *, rank: int = 0, world_size: int = 1) -> None:
        self.dataset, self.windows, self.rank, self.world_size = dataset, windows, rank, world_size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.world_size))

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.world_size))

    def close(self) -> None:
        self.dataset.close()

    def __enter__(self) -> SessionLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
