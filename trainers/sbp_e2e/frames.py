"""Windows of frames: memory-mapped arrays at a few frames a second, transformed as the published code does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingest.errors import ClipmillError
from loaders.order import epoch_order, sample_rng
from loaders.sampling import Rng
from loaders.windows import OnlineWindows, Window
from trainers.lstr.data import FeatureDataset
from trainers.lstr.loader import WindowBatch, WindowLoader

_WINDOW_DRAWS = 1 << 32
"""Where the random numbers of windows begin, far from those of sessions."""


@dataclass
class FrameDataset(FeatureDataset):
    """Sessions whose `visual` folder holds frames, uint8 (T, H, W, 3)."""

    def _features(self, folder: str, session: str, num_rows: int) -> np.ndarray:
        array = self._load(folder, session, "Make frames with: clipmill ingest convert SRC ROOT --store npy")
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8 or len(array) < num_rows:
            raise ClipmillError(
                f"{self.root / folder / session}.npy is {array.dtype} {array.shape}; frames are uint8 (T, H, W, 3), and its"
                f" targets have {num_rows} rows.",
                "Nothing was run.",
                "Frames and targets go together, at the same rate: make one of them anew.",
            )
        return array


@dataclass
class FrameBatch(WindowBatch):
    """Windows of frames: `visual` is float32 (B, N + W, 3, H, W), oldest rows first; N counts those of an age memory, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        assert self.visual is not None
        batch, rows, _, height, width = self.visual.shape
        return batch, rows, height, width


Transform = Callable[[np.ndarray, Rng | None], Tensor]
"""Frames uint8 THWC to (T, C, H, W); without an Rng as in the test."""


class FrameWindowLoader(WindowLoader):
    """Training windows of frames. Long and work memory are transformed each by itself, as published: mirrored, scaled and
    cropped apart; an age memory is the older part of the long one. What is drawn depends on (seed, epoch, place) alone.
    """

    def __init__(
        self, dataset: FrameDataset, windows: OnlineWindows, transform: Transform, *, stride: int | None, **rest: Any
    ) -> None:
        self.transform, self.stride = transform, stride
        super().__init__(dataset, windows, training=True, **rest)

    def items(self, epoch: int) -> np.ndarray:
        """(session, start) of every window, int64 (num, 2): up to the last whole number of strides from row 0, as published."""
        if epoch not in self._plans:
            found = [
                (session, start)
                for session in range(len(self.dataset))
                for start in self.windows.starts(
                    self.dataset.rows(session), offset=self._offset(epoch, session), stride=self.stride, rest="drop"
                )
            ]
            items = np.array(found, np.int64).reshape(-1, 2)
            first = {0: self._plans[0]} if 0 in self._plans else {}
            self._plans = {**first, epoch: items[epoch_order(len(items), self.seed, epoch, shuffle=True)]}
        return self._plans[epoch]

    def _make(self, items: np.ndarray, epoch: int, position: int) -> FrameBatch:
        frames, masks, targets = [], [], []
        first = position + self.rank * self.batch_size
        for place, (session, start) in enumerate(items.tolist(), start=first):
            rng = sample_rng(self.seed, epoch, _WINDOW_DRAWS + place)
            array, _, target = self.dataset.arrays(session)
            assert array is not None
            window = self.windows.train(start)
            frames.append(window_frames(array, window, self.transform, rng))
            masks.append(window.mask)
            targets.append(np.asarray(target[window.work], np.float32))
        return FrameBatch(
            visual=torch.stack(frames),
            motion=None,
            mask=torch.from_numpy(np.stack(masks)) if self.windows.num_long else None,
            targets=torch.from_numpy(np.stack(targets)),
            sessions=torch.from_numpy(items[:, 0].copy()),
            starts=torch.from_numpy(items[:, 1].copy()),
            epoch=epoch,
            position=position,
        )


def window_frames(array: np.ndarray, window: Window, transform: Transform, rng: Rng | None) -> Tensor:
    """Frames of a window, (N + W, C, H, W), from an array (T, H, W, 3): both memories transformed, each by itself."""
    parts = [rows for rows in (window.long, window.work) if len(rows)]
    return torch.cat([transform(array[rows], rng) for rows in parts])
