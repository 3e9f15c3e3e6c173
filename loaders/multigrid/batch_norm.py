"""How batch normalisation keeps its statistics over the same number of clips while the batch grows and shrinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BatchNormSplit:
    """`plain`, statistics over the device's batch; `sub`, over each of `count` parts of it; `sync`, over `count` devices."""

    kind: Literal["plain", "sub", "sync"]
    count: int = 1


def batch_norm_split(clips_per_device: float, base_clips: int = 8) -> BatchNormSplit:
    """Whichever keeps about `base_clips` clips under each mean and variance. Source: SlowFast's multigrid."""
    factor = clips_per_device / base_clips
    if factor > 1:
        return BatchNormSplit("sub", int(factor))
    if factor < 1:
        return BatchNormSplit("sync", int(1 / factor))
    return BatchNormSplit("plain")
