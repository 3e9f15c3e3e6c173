"""Orders as the published loaders make them: padded with their own head until every batch of every rank is full.

Our own loader (`order.py`) shows every clip once and pads nothing; these say what a published run saw.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Permuter(Protocol):
    """NumPy's Generator or RandomState; torch's generator for the published distributed runs, wrapped by the caller."""

    def permutation(self, x: int) -> Any: ...


def padded(order: np.ndarray, multiple: int) -> np.ndarray:
    """`order` followed by its own first items, up to the next multiple: 5 items to 4 give 8.

    Raises: ValueError when that takes more items than there are.
    """
    missing = -len(order) % multiple
    if missing > len(order):
        raise ValueError(f"{len(order)} items cannot be padded to {len(order) + missing} with themselves once")
    return np.concatenate([order, order[:missing]])


def group_order(num_items: int, group_size: int, rng: Permuter, *, world_size: int = 1) -> np.ndarray:
    """Item of every place of an epoch for each rank, int64 (world_size, places).

    A permutation, padded to whole groups of `group_size` (a device's batch) on every rank; the groups then permuted once
    more, and dealt out in contiguous parts. Source: mmcv-era GroupSampler and DistributedGroupSampler (ST-ABN).
    """
    order = padded(np.asarray(rng.permutation(num_items), np.int64), group_size * world_size)
    groups = order.reshape(-1, group_size)
    return groups[np.asarray(rng.permutation(len(groups)))].reshape(world_size, -1)


def ranks_in_turn(order: np.ndarray, world_size: int) -> np.ndarray:
    """Every rank's items when they take turns, int64 (world_size, places): rank r gets r, r + world_size, ...

    Evaluation results put back in turn and cut to the number of items are in the order of the data again.
    Raises: ValueError when the ranks do not get equally many.
    """
    if len(order) % world_size:
        raise ValueError(f"{len(order)} items are not the same number for each of {world_size} ranks: pad them first")
    return order.reshape(-1, world_size).T


def repeated_order(
    num_items: int, rng: Permuter, *, repeats: int = 3, world_size: int = 1, round_to: int = 256
) -> np.ndarray:
    """Repeated augmentation, int64 (world_size, places): every item of a permutation `repeats` times in a row, ranks in turn.

    An epoch stays as long as without repeats: num_items, rounded down to `round_to`, so it sees a third of the items with 3
    repeats. The copies of one item are augmented apart. Source: timm's RASampler (STS image pre-training).
    """
    order = np.repeat(np.asarray(rng.permutation(num_items), np.int64), repeats)
    return ranks_in_turn(padded(order, world_size), world_size)[:, : num_items // round_to * round_to // world_size]
