"""The first few batches of a loader for ever: a model that cannot learn these by heart has a fault."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from loaders import ClipBatch
from loaders.multigrid import ShapePlan


class OverfitLoader:
    """Stands in for a `ClipLoader` in training: every epoch is its first `num_batches` batches, read once and kept."""

    def __init__(self, loader: Any, num_batches: int) -> None:
        self._loader, self._num_batches = loader, num_batches
        self._batches: list[ClipBatch] = []
        self.dataset, self.statistics = loader.dataset, loader.statistics
        self.plan: ShapePlan | None = None
        self.epoch = 0
        self._next = 0

    def __len__(self) -> int:
        return min(self._num_batches, len(self._loader))

    @property
    def batches_left(self) -> int:
        return len(self) - self._next

    @property
    def wait_s(self) -> float:
        return self._loader.wait_s

    def __iter__(self) -> Iterator[ClipBatch]:
        if not self._batches:
            self._loader.load_state_dict(self._loader.state_dict() | {"epoch": 0, "position": 0})
            self._batches = [batch.copied() for batch in itertools.islice(self._loader, len(self))]
        for batch in self._batches[self._next :]:
            self._next += 1
            yield batch
        self.epoch, self._next = self.epoch + 1, 0

    def stages(self) -> Any:
        return self._loader.stages()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self._next = int(state["epoch"]), int(state["next"])

    def close(self) -> None:
        self._loader.close()
