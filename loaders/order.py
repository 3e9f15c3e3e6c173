"""Order and randomness as pure functions of (seed, epoch, k): nothing to store, nothing that threads could change."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

_SAMPLE, _ORDER, _REPLACEMENT = 0, 1, 2
_local = threading.local()


def _generator(seed: int, epoch: int, k: int, purpose: int) -> np.random.Generator:
    """A counter-based stream of its own for every (seed, epoch, k, purpose): 2^128 draws apart from its neighbours."""
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, 0, k, purpose], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def sample_rng(seed: int, epoch: int, k: int) -> np.random.Generator:
    """Generator for all that is random in sample `k` of epoch `epoch` (k is the place in the epoch's global order)."""
    return _generator(seed, epoch, k, _SAMPLE)


def brief_sample_rng(seed: int, epoch: int, k: int) -> np.random.Generator:
    """The same at a fraction of the cost, as it is one per thread: what it was is gone once the next is asked for."""
    if (kept := getattr(_local, "kept", None)) is None:
        bits = np.random.Philox(key=0)
        kept = _local.kept = bits, bits.state, np.random.Generator(bits)
    bits, state, generator = kept
    state["state"]["key"][:] = seed, epoch
    state["state"]["counter"][:] = 0, 0, k, _SAMPLE
    bits.state = state
    return generator


def replacements(item: int, num_items: int, seed: int, epoch: int, k: int) -> Iterator[int]:
    """The item of sample `k`, then others to take in its stead, one after the other, if it cannot be made."""
    yield item
    rng = _generator(seed, epoch, k, _REPLACEMENT)
    while True:
        yield int(rng.integers(num_items))


def epoch_order(num_items: int, seed: int, epoch: int, *, shuffle: bool = True) -> np.ndarray:
    """Item of every place of an epoch, int64 (num_items,): a true permutation, or 0, 1, 2, ... without `shuffle`."""
    if not shuffle:
        return np.arange(num_items, dtype=np.int64)
    return _generator(seed, epoch, 0, _ORDER).permutation(num_items)
