"""Sessions of frames that look like sessions of features: rows are computed where they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from trainers.lstr.data import FeatureDataset
from trainers.sbp_e2e.frames import FrameDataset

Extract = Callable[[np.ndarray], Tensor]
"""Frames uint8 (T, H, W, 3) to features (T, F)."""


class LazyFeatures:
    """Features (T, F) of frames (T, H, W, 3): what is indexed is computed, `chunk` frames at a time, and not kept."""

    def __init__(self, frames: np.ndarray, extract: Extract, size: int, chunk: int) -> None:
        self.frames, self.extract, self.chunk = frames, extract, chunk
        self.shape, self.ndim, self.dtype = (len(frames), size), 2, np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, int | np.integer):
            return self[slice(rows, rows + 1)][0] if rows >= 0 else self[rows + len(self)]
        frames = self.frames[rows]
        parts = [
            self.extract(frames[i : i + self.chunk]).float().cpu().numpy() for i in range(0, len(frames), self.chunk)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), np.float32)


class FeatureView(FeatureDataset):
    """The sessions of a `FrameDataset`, with the features of their frames as the visual stream."""

    def __init__(self, dataset: FrameDataset, extract: Extract, size: int, chunk: int) -> None:
        super().__init__(
            dataset.root,
            dataset.sessions,
            dataset.class_names,
            dataset.visual,
            None,
            dataset.targets,
            dataset.ignore_index,
            dataset.metric,
        )
        self._frames, self._extract, self._size, self._chunk = dataset, extract, size, chunk

    def arrays(self, session: int) -> Any:
        frames, _, targets = self._frames.arrays(session)
        assert frames is not None
        return LazyFeatures(frames, self._extract, self._size, self._chunk), None, targets
